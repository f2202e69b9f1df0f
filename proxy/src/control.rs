//! The control thread: everything that is not traffic, on one thread of its own.
//!
//! It keeps our certificate, talks to the control plane, binds configuration, looks names up, and serves the admin port.
//! Workers never wait for it. It hands them whole tables and certificates.

use std::{net::TcpListener, sync::Arc};

use axum::Router;
use selvedge_certs::{bundle::Bundle, tls::Live};
use selvedge_ops::{Admin, LogLevel, Readiness, Resolver};
use tokio::sync::{mpsc, watch};

use crate::{
    accept::Ports,
    admin::{self, Shown},
    checks,
    cli::Args,
    discovery::{self, Discovery, Status, Store, Wanted, binder::Binder},
    dns::{Names, Question, ask},
    export,
    joining::{
        ControlPlane, Joined,
        own::{self, Own},
        svid::{self, Svids},
        token::{TokenSource, Trust},
        traffic::Traffic,
        workload_api::Agent,
    },
    leave::Leave,
    probes::{self, ProbeSettings},
    seen::Seen,
    settings::{Listens, OwnListeners},
    telemetry::Metrics,
};

/// What the control thread is given.
#[derive(Debug)]
pub struct Control {
    /// The settings.
    pub args: Arc<Args>,
    /// Where certificates are put into use.
    pub live: Live,
    /// Where tables are put in force.
    pub store: Arc<Store>,
    /// What workers ask for.
    pub asked: mpsc::Receiver<Wanted>,
    /// The names whose addresses workers ask for.
    pub questions: mpsc::Receiver<Question>,
    /// Who has called.
    pub seen: Arc<Seen>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where this proxy listens.
    pub own: Arc<OwnListeners>,
    /// The admin port's listener.
    pub admin: TcpListener,
    /// The ports that this proxy serves as a gateway; `None`: it is a sidecar.
    pub ports: Option<Arc<Ports>>,
    /// What `/ready` looks at; further conditions may be in it.
    pub readiness: Readiness,
    /// What `/log-level` changes.
    pub log_level: LogLevel,
    /// How far leaving has come.
    pub leave: Leave,
}

/// Does the control thread's work until it is dropped. To be polled on a runtime of the control thread.
///
/// # Errors
/// If the admin port's listener cannot be used.
pub async fn run(control: Control) -> std::io::Result<()> {
    let resolver = Arc::new(Resolver::new(control.args.resolver.clone()));
    let control_plane = ControlPlane::new(control.args.control_plane.clone(), Arc::clone(&resolver));
    let (joined_sender, joined) = watch::channel(None);
    let (bundle_sender, bundle) = watch::channel(None);
    let (status_sender, status) = watch::channel(Status::default());
    let own = own::run(control.own_certificate(control_plane.clone(), joined_sender, bundle));
    let svids = control.svids(joined.clone());
    let binder = control.binder(Names::new(Arc::clone(&resolver), Arc::clone(&control.metrics)));
    let fresh = binder.originations().keep_fresh();
    let router = control.router(status);
    let own_policy = control.readiness.condition("own policy");
    let Control {
        args,
        live,
        store,
        asked,
        questions,
        seen,
        metrics,
        admin,
        log_level,
        own: listeners,
        leave,
        ..
    } = control;
    let on_time = Arc::clone(&metrics);
    let checking = checks::run(Arc::clone(&store), Arc::clone(&metrics), listeners);
    let (exported, watched) = (Arc::clone(&store), Arc::clone(&metrics.watched));
    let discovery = discovery::run(Discovery {
        control_plane,
        workload: args.workload.clone(),
        joined,
        store,
        asked,
        binder,
        bundle: bundle_sender,
        live,
        status: status_sender,
        own_policy,
        seen,
        has_agent: args.workload_api.is_some(),
        metrics,
        log_level,
        leave,
    });
    let exporting = export::run(export::Exporter {
        collector: args.told.otlp_endpoint.clone(),
        protocol: args.told.otlp_protocol,
        ca_file: args.told.otlp_ca_file.clone(),
        workload: args.workload.clone(),
        store: exported,
        watched,
        resolver: Arc::clone(&resolver),
    });
    let answering = ask::answer(resolver, questions);
    let serving = selvedge_ops::admin::serve(admin, router);
    let watching = async {
        if let Some(lag) = on_time.lag(None) {
            lag.watch().await;
        }
    };
    let ((), (), (), (), (), (), (), (), served) =
        tokio::join!(own, svids, discovery, answering, fresh, checking, exporting, watching, serving);
    served.map(|never| match never {})
}

