//! The whole control plane: source → compile → store → streams, with certificates beside it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use selvedge_certs::{
    ca::Authority,
    facts::{Fingerprint, fingerprint},
    tls::TicketSecret,
};
use selvedge_kubernetes::Version;
use selvedge_model::SessionKey;
use selvedge_ops::{
    Admin, Drain, LogArgs, LogLevel, Readiness, Reason, admin, announce, guarded,
    listen::{self},
    logging::{self},
    memory,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    cli::{Args, SourceKind},
    cluster::News,
    compile::MeshSettings,
    data_dir::{DataDir, DataDirLock},
    inject::{
        self,
        webhook::{Webhook, WebhookInputs},
    },
    keys::{self, FetchedKeys, KeeperSettings},
    serve::{
        self,
        allowance::Allowance,
        attestation::{Attestor, RecordFiles, TokenKey, service_account::ServiceAccounts},
        audit::Audit,
        certificates::Certificates,
        own::{OwnCertificate, OwnIssuing},
        token_files::TokenFiles,
    },
    sources::Loaded,
    status::Overview,
};

mod compiling;
mod error;
mod issuer;
mod kept_owners;
mod shared;
mod source;
mod workload_roots;

use self::shared::Shared;
pub use error::AppError;
use source::OpenedSource;

/// Where the last good version of every document is kept, below `--data-dir`.
const LAST_GOOD: &str = "last-good";
/// The control plane's own certificate lasts for this long, or less if workloads' may not.
const OWN_TTL: Duration = Duration::from_secs(86_400);
/// The longest wait for changes to pause, in pauses.
const LONGEST_DEBOUNCE: u32 = 10;
/// How long proxies have to finish what they are told.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long blocking work may go on after that.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes further routes of the admin port, of what the control plane knows; they are answered on its own host only.
pub type Pages = fn(Overview) -> axum::Router;

/// Runs the control plane until it is told to stop; its admin port also has `pages`.
///
/// # Errors
/// If it cannot start, or a part of it fails.
pub fn run(args: &Args, pages: Pages) -> Result<(), AppError> {
    let log_level = logging::init(&log(args))?;
    memory::map_large_blocks();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let drain = Drain::default();
        drain.on_signals()?;
        if args.exit_on_stdin_close {
            drain.on_stdin_close()?;
        }
        let control_plane = ControlPlane::prepare(args, drain).await?;
        let webhook = control_plane.webhook_address().map(|address| ("webhook", address));
        let listeners = [("grpc", control_plane.grpc_address()), ("admin", control_plane.admin_address())];
        for (name, address) in listeners.into_iter().chain(webhook) {
            guarded::guard(guarded::Kind::Private, address);
            announce(name, address);
        }
        control_plane.run(log_level, pages).await
    });
    runtime.shutdown_timeout(EXIT_TIMEOUT);
    result
}

/// A control plane that has everything it needs, and does nothing yet.
#[derive(Debug)]
pub struct ControlPlane {
    args: Args,
    drain: Drain,
    source: OpenedSource,
    _occupied: DataDirLock,
    authority: Arc<Authority>,
    session_key: SessionKey,
    tickets: TicketSecret,
    attestor: Arc<Attestor>,
    audit: Arc<Audit>,
    token_files: Option<TokenFiles>,
    grpc: (std::net::TcpListener, SocketAddr),
    admin: (std::net::TcpListener, SocketAddr),
    /// In a cluster.
    webhook: Option<Webhook>,
    /// The cluster's.
    version: Option<Version>,
}

