//! The whole control plane: directory → compile → store → streams, with certificates beside it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use selvedge_certs::{
    ca::{Authority, AuthorityError},
    facts::Fingerprint,
    files::FileError,
};
use selvedge_model::Mesh;
use selvedge_ops::{
    Admin, Condition, Drain, LogLevel, Readiness, Reason, admin, announce,
    listen::{self, ListenError},
    logging::{self, LoggingError},
};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    cli::Args,
    compile::{Settings, compile},
    data_dir::{DataDir, DataDirError, Occupied},
    metrics::Metrics,
    problem::{Problem, Severity},
    resources::Resources,
    serve::{
        self, ServeError,
        attestation::{Attestor, TokenError, TokenKey},
        certificates::Certificates,
        own::{OwnCertificate, OwnError},
        stream::Streams,
        token_files::TokenFiles,
    },
    snapshot::{Store, store::Debounce},
    sources::{
        Loaded,
        directory::{Directory, Options},
    },
    status::{Problems, Proxies, Proxy},
};

/// Where the last good version of every document is kept, below `--data-dir`.
const LAST_GOOD: &str = "last-good";
/// The control plane's own certificate lasts for this long, or less if workloads' may not.
const OWN_TTL: Duration = Duration::from_secs(86_400);
/// The longest wait for changes to pause, in pauses.
const LONGEST_DEBOUNCE: u32 = 10;
/// How long proxies have to take leave.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long blocking work may go on after that.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no control plane, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The log filter is none.
    #[error("--log: {0}")]
    Logging(#[from] LoggingError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no CA.
    #[error("the CA in --data-dir: {0}")]
    Authority(#[from] AuthorityError),
    /// Tokens cannot be checked.
    #[error("join tokens: {0}")]
    Token(#[from] TokenError),
    /// The directory for join tokens cannot be made.
    #[error("--token-dir: {0}; choose one that this user may write to")]
    TokenDir(FileError),
    /// There is no certificate for the port.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The gRPC port ended.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The operating system refuses what every process may have.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A part that never ends has ended: a fault of ours.
    #[error("{part} has stopped; the log says why")]
    Stopped {
        /// Which part.
        part: &'static str,
    },
}

/// Runs the control plane until it is told to stop.
///
/// # Errors
/// If it cannot start, or a part of it fails.
pub fn run(args: &Args) -> Result<(), AppError> {
    let log_level = logging::init(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let drain = Drain::default();
        drain.on_signals()?;
        if args.exit_on_stdin_close {
            drain.on_stdin_close()?;
        }
        let control_plane = ControlPlane::prepare(args, drain)?;
        announce("grpc", control_plane.grpc_address());
        announce("admin", control_plane.admin_address());
        control_plane.run(log_level).await
    });
    runtime.shutdown_timeout(EXIT_TIMEOUT);
    result
}

/// A control plane that has everything it needs, and does nothing yet.
#[derive(Debug)]
pub struct ControlPlane {
    args: Args,
    drain: Drain,
    _occupied: Occupied,
    authority: Arc<Authority>,
    attestor: Arc<Attestor>,
    token_files: Option<TokenFiles>,
    grpc: (std::net::TcpListener, SocketAddr),
    admin: (std::net::TcpListener, SocketAddr),
}

impl ControlPlane {
    /// Opens the data directory, loads or makes the CA, and opens both ports.
    ///
    /// # Errors
    /// If any of this fails; the message names the flag and the remedy.
    pub fn prepare(args: &Args, drain: Drain) -> Result<Self, AppError> {
        let data = DataDir::open(&args.data_dir)?;
        let occupied = data.occupy()?;
        let authority = Authority::load_or_create(data.path(), &args.trust_domain)?;
        let attestor = Attestor::open(data.path(), &args.trust_domain)?;
        let token_files = args.token_dir.as_deref().map(|directory| {
            let key = TokenKey::load_or_create(data.path())?;
            TokenFiles::open(directory, key, authority.root_sha256()).map_err(AppError::TokenDir)
        });
        Ok(Self {
            args: args.clone(),
            drain,
            _occupied: occupied,
            authority: Arc::new(authority),
            attestor: Arc::new(attestor),
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

    /// Serves until the drain begins and proxies have been told.
    ///
    /// # Errors
    /// If a part fails.
    pub async fn run(self, log_level: LogLevel) -> Result<(), AppError> {
        tracing::info!(
            version = selvedge_ops::build::VERSION,
            trust_domain = %self.authority.trust_domain(),
            root_sha256 = %Fingerprint(self.authority.root_sha256()),
            config_dir = %self.args.config_dir.display(),
            "control plane starting"
        );
        let (own, renewing) =
            OwnCertificate::make(Arc::clone(&self.authority), OWN_TTL.min(self.args.max_certificate_ttl))?;
        let metrics = Arc::new(Metrics::default());
        let store = Arc::new(Store::new(&self.authority.bundle()));
        let proxies = Arc::new(Proxies::new(Arc::clone(&metrics)));
        let problems = Arc::new(Problems::default());
        let readiness = Readiness::default();
        let (found, loaded) = watch::channel(Arc::new(Loaded::default()));
        let compiling = Compiling {
            settings: self.settings(),
            debounce: Debounce { quiet: self.args.debounce, longest: self.args.debounce * LONGEST_DEBOUNCE },
            store: Arc::clone(&store),
            problems: Arc::clone(&problems),
            metrics: Arc::clone(&metrics),
            config_dir: self.args.config_dir.clone(),
            configuration: readiness.condition("configuration"),
        };
        let overview = Overview { store: Arc::clone(&store), problems, proxies: Arc::clone(&proxies) };
        let encode = Arc::clone(&metrics);
        let admin = Admin {
            readiness,
            drain: self.drain.clone(),
            log_level,
            metrics: Arc::new(move || encode.encode()),
            local: overview.routes(),
        };
        let certificates = Certificates {
            authority: Arc::clone(&self.authority),
            attestor: Arc::clone(&self.attestor),
            store: Arc::clone(&store),
            max_ttl: self.args.max_certificate_ttl,
            metrics: Arc::clone(&metrics),
        };
        let streams = Streams { store: Arc::clone(&store), proxies, metrics, drain: self.drain.clone() };

        let mut parts = JoinSet::new();
        let directory = self.directory();
        parts.spawn(async move {
            directory.watch(found).await;
            "following the configuration directory"
        });
        parts.spawn(async move {
            compiling.run(loaded).await;
            "compiling"
        });
        parts.spawn(async move {
            renewing.await;
            "renewing the control plane's own certificate"
        });
        if let Some(files) = self.token_files {
            let store = Arc::clone(&store);
            parts.spawn(async move {
                files.follow(store).await;
                "writing join tokens"
            });
        }
        let admin_listener = self.admin.0;
        parts.spawn(async move {
            let Err(error) = admin::serve(admin_listener, admin.router()).await;
            tracing::error!(%error, "the admin port failed");
            "the admin port"
        });
        let serving = serve::serve(self.grpc.0, own, certificates, streams, self.drain.clone());
        tokio::select! {
            served = until_drained(serving, &self.drain) => served,
            ended = parts.join_next() => {
                let part = ended.and_then(Result::ok).unwrap_or("a part of the control plane");
                self.drain.begin(Reason::Failed);
                Err(AppError::Stopped { part })
            }
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            trust_domain: self.args.trust_domain.clone(),
            cluster_domain: self.args.cluster_domain.clone(),
            default_namespace: self.args.default_namespace.clone(),
            root_namespace: self.args.root_namespace.clone(),
        }
    }

    fn directory(&self) -> Directory {
        let options = Options {
            poll_interval: self.args.poll_interval,
            default_namespace: self.args.default_namespace.clone(),
            last_good: Some(self.args.data_dir.join(LAST_GOOD)),
        };
        Directory::new(&self.args.config_dir, options)
    }
}

fn open(flag: &'static str, address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), AppError> {
    let listener = listen::tcp(flag, address)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// `serving`, which after the drain has begun gets only so much more time.
async fn until_drained(
    serving: impl Future<Output = Result<(), ServeError>>,
    drain: &Drain,
) -> Result<(), AppError> {
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => return Ok(served?),
        _ = drain.drained() => {}
    }
    match timeout(DRAIN_TIMEOUT, serving).await {
        Ok(served) => served?,
        Err(_) => tracing::warn!("some proxies did not take leave within {DRAIN_TIMEOUT:?}"),
    }
    Ok(())
}

/// Turns what the source has into the mesh that is served.
struct Compiling {
    settings: Settings,
    debounce: Debounce,
    store: Arc<Store>,
    problems: Arc<Problems>,
    metrics: Arc<Metrics>,
    config_dir: std::path::PathBuf,
    configuration: Condition,
}

impl Compiling {
    /// Until the source is gone.
    async fn run(self, mut loaded: watch::Receiver<Arc<Loaded>>) {
        let mut first = true;
        while self.changed(&mut loaded, std::mem::take(&mut first)).await {
            let newest = Arc::clone(&loaded.borrow_and_update());
            if self.is_unread(&newest) {
                self.report(newest.problems.clone());
                continue;
            }
            let previous = self.store.current().map(|snapshot| Arc::clone(snapshot.mesh()));
            let settings = self.settings.clone();
            let start = Instant::now();
            let source = Arc::clone(&newest);
            // Large configurations take long enough to hold up the streams of a worker thread.
            let compiled = tokio::task::spawn_blocking(move || {
                let previous = previous.unwrap_or_default();
                compile(&source.resources, &settings, &previous)
            });
            let Ok((mesh, problems)) = compiled.await else {
                tracing::error!("the configuration could not be compiled; the last good one stays in use");
                continue;
            };
            self.metrics.compiled(start.elapsed());
            self.report(newest.problems.iter().cloned().chain(problems).collect());
            self.publish(mesh);
        }
    }

    /// Waits for changes to pause, except before the first: a start is not kept waiting.
    async fn changed(&self, loaded: &mut watch::Receiver<Arc<Loaded>>, first: bool) -> bool {
        if first { loaded.changed().await.is_ok() } else { self.debounce.changed(loaded).await }
    }

    /// A directory that could never be read says nothing: an empty mesh would take away what proxies
    /// still hold from before.
    fn is_unread(&self, loaded: &Loaded) -> bool {
        let unreadable = |problem: &Problem| {
            problem.severity == Severity::Error && problem.path.as_deref() == Some(&*self.config_dir)
        };
        self.store.current().is_none()
            && loaded.resources == Resources::default()
            && loaded.problems.iter().any(unreadable)
    }

    fn report(&self, problems: Vec<Problem>) {
        self.metrics.set_problems(&problems);
        self.problems.replace(problems);
    }

    fn publish(&self, mesh: Mesh) {
        let (workloads, services) = (mesh.workloads.len(), mesh.services.len());
        let version = self.store.publish(mesh);
        self.metrics.published(version);
        self.configuration.met();
        tracing::info!(version, workloads, services, "configuration published");
    }
}

/// What the admin port tells people on this host.
#[derive(Debug, Clone)]
struct Overview {
    store: Arc<Store>,
    problems: Arc<Problems>,
    proxies: Arc<Proxies>,
}

#[derive(Debug, Serialize)]
struct Config {
    /// `None` before the first.
    configuration_version: Option<u64>,
    proxies: Vec<Proxy>,
}

impl Overview {
    fn routes(self) -> Router {
        Router::new()
            .route("/problems", get(Self::show_problems))
            .route("/config", get(Self::show_config))
            .with_state(self)
    }

    async fn show_problems(State(overview): State<Self>) -> Json<Arc<Vec<Problem>>> {
        Json(overview.problems.now())
    }

    async fn show_config(State(overview): State<Self>) -> Json<Config> {
        Json(Config {
            configuration_version: overview.store.current().map(|snapshot| snapshot.version()),
            proxies: overview.proxies.connected(),
        })
    }
}

#[cfg(test)]
mod tests;