impl Control {
    /// What our own certificate is obtained and renewed with.
    fn own_certificate(
        &self,
        control_plane: ControlPlane,
        joined: watch::Sender<Option<Arc<Joined>>>,
        bundle: watch::Receiver<Option<Arc<Bundle>>>,
    ) -> Own {
        let args = &self.args;
        Own {
            control_plane,
            workload: args.workload.clone(),
            token: token(args),
            trust: Trust { roots: args.trust_roots.clone(), trust_domain: args.trust_domain.clone() },
            ttl: args.certificate_ttl,
            traffic: self.args.workload_api.is_none().then(|| self.traffic()),
            joined,
            bundle,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Where the certificate that peers see is put into use.
    fn traffic(&self) -> Traffic {
        Traffic {
            live: self.live.clone(),
            certificate: self.readiness.condition("certificate"),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Takes what peers see from a SPIFFE agent, if there is to be one.
    fn svids(&self, joined: watch::Receiver<Option<Arc<Joined>>>) -> impl Future<Output = ()> + use<> {
        let parts = self.args.workload_api.clone().map(|socket| {
            let (said, heard) = watch::channel(None);
            let (live, metrics) = (self.live.clone(), Arc::clone(&self.metrics));
            let svids = Svids { said: heard, joined, traffic: self.traffic() };
            (Agent { socket, said, live, metrics }, svids)
        });
        async {
            if let Some((agent, svids)) = parts {
                tokio::join!(agent.listen(), svid::run(svids));
            }
        }
    }

    /// What binds configuration to state, and looks up the `names` in it.
    fn binder(&self, names: Names) -> Binder {
        let binder = Binder::new(self.args.workload.clone(), Arc::clone(&self.metrics), names);
        let binder = match self.own.inbound.filter(|_| self.args.redirected) {
            Some(inbound) => binder.redirected(inbound.port()),
            None => binder,
        };
        let binder = if self.args.gateway { binder.as_gateway() } else { binder };
        // Settings that contradict each other have ended the process before.
        binder.beside(Listens::new(&self.args.app).ok().flatten())
    }

    /// The routes of the admin port; `status` is that of the conversation with the control plane.
    fn router(&self, status: watch::Receiver<Status>) -> Router {
        let (metrics, store) = (Arc::clone(&self.metrics), Arc::clone(&self.store));
        let shown = Shown {
            workload: self.args.workload.clone(),
            control_plane: self.args.control_plane.clone(),
            store: Arc::clone(&self.store),
            live: self.live.clone(),
            workload_api: self.args.workload_api.clone(),
            status,
            ports: self.ports.clone(),
            drain: self.leave.told().clone(),
        };
        let admin = Admin {
            readiness: self.readiness.clone(),
            drain: self.leave.told().clone(),
            log_level: self.log_level.clone(),
            metrics: Arc::new(move || admin::metrics(&metrics, &store)),
            local: admin::routes(shown),
        };
        let probes = probes::routes(ProbeSettings {
            app: self.args.app_address,
            probes: self.args.app_probes.clone(),
            metrics: self.args.app_metrics.clone(),
            own: Arc::clone(&self.own),
        });
        admin.router().merge(probes)
    }
}

fn token(args: &Args) -> TokenSource {
    match (&args.token, &args.token_file) {
        (_, Some(path)) => TokenSource::File(path.clone()),
        (token, None) => TokenSource::Given(token.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use clap::Parser;
    use selvedge_ops::{listen, logging};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinSet,
        time::timeout,
    };

    use super::*;
    use crate::discovery::{
        fake::{Ca, FakeControlPlane, PATIENCE, join_token},
        fixtures,
    };

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    async fn ask(admin: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        answer
    }

    #[tokio::test]
    async fn a_proxy_is_ready_with_a_certificate_and_its_own_policy() {
        let ca = Ca::new();
        let hour = Duration::from_secs(3600);
        let mut control_plane = FakeControlPlane::start(&ca, fixtures::identity("frontend"), hour).await;
        let address = control_plane.address.to_string();
        let token = join_token(&ca, std::time::SystemTime::now() + hour);
        let args = CommandLine::parse_from([
            "selvedge-proxy",
            "--workload=shop/frontend-1",
            "--control-plane",
            &address,
            "--token",
            &token,
            "--app=127.0.0.1:1",
        ])
        .args;
        let (store, asked) = Store::new();
        let log_level = logging::init(&args.log).unwrap();
        let listener = listen::tcp("--admin", "127.0.0.1:0".parse().unwrap()).unwrap();
        let admin = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(Control {
            args: Arc::new(args),
            live: Live::new(),
            store,
            asked,
            questions: crate::dns::Asker::new().1,
            metrics: Arc::new(Metrics::new(1)),
            own: Arc::new(crate::settings::listeners()),
            admin: listener,
            readiness: Readiness::default(),
            ports: None,
            log_level,
            seen: Arc::new(Seen::new(1)),
            leave: Leave::default(),
        }));

        let mut session = control_plane.session().await;
        let not_yet = ask(admin, "/ready").await;
        assert!(not_yet.starts_with("HTTP/1.1 503") && not_yet.contains("own policy"), "{not_yet}");
        assert!(!not_yet.contains("certificate"), "{not_yet}");

        let own = fixtures::own("1", "shop/frontend-1");
        assert_eq!(session.transact(1, vec![own], &[]).await.refused, None);
        let ready = ask(admin, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(ask(admin, "/config").await.contains("\"own\":{\"name\":\"shop/frontend-1\""));
        let metrics = ask(admin, "/metrics").await;
        assert!(metrics.contains("selvedge_control_plane_connected 1"), "{metrics}");
        assert!(metrics.contains("selvedge_certificate_expiry_timestamp_seconds"), "{metrics}");
    }
}