impl ControlPlane {
    /// Opens the data directory and the source, loads or makes the CA, and opens all ports.
    ///
    /// # Errors
    /// If any of this fails; the message names the flag and the remedy.
    pub async fn prepare(args: &Args, drain: Drain) -> Result<Self, AppError> {
        let data = DataDir::open(&args.data_dir)?;
        let occupied = data.occupy()?;
        let source = OpenedSource::open(args).await?;
        let authority = Arc::new(source.authority(&data, args).await?);
        if let Some(path) = &args.workload_roots {
            workload_roots::take_up(&authority, path)?;
        }
        let attestor = source.attestor(&data, args).await?;
        // All replicas have the key of join tokens, and it is kept over restarts.
        let token_key = TokenKey::load_or_create(data.path())?;
        let (session_key, tickets) = (token_key.session_key(), token_key.ticket_secret());
        let token_files = args.token_dir.as_deref().map(|directory| {
            let key = TokenKey::load_or_create(data.path())?;
            let records = RecordFiles::of(data.path());
            TokenFiles::open(directory, key, Arc::clone(&authority), records).map_err(AppError::TokenDir)
        });
        let webhook = source
            .cluster()
            .map(|cluster| Webhook::prepare(&args.webhook, cluster.namespace(), &args.cluster_domain));
        let version = match source.cluster() {
            Some(cluster) => cluster.version().await?,
            None => None,
        };
        Ok(Self {
            args: args.clone(),
            drain,
            version,
            webhook: webhook.transpose()?,
            source,
            _occupied: occupied,
            authority,
            session_key,
            tickets,
            attestor: Arc::new(attestor),
            audit: Arc::new(Audit::new(data.path())),
            token_files: token_files.transpose()?,
            grpc: open("--listen", args.listen)?,
            admin: open("--admin", args.admin)?,
        })
    }

