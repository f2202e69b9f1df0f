//! `HTTPLocalRateLimitPolicy`: how many requests to a `Server` are let in.

use std::time::Duration;

use selvedge_model::limit::{MOST_IDENTITIES, MOST_LIMITS, MOST_REQUESTS, Quota};
use serde::Deserialize;

use super::{GROUP, Named, ReferenceYaml};
use crate::resources::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind},
    typed::FieldError,
};

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const KIND: ResourceKind = ResourceKind::new(
    "HTTPLocalRateLimitPolicy",
    &["policy.linkerd.io/v1alpha1"],
    "httplocalratelimitpolicies",
    Feedback::Events,
)
.read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What an `HTTPLocalRateLimitPolicy` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLimitSpec {
    /// The `Server` of its namespace that it is for.
    pub server: String,
    /// How many requests of all clients together.
    pub total: Option<Quota>,
    /// How many of each identity.
    pub identity: Option<Quota>,
    /// Service accounts that have another limit, which those of one entry share.
    pub overrides: Vec<(Quota, Vec<Named>)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    target_ref: ReferenceYaml,
    total: Option<LimitYaml>,
    identity: Option<LimitYaml>,
    #[serde(default)]
    overrides: Vec<OverrideYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LimitYaml {
    requests_per_second: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OverrideYaml {
    requests_per_second: u64,
    client_refs: Vec<ReferenceYaml>,
}

fn read(yaml: Yaml, _: &mut Reading<'_>) -> Result<ServerLimitSpec, FieldError> {
    let Yaml { target_ref, total, identity, overrides } = yaml;
    if !target_ref.is(GROUP, "Server") {
        let message = format!("{} cannot have this policy; name a Server of {GROUP}", target_ref.words());
        return Err(wrong("spec.targetRef", message));
    }
    if target_ref.namespace.is_some() {
        return Err(wrong(
            "spec.targetRef.namespace",
            "a policy is for what is in its own namespace; remove it",
        ));
    }
    let limit = |limit: Option<LimitYaml>, field: &str| {
        limit.map(|limit| quota(limit.requests_per_second, field)).transpose()
    };
    let (total, identity) = (limit(total, "spec.total")?, limit(identity, "spec.identity")?);
    // As Linkerd's own webhook does.
    if let (Some(total), Some(identity)) = (total, identity)
        && identity.requests > total.requests
    {
        let message = format!("{} is more than spec.total lets in; lower it", identity.requests);
        return Err(wrong("spec.identity.requestsPerSecond", message));
    }
    if overrides.len() > MOST_LIMITS {
        return Err(wrong(
            "spec.overrides",
            format!("has more than {MOST_LIMITS} entries; join some of them"),
        ));
    }
    let overrides = overrides.into_iter().enumerate();
    let overrides = overrides.map(|(number, one)| one.read(&format!("spec.overrides[{number}]"), total));
    let overrides: Vec<_> = overrides.collect::<Result<_, _>>()?;
    if total.is_none() && identity.is_none() && overrides.is_empty() {
        return Err(wrong("spec", "limits nothing; give total, identity or overrides"));
    }
    Ok(ServerLimitSpec { server: target_ref.name("spec.targetRef")?, total, identity, overrides })
}

impl OverrideYaml {
    fn read(self, field: &str, total: Option<Quota>) -> Result<(Quota, Vec<Named>), FieldError> {
        let quota = quota(self.requests_per_second, field)?;
        if total.is_some_and(|total| quota.requests > total.requests) {
            let message = format!("{} is more than spec.total lets in; lower it", quota.requests);
            return Err(wrong(format!("{field}.requestsPerSecond"), message));
        }
        if self.client_refs.is_empty() || self.client_refs.len() > MOST_IDENTITIES {
            let message = format!("must name 1 to {MOST_IDENTITIES} service accounts");
            return Err(wrong(format!("{field}.clientRefs"), message));
        }
        let account = |(number, one): (usize, ReferenceYaml)| {
            let at = format!("{field}.clientRefs[{number}]");
            match one.is("", "ServiceAccount") {
                true => Ok(Named { name: one.name(&at)?, namespace: one.namespace }),
                false => Err(wrong(at, format!("{} is no client; name a ServiceAccount", one.words()))),
            }
        };
        Ok((quota, self.client_refs.into_iter().enumerate().map(account).collect::<Result<_, _>>()?))
    }
}

/// As in Linkerd, so many may come at once as in a second.
fn quota(requests: u64, field: &str) -> Result<Quota, FieldError> {
    let read = u32::try_from(requests).ok().filter(|number| (1..=MOST_REQUESTS).contains(number));
    let requests = read.ok_or_else(|| {
        let message = format!("{requests} is not a number of requests; write 1 to {MOST_REQUESTS}");
        wrong(format!("{field}.requestsPerSecond"), message)
    })?;
    Ok(Quota { requests, per: Duration::from_secs(1), burst: requests })
}
