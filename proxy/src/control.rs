//! The control thread: everything that is not traffic, on one thread of its own.
//!
//! Our certificate, the conversation with the control plane, binding, and the admin port. Workers never
//! wait for it; it only hands them tables and certificates, whole.

use std::{net::TcpListener, sync::Arc};

use selvedge_certs::tls::Live;
use selvedge_ops::{Admin, Drain, LogLevel, Readiness};
use tokio::sync::{mpsc, watch};

use crate::{
    admin::{self, Shown},
    cli::Args,
    discovery::{self, ControlPlane, Discovery, Status, Store, binder::Binder},
    identify::{
        own::{self, Own},
        token::TokenSource,
    },
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
    pub asked: mpsc::Receiver<Arc<str>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The admin port's listener.
    pub admin: TcpListener,
    /// What `/ready` looks at; further conditions may be in it.
    pub readiness: Readiness,
    /// What `/log-level` changes.
    pub log_level: LogLevel,
    /// The signal to finish.
    pub drain: Drain,
}

/// Does the control thread's work until it is dropped. To be polled on a runtime of the control thread.
///
/// # Errors
/// If the admin port's listener cannot be used.
pub async fn run(control: Control) -> std::io::Result<()> {
    let Control { args, live, store, asked, metrics, admin, readiness, log_level, drain } = control;
    let control_plane = ControlPlane::new(args.control_plane.clone());
    let (joined_sender, joined) = watch::channel(None);
    let (bundle_sender, bundle) = watch::channel(None);
    let (status_sender, status) = watch::channel(Status::default());
    let own = own::run(Own {
        control_plane: control_plane.clone(),
        workload: args.workload.clone(),
        token: token(&args),
        ttl: args.certificate_ttl,
        live: live.clone(),
        joined: joined_sender,
        bundle,
        certificate: readiness.condition("certificate"),
        metrics: Arc::clone(&metrics),
    });
    let discovery = discovery::run(Discovery {
        control_plane,
        workload: args.workload.clone(),
        joined,
        store: Arc::clone(&store),
        asked,
        binder: Binder::new(args.workload.clone(), Arc::clone(&metrics)),
        bundle: bundle_sender,
        status: status_sender,
        own_policy: readiness.condition("own policy"),
        metrics: Arc::clone(&metrics),
    });
    let shown = Shown {
        workload: args.workload.clone(),
        control_plane: args.control_plane.clone(),
        store,
        live,
        status,
        drain: drain.clone(),
    };
    let router = Admin {
        readiness,
        drain,
        log_level,
        metrics: Arc::new(move || metrics.render()),
        local: admin::routes(shown),
    };
    let ((), (), served) = tokio::join!(own, discovery, selvedge_ops::admin::serve(admin, router.router()));
    served.map(|never| match never {})
}

fn token(args: &Args) -> TokenSource {
    match (&args.token, &args.token_file) {
        (_, Some(path)) => TokenSource::File(path.clone()),
        (token, None) => TokenSource::Given(token.clone().unwrap_or_default()),
    }
}
