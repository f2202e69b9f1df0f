//! `GlobalNetworkSet` and `NetworkSet`: addresses with labels, which selectors of policies select.

use ipnet::IpNet;
use selvedge_model::policy::address;
use serde::Deserialize;

use super::{KEPT, WRITTEN};
use crate::resources::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind},
    typed::FieldError,
    unread::{Read, Unread},
};

const PLURAL: &str = "networksets";
const GLOBAL_PLURAL: &str = "globalnetworksets";

/// Its lines in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const GLOBAL: ResourceKind =
    kind("GlobalNetworkSet", WRITTEN, GLOBAL_PLURAL).cluster_wide();
/// As clusters keep it.
pub(in crate::resources) const GLOBAL_KEPT: ResourceKind = kind("GlobalNetworkSet", KEPT, GLOBAL_PLURAL)
    .cluster_wide()
    .called("GlobalNetworkSet.crd.projectcalico.org");
/// In a namespace.
pub(in crate::resources) const NAMESPACED: ResourceKind = kind("NetworkSet", WRITTEN, PLURAL);
/// As clusters keep it.
pub(in crate::resources) const NAMESPACED_KEPT: ResourceKind =
    kind("NetworkSet", KEPT, PLURAL).called("NetworkSet.crd.projectcalico.org");

const fn kind(kind: &'static str, versions: &'static [&'static str], plural: &'static str) -> ResourceKind {
    ResourceKind::new(kind, versions, plural, Feedback::Events)
        .with_any_annotations()
        .read_as_spec::<Yaml>(read_document)
}

fn read_document(document: &Unread<'_>) -> Read {
    document.with_spec_or_default(|yaml, reading| read(&yaml, reading))
}

/// What a set of addresses says; its labels are in its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSetSpec {
    /// Its addresses.
    pub nets: Vec<IpNet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Yaml {
    nets: Vec<String>,
}

fn read(yaml: &Yaml, _: &mut Reading<'_>) -> Result<NetworkSetSpec, FieldError> {
    Ok(NetworkSetSpec { nets: nets(&yaml.nets, "spec.nets")? })
}

/// The blocks of addresses of the list `field`.
pub(super) fn nets(texts: &[String], field: &str) -> Result<Vec<IpNet>, FieldError> {
    let read = |(number, text): (usize, &String)| {
        address::block(text).ok_or_else(|| {
            let message = format!("{text:?} is not a block of addresses; write for example 10.0.0.0/8");
            wrong(format!("{field}[{number}]"), message)
        })
    };
    texts.iter().enumerate().map(read).collect()
}
