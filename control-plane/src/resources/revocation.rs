//! `Revocation` (ours): who is refused from now on although its certificate is still valid.
//!
//! An entry that cannot be used is reported, and the other entries count: one mistyped line must not undo all other
//! revocations of the document.

use std::time::SystemTime;

use selvedge_model::{Serial, SpiffeId, WorkloadName};
use selvedge_ops::plain_within;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    document::Reading,
    kinds::{Feedback, OURS, ResourceKind},
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("Revocation", OURS, "revocations", Feedback::Events)
    .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `Revocation` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationSpec {
    /// Identities, each with its place in `spec.identities`.
    pub identities: Vec<(usize, RevokedIdentity)>,
    /// Workloads as they are written, each with its place in `spec.workloads`.
    pub workloads: Vec<(usize, String)>,
    /// Serial numbers of certificates.
    pub serials: Vec<Serial>,
    /// When it ends; `None` = never.
    pub until: Option<SystemTime>,
    /// Why, for whoever reads about a refusal.
    pub reason: Option<String>,
}

/// An identity as a document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokedIdentity {
    /// By its SPIFFE ID.
    Id(SpiffeId),
    /// By its service account; the namespace of the document, if it names none.
    Account {
        /// `namespace`.
        namespace: Option<String>,
        /// `serviceAccount`.
        service_account: String,
    },
}

/// A reason goes into the log of every refusal; so many bytes of it are kept.
const MAX_REASON: usize = 256;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    identities: Vec<IdentityYaml>,
    workloads: Vec<String>,
    serials: Vec<String>,
    until: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IdentityYaml {
    spiffe_id: Option<String>,
    namespace: Option<String>,
    service_account: Option<String>,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<RevocationSpec, FieldError> {
    let mut spec = RevocationSpec::default();
    for (place, identity) in yaml.identities.into_iter().enumerate() {
        let field = format!("spec.identities[{place}]");
        match identity.read() {
            Ok(identity) => spec.identities.push((place, identity)),
            Err(why) => reading.error(field, why),
        }
    }
    for (place, name) in yaml.workloads.into_iter().enumerate() {
        let whole = if name.contains('/') { name.clone() } else { format!("default/{name}") };
        match whole.parse::<WorkloadName>() {
            Ok(_) => spec.workloads.push((place, name)),
            Err(_) => {
                let why = format!("{name:?} is not a workload; write NAMESPACE/NAME, or NAME");
                reading.error(format!("spec.workloads[{place}]"), why);
            }
        }
    }
    for (place, serial) in yaml.serials.into_iter().enumerate() {
        match serial.parse() {
            Ok(serial) => spec.serials.push(serial),
            Err(why) => reading.error(format!("spec.serials[{place}]"), format!("{why}")),
        }
    }
    if let Some(until) = yaml.until {
        match OffsetDateTime::parse(&until, &Rfc3339) {
            Ok(until) => spec.until = Some(until.into()),
            Err(_) => reading.error(
                "spec.until",
                format!(
                    "{until:?} is not a date such as 2027-01-31T12:00:00Z; without a date the revocation does not end"
                ),
            ),
        }
    }
    spec.reason = yaml.reason.map(|reason| plain_within(&reason, MAX_REASON));
    if spec.identities.is_empty() && spec.workloads.is_empty() && spec.serials.is_empty() {
        reading.error("spec", "revokes nobody; name identities, workloads or serials");
    }
    Ok(spec)
}

impl IdentityYaml {
    fn read(self) -> Result<RevokedIdentity, String> {
        let Self { spiffe_id, namespace, service_account } = self;
        match (spiffe_id, namespace, service_account) {
            (Some(id), None, None) => {
                id.parse().map(RevokedIdentity::Id).map_err(|error| format!("spiffeId: {error}"))
            }
            (None, namespace, Some(service_account)) => {
                Ok(RevokedIdentity::Account { namespace, service_account })
            }
            _ => {
                Err("names no identity: give spiffeId alone, or serviceAccount and its namespace".to_owned())
            }
        }
    }
}
