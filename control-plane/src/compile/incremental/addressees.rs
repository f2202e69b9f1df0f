//! A change of workloads, routes and rules, and whom documents are for.

use std::sync::Arc;

use super::{
    super::{
        MeshSettings, Problems,
        addressees::{Addressees, asks_for_labels},
        clients::Labels,
    },
    Last,
    changes::{ChangedRoutes, ChangedWorkloads, Changes},
    edits::{Edits, Pair},
    index::both,
    network::ChangedNetwork,
};
use crate::resources::{Document, Resources};

impl Last {
    /// Tells which documents are for nobody, if that may be others now that `changes` make the documents `resources`.
    pub(super) fn follow_addressees(&mut self, changes: &Changes, resources: &Resources) {
        let (addressees, settings) = (&mut self.facts.addressees, &*self.settings);
        let is_news = follow(addressees, changes, resources, settings);
        if is_news {
            let mut problems = Problems::default();
            addressees.report(resources, settings, &mut problems);
            self.facts.found.addressees = problems;
            self.is_said_anew = true;
        }
    }
}

fn follow(
    addressees: &mut Addressees,
    changes: &Changes,
    resources: &Resources,
    settings: &MeshSettings,
) -> bool {
    let Changes { workloads, routes, .. } = changes;
    if both(&routes.virtual_services.changed).any(asks_for_labels) {
        *addressees = Addressees::new(resources, settings);
        return true;
    }
    let mut is_news = addressees.note_known(resources);
    // Who is asked for by labels stays the same, so that not all workloads are looked at.
    let may_be_exported_otherwise = !routes.virtual_services.changed.is_empty()
        || !routes.destination_rules.changed.is_empty()
        || !workloads.service_entries.changed.is_empty();
    if may_be_exported_otherwise {
        addressees.look_for_namespaces(resources, settings);
        is_news = true;
    }
    if addressees.ask_for_namespaces() {
        is_news |= changes.are_in(|namespace| addressees.ask_for(namespace));
    }
    if addressees.ask_for_labels() {
        is_news |= note(&workloads.entries.changed, |entry| &entry.spec.labels, addressees);
        is_news |= note(&workloads.pods.changed, |pod| &pod.metadata.labels, addressees);
    }
    is_news
}

/// Notes those of `changed` that are there now with other labels than before.
fn note<T>(
    changed: &[Pair<T>],
    labels: impl Fn(&Document<T>) -> &Labels,
    addressees: &mut Addressees,
) -> bool {
    let mut is_news = false;
    for (old, new) in changed {
        if let (Some(old), Some(new)) = (old, new)
            && old.name.namespace == new.name.namespace
            && labels(old) == labels(new)
        {
            continue;
        }
        let noted = [(old, false), (new, true)];
        for (document, is_there) in
            noted.into_iter().filter_map(|(one, is_there)| Some((one.as_ref()?, is_there)))
        {
            let document: &Arc<Document<T>> = document;
            is_news |= addressees.note(&document.name.namespace, labels(document), is_there);
        }
    }
    is_news
}

impl Changes {
    /// Whether any of the documents that are others, or were, is in a namespace that `is_meant`.
    fn are_in(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        fn any<T>(edits: &Edits<T>, is_meant: &impl Fn(&str) -> bool) -> bool {
            both(&edits.changed).any(|document| is_meant(&document.name.namespace))
        }
        let Self { workloads, authorizations, authentications, limits, network, routes } = self;
        let ChangedWorkloads { entries, pods, slices, services, service_entries, peer_authentications } =
            workloads;
        let ChangedNetwork { kubernetes, calico } = network;
        let ChangedRoutes { virtual_services, http_routes, tcp_routes, destination_rules } = routes;
        any(entries, &is_meant)
            || any(pods, &is_meant)
            || any(slices, &is_meant)
            || any(services, &is_meant)
            || any(service_entries, &is_meant)
            || any(peer_authentications, &is_meant)
            || any(authorizations, &is_meant)
            || any(authentications, &is_meant)
            || any(limits, &is_meant)
            || any(kubernetes, &is_meant)
            || any(calico, &is_meant)
            || any(virtual_services, &is_meant)
            || any(http_routes, &is_meant)
            || any(tcp_routes, &is_meant)
            || any(destination_rules, &is_meant)
    }
}
