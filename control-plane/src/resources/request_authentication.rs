//! `RequestAuthentication`: whose tokens (JWT) workloads accept.

mod read;
#[cfg(test)]
mod tests;
mod url;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderName;
use selvedge_model::token::{ClaimHeader, Places};
use serde::Deserialize;

pub use self::url::{BadUrl, key_url};
use super::{
    authorization_policy::DRY_RUN,
    kinds::{Feedback, ISTIO_SECURITY, ResourceKind},
    selector::SelectorYaml,
    targets::TargetYaml,
    values::GoDuration,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new(
    "RequestAuthentication",
    ISTIO_SECURITY,
    "requestauthentications",
    Feedback::Conditions,
)
.policy()
.with_annotations(&[&[DRY_RUN]])
.read_as_spec::<Yaml>(|document| document.with_spec_or_default(read::read));

/// What a `RequestAuthentication` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestAuthenticationSpec {
    /// The labels of the workloads that it is for; empty = all of its namespace (or of the mesh).
    pub selector: BTreeMap<String, String>,
    /// Of one that cannot be used: whether it cannot be read which workloads it is for, so that it may be for each of its
    /// namespace, and for each gateway of it. With `services`: for the gateways alone.
    pub any_workload: bool,
    /// The Services of its namespace that it is for; `None` = it names neither those nor Gateways, and `selector` counts.
    pub services: Option<Vec<String>>,
    /// The Gateways of its namespace that it is for, besides.
    pub gateways: Vec<String>,
    /// Its rules. Of one that cannot be used: those that can be read, and no other token is accepted.
    pub rules: Vec<JwtRule>,
}

/// The tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// Who issues them.
    pub issuer: String,
    /// For whom they must be, any of these; none: for anybody.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// Where the tokens are.
    pub places: Places,
    /// Whether the app gets them.
    pub forward: bool,
    /// The header that tells the app all claims.
    pub payload_header: Option<HeaderName>,
    /// The headers that tell the app a claim each.
    pub claim_headers: Vec<ClaimHeader>,
    /// The claims, besides the usual ones, whose texts are lists.
    pub lists: Vec<String>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In the document: a JSON Web Key Set.
    Inline(Arc<str>),
    /// At an address, where the control plane fetches them.
    Fetched {
        /// Where.
        address: KeyAddress,
        /// How long a fetch may take, with all that belongs to it.
        timeout: Duration,
    },
}

/// Where keys are fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyAddress {
    /// The URL of the keys, or of an issuer that says where they are.
    pub url: String,
    /// Whether `url` is an issuer's: its keys are where its OpenID configuration says.
    pub is_issuer: bool,
}

impl KeyAddress {
    /// The field of a rule that names it.
    pub fn field(&self) -> &'static str {
        if self.is_issuer { "issuer" } else { "jwksUri" }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    selector: SelectorYaml,
    target_ref: Option<TargetYaml>,
    target_refs: Vec<TargetYaml>,
    jwt_rules: Vec<RuleYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleYaml {
    issuer: String,
    audiences: Vec<String>,
    jwks_uri: Option<String>,
    jwks: Option<String>,
    from_headers: Vec<HeaderYaml>,
    from_params: Vec<String>,
    from_cookies: Vec<String>,
    output_payload_to_header: String,
    forward_original_token: bool,
    output_claim_to_headers: Vec<ClaimYaml>,
    timeout: Option<GoDuration>,
    space_delimited_claims: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeaderYaml {
    name: String,
    prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimYaml {
    header: String,
    claim: String,
}
