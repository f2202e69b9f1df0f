//! The whole proxy: listeners, workers, and the control thread, each a small named step.

mod listeners;

use std::{rc::Rc, sync::Arc, thread, time::Duration};

use anyhow::Context;
use selvedge_certs::tls::Live;
use selvedge_ops::{Readiness, logging};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime, Runtime};

use self::listeners::{Listeners, listen, own_listeners};
use crate::{
    accept::{self, Entrance, Ports, WorkerHandle, WorkerInbox},
    authorize::review,
    budget::{Budget, Concurrency},
    cli::Args,
    clients::{ClientLimits, ClientRates, Clients},
    control::{self, Control},
    discovery::store::Store,
    dns::Asker,
    io::Liveness,
    leave::{self, Leave},
    seen::Seen,
    settings::{HeadLimits, Listens, PaceLimits, RequestLimits, Settings, StreamLimits, Way},
    telemetry::Metrics,
    worker::{Shared, Worker},
};

/// How long the control plane may take for the last report.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// Runs a proxy until it is told to end.
///
/// # Errors
/// If a setting cannot be used, a port is taken, or a thread cannot be started.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Started { control, leave, traffic } = start(args)?;
    runtime()?.block_on(until_left(control, &leave, traffic))
}

/// A proxy whose threads for traffic run.
#[derive(Debug)]
struct Started {
    control: Control,
    leave: Leave,
    traffic: Vec<thread::JoinHandle<()>>,
}

/// Starts the threads that carry traffic.
fn start(args: Args) -> anyhow::Result<Started> {
    let log_level = logging::init(&args.log)?;
    args.told.check()?;
    let listeners = listen(&args)?;
    let settings = settings(&args, &listeners)?;
    let (store, asked) = Store::new();
    let (names, questions) = Asker::new();
    let live = Live::new();
    selvedge_ops::files::raise();
    let metrics = Arc::new(Metrics::of(&args.workload, args.workers.into(), args.metrics_compat));
    let budget = Arc::new(Budget::new(u64::from(args.buffer_budget) << 20));
    let limits = &args.concurrency;
    let concurrency = limits.adaptive_concurrency.then(|| {
        let (most, interval) = (limits.adaptive_concurrency_max, limits.adaptive_concurrency_interval);
        Arc::new(Concurrency::new(most, interval))
    });
    metrics.watch(&budget, concurrency.as_ref());
    metrics.watched.set_up(args.told.access_log_format, args.told.otlp_endpoint.is_some(), args.gateway);
    let leave = Leave::default();
    let each = ClientLimits {
        connections: args.edge.max_connections_per_client,
        unfinished: args.edge.max_handshakes_per_client,
        listener: args.edge.max_connections_per_listener,
    };
    let limit = |each_second: u32| (each_second > 0).then_some(each_second);
    let often = ClientRates {
        connections: limit(args.edge.max_connection_rate_per_client),
        requests: limit(args.edge.max_request_rate_per_client),
    };
    let shared = Shared {
        given_up: Arc::default(),
        settings: Arc::new(settings),
        store: Arc::clone(&store),
        live: live.clone(),
        metrics: Arc::clone(&metrics),
        names,
        budget,
        concurrency,
        clients: Arc::new(Clients::new(args.max_connections, each, often)),
        verifier: Arc::default(),
        seen: Arc::new(Seen::new(args.workers.into())),
        leave: leave.clone(),
    };
    let upstreams =
        listeners.upstreams.into_iter().map(|(place, listener)| (Entrance::upstream(place), listener));
    let mut entrances: Vec<_> = upstreams.collect();
    entrances.extend(listeners.outbound.into_iter().map(|listener| (Entrance::OUTBOUND, listener)));
    entrances.extend(listeners.inbound.map(|listener| (Entrance::INBOUND, listener)));
    let readiness = Readiness::default();
    let ports = args.gateway.then(|| Arc::new(Ports::new(readiness.condition("gateway ports"))));
    let traffic = start_workers(&shared, entrances, ports.as_ref())?;
    let control = Control {
        args: Arc::new(args),
        live,
        store,
        asked,
        questions,
        seen: Arc::clone(&shared.seen),
        metrics,
        leave: leave.clone(),
        readiness,
        ports,
        own: Arc::clone(&shared.settings.own),
        admin: listeners.admin,
        log_level,
    };
    Ok(Started { control, leave, traffic })
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
    let (is_gateway, metrics) = (control.args.gateway, Arc::clone(&control.metrics));
    let app = move || match &explicit {
        _ if is_gateway => leave::App::Everywhere,
        Some(listens) => leave::App::At(listens.addresses()),
        None => leave::App::Ports(store.table().own.as_ref().map_or_else(Vec::new, |own| own.ports.clone())),
    };
    let watched = Arc::clone(&control.metrics.watched);
    let ended = async {
        leave.in_order(limits, app).await;
        let ending = move || traffic.into_iter().all(|thread| thread.join().is_ok());
        let clean = tokio::task::spawn_blocking(ending).await;
        watched.finish().await;
        // Now that nothing is counted any more.
        if metrics.control.connected.get() > 0 {
            leave.report_last(LAST_REPORT).await;
        }
        clean
    };
    tokio::select! {
        result = control::run(control) => result.context("the control thread ended"),
        clean = ended => {
            anyhow::ensure!(clean?, "a worker thread panicked; the log has its message");
            Ok(())
        }
    }
}

