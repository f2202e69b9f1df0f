//! The Secrets that Istio's `Gateway`s name, each in the namespace of the workloads that serve it.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::facts;

use super::{
    super::{WantedFrom, WantedObject},
    Gateway,
    secure::AUTHORITIES_SUFFIX,
};
use crate::resources::{Resources, istio_gateway::ServerTls};

/// Adds those that some workload which is a gateway needs. Whether there is the companion Secret of a certificate, in which its
/// clients' authorities may be, is not known before it is asked for.
pub(in super::super) fn add_wanted<'a>(resources: &'a Resources, all: &mut WantedFrom<'a>) {
    for (namespace, labels) in workloads(resources) {
        let serves = |gateway: &&Gateway| facts::selects(&gateway.spec.selector, labels);
        for gateway in resources.istio_gateways.iter().map(|gateway| &**gateway).filter(serves) {
            let named = all.entry(&*gateway.name.namespace).or_default();
            for tls in gateway.spec.servers.iter().filter_map(|server| server.tls.as_ref()) {
                let secret =
                    |name: String| WantedObject { kind: "Secret", namespace: namespace.to_owned(), name };
                named.extend(secrets(tls).into_iter().map(secret));
            }
        }
    }
}

/// The namespace and the labels of each workload that is a gateway.
pub(in super::super) fn workloads(resources: &Resources) -> BTreeSet<(&str, &BTreeMap<String, String>)> {
    let pods = resources.pods.iter().filter(|pod| pod.spec.gateway.is_some());
    let pods = pods.map(|pod| (&*pod.name.namespace, &pod.metadata.labels));
    let entries = resources.workload_entries.iter().filter(|entry| entry.spec.gateway.is_some());
    pods.chain(entries.map(|entry| (&*entry.name.namespace, &entry.spec.labels))).collect()
}

fn secrets(tls: &ServerTls) -> Vec<String> {
    let ServerTls::Terminate { secrets, clients, .. } = tls else { return Vec::new() };
    let mut names = secrets.clone();
    if let Some(clients) = clients {
        let beside = || secrets.first().map(|own| format!("{own}{AUTHORITIES_SUFFIX}"));
        names.extend(clients.authorities.clone().or_else(beside));
    }
    names
}
