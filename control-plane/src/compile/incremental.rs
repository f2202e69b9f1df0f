//! A change of workloads, services, routes and policies, compiled alone.
//!
//! Which inputs each output reads is this, and nothing more:
//!
//! - a workload reads its own document, the services that it is behind, those who share its address, and policies;
//! - the endpoints of a service port, and what is at an address, read the documents of the workloads and slices that are
//!   behind the service or name the address, and the `Service`s there;
//! - what is known by a DNS name, and the lists of workloads that DNS may lead past their sidecars read all workloads: where such a
//!   thing changes, everything is compiled;
//! - `RateLimit`s read all workloads and hosts as far as is said of them, and are asked again if these change ([`limits`]);
//! - network policies read all workloads, and make rules of these and sets: they are asked again if workloads change ([`network`]);
//! - what a host is to its clients reads its `Service`, the routes for it, and the rules and policies of it and of the hosts that
//!   these name; whether rules fit reads its endpoints, too;
//! - what gateways serve reads the documents for gateways, the routes that name them, and the `Service`s and rules of the hosts to
//!   which these lead;
//! - all else reads other kinds of documents alone.
//!
//! So, if `WorkloadEntry`s, pods, `EndpointSlice`s, `Service`s or `ServiceEntry`s that are nothing but themselves ([`entries`]) have changed, [`Index::affected`] follows these ties from what has
//! changed until there are no more. What it finds is compiled twice by the code that compiles everything ([`local::Local`]): as it
//! was, and as it is. The difference is taken over into the mesh and the problems. What it was must be what the mesh
//! has: so documents that have to do with each other in a way which the ties do not know are noticed, and not
//! believed. Then, and wherever more is to be found out than a few documents tell, everything is compiled.
//!
//! If routes, `DestinationRule`s, `Service`s or `ServiceEntry`s have changed, the hosts and gateways that these have to do with are compiled anew
//! ([`routing`]); if `AuthorizationPolicy`s or `PeerAuthentication`s have, the workloads that they select ([`policies`]); if
//! `RequestAuthentication`s, `RateLimit`s or network policies have, what they make of all workloads ([`policies`], [`limits`],
//! [`network`]). What clients see that rules select by their labels reads which of these clients there are: where others are,
//! everything is compiled. Which documents are for nobody reads the labels and namespaces of all, of which it keeps how many
//! there are ([`addressees`]).

mod addressees;
mod affected;
mod changes;
mod edits;
mod entries;
mod facts;
mod index;
mod limits;
mod local;
mod network;
mod policies;
mod reach;
mod routing;
mod splice;
mod workloads;

use std::sync::Arc;

use selvedge_model::Mesh;

use self::{
    changes::Changes,
    index::{Everything, Index},
    routing::has_gateways,
    workloads::Hosts,
};
pub(super) use self::{
    facts::{Connections, Facts, Found, Reports, Routed},
    network::has_network_policies,
};
use super::{MeshSettings, whole};
use crate::{problem::Problem, resources::Resources};

/// Compiles one configuration after another.
#[derive(Debug, Default)]
pub struct Compiler {
    last: Option<Last>,
}

/// What was compiled.
#[derive(Debug)]
pub struct Compiled {
    /// The mesh.
    pub mesh: Mesh,
    /// What is wrong between documents.
    pub problems: Vec<Problem>,
    /// Whether what had changed, and what that has to do with, was compiled alone.
    pub is_part: bool,
    /// Whether nothing but workloads and endpoints had changed then.
    pub is_of_workloads: bool,
}

/// What was compiled last, and from what.
#[derive(Debug)]
struct Last {
    resources: Resources,
    settings: Arc<MeshSettings>,
    mesh: Mesh,
    problems: Vec<Problem>,
    facts: Facts,
    index: Index,
    /// Whether something else has been found out since `problems` were put in order.
    is_said_anew: bool,
    /// Whether workloads have changed since `RequestAuthentication`s were asked.
    are_workloads_anew: bool,
    /// Whether `RateLimit`s have not been asked since workloads have changed so that something else may be to be said of them.
    are_limits_anew: bool,
    /// Whether network policies have not been asked since workloads have changed.
    is_network_anew: bool,
}

impl Compiler {
    /// The same as [`compile`](super::compile), of whose result this is one part or all. `previous` is a mesh from before, which
    /// is the last one that this gave if only a part is to be compiled.
    pub fn compile(&mut self, resources: &Resources, settings: &MeshSettings, previous: &Mesh) -> Compiled {
        let is_known = |last: &Last| is_same(&last.mesh, previous) && *last.settings == *settings;
        let last = self.last.take().filter(is_known);
        if let Some(mut last) = last
            && let Ok(is_of_workloads) = last.follow(resources)
        {
            let (mesh, problems) = (last.mesh.clone(), last.problems.clone());
            self.last = Some(last);
            return Compiled { mesh, problems, is_part: true, is_of_workloads };
        }
        self.compile_whole(resources, settings, previous)
    }