fn settings(args: &Args, listeners: &Listeners) -> anyhow::Result<Settings> {
    let app = Listens::new(&args.app)?;
    anyhow::ensure!(
        args.gateway || app.is_some() != args.redirected,
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
        trusted_hops: args.edge.trusted_hops,
        proxied_from: args.edge.proxy_protocol_from.clone().into(),
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
        read: PaceLimits { patience: args.edge.answer_timeout, rate: args.min_body_rate },
        max_body: args.edge.max_body_bytes,
        idle_timeout: args.idle_timeout,
        preserve_header_case: args.preserve_header_case,
        path_slashes: args.edge.path_slashes,
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

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

/// After so many polls of tasks a worker looks for what else has come. tokio's own 61 may take as long as 61 MiB take to be
/// moved, and whoever asks for little would wait for them at each step.
const POLLS_BETWEEN_EVENTS: u32 = 8;

/// A worker's own runtime: its tasks are scheduled directly, and never leave its thread.
fn local_runtime() -> anyhow::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .build_local(LocalOptions::default())
        .context("cannot start a runtime")
}

/// Starts the threads that carry traffic. They end once both ways are closed, when their connections have.
fn start_workers(
    shared: &Shared,
    listeners: Vec<(Entrance, std::net::TcpListener)>,
    ports: Option<&Arc<Ports>>,
) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
    let workers = shared.metrics.workers();
    let ports = ports.cloned();
    if workers == 1 {
        let shared = shared.clone();
        return Ok(vec![spawn("worker-0", move || alone(&shared, listeners, ports.as_deref()))?]);
    }
    let (handles, inbox): (Vec<WorkerHandle>, Vec<WorkerInbox>) =
        (0..workers).map(|_| accept::worker_channel()).unzip();
    let mut threads = Vec::with_capacity(workers + 1);
    for (index, inbox) in inbox.into_iter().enumerate() {
        let shared = shared.clone();
        threads.push(spawn(&format!("worker-{index}"), move || together(index, &shared, inbox))?);
    }
    let shared = shared.clone();
    threads.push(spawn("acceptor", move || acceptor(&shared, listeners, ports.as_deref(), &handles))?);
    Ok(threads)
}

fn spawn(
    name: &str,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let body = move || {
        selvedge_blocks::keep();
        if let Err(error) = run() {
            tracing::error!("a thread that carries traffic failed: {error:#}");
            std::process::exit(1);
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).context("cannot start a thread")
}

/// Worker number `index`, with all that it does beside carrying traffic.
fn worker(index: usize, shared: &Shared) -> Rc<Worker> {
    let worker = Worker::start(index, shared);
    tokio::task::spawn_local(review(Rc::clone(&worker)));
    let metrics = Arc::clone(&worker.metrics);
    tokio::task::spawn_local(async move {
        if let Some(lag) = metrics.lag(Some(index)) {
            lag.watch().await;
        }
    });
    worker
}

/// The one worker: accepts for itself.
fn alone(
    shared: &Shared,
    listeners: Vec<(Entrance, std::net::TcpListener)>,
    ports: Option<&Ports>,
) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let server = std::cell::RefCell::new(accept::server(worker(0, shared)));
        let serving = &server;
        let accepting = listeners.into_iter().map(|(entrance, listener)| {
            let take = move |socket, peer| serving.borrow_mut().take(entrance, socket, peer, ());
            accept::accept(entrance.direction, listener, shared, take)
        });
        let keeping = async {
            if let Some(ports) = ports {
                let take = |entrance, socket, peer| serving.borrow_mut().take(entrance, socket, peer, ());
                accept::keep(shared, ports, take).await;
            }
            Ok(())
        };
        // A listener that cannot be used ends the others, too: nobody would notice otherwise before the end.
        tokio::try_join!(futures_util::future::try_join_all(accepting), keeping)?;
        server.into_inner().finish().await;
        Ok(())
    })
}

/// One of several workers: takes what the acceptor hands over.
fn together(index: usize, shared: &Shared, mut inbox: WorkerInbox) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        let mut server = accept::server(worker(index, shared));
        inbox.serve(&mut server).await;
        server.finish().await;
        Ok(())
    })
}

/// Accepts for all workers.
fn acceptor(
    shared: &Shared,
    listeners: Vec<(Entrance, std::net::TcpListener)>,
    ports: Option<&Ports>,
    handles: &[WorkerHandle],
) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let accepting = listeners.into_iter().map(|(entrance, listener)| {
            accept::accept(entrance.direction, listener, shared, move |socket, peer| {
                accept::hand_over(handles, entrance, socket, peer)
            })
        });
        let keeping = async {
            if let Some(ports) = ports {
                let take = |entrance, socket, peer| accept::hand_over(handles, entrance, socket, peer);
                accept::keep(shared, ports, take).await;
            }
            Ok(())
        };
        // A listener that cannot be used ends the others, too: nobody would notice otherwise before the end.
        tokio::try_join!(futures_util::future::try_join_all(accepting), keeping)?;
        Ok(())
    })
}

#[cfg(test)]
mod tests;