    /// Where proxies connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.1
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.1
    }

    /// Where the API server calls us, in a cluster.
    pub fn webhook_address(&self) -> Option<SocketAddr> {
        self.webhook.as_ref().map(Webhook::address)
    }

    /// Serves until the drain begins and proxies have been told.
    ///
    /// # Errors
    /// If a part fails.
    pub async fn run(self, log_level: LogLevel, pages: Pages) -> Result<(), AppError> {
        self.announce();
        let cluster = self.source.cluster().cloned();
        let (found, loaded) = watch::channel(Arc::new(Loaded::default()));
        let shared = Shared::new(&self.authority, loaded);
        let issuing = OwnIssuing {
            authority: Arc::clone(&self.authority),
            ttl: OWN_TTL.min(self.args.max_certificate_ttl),
            tickets: self.tickets.clone(),
            audit: Arc::clone(&self.audit),
            shown: Arc::clone(&shared.own_certificates),
        };
        let (own, renewing) = OwnCertificate::make(issuing.clone())?;
        let readiness = Readiness::default();
        let (keys, keeper) =
            keys::open(keeping(&self.args), &self.args.data_dir, Arc::clone(&shared.metrics));
        let wishes = keys.wishes();
        let compiling = shared.compiling(
            settings(&self.args, &self.session_key),
            &self.args,
            readiness.condition("configuration"),
            keys,
        );
        let crowded = readiness.remark("proxies come faster than they can be let in, which they are in turn");
        let admin = shared.admin(readiness, self.drain.clone(), log_level, (pages, cluster.is_some()));
        let (certificates, streams) =
            (self.certificates(&shared), shared.streams(wishes, self.drain.clone()));

        let mut parts = JoinSet::new();
        let inject = self.fit_sidecars(&mut parts);
        self.keep(&shared, &inject, &mut parts);
        let knowledge = WebhookInputs {
            inject,
            compile: Arc::new(settings(&self.args, &self.session_key)),
            loaded: shared.loaded.clone(),
            problems: Arc::clone(&shared.problems),
        };
        parts.spawn(self.source.watch(
            found,
            self.args.default_namespace.clone(),
            self.args.root_namespace.clone(),
        ));
        part(&mut parts, "fetching the keys of issuers", keeper.run());
        part(&mut parts, "compiling", compiling.run(shared.loaded.clone()));
        part(&mut parts, "renewing the control plane's own certificate", renewing);
        if let Some(files) = self.token_files {
            part(&mut parts, "writing join tokens", files.follow(Arc::clone(&shared.store)));
        }
        let on_time = Arc::clone(&shared.metrics);
        part(&mut parts, "watching the event loop", async move { on_time.lag.watch().await });
        part(&mut parts, "the admin port", serve_admin(self.admin.0, admin));
        let grpc = serve::serve(self.grpc.0, own, certificates, streams, self.drain.clone(), crowded);
        let webhook = self.webhook.map(|webhook| webhook.run(issuing, knowledge, self.drain.clone()));
        let serving = async {
            let webhook = async {
                match webhook {
                    Some(webhook) => Ok(webhook.await?),
                    None => Ok(()),
                }
            };
            let grpc = async { grpc.await.map_err(AppError::from) };
            tokio::try_join!(grpc, webhook).map(|((), ())| ())
        };
        let result = until_over(serving, &mut parts, &self.drain).await;
        drop(parts);
        if let Some(cluster) = cluster {
            // Given up only after the writer is gone, or it would write beside the next holder's.
            let _ = timeout(EXIT_TIMEOUT, cluster.leave()).await;
        }
        result
    }

    fn announce(&self) {
        tracing::info!(
            version = selvedge_ops::build::VERSION,
            trust_domain = %self.authority.trust_domain(),
            root_sha256 = %Fingerprint(self.authority.root_sha256()),
            source = ?self.args.source,
            config_dir = ?self.args.config_dir,
            "control plane starting"
        );
    }

    fn certificates(&self, shared: &Shared) -> Certificates {
        let service_accounts = self.source.cluster().map(|cluster| {
            let (client, how) = (cluster.client().clone(), self.args.token_verification);
            ServiceAccounts::new(client, how, &self.args.trust_domain)
        });
        Certificates {
            authority: Arc::clone(&self.authority),
            attestor: Arc::clone(&self.attestor),
            service_accounts,
            store: Arc::clone(&shared.store),
            max_ttl: self.args.max_certificate_ttl,
            grace: self.args.membership_grace,
            allowance: Allowance::new(self.args.certificates_per_minute),
            audit: Arc::clone(&self.audit),
            metrics: Arc::clone(&shared.metrics),
            said: Mutex::default(),
        }
    }

    /// Keeps what others trust of us: our roots, our issuer, and in a cluster what is written there. It has to watch
    /// before anything is compiled, or it would miss the first verdicts.
    fn keep(
        &self,
        shared: &Shared,
        inject: &watch::Receiver<Arc<inject::InjectionSettings>>,
        parts: &mut JoinSet<&'static str>,
    ) {
        let (authority, store) = (Arc::clone(&self.authority), Arc::clone(&shared.store));
        let shown = Arc::clone(&shared.own_certificates);
        part(parts, "sending the trust roots to the proxies", async move {
            let mut changes = authority.changes();
            while changes.changed().await.is_ok() {
                store.believe(&authority.bundle());
                shown.use_authority(&authority);
            }
        });
        if let Some(path) = self.args.workload_roots.clone() {
            let following = workload_roots::follow(Arc::clone(&self.authority), path);
            part(parts, "following the roots in --workload-roots", following);
        }
        let (authority, certificates) = (Arc::clone(&self.authority), Arc::clone(&shared.own_certificates));
        let Some(cluster) = self.source.cluster() else {
            let directory = self.args.data_dir.clone();
            return part(parts, "keeping the CA's issuer", async move {
                issuer::keep(&authority, &certificates, &directory).await;
            });
        };
        if self.webhook.is_some() {
            let (cluster, authority) = (cluster.clone(), Arc::clone(&authority));
            part(parts, "keeping the webhooks' configurations", async move {
                cluster.keep_webhooks(authority).await;
            });
        }
        let news = News {
            verdicts: shared.problems.subscribe(),
            loaded: shared.loaded.clone(),
            gateways: self.args.gateways.then(|| inject.clone()),
        };
        cluster.clone().keep(authority, certificates, news, parts);
    }

    /// How sidecars are injected, as fits the cluster's version and our roots, whenever those change.
    fn fit_sidecars(
        &self,
        parts: &mut JoinSet<&'static str>,
    ) -> watch::Receiver<Arc<inject::InjectionSettings>> {
        let fit = sidecars(&self.args, &self.authority);
        let (inject, injected) = watch::channel(Arc::new(fit(self.version)));
        if let Some(cluster) = self.source.cluster().cloned() {
            let how = if injected.borrow().are_native() { "native" } else { "ordinary containers" };
            tracing::info!(kubernetes = self.version.map(tracing::field::display), "sidecars are {how}");
            let (version, changes) = (self.version, self.authority.changes());
            part(parts, "watching the cluster's version", async move {
                cluster.keep_fitting(inject, version, changes, fit).await;
            });
        }
        injected
    }
}