    /// The same, and everything is compiled: other things are to be said of the same documents, because time has passed.
    pub fn compile_whole(
        &mut self,
        resources: &Resources,
        settings: &MeshSettings,
        previous: &Mesh,
    ) -> Compiled {
        let (mesh, facts) = whole(resources, settings, previous);
        let problems = facts.found.sorted();
        self.last = Index::new(resources, &settings.cluster_domain, &facts).map(|index| Last {
            resources: resources.clone(),
            settings: Arc::new(settings.clone()),
            mesh: mesh.clone(),
            problems: problems.clone(),
            facts,
            index,
            is_said_anew: false,
            are_workloads_anew: false,
            are_limits_anew: false,
            is_network_anew: false,
        });
        Compiled { mesh, problems, is_part: false, is_of_workloads: false }
    }
}

impl Last {
    /// Makes this what was compiled of `resources`. Whether nothing but workloads and endpoints has changed.
    ///
    /// # Errors
    /// Everything must be compiled. Nothing in this is true any more.
    fn follow(&mut self, resources: &Resources) -> Result<bool, Everything> {
        let changes = Changes::new(&mut self.resources, resources, &mut self.index)?;
        self.follow_addressees(&changes, resources);
        let Changes { workloads, authorizations, authentications, limits, network, routes } = changes;
        let have_hosts_changed = workloads.are_of_hosts();
        let are_there_limits = !resources.rate_limits.is_empty();
        let are_limits_others = !limits.changed.is_empty();
        let are_read_again = !workloads.services.changed.is_empty()
            || !workloads.peer_authentications.changed.is_empty()
            || !authorizations.changed.is_empty()
            || !authentications.changed.is_empty()
            || are_limits_others
            || (are_there_limits && (have_hosts_changed || !routes.http_routes.changed.is_empty()));
        let is_of_network = !network.is_empty();
        let is_of_workloads = !are_read_again && !have_hosts_changed && !is_of_network && routes.is_empty();
        // Which server a limit asks goes by the hosts that there are.
        self.are_limits_anew |= are_limits_others || (are_there_limits && have_hosts_changed);
        let are_gateways_limited = has_gateways(resources) && changes::limit_routes(&limits);
        if !have_hosts_changed && routes.is_empty() && !are_gateways_limited {
            workloads.have_plain_endpoints(&self.index)?;
            let hosts = self.follow_workloads(workloads, &Hosts::default())?;
            if !hosts.is_empty() {
                self.look_again(resources, hosts);
            }
        } else {
            changes::may_be_followed(
                &workloads,
                &routes,
                (&self.resources, resources),
                &self.index,
                &self.settings,
            )?;
            self.follow_routes(resources, workloads, routes, are_gateways_limited)?;
        }
        limits.apply(&mut self.resources.rate_limits);
        let have_workloads_changed = std::mem::take(&mut self.are_workloads_anew);
        if are_read_again || (have_workloads_changed && !self.resources.request_authentications.is_empty()) {
            self.follow_policies(authorizations, authentications, have_workloads_changed)?;
        }
        if std::mem::take(&mut self.are_limits_anew) {
            self.follow_limits()?;
        }
        if std::mem::take(&mut self.is_network_anew) || is_of_network {
            self.follow_network(network)?;
        }
        if std::mem::take(&mut self.is_said_anew) {
            self.problems = self.facts.found.sorted();
        }
        Ok(is_of_workloads)
    }
}

/// Whether both are the very same, part by part.
fn is_same(one: &Mesh, other: &Mesh) -> bool {
    one.workloads.is(&other.workloads)
        && one.services.is(&other.services)
        && one.endpoints.is(&other.endpoints)
        && one.addresses.is(&other.addresses)
        && one.occupants.is(&other.occupants)
        && one.service_addresses.is(&other.service_addresses)
        && one.service_ranges.is(&other.service_ranges)
        && one.callers.is(&other.callers)
        && one.exported.is(&other.exported)
        && one.named.is(&other.named)
        && one.sets.is(&other.sets)
        && one.selected.is(&other.selected)
        && one.gateways.is(&other.gateways)
        && Arc::ptr_eq(&one.revocations, &other.revocations)
        && Arc::ptr_eq(&one.owners, &other.owners)
        && Arc::ptr_eq(&one.cluster_domain, &other.cluster_domain)
}
