//! The document that describes a workload: a `WorkloadEntry` or a `Pod`, and what either of them says.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::{Host, HostPort, Locality};

use super::super::{
    Problems,
    claims::{self, Claim, ClaimedBy, Ports},
    telemetry,
};
use crate::{
    problem::DocumentName,
    resources::{
        Document, GatewayAnnotations, PodSpec, Seniority, TelemetryAnnotations, WorkloadEntrySpec,
        gateway_role::GATEWAY_ANNOTATION,
    },
};

/// The document that describes a workload.
#[derive(Debug, Clone, Copy)]
pub(super) enum WorkloadDocument<'a> {
    Entry(&'a Document<WorkloadEntrySpec>),
    Pod(&'a Document<PodSpec>),
}

impl<'a> WorkloadDocument<'a> {
    pub(super) fn name(self) -> &'a DocumentName {
        match self {
            Self::Entry(document) => &document.name,
            Self::Pod(document) => &document.name,
        }
    }

    /// Whether its document cannot be used, so that it is unknown which policies select it.
    pub(super) fn is_unusable(self) -> bool {
        match self {
            Self::Entry(document) => document.unusable,
            Self::Pod(_) => false,
        }
    }

    pub(super) fn labels(self) -> &'a BTreeMap<String, String> {
        match self {
            Self::Entry(document) => &document.spec.labels,
            Self::Pod(document) => &document.metadata.labels,
        }
    }

    pub(super) fn annotations(self) -> &'a BTreeMap<String, String> {
        match self {
            Self::Entry(document) => &document.metadata.annotations,
            Self::Pod(document) => &document.metadata.annotations,
        }
    }

    /// What its annotations say of what is written down and traced.
    pub(super) fn telemetry(self, problems: &mut Problems) -> TelemetryAnnotations {
        match self {
            Self::Entry(document) => telemetry::said(document, problems),
            Self::Pod(document) => telemetry::said(document, problems),
        }
    }

    /// Which gateway it says it is.
    pub(super) fn gateway(self) -> Option<&'a GatewayAnnotations> {
        match self {
            Self::Entry(document) => document.spec.gateway.as_ref(),
            Self::Pod(document) => document.spec.gateway.as_ref(),
        }
    }

    /// Reports that it cannot be the gateway that it says it is.
    pub(super) fn gateway_error(self, problems: &mut Problems, message: String) {
        let field = format!("metadata.annotations[{GATEWAY_ANNOTATION}]");
        match self {
            Self::Entry(document) => problems.error_alone(document, &field, message),
            Self::Pod(document) => problems.error_alone(document, &field, message),
        }
    }

    pub(super) fn service_account(self) -> &'a str {
        match self {
            Self::Entry(document) => &document.spec.service_account,
            Self::Pod(document) => &document.spec.service_account,
        }
    }

    pub(super) fn meshed(self) -> bool {
        match self {
            Self::Entry(document) => document.spec.meshed,
            Self::Pod(document) => document.spec.meshed,
        }
    }

    /// Its ports that connections reach without its sidecar; first and last of each range.
    pub(super) fn skipped(self) -> &'a [(u16, u16)] {
        match self {
            Self::Entry(_) => &[],
            Self::Pod(document) => &document.spec.skipped_ports,
        }
    }

    /// Whether connections to `port` pass by its sidecar.
    pub(super) fn skips(self, port: u16) -> bool {
        self.skipped().iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub(super) fn inbound(self) -> Option<&'a HostPort> {
        match self {
            Self::Entry(document) => document.spec.inbound.as_ref(),
            Self::Pod(_) => None,
        }
    }

    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Entry(document) => document.spec.weight,
            Self::Pod(_) => 1,
        }
    }

    /// The node that it runs on, if that is known of it.
    pub(super) fn node(self) -> Option<&'a str> {
        match self {
            Self::Entry(_) => None,
            Self::Pod(document) => document.spec.node.as_deref(),
        }
    }

    /// Where it says that it is.
    pub(super) fn locality(self) -> Option<&'a Locality> {
        match self {
            Self::Entry(document) => Some(&document.spec.locality),
            Self::Pod(_) => None,
        }
    }

    pub(super) fn opaque_ports(self) -> &'a [(u16, u16)] {
        match self {
            Self::Entry(document) => &document.spec.opaque_ports,
            Self::Pod(document) => &document.spec.opaque_ports,
        }
    }

    pub(super) fn ports(self) -> BTreeSet<u16> {
        match self {
            Self::Entry(document) => document.spec.ports.values().copied().collect(),
            Self::Pod(document) => document.spec.ports.iter().map(|(_, port)| *port).collect(),
        }
    }

    /// Its ports that have names.
    pub(super) fn named_ports(self) -> Vec<(&'a str, u16)> {
        match self {
            Self::Entry(document) => {
                document.spec.ports.iter().map(|(name, port)| (name.as_str(), *port)).collect()
            }
            Self::Pod(document) => {
                let named = document.spec.ports.iter().filter(|(name, _)| !name.is_empty());
                named.map(|(name, port)| (name.as_str(), *port)).collect()
            }
        }
    }

    pub(super) fn hosts(self) -> Vec<Host> {
        match self {
            Self::Entry(document) => document.spec.address.iter().cloned().collect(),
            Self::Pod(document) => document.spec.addresses.iter().map(|ip| Host::Ip(*ip)).collect(),
        }
    }

    /// Whether others may have its address too, so that only a port tells which one is meant.
    pub(super) fn shares_address(self) -> bool {
        matches!(self, Self::Pod(document) if document.spec.host_network)
    }

    /// Whether its address is its own for as long as it lives, since a cluster gave it out.
    pub(super) fn owns_address(self) -> bool {
        self.what() == ClaimedBy::Pod && self.in_cluster()
    }

    pub(super) fn in_cluster(self) -> bool {
        match self {
            Self::Entry(document) => claims::in_cluster(&document),
            Self::Pod(document) => claims::in_cluster(&document),
        }
    }

    pub(super) fn what(self) -> ClaimedBy {
        match self {
            Self::Entry(_) => ClaimedBy::Other,
            Self::Pod(document) if document.spec.host_network => ClaimedBy::PodOfNode,
            Self::Pod(_) => ClaimedBy::Pod,
        }
    }

    pub(super) fn seniority(self) -> Seniority<'a> {
        match self {
            Self::Entry(document) => document.seniority(),
            Self::Pod(document) => document.seniority(),
        }
    }

    /// Whether it has every port of its address: a pod has, and whose sidecar takes every connection.
    pub(super) fn has_all_ports(self) -> bool {
        match self {
            Self::Entry(document) => document.spec.meshed && document.spec.inbound.is_none(),
            Self::Pod(document) => !document.spec.host_network,
        }
    }

    pub(super) fn claim(self, ports: &BTreeSet<u16>) -> Claim<'a> {
        let ports = if self.has_all_ports() { Ports::All } else { Ports::These(ports.clone()) };
        match self {
            Self::Entry(document) => claims::claim(document, self.what(), ports),
            Self::Pod(document) => claims::claim(document, self.what(), ports),
        }
    }

    /// Reports a name that no workload can have.
    pub(super) fn error(self, problems: &mut Problems, message: String) {
        match self {
            Self::Entry(document) => problems.error_alone(document, "metadata", message),
            Self::Pod(document) => problems.error_alone(document, "metadata", message),
        }
    }

    /// Whether both say the same, but for the weight of a `WorkloadEntry`.
    pub(super) fn is_same_but_weight(self, other: Self) -> bool {
        match (self, other) {
            (Self::Entry(one), Self::Entry(other)) => {
                std::ptr::eq(one, other)
                    || (&one.metadata, &one.location, one.unusable)
                        == (&other.metadata, &other.location, other.unusable)
                        && one.spec == WorkloadEntrySpec { weight: one.spec.weight, ..other.spec.clone() }
            }
            (Self::Pod(one), Self::Pod(other)) => std::ptr::eq(one, other) || one == other,
            _ => false,
        }
    }

    /// Whether policies ask the same of both, but for their names, accounts and addresses.
    pub(super) fn is_alike(self, other: Self) -> bool {
        self.labels() == other.labels()
            && self.annotations() == other.annotations()
            && (self.is_unusable(), self.meshed(), self.shares_address())
                == (other.is_unusable(), other.meshed(), other.shares_address())
            && self.in_cluster() == other.in_cluster()
            && self.inbound().is_some() == other.inbound().is_some()
            && self.skipped() == other.skipped()
            && self.opaque_ports() == other.opaque_ports()
            && self.named_ports() == other.named_ports()
            && self.gateway() == other.gateway()
    }
}
