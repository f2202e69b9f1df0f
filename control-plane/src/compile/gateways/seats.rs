//! Which workloads are one gateway.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::WorkloadName;

use super::super::{
    clients::{Client, Labels, NO_LABELS, Selected},
    workloads::Workloads,
};

/// Labels that some document asks for, each with its value.
pub(super) type LabelsAsked<'a> = BTreeSet<(&'a str, &'a str)>;

/// A gateway, and workloads that run as it. All of them are in one namespace, and have the same of the labels that documents
/// ask for, so that no document is for one of them and not for another, nor any `DestinationRule`.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    /// The gateway's namespace.
    pub(super) namespace: &'a str,
    /// The gateway's name.
    pub(super) name: &'a str,
    /// The namespace of the workloads. They see services as clients in this namespace do.
    pub(super) workload_namespace: &'a str,
    /// The labels of the workloads that some document asks for.
    pub(super) labels: BTreeMap<String, String>,
    /// Those of their labels by which `DestinationRule`s select them.
    pub(super) selected: &'a Labels,
    /// The workloads. Empty: nobody serves the gateway, and it is compiled only to report what is wrong with it.
    pub(super) workloads: Vec<&'a WorkloadName>,
}

impl<'a> Seat<'a> {
    /// The workloads, as clients of services.
    pub(super) fn client(&self) -> Client<'a> {
        Client::selected(self.workload_namespace, self.selected)
    }
}

/// Every gateway that workloads say they are, and those of `named` that no workload is. Other labels than those that are
/// `asked` for, such as the names that pods of a StatefulSet have, make no difference.
pub(super) fn seats<'a>(
    (workloads, selected): (&'a Workloads<'a>, &'a Selected),
    asked: &LabelsAsked<'_>,
    named: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<Seat<'a>> {
    let mut seats: Vec<Seat<'a>> = Vec::new();
    let mut places = BTreeMap::new();
    for (workload, gateway, labels) in workloads.gateways() {
        let Some((namespace, name)) = gateway.name.split_once('/') else { continue };
        let workload_namespace = workload.namespace();
        let labels = labels.iter().filter(|(name, value)| asked.contains(&(name.as_str(), value.as_str())));
        let labels: Vec<_> = labels.collect();
        let selected = selected.get(workload).map_or(&NO_LABELS, |labels| &**labels);
        let key = (namespace, name, workload_namespace, labels.clone(), selected);
        let place = *places.entry(key).or_insert_with(|| {
            let labels = labels.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            let workloads = Vec::new();
            seats.push(Seat { namespace, name, workload_namespace, labels, selected, workloads });
            seats.len() - 1
        });
        seats[place].workloads.push(workload);
    }
    let mut known: BTreeSet<_> = seats.iter().map(|seat| (seat.namespace, seat.name)).collect();
    for (namespace, name) in named {
        if known.insert((namespace, name)) {
            let labels = BTreeMap::new();
            seats.push(Seat {
                namespace,
                name,
                workload_namespace: namespace,
                labels,
                selected: &NO_LABELS,
                workloads: Vec::new(),
            });
        }
    }
    seats
}
