//! A change of workloads and endpoints, compiled alone.
//!
//! Which inputs each output reads is this, and nothing more:
//!
//! - a workload reads its own document, the services that it is behind, those who share its address, and policies;
//! - the endpoints of a service port, and what is at an address, read the documents of the workloads and slices that are
//!   behind the service or name the address, and the `Service`s there;
//! - what is known by a DNS name, sets of network policies, and the lists of workloads that DNS may lead past their sidecars
//!   read all workloads: where such a thing changes, everything is compiled;
//! - what a host is to its clients reads its `Service`, the routes for it, and the rules and policies of it and of the hosts that
//!   these name; whether rules fit reads its endpoints, too;
//! - gateways and all else read other kinds of documents alone.
//!
//! So, if only `WorkloadEntry`s, pods and `EndpointSlice`s have changed, [`Index::affected`] follows these ties from what has
//! changed until there are no more. What it finds is compiled twice by the code that compiles everything ([`Local`]): as it
//! was, and as it is. The difference is taken over into the mesh and the problems. What it was must be what the mesh
//! has: so documents that have to do with each other in a way which the ties do not know are noticed, and not
//! believed. Then, and wherever more is to be found out than a few documents tell, everything is compiled.
//!
//! If routes or `DestinationRule`s have changed, the hosts that these have to do with are compiled anew ([`routing`]). What
//! clients see that rules select by their labels reads which of these clients there are: where others are, everything is
//! compiled.

mod edits;
mod facts;
mod index;
mod local;
mod routing;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Endpoints, Host, Mesh, ServiceKey, Workload, WorkloadName,
    snapshot::{Divided, OwnedPorts, Owners, Shared},
};

pub(super) use self::facts::{Connections, Facts, Routed};
use self::{
    edits::{Edits, Pair},
    index::{Everything, Index},
    local::Local,
    routing::ChangedRoutes,
};
use super::{MeshSettings, Problems, clients, gateways, inbound, meant, whole, workloads::KnownWorkload};
use crate::{
    problem::Problem,
    resources::{EndpointSliceSpec, Resources, WorkloadEntrySpec},
};

/// Workloads as their own sidecars see them.
type Finished = BTreeMap<WorkloadName, Arc<Workload>>;

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
    settings: MeshSettings,
    mesh: Mesh,
    problems: Vec<Problem>,
    facts: Facts,
    index: Index,
    /// Whether compiling the same documents again would give the same. Who owns an address depends on who owned it before, so that
    /// it may take a second time.
    is_settled: bool,
}

/// What becomes of the order of `WorkloadEntry`s and pods.
#[derive(Debug, Clone, Copy)]
struct Order {
    /// Whether the same ones are there, in the same order.
    is_kept: bool,
    /// Whether some that were there have another place among each other.
    has_moved: bool,
}

