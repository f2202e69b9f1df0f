//! A change of workloads, endpoints and `Service`s, of which the documents that it can reach are compiled as they were and as they are.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use selvedge_model::{AppConnections, Endpoints, Host, Mesh, ServiceKey, Workload, WorkloadName};

use super::{
    super::{Problems, clients, gateways, inbound, meant, routes::Routing, workloads::KnownWorkload},
    Last,
    changes::ChangedWorkloads,
    edits::Edits,
    entries::{addresses_in, is_of_endpoints_alone},
    index::{Everything, addresses_of, both},
    local::{self, Differing, Local},
    network, policies,
    routing::has_gateways,
    splice::{NamesIn, OwnersIn, splice},
};
use crate::{
    problem::{DocumentName, Problem},
    resources::{Resources, ServiceEntrySpec},
};

/// Workloads as their own sidecars see them.
type Finished = BTreeMap<WorkloadName, Arc<Workload>>;

/// What becomes of the order of `WorkloadEntry`s, pods and `Service`s.
#[derive(Debug, Clone, Copy)]
struct Order {
    /// Whether the same workloads are there, in the same order.
    is_kept: bool,
    /// Whether some that were there have another place among each other.
    has_moved: bool,
}

/// What else may have become of hosts, besides what is behind them.
#[derive(Debug, Default)]
pub(super) struct Hosts<'r> {
    /// Where requests go now; `None`: as before.
    pub(super) routing: Option<&'r Routing<'r>>,
    /// The hosts of which servers in some namespace connect to their apps otherwise now.
    pub(super) connected: HashSet<Arc<str>>,
}

