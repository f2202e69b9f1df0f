//! How long the control plane's own certificates are valid, for people and for alerts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use selvedge_certs::{ca::Authority, facts::Facts};
use serde::{Deserialize, Serialize};

use super::written::rfc3339;
use crate::metrics::Metrics;

/// What a certificate of the control plane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The trust root.
    Root,
    /// What signs workloads' certificates.
    Issuer,
    /// The port that proxies connect to.
    Grpc,
    /// The port that the API server calls.
    Webhook,
}

impl Purpose {
    /// As metrics and `/config` call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuer => "issuer",
            Self::Grpc => "grpc",
            Self::Webhook => "webhook",
        }
    }
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The first moment.
    #[serde(with = "rfc3339")]
    pub not_before: SystemTime,
    /// The last moment.
    #[serde(with = "rfc3339")]
    pub not_after: SystemTime,
}

/// The certificates in use.
#[derive(Debug)]
pub struct OwnCertificates {
    metrics: Arc<Metrics>,
    lives: Mutex<BTreeMap<Purpose, Life>>,
}

impl OwnCertificates {
    /// Those of `authority`; the others follow when they are made.
    pub fn new(authority: &Authority, metrics: Arc<Metrics>) -> Self {
        let own = Self { metrics, lives: Mutex::default() };
        own.use_authority(authority);
        own
    }

    /// Notes the certificates that `authority` has now.
    pub fn use_authority(&self, authority: &Authority) {
        let roots = authority.bundle().roots.into_iter().take(1).map(|root| (Purpose::Root, root));
        for (purpose, certificate) in roots.chain([(Purpose::Issuer, authority.issuer())]) {
            // They have been read before: an authority is made of nothing else.
            if let Ok(facts) = Facts::parse(&certificate) {
                self.use_now(purpose, Life { not_before: facts.not_before, not_after: facts.not_after });
            }
        }
        // As long as one of them is valid, workloads may have certificates that lead to it.
        let others = authority.bundle().workload_roots;
        let ends = others.iter().filter_map(|root| Facts::parse(root).ok()).map(|facts| facts.not_after);
        if let Some(last) = ends.max() {
            self.metrics.certificate_expires("workload-roots", last);
        }
    }

    /// Notes that a certificate is in use from now on, in the place of the one before.
    pub fn use_now(&self, purpose: Purpose, life: Life) {
        self.metrics.certificate_expires(purpose.word(), life.not_after);
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).insert(purpose, life);
    }

    /// All of them.
    pub fn now(&self) -> BTreeMap<Purpose, Life> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
