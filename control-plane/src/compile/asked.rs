//! The policies of all workloads: read, asked and reported in one place, for the whole mesh and for a change that is compiled
//! alone.

use std::sync::Arc;

use selvedge_model::{Authorization, token::Authentication};

use super::{
    MeshSettings, Problems, authentication::Authentications, authorization::Authorizations, network::Network,
    rate_limits::RateLimits, servers::Servers, services::Catalog, targets::Selected, telemetry::Telemetries,
    workloads::Asked,
};
use crate::resources::Resources;

/// All of them but network policies, which are made from the workloads too.
pub(super) struct Policies<'a> {
    authorizations: Authorizations<'a>,
    authentications: Authentications<'a>,
    servers: Servers<'a>,
    pub(super) limits: RateLimits<'a>,
    telemetries: Telemetries<'a>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        Self {
            authorizations: Authorizations::new(resources, settings, problems),
            authentications: Authentications::new(resources, settings, problems),
            servers: Servers::new(resources, settings, problems),
            limits: RateLimits::new(resources, settings, problems),
            telemetries: Telemetries::new(resources, settings, problems),
        }
    }

    /// What each workload asks, with the network policies too.
    pub(super) fn asked<'p>(&'p self, network: &'p Network<'a>) -> Asked<'p, 'a> {
        let Self { authorizations, authentications, servers, limits, telemetries } = self;
        Asked { authentications, authorizations, servers, network, limits, telemetries }
    }

    /// What the `AuthorizationPolicy`s are for a workload; as `previous` says, if that is the same.
    pub(super) fn authorization(
        &self,
        workload: Selected<'_>,
        previous: Option<&Arc<Authorization>>,
    ) -> Option<Arc<Authorization>> {
        self.authorizations.find(workload, previous)
    }

    /// Whose tokens a workload accepts; as `previous` says, if that is the same.
    pub(super) fn authentication(
        &self,
        workload: Selected<'_>,
        previous: Option<&Arc<Authentication>>,
    ) -> Option<Arc<Authentication>> {
        self.authentications.find(workload, previous)
    }

    /// Reports the `RequestAuthentication`s that nothing asked for, now that all workloads have asked.
    pub(super) fn report_authentications(&self, problems: &mut Problems) {
        self.authentications.report_unused(problems);
    }

    /// Reports the `RateLimit`s that nothing asked for, and those of which nobody has the servers.
    pub(super) fn report_limits(&self, catalog: &Catalog<'_>, problems: &mut Problems) {
        self.limits.report(|host| Some(&catalog.find(host)?.ports), problems);
    }

    /// Reports all else that nothing asked for.
    pub(super) fn report(&self, problems: &mut Problems) {
        self.servers.report(problems);
        self.telemetries.report(problems);
    }
}