impl Last {
    /// Takes over what has become of workloads, endpoints and services. Gives the hosts of which something else may have to be said by
    /// rules, because their endpoints are others.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_workloads(
        &mut self,
        changed: ChangedWorkloads,
        hosts: &Hosts<'_>,
    ) -> Result<BTreeSet<Arc<str>>, Everything> {
        let ChangedWorkloads { entries, pods, services, service_entries, peer_authentications, .. } =
            &changed;
        let secured = self.workloads_of(&peer_authentications.changed)?;
        let policies = both(&peer_authentications.changed).map(|policy| policy.name.clone()).collect();
        if has_gateways(&self.resources) && self.may_lead_home(&changed, &secured) {
            return Err(Everything);
        }
        let order = Order {
            is_kept: entries.is_in_place
                && pods.is_in_place
                && !services.has_moved
                && !service_entries.has_moved,
            has_moved: entries.has_moved || pods.has_moved,
        };
        let mut of_services: HashSet<Arc<str>> =
            both(&services.changed).map(|document| self.index.host(document)).collect();
        of_services.extend(other_hosts_of(service_entries));
        let mut connected = hosts.connected.clone();
        connected.retain(|host| !of_services.contains(host));
        let (all, index) = (&mut self.resources, &mut self.index);
        let affected = index.affected(&changed, &connected, &secured)?;
        let before = affected.of(index, all);
        let ChangedWorkloads { entries, pods, slices, services, service_entries, peer_authentications } =
            changed;
        let of_before = Resources { peer_authentications: all.peer_authentications.clone(), ..before };
        index.change_entries(&entries.apply(&mut all.workload_entries))?;
        index.change_pods(&pods.apply(&mut all.pods))?;
        index.change_slices(&slices.apply(&mut all.endpoint_slices))?;
        index.change_services(&services.apply(&mut all.services))?;
        index.change_service_entries(&service_entries.apply(&mut all.service_entries));
        peer_authentications.apply(&mut all.peer_authentications);
        let of_after =
            Resources { peer_authentications: all.peer_authentications.clone(), ..affected.of(index, all) };
        connected.extend(of_services);
        self.take_over(&of_before, &of_after, order, (hosts.routing, &connected), policies)
    }

    /// Takes over what has become of the documents `before`, which are `after` now. Servers connect to their apps otherwise for the
    /// hosts that are `connected`.
    fn take_over(
        &mut self,
        before: &Resources,
        after: &Resources,
        order: Order,
        (routing, connected): (Option<&Routing<'_>>, &HashSet<Arc<str>>),
        mut policies: BTreeSet<DocumentName>,
    ) -> Result<BTreeSet<Arc<str>>, Everything> {
        let settings = Arc::clone(&self.settings);
        let [mut of_before, mut of_after] = std::array::from_fn(|_| Problems::default());
        let inbound_before = inbound::Policies::new(before, &settings, &mut of_before);
        let inbound_after = inbound::Policies::new(after, &settings, &mut of_after);
        let mut old = Local::new(before, &settings, &inbound_before, &self.mesh).ok_or(Everything)?;
        let mut new = Local::new(after, &settings, &inbound_after, &self.mesh).ok_or(Everything)?;
        // What is known by name is ranked by the places of all workloads.
        let named = &self.mesh.named;
        let are_named = !named.endpoints.is_empty() || !named.occupants.is_empty();
        if are_named && !(order.is_kept && old.ranked().eq(new.ranked())) {
            return Err(Everything);
        }
        self.facts.behind.follow(&old.behind, &new.behind).ok_or(Everything)?;
        self.facts.entry_room.follow(&old.entry_room, &new.entry_room).ok_or(Everything)?;
        let mut mesh = self.mesh.clone();
        splice(&mut mesh.exported, &old.exported, std::mem::take(&mut new.exported))?;
        splice(&mut NamesIn(&mut mesh.owners), &old.names, std::mem::take(&mut new.names))?;
        splice(&mut OwnersIn(&mut mesh.owners), &old.owners, std::mem::take(&mut new.owners))?;
        let differing = Differing::new(&old, &new);
        let is_asked =
            self.is_beyond_policies(&differing.of(&old, &new), &new, order)? || !connected.is_empty();
        let [old_finished, new_finished] = match is_asked {
            true => {
                let (finished, is_said_of_limits) = self.finished(&mut old, &mut new, routing, connected)?;
                self.are_limits_anew |= is_said_of_limits;
                finished
            }
            false => [self.unfinished(&old).ok_or(Everything)?, self.unfinished(&new).ok_or(Everything)?],
        };
        self.take_over_networked(&old, &new)?;
        self.are_workloads_anew |= !differing.of(&old, &new).is_empty();
        self.are_limits_anew |=
            !self.resources.rate_limits.is_empty() && !are_some_more(&differing.of(&old, &new), &new);
        let hosts = self.take_over_endpoints(&mut mesh, &old, &new)?;
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
        if let Some(faced) = &mut self.facts.faced {
            splice(faced, &old.faced(), new.faced())?;
            let differing = differing.of(&old, &new);
            policies.extend(policies::concerned(&self.resources, &settings, &differing, (&old, &new)));
        }
        if old.problems.is_cut_short() || new.problems.is_cut_short() {
            return Err(Everything);
        }
        let (gone, come) = (old.problems.found, new.problems.found);
        self.mesh = mesh;
        self.say(&gone, come)?;
        self.say_of_policies(&policies);
        Ok(hosts)
    }

    /// Whether any of `changed`, or of the workloads that are called otherwise because they are `secured` otherwise, is or was on the
    /// host of whoever calls it, or where machines have their credentials. That gateways are led there is told where these are
    /// compiled.
    fn may_lead_home(&self, changed: &ChangedWorkloads, secured: &[WorkloadName]) -> bool {
        let entry = |name: &WorkloadName| {
            let key = (Arc::from(name.namespace()), Arc::from(name.name()));
            self.index.entries.get(&key).map(|document| &**document)
        };
        let secured = secured.iter().filter_map(entry);
        let entries = both(&changed.entries.changed).chain(secured);
        let mut hosts = entries.filter_map(|document| document.spec.address.as_ref());
        let of_entries = both(&changed.service_entries.changed).flat_map(|entry| addresses_in(&entry.spec));
        let mut addresses = both(&changed.slices.changed).flat_map(addresses_of).chain(of_entries);
        hosts.any(gateways::leads_home) || addresses.any(|ip| gateways::leads_home(&Host::Ip(ip)))
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
        if old.labels().eq(new.labels()) {
            return Ok(());
        }
        let selectors = clients::Selectors::new(&self.resources);
        if selectors.is_empty() {
            return Ok(());
        }
        let before = selectors.of_workloads(old.labels(), &self.mesh.selected);
        let after = selectors.of_workloads(new.labels(), &self.mesh.selected);
        splice(&mut mesh.selected, &before, after)?;
        let is_same =
            mesh.selected.is(&self.mesh.selected) || clients::there(&mesh.selected) == *self.facts.selected;
        if is_same { Ok(()) } else { Err(Everything) }
    }

    /// The workloads of `local` as they are in the mesh, of which policies make the same as before.
    fn unfinished(&self, local: &Local<'_>) -> Option<Finished> {
        let found = |name: &WorkloadName| Some((name.clone(), Arc::clone(self.mesh.workloads.get(name)?)));
        local.names().map(found).collect()
    }

    /// What policies make of the workloads of `old` and `new`; and whether something else is to be said of `RateLimit`s.
    ///
    /// # Errors
    /// Policies make something else of others too, or something else is to be said of policies.
    fn finished(
        &self,
        old: &mut Local<'_>,
        new: &mut Local<'_>,
        routing: Option<&Routing<'_>>,
        connected: &HashSet<Arc<str>>,
    ) -> Result<([Finished; 2], bool), Everything> {
        let (all, known, settings) = (&self.resources, &self.facts.connections, &self.settings);
        let is_unknown = Cell::new(false);
        let without_routing = |service: &ServiceKey, namespace: &str| {
            if all.destination_rules.is_empty() {
                return known.get(service, namespace, AppConnections::default);
            }
            let known = known.known(service, namespace);
            is_unknown.set(is_unknown.get() || known.is_none());
            known.unwrap_or_default()
        };
        let (old, [said, said_of_limits]) = old.finish(all, settings, &self.mesh, without_routing);
        let (new, [says, says_of_limits]) = match routing {
            None => new.finish(all, settings, &self.mesh, without_routing),
            Some(routing) => {
                known.forget(connected);
                new.finish(all, settings, &self.mesh, |service, namespace| {
                    known.get(service, namespace, || routing.app_connections(service, namespace))
                })
            }
        };
        if is_unknown.get() || said != says {
            return Err(Everything);
        }
        let finished = [old, new].map(|mut finished| {
            network::with_rules_of(&self.mesh, &mut finished);
            finished
        });
        Ok((finished, said_of_limits != says_of_limits))
    }

    /// Whether policies are to be asked, because workloads are not what they were but for their weights.
    ///
    /// # Errors
    /// There are policies that may make something else of other workloads, or may be told something else of all
    /// workloads together.
    fn is_beyond_policies(
        &self,
        differing: &[&KnownWorkload<'_>],
        new: &Local<'_>,
        order: Order,
    ) -> Result<bool, Everything> {
        let all = &self.resources;
        // Two of several are named by the order of workloads.
        if (!differing.is_empty() || order.has_moved) && all.telemetries.len() > 1 {
            return Err(Everything);
        }
        if !meant::is_nothing(all) && !are_some_more(differing, new) {
            return Err(Everything);
        }
        Ok(!differing.is_empty())
    }

    /// Gives `mesh` the endpoints that are different. Gives the hosts of which something else may have to be said by rules then.
    fn take_over_endpoints(
        &self,
        mesh: &mut Mesh,
        old: &Local<'_>,
        new: &Local<'_>,
    ) -> Result<BTreeSet<Arc<str>>, Everything> {
        let mut hosts = BTreeSet::new();
        for (key, before) in &old.endpoints {
            let there = self.mesh.endpoints.get(key).filter(|there| ***there == *before).ok_or(Everything)?;
            match new.endpoints.get(key) {
                Some(endpoints) if **there == *endpoints => {}
                Some(endpoints) => {
                    if self.may_differ_for_rules(there, endpoints) {
                        hosts.insert(Arc::clone(&key.host));
                    }
                    mesh.endpoints.insert(key.clone(), Arc::new(endpoints.clone()));
                }
                None => drop(mesh.endpoints.remove(key)),
            }
        }
        for (key, endpoints) in new.endpoints.iter().filter(|(key, _)| !old.endpoints.contains_key(*key)) {
            if mesh.endpoints.insert(key.clone(), Arc::new(endpoints.clone())).is_some() {
                return Err(Everything);
            }
        }
        Ok(hosts)
    }

    /// Whether something else may have to be said of rules that are for these endpoints.
    fn may_differ_for_rules(&self, before: &Endpoints, after: &Endpoints) -> bool {
        let all = &self.resources;
        let are_rules = !all.destination_rules.is_empty() || !all.backend_tls_policies.is_empty();
        let may_be_said = self.facts.found.routed.reported.contains(&before.key)
            && !local::are_same_but_weights(before, after);
        are_rules && (may_be_said || local::differ_for_rules(before, after))
    }

    /// Says `come`, and no longer `gone`.
    fn say(&mut self, gone: &HashSet<Problem>, come: HashSet<Problem>) -> Result<(), Everything> {
        if *gone == come {
            return Ok(());
        }
        let others = &mut self.facts.found.others;
        if gone.iter().chain(&come).any(|problem| others.leaves_out(problem)) {
            return Err(Everything);
        }
        let there = &mut others.found;
        let was_there = |problem: &Problem| there.remove(problem);
        if !gone.iter().filter(|problem| !come.contains(problem)).all(was_there) {
            return Err(Everything);
        }
        there.extend(come);
        self.is_said_anew = true;
        Ok(())
    }
}

/// The hosts of those `ServiceEntry`s of which more than the endpoints has changed.
pub(super) fn other_hosts_of(changed: &Edits<ServiceEntrySpec>) -> impl Iterator<Item = Arc<str>> {
    let others = changed.changed.iter().filter(|pair| !is_of_endpoints_alone(pair));
    let hosts = others.flat_map(|(old, new)| [old, new]).flatten().flat_map(|document| &document.spec.hosts);
    hosts.map(|host| Arc::from(host.as_str()))
}

/// Whether what is said of all workloads that a policy is for is not changed by `differing`: they are some more of sorts at which all
/// is enforced.
fn are_some_more(differing: &[&KnownWorkload<'_>], new: &Local<'_>) -> bool {
    differing.iter().all(|one| one.enforces_all() && new.has_one_like(one, differing))
}
