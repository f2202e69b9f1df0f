//! The whole proxy: listeners, workers, and the control thread, each a small named step.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    thread,
};

use anyhow::Context;
use selvedge_certs::tls::Live;
use selvedge_ops::{
    Readiness, announce, guarded,
    listen::{self, ListenError},
    logging,
};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime, Runtime};

use crate::{
    accept::{self, Entrance, WorkerHandle, WorkerInbox},
    budget::Budget,
    cli::Args,
    clients::Clients,
    control::{self, Control},
    discovery::store::Store,
    dns::Asker,
    io::Liveness,
    leave::{self, Leave},
    settings::{HeadLimits, Listens, OwnListeners, PaceLimits, RequestLimits, Settings, StreamLimits, Way},
    telemetry::Metrics,
    worker::{Shared, Worker},
};

/// The sockets that a proxy listens on.
#[derive(Debug)]
struct Listeners {
    outbound: Vec<std::net::TcpListener>,
    /// Each with its place among `--upstream`.
    upstreams: Vec<(usize, std::net::TcpListener)>,
    inbound: std::net::TcpListener,
    admin: std::net::TcpListener,
}

/// Runs a proxy until it is told to end.
///
/// # Errors
/// If a setting cannot be used, a port is taken, or a thread cannot be started.
pub fn run(args: Args) -> anyhow::Result<()> {
    let log_level = logging::init(&args.log)?;
    let listeners = listen(&args)?;
    let settings = settings(&args, &listeners)?;
    let (store, asked) = Store::new();
    let (names, questions) = Asker::new();
    let live = Live::new();
    selvedge_ops::files::raise();
    let metrics = Arc::new(Metrics::new(args.workers.into()));
    let budget = Arc::new(Budget::new(u64::from(args.buffer_budget) << 20));
    metrics.watch(&budget);
    let leave = Leave::default();
    let shared = Shared {
        settings: Arc::new(settings),
        store: Arc::clone(&store),
        live: live.clone(),
        metrics: Arc::clone(&metrics),
        names,
        budget,
        clients: Arc::new(Clients::new(args.max_connections)),
        leave: leave.clone(),
    };
    let upstreams =
        listeners.upstreams.into_iter().map(|(place, listener)| (Entrance::upstream(place), listener));
    let mut entrances: Vec<_> = upstreams.collect();
    entrances.extend(listeners.outbound.into_iter().map(|listener| (Entrance::OUTBOUND, listener)));
    entrances.push((Entrance::INBOUND, listeners.inbound));
    let traffic = start_workers(&shared, entrances)?;
    let control = Control {
        args: Arc::new(args),
        live,
        store,
        asked,
        questions,
        metrics,
        leave: leave.clone(),
        readiness: Readiness::default(),
        own: Arc::clone(&shared.settings.own),
        admin: listeners.admin,
        log_level,
    };
    runtime()?.block_on(until_left(control, &leave, traffic))
}

/// The control thread: configuration, certificates and admin, until all traffic has ended.
async fn until_left(
    control: Control,
    leave: &Leave,
    traffic: Vec<thread::JoinHandle<()>>,
) -> anyhow::Result<()> {
    leave.told().on_signals().context("cannot handle signals")?;
    if control.args.exit_on_stdin_close {
        leave.told().on_stdin_close().context("cannot watch standard input")?;
    }
    let limits = leave::Limits { delay: control.args.drain_delay, timeout: control.args.drain_timeout };
    let (explicit, store) = (Listens::new(&control.args.app)?, Arc::clone(&control.store));
    let app = move || match &explicit {
        Some(listens) => leave::App::At(listens.addresses()),
        None => leave::App::Ports(store.table().own.as_ref().map_or_else(Vec::new, |own| own.ports.clone())),
    };
    let ended = async {
        leave.in_order(limits, app).await;
        tokio::task::spawn_blocking(move || traffic.into_iter().all(|thread| thread.join().is_ok())).await
    };
    tokio::select! {
        result = control::run(control) => result.context("the control thread ended"),
        clean = ended => {
            anyhow::ensure!(clean?, "a worker thread panicked; the log has its message");
            Ok(())
        }
    }
}

fn listen(args: &Args) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners {
        outbound: outbound_listeners(&args.outbound)?,
        upstreams: Vec::new(),
        inbound: listen::tcp("--inbound", args.inbound)?,
        admin: listen::tcp("--admin", args.admin)?,
    };
    for outbound in &listeners.outbound {
        let address = outbound.local_addr()?;
        guarded::guard(guarded::Kind::Outbound, address);
        announce("outbound", address);
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "--outbound is not on loopback: whoever reaches it calls with this workload's identity");
        }
    }
    let inbound = listeners.inbound.local_addr()?;
    guarded::guard(guarded::Kind::Inbound, inbound);
    announce("inbound", inbound);
    guarded::guard(guarded::Kind::Private, listeners.admin.local_addr()?);
    announce("admin", listeners.admin.local_addr()?);
    for (place, upstream) in args.upstream.iter().enumerate() {
        listeners.upstreams.extend(upstream.open()?.into_iter().map(|listener| (place, listener)));
    }
    Ok(listeners)
}

