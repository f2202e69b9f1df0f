//! What the parts of a control plane share, and the parts that are made of nothing else.

use std::sync::Arc;

use selvedge_certs::ca::Authority;
use selvedge_ops::{Admin, Condition, Drain, LogLevel, Readiness};
use tokio::sync::watch;

use super::{LONGEST_DEBOUNCE, Pages, compiling::Compiling, kept_owners::KeptOwners};
use crate::{
    cli::Args,
    compile::MeshSettings,
    keys::{KeyWishes, Keys},
    metrics::Metrics,
    serve::stream::Streams,
    snapshot::{Store, store::Debounce},
    sources::Loaded,
    status::{Levels, Overview, OwnCertificates, Problems, Proxies, Seen, Taps, Traffic},
};

/// See the module.
pub(super) struct Shared {
    /// The configuration in force.
    pub(super) store: Arc<Store>,
    /// Who is connected.
    pub(super) proxies: Arc<Proxies>,
    /// Who has called whom.
    pub(super) seen: Arc<Seen>,
    /// What proxies carry.
    pub(super) traffic: Arc<Traffic>,
    /// Who asks to see live requests.
    pub(super) taps: Arc<Taps>,
    /// What sidecars are to log for a while.
    pub(super) levels: Arc<Levels>,
    /// What is wrong with the documents.
    pub(super) problems: Arc<Problems>,
    /// What is counted.
    pub(super) metrics: Arc<Metrics>,
    /// The control plane's own certificates, as the admin port shows them.
    pub(super) own_certificates: Arc<OwnCertificates>,
    /// The documents.
    pub(super) loaded: watch::Receiver<Arc<Loaded>>,
}

impl Shared {
    /// Nothing has been read yet; `loaded` will say what there is.
    pub(super) fn new(authority: &Arc<Authority>, loaded: watch::Receiver<Arc<Loaded>>) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            store: Arc::new(Store::new(&authority.bundle())),
            proxies: Arc::new(Proxies::new(Arc::clone(&metrics))),
            problems: Arc::default(),
            seen: Arc::default(),
            taps: Arc::default(),
            levels: Arc::default(),
            traffic: Arc::new(Traffic::new(Arc::clone(&metrics))),
            own_certificates: Arc::new(OwnCertificates::new(authority, Arc::clone(&metrics))),
            metrics,
            loaded,
        }
    }

    /// What turns documents into configuration; `configuration` holds once there is some.
    pub(super) fn compiling(
        &self,
        settings: MeshSettings,
        args: &Args,
        configuration: Condition,
        keys: Keys,
    ) -> Compiling {
        Compiling {
            settings,
            debounce: Debounce { quiet: args.debounce, longest: args.debounce * LONGEST_DEBOUNCE },
            store: Arc::clone(&self.store),
            problems: Arc::clone(&self.problems),
            metrics: Arc::clone(&self.metrics),
            config_dir: args.config_dir.clone(),
            owners: KeptOwners::new(args.config_dir.as_ref().map(|_| &*args.data_dir)),
            configuration,
            keys,
        }
    }

    /// The admin port.
    pub(super) fn admin(
        &self,
        readiness: Readiness,
        drain: Drain,
        log_level: LogLevel,
        (pages, is_in_cluster): (Pages, bool),
    ) -> Admin {
        let overview = Overview {
            store: Arc::clone(&self.store),
            problems: Arc::clone(&self.problems),
            proxies: Arc::clone(&self.proxies),
            seen: Arc::clone(&self.seen),
            traffic: Arc::clone(&self.traffic),
            taps: Arc::clone(&self.taps),
            levels: Arc::clone(&self.levels),
            log_level: log_level.clone(),
            certificates: Arc::clone(&self.own_certificates),
            loaded: self.loaded.clone(),
            is_in_cluster,
            readiness: readiness.clone(),
        };
        let metrics = Arc::clone(&self.metrics);
        let metrics = Arc::new(move || metrics.encode());
        Admin {
            readiness,
            drain,
            log_level,
            metrics,
            local: overview.clone().routes().merge(pages(overview)),
        }
    }

    /// The configuration streams.
    pub(super) fn streams(&self, keys: KeyWishes, drain: Drain) -> Streams {
        Streams {
            store: Arc::clone(&self.store),
            proxies: Arc::clone(&self.proxies),
            seen: Arc::clone(&self.seen),
            traffic: Arc::clone(&self.traffic),
            taps: Arc::clone(&self.taps),
            levels: Arc::clone(&self.levels),
            metrics: Arc::clone(&self.metrics),
            keys,
            turns: Arc::default(),
            drain,
        }
    }
}