/// Runs `work` for as long as the control plane does: when it ends, everything ends, and `name` is said.
fn part(
    parts: &mut JoinSet<&'static str>,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    parts.spawn(async move {
        work.await;
        name
    });
}

async fn serve_admin(listener: std::net::TcpListener, admin: Admin) {
    let Err(error) = admin::serve(listener, admin.router()).await;
    tracing::error!(%error, "the admin port failed");
}

/// `serving` until it is over, by a drain or because one of `parts` has ended.
async fn until_over(
    serving: impl Future<Output = Result<(), AppError>>,
    parts: &mut JoinSet<&'static str>,
    drain: &Drain,
) -> Result<(), AppError> {
    tokio::select! {
        served = until_drained(serving, drain) => served,
        ended = parts.join_next() => {
            let part = ended.and_then(Result::ok).unwrap_or("a part of the control plane");
            drain.begin(Reason::Failed);
            Err(AppError::Stopped { part })
        }
    }
}

/// How sidecars are injected into a cluster of some version.
fn sidecars(
    args: &Args,
    authority: &Arc<Authority>,
) -> impl Fn(Option<Version>) -> inject::InjectionSettings + use<> {
    let (args, authority) = (args.clone(), Arc::clone(authority));
    move |version| {
        let roots = trust_roots(&authority);
        args.inject.settings_on(version, roots, args.trust_domain.clone(), &args.namespace)
    }
}

/// The SHA-256 of every root of ours, as sidecars are told it.
fn trust_roots(authority: &Authority) -> Vec<String> {
    authority.bundle().roots.iter().map(|root| fingerprint(root).to_string()).collect()
}

/// What is logged. kube writes an error for every failed attempt, of which we tell in our own words and once;
/// who wants its words too names it in the filter.
fn log(args: &Args) -> LogArgs {
    let mut log = args.log.clone();
    if args.source == SourceKind::Kubernetes && !log.log.contains("kube_") {
        log.log.push_str(",kube_client=off,kube_runtime=off");
    }
    log
}

fn settings(args: &Args, session_key: &SessionKey) -> MeshSettings {
    MeshSettings {
        trust_domain: args.trust_domain.clone(),
        cluster_domain: args.cluster_domain.clone(),
        default_namespace: args.default_namespace.clone(),
        root_namespace: args.root_namespace.clone(),
        own_namespace: args.namespace.clone(),
        route_ownership: args.route_ownership,
        allow_unenforced: args.allow_unenforced,
        // Those of each compilation are added to it.
        keys: FetchedKeys::default(),
        session_key: session_key.clone(),
    }
}

/// How keys are fetched. Who writes a directory has this machine; who writes to a cluster does not.
fn keeping(args: &Args) -> KeeperSettings {
    KeeperSettings {
        refresh: args.jwks_refresh_interval,
        may_be_loopback: args.source == SourceKind::Directory,
        authorities: args.jwks_ca.clone(),
        resolver: args.resolver.clone(),
    }
}

fn open(flag: &'static str, address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), AppError> {
    let listener = listen::tcp(flag, address)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// `serving`, which after the drain has begun gets only so much more time.
async fn until_drained(
    serving: impl Future<Output = Result<(), AppError>>,
    drain: &Drain,
) -> Result<(), AppError> {
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return served,
        _ = drain.drained() => {}
    }
    match timeout(DRAIN_TIMEOUT, serving).await {
        Ok(served) => served?,
        Err(_) => tracing::warn!("some proxies did not finish draining within {DRAIN_TIMEOUT:?}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