/// Opens the outbound listeners. One of the defaults is `::1`. A host without IPv6, as many containers are, has no such
/// address: it is left out if there is another.
fn outbound_listeners(addresses: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        match listen::tcp("--outbound", *address) {
            Err(ListenError::NoSuchAddress { .. })
                if address.ip() == Ipv6Addr::LOCALHOST && addresses.len() > 1 =>
            {
                tracing::info!(%address, "not listening here: this host has no IPv6");
            }
            opened => listeners.push(opened?),
        }
    }
    Ok(listeners)
}

fn settings(args: &Args, listeners: &Listeners) -> anyhow::Result<Settings> {
    let app = Listens::new(&args.app)?;
    anyhow::ensure!(
        app.is_some() != args.redirected,
        "give --app, to say where the app listens, or --redirected, if connections are redirected here"
    );
    let own = own_listeners(args, listeners)?;
    for at in app.iter().flat_map(Listens::addresses) {
        own.refuse_own(at, Way::App).map_err(|failure| anyhow::anyhow!("--app {at}: {}", failure.what))?;
    }
    Ok(Settings {
        workload: args.workload.clone(),
        app,
        ingress: args.ingress,
        upstreams: args.upstream.clone(),
        own: Arc::new(own),
        carrier: args.carrier,
        outbound_traffic_policy: args.outbound_traffic_policy,
        drain_timeout: args.drain_timeout,
        limits: RequestLimits {
            head: HeadLimits { bytes: args.max_header_bytes, count: args.max_headers },
            streams: args.max_streams,
        },
        header_timeout: args.header_timeout,
        pace: PaceLimits { patience: args.body_timeout, rate: args.min_body_rate },
        idle_timeout: args.idle_timeout,
        preserve_header_case: args.preserve_header_case,
        detect_timeout: args.detect_timeout,
        opaque_ports: args.opaque_ports.clone(),
        tcp: StreamLimits::new(args.tcp_idle_timeout, args.tcp_max_duration),
        websocket: StreamLimits::new(args.websocket_idle_timeout, std::time::Duration::ZERO),
        liveness: Liveness {
            keepalive: args.tcp_keepalive,
            user_timeout: args.tcp_user_timeout,
            ping_interval: args.ping_interval,
            ping_timeout: args.ping_timeout,
        },
        max_connection_age: (!args.max_connection_age.is_zero()).then_some(args.max_connection_age),
    })
}

fn own_listeners(args: &Args, listeners: &Listeners) -> anyhow::Result<OwnListeners> {
    let upstreams = listeners.upstreams.iter().map(|(_, listener)| listener);
    let outbound = listeners.outbound.iter().chain(upstreams).map(std::net::TcpListener::local_addr);
    Ok(OwnListeners {
        outbound: outbound.collect::<Result<_, _>>()?,
        inbound: listeners.inbound.local_addr()?,
        admin: listeners.admin.local_addr()?,
        control_plane: args.control_plane.port_on_loopback(),
        redirected: args.redirected,
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

/// A worker's own runtime: its tasks are scheduled directly, and never leave its thread.
fn local_runtime() -> anyhow::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot start a runtime")
}

/// Starts the threads that carry traffic. They end once both ways are closed, when their connections have.
fn start_workers(
    shared: &Shared,
    listeners: Vec<(Entrance, std::net::TcpListener)>,
) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
    let workers = shared.metrics.workers();
    if workers == 1 {
        let shared = shared.clone();
        return Ok(vec![spawn("worker-0", move || alone(&shared, listeners))?]);
    }
    let (handles, inbox): (Vec<WorkerHandle>, Vec<WorkerInbox>) =
        (0..workers).map(|_| accept::worker_channel()).unzip();
    let mut threads = Vec::with_capacity(workers + 1);
    for (index, inbox) in inbox.into_iter().enumerate() {
        let shared = shared.clone();
        threads.push(spawn(&format!("worker-{index}"), move || together(index, &shared, inbox))?);
    }
    let shared = shared.clone();
    threads.push(spawn("acceptor", move || acceptor(&shared, listeners, &handles))?);
    Ok(threads)
}

fn spawn(
    name: &str,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let body = move || {
        if let Err(error) = run() {
            tracing::error!("a thread that carries traffic failed: {error:#}");
            std::process::exit(1);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).context("cannot start a thread")
}

/// The one worker: accepts for itself.
fn alone(shared: &Shared, listeners: Vec<(Entrance, std::net::TcpListener)>) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let server = std::cell::RefCell::new(accept::server(Worker::start(0, shared)));
        let serving = &server;
        let accepting = listeners.into_iter().map(|(entrance, listener)| {
            let take = move |socket, peer| serving.borrow_mut().take(entrance, socket, peer, ());
            accept::accept(entrance.direction, listener, shared, take)
        });
        futures_util::future::try_join_all(accepting).await?;
        server.into_inner().finish().await;
        Ok(())
    })
}

/// One of several workers: takes what the acceptor hands over.
fn together(index: usize, shared: &Shared, mut inbox: WorkerInbox) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let mut server = accept::server(Worker::start(index, shared));
        inbox.serve(&mut server).await;
        server.finish().await;
        Ok(())
    })
}

/// Accepts for all workers.
fn acceptor(
    shared: &Shared,
    listeners: Vec<(Entrance, std::net::TcpListener)>,
    handles: &[WorkerHandle],
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let accepting = listeners.into_iter().map(|(entrance, listener)| {
            accept::accept(entrance.direction, listener, shared, move |socket, peer| {
                accept::hand_over(handles, entrance, socket, peer)
            })
        });
        futures_util::future::try_join_all(accepting).await?;
        Ok(())
    })
}