impl Compiler {
    /// The same as [`compile`](super::compile), of whose result this is one part or all. `previous` is a mesh from before, which
    /// is the last one that this gave if only a part is to be compiled.
    pub fn compile(&mut self, resources: &Resources, settings: &MeshSettings, previous: &Mesh) -> Compiled {
        let is_known = |last: &Last| is_same(&last.mesh, previous) && last.settings == *settings;
        let last = self.last.take().filter(|last| last.is_settled && is_known(last));
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
        let is_settled = mesh.owners == previous.owners;
        self.last = Index::new(resources, &settings.cluster_domain, &facts).map(|index| Last {
            is_settled,
            resources: resources.clone(),
            settings: settings.clone(),
            mesh: mesh.clone(),
            problems: problems.clone(),
            facts,
            index,
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
        let is_crowded = self.facts.found.is_crowded();
        if is_crowded || !self.resources.takes_over_all_but_workloads_and_routes(resources) {
            return Err(Everything);
        }
        self.follow_workloads(resources)?;
        let routes = ChangedRoutes::new(&mut self.resources, resources);
        if routes.is_empty() {
            return Ok(true);
        }
        self.follow_routes(routes)?;
        Ok(false)
    }

    fn follow_workloads(&mut self, resources: &Resources) -> Result<(), Everything> {
        let (all, index) = (&mut self.resources, &mut self.index);
        let new = &resources.workload_entries;
        let entries = Edits::new(&mut all.workload_entries, new, |one| index.entry_again(one));
        let pods = Edits::new(&mut all.pods, &resources.pods, |one| index.pod_again(one));
        let new = &resources.endpoint_slices;
        let slices = Edits::new(&mut all.endpoint_slices, new, |one| index.slice_again(one));
        let order = Order {
            is_kept: entries.is_in_place && pods.is_in_place,
            has_moved: entries.has_moved || pods.has_moved,
        };
        // What leads gateways to their own hosts is told where these are compiled.
        if !self.mesh.gateways.is_empty() && leads_home(&entries.changed, &slices.changed) {
            return Err(Everything);
        }
        let affected = index.affected(&entries.changed, &pods.changed, &slices.changed)?;
        let before = affected.of(index, all);
        index.change_entries(&entries.apply(&mut all.workload_entries))?;
        index.change_pods(&pods.apply(&mut all.pods))?;
        index.change_slices(&slices.apply(&mut all.endpoint_slices))?;
        let after = affected.of(index, all);
        self.take_over(&before, &after, order)
    }

    /// Takes over what has become of the documents `before`, which are `after` now.
    fn take_over(&mut self, before: &Resources, after: &Resources, order: Order) -> Result<(), Everything> {
        let nowhere = &mut Problems::default();
        let policies = inbound::Policies::new(&self.resources, &self.settings, nowhere);
        let mut old = Local::new(before, &self.settings, &policies, &self.mesh).ok_or(Everything)?;
        let mut new = Local::new(after, &self.settings, &policies, &self.mesh).ok_or(Everything)?;
        // What is known by name is ranked by the places of all workloads.
        let named = &self.mesh.named;
        let are_named = !named.endpoints.is_empty() || !named.occupants.is_empty();
        if are_named && !(order.is_kept && old.names().eq(new.names())) {
            return Err(Everything);
        }
        let mut mesh = self.mesh.clone();
        splice(&mut OwnersIn(&mut mesh.owners), &old.owners.0, new.owners.0.clone())?;
        if old.owners != new.owners {
            let again = Local::new(after, &self.settings, &policies, &mesh).ok_or(Everything)?;
            let is_found = again.problems.found == new.problems.found;
            self.is_settled = again.owners == new.owners && is_found;
        }
        let (old_finished, new_finished) = self.finished(&mut old, &mut new, order)?;
        self.take_over_endpoints(&mut mesh, &old, &new)?;
        // All workloads that DNS may lead past their sidecars are in one list for each port.
        let unproven = &self.facts.unproven;
        if old.beside_sidecars(unproven) != new.beside_sidecars(unproven) {
            return Err(Everything);
        }
        let (occupied, occupants) = (old.occupants(&old_finished), new.occupants(&new_finished));
        splice(&mut mesh.occupants, &occupied, occupants)?;
        splice(&mut mesh.addresses, &old.addresses, std::mem::take(&mut new.addresses))?;
        let addresses = std::mem::take(&mut new.service_addresses);
        splice(&mut mesh.service_addresses, &old.service_addresses, addresses)?;
        splice(&mut mesh.callers, &old.callers, std::mem::take(&mut new.callers))?;
        splice(&mut mesh.workloads, &old_finished, new_finished)?;
        self.take_over_selected(&mut mesh, &old, &new)?;
        let (gone, come) = (old.problems.found, new.problems.found);
        self.mesh = mesh;
        self.say(&gone, come)
    }

    /// Gives `mesh` what has become of those whom rules select by their labels.
    ///
    /// # Errors
    /// Other clients are there than were before.
    fn take_over_selected(
        &self,
        mesh: &mut Mesh,
        old: &Local<'_>,
        new: &Local<'_>,
    ) -> Result<(), Everything> {
        let selectors = clients::Selectors::new(&self.resources);
        if selectors.is_empty() {
            return Ok(());
        }
        let before = selectors.of_workloads(old.labels(), &self.mesh.selected);
        let after = selectors.of_workloads(new.labels(), &self.mesh.selected);
        splice(&mut mesh.selected, &before, after)?;
        let is_same =
            mesh.selected.is(&self.mesh.selected) || clients::there(&mesh.selected) == self.facts.selected;
        if is_same { Ok(()) } else { Err(Everything) }
    }

    /// What policies make of the workloads of `old` and `new`.
    ///
    /// # Errors
    /// Policies make something else of others too, or something else is to be said of policies.
    fn finished(
        &self,
        old: &mut Local<'_>,
        new: &mut Local<'_>,
        order: Order,
    ) -> Result<(Finished, Finished), Everything> {
        if !self.is_beyond_policies(old, new, order)? {
            let there = |local: &Local<'_>| -> Option<Finished> {
                let found = local
                    .names()
                    .map(|name| Some((name.clone(), Arc::clone(self.mesh.workloads.get(name)?))));
                found.collect()
            };
            return there(old).zip(there(new)).ok_or(Everything);
        }
        let is_unknown = Cell::new(false);
        let connections = |service: &ServiceKey, namespace: &str| {
            if self.resources.destination_rules.is_empty() {
                return self.facts.connections.get(service, namespace, AppConnections::default);
            }
            let known = self.facts.connections.known(service, namespace);
            is_unknown.set(is_unknown.get() || known.is_none());
            known.unwrap_or_default()
        };
        let finish =
            |local: &mut Local<'_>| local.finish(&self.resources, &self.settings, &self.mesh, connections);
        let ((old, said), (new, says)) = (finish(old), finish(new));
        if is_unknown.get() || said != says { Err(Everything) } else { Ok((old, new)) }
    }

    /// Whether policies are to be asked, because workloads are not what they were but for their weights.
    ///
    /// # Errors
    /// There are policies that may make something else of other workloads, or may be told something else of all
    /// workloads together.
    fn is_beyond_policies(&self, old: &Local<'_>, new: &Local<'_>, order: Order) -> Result<bool, Everything> {
        let mut differing = old.differing(new);
        differing.extend(new.differing(old));
        let all = &self.resources;
        // They make sets of workloads, and name workloads, or two of several Telemetry, by the order of workloads.
        if (!differing.is_empty() || order.has_moved)
            && (!all.network_policies.is_empty()
                || !all.calico_policies.is_empty()
                || all.telemetries.len() > 1)
        {
            return Err(Everything);
        }
        // What is said of all workloads that a policy is for is not changed by one more of a sort at which all is enforced.
        let is_one_more = |one: &&KnownWorkload<'_>| one.enforces_all() && new.has_one_like(one, &differing);
        if !differing.is_empty() && !meant::is_nothing(all) && !differing.iter().all(is_one_more) {
            return Err(Everything);
        }
        Ok(!differing.is_empty())
    }

    /// Gives `mesh` the endpoints that are different.
    fn take_over_endpoints(
        &self,
        mesh: &mut Mesh,
        old: &Local<'_>,
        new: &Local<'_>,
    ) -> Result<(), Everything> {
        if old.endpoints.len() != new.endpoints.len() {
            return Err(Everything);
        }
        for (key, endpoints) in &new.endpoints {
            let (there, before) = (self.mesh.endpoints.get(key), old.endpoints.get(key));
            let there = there.filter(|there| Some(&***there) == before).ok_or(Everything)?;
            if **there != *endpoints {
                self.has_no_rules_that_differ(there, endpoints)?;
                mesh.endpoints.insert(key.clone(), Arc::new(endpoints.clone()));
            }
        }
        Ok(())
    }

    /// # Errors
    /// Something else may have to be said of rules that are for these endpoints.
    fn has_no_rules_that_differ(&self, before: &Endpoints, after: &Endpoints) -> Result<(), Everything> {
        let all = &self.resources;
        if all.destination_rules.is_empty() && all.backend_tls_policies.is_empty() {
            return Ok(());
        }
        let may_be_said = self.facts.found.routed.reported.contains(&before.key)
            && !local::are_same_but_weights(before, after);
        if may_be_said || local::differ_for_rules(before, after) { Err(Everything) } else { Ok(()) }
    }

    /// Says `come`, and no longer `gone`.
    fn say(&mut self, gone: &HashSet<Problem>, come: HashSet<Problem>) -> Result<(), Everything> {
        if *gone == come {
            return Ok(());
        }
        let there = &mut self.facts.found.others.found;
        let was_there = |problem: &Problem| there.remove(problem);
        if !gone.iter().filter(|problem| !come.contains(problem)).all(was_there) {
            return Err(Everything);
        }
        there.extend(come);
        self.problems = self.facts.found.sorted();
        Ok(())
    }
}

/// Whether any of them is, or was, on the host of whoever calls it, or where machines have their credentials.
fn leads_home(entries: &[Pair<WorkloadEntrySpec>], slices: &[Pair<EndpointSliceSpec>]) -> bool {
    let entries = entries.iter().flat_map(|(old, new)| [old, new]).flatten();
    let mut hosts = entries.filter_map(|document| document.spec.address.as_ref());
    let slices = slices.iter().flat_map(|(old, new)| [old, new]).flatten();
    let mut addresses =
        slices.flat_map(|document| document.spec.addresses.iter().chain(&document.spec.ending));
    hosts.any(gateways::leads_home) || addresses.any(|one| gateways::leads_home(&Host::Ip(one.ip)))
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

/// A part of a mesh that is found by keys.
trait Keyed<K, V> {
    fn find(&self, key: &K) -> Option<&V>;
    fn put(&mut self, key: K, value: V);
    fn take_out(&mut self, key: &K);
}

impl<K: Ord + Clone, V: Clone> Keyed<K, V> for Shared<BTreeMap<K, V>> {
    fn find(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn take_out(&mut self, key: &K) {
        self.remove(key);
    }
}

impl<K: Ord + Clone, V: Clone> Keyed<K, V> for Divided<K, V> {
    fn find(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn put(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn take_out(&mut self, key: &K) {
        self.remove(key);
    }
}

/// Who owns what in a mesh.
struct OwnersIn<'m>(&'m mut Arc<Owners>);

impl Keyed<Host, Vec<OwnedPorts>> for OwnersIn<'_> {
    fn find(&self, key: &Host) -> Option<&Vec<OwnedPorts>> {
        self.0.0.get(key)
    }

    fn put(&mut self, key: Host, value: Vec<OwnedPorts>) {
        Arc::make_mut(self.0).0.insert(key, value);
    }

    fn take_out(&mut self, key: &Host) {
        Arc::make_mut(self.0).0.remove(key);
    }
}

/// Gives `map` what has become of its part `old`.
///
/// # Errors
/// `map` has not `old` in it, or has already what is new in `new`.
fn splice<K: Ord, V: PartialEq>(
    map: &mut impl Keyed<K, V>,
    old: &BTreeMap<K, V>,
    new: BTreeMap<K, V>,
) -> Result<(), Everything> {
    let is_there = old.iter().all(|(key, value)| map.find(key) == Some(value));
    let mut added = new.keys().filter(|key| !old.contains_key(*key));
    if !is_there || added.any(|key| map.find(key).is_some()) {
        return Err(Everything);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        map.take_out(key);
    }
    for (key, value) in new {
        if old.get(&key) != Some(&value) {
            map.put(key, value);
        }
    }
    Ok(())
}
