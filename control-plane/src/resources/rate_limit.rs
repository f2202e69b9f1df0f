//! `RateLimit` (ours): how many requests of whom are let in.

mod global;

use std::{collections::BTreeMap, time::Duration};

use selvedge_model::{
    limit::{By, LONGEST_TIME, Limit, MOST_LIMITS, MOST_REQUESTS, Quota},
    policy::{AddressSet, address::block},
};
use serde::Deserialize;

pub use self::global::{GlobalSpec, ServerRef};
use super::{
    document::{Reading, wrong},
    kinds::{Feedback, OURS, ResourceKind},
    selector::SelectorYaml,
    typed::FieldError,
    values::{GoDuration, header_name},
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("RateLimit", OURS, "ratelimits", Feedback::Events)
    .read_as_spec::<Yaml>(|document| document.with_spec(read));

const SECOND: Duration = Duration::from_secs(1);
const SHORTEST_TIME: Duration = Duration::from_millis(1);
/// In what time a whole burst must have come back: so many nanoseconds have room in a bucket of a proxy.
const LONGEST_REFILL: Duration = Duration::from_nanos(1 << 61);

/// What a `RateLimit` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimitSpec {
    /// The labels of the workloads that it is for; empty = all of its namespace (or of the mesh).
    pub selector: BTreeMap<String, String>,
    /// What it is for instead; each in its own namespace.
    pub targets: Vec<LimitTarget>,
    /// Those of them that are Services.
    pub services: Vec<String>,
    /// Whether it refuses nothing.
    pub dry_run: bool,
    /// Whether every answer says how much is left.
    pub tells_all: bool,
    /// Its limits.
    pub limits: Vec<Limit>,
    /// The server that is asked as well; `None`: nobody is.
    pub global: Option<GlobalSpec>,
}

/// What a limit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitTarget {
    /// The workloads behind a Service, at the ports that it sends to.
    Service(String),
    /// The workloads that are a `Gateway`.
    Gateway(String),
    /// The requests that follow a route, at gateways.
    Route {
        /// `HTTPRoute` or `GRPCRoute`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The name of its one rule; `None`: all.
        rule: Option<String>,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    selector: SelectorYaml,
    target_refs: Vec<TargetYaml>,
    dry_run: bool,
    tell: TellWord,
    limits: Vec<LimitYaml>,
    global: Option<global::Yaml>,
}

/// Whose answers say how much is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum TellWord {
    #[default]
    Refused,
    Always,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TargetYaml {
    group: String,
    kind: String,
    name: String,
    section_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitYaml {
    key: Option<String>,
    header: Option<String>,
    requests: u64,
    per: Option<GoDuration>,
    burst: Option<u64>,
    exempt: Vec<String>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<RateLimitSpec, FieldError> {
    let Yaml { selector, target_refs, dry_run, tell, limits, global } = yaml;
    let selector = selector.read(reading)?;
    if !selector.is_empty() && !target_refs.is_empty() {
        return Err(wrong(
            "spec.targetRefs",
            "only one of selector and targetRefs may be set; remove the other",
        ));
    }
    if limits.is_empty() && global.is_none() {
        let message =
            "limits nothing; give at least one limit, such as {requests: 10}, or a server (spec.global)";
        return Err(wrong("spec.limits", message));
    }
    if limits.len() > MOST_LIMITS {
        let message =
            format!("has {} limits, and may have {MOST_LIMITS}; write a second RateLimit", limits.len());
        return Err(wrong("spec.limits", message));
    }
    let numbered = target_refs.into_iter().enumerate();
    let targets = numbered.map(|(number, target)| target.read(&format!("spec.targetRefs[{number}]")));
    let targets: Vec<LimitTarget> = targets.collect::<Result<_, _>>()?;
    let numbered = limits.into_iter().enumerate();
    let limits = numbered.map(|(number, limit)| limit.read(&format!("spec.limits[{number}]")));
    let limits: Vec<Limit> = limits.collect::<Result<_, _>>()?;
    for (number, limit) in limits.iter().enumerate() {
        let is_same = |other: &Limit| other.by == limit.by && other.quota.per == limit.quota.per;
        if let Some(first) = limits[..number].iter().position(is_same) {
            let message =
                format!("counts the same as spec.limits[{first}] in the same time; keep one of them");
            return Err(wrong(format!("spec.limits[{number}]"), message));
        }
    }
    let service = |target: &LimitTarget| match target {
        LimitTarget::Service(name) => Some(name.clone()),
        LimitTarget::Gateway(_) | LimitTarget::Route { .. } => None,
    };
    let services = targets.iter().filter_map(service).collect();
    let global = global.map(|global| global.read(&targets)).transpose()?;
    let tells_all = tell == TellWord::Always;
    if tells_all && dry_run {
        let message = "has no effect with dryRun, which nobody is to notice; remove one of them";
        reading.warning("spec.tell", message);
    }
    Ok(RateLimitSpec { selector, targets, services, dry_run, tells_all, limits, global })
}

impl TargetYaml {
    fn read(self, field: &str) -> Result<LimitTarget, FieldError> {
        const GATEWAY_API: &str = "gateway.networking.k8s.io";
        if self.name.is_empty() {
            return Err(wrong(format!("{field}.name"), "is missing; name the object"));
        }
        let Self { group, kind, name, section_name } = self;
        let target = match (group.as_str(), kind.as_str()) {
            ("" | "core", "Service") => LimitTarget::Service(name),
            (GATEWAY_API, "Gateway") => LimitTarget::Gateway(name),
            (GATEWAY_API, "HTTPRoute") => {
                return Ok(LimitTarget::Route { kind: "HTTPRoute", name, rule: section_name });
            }
            (GATEWAY_API, "GRPCRoute") => {
                return Ok(LimitTarget::Route { kind: "GRPCRoute", name, rule: section_name });
            }
            _ => {
                let group = if group.is_empty() { "core" } else { &group };
                let kind = if kind.is_empty() { "something without a kind" } else { &kind };
                let message = format!(
                    "{kind} of {group} cannot have a rate limit; name a Service, or a Gateway, HTTPRoute or GRPCRoute of \
                     {GATEWAY_API}"
                );
                return Err(wrong(field, message));
            }
        };
        match section_name {
            None => Ok(target),
            Some(_) => {
                let message = "names a part, which only routes have for limits; remove it to limit all of it";
                Err(wrong(format!("{field}.sectionName"), message))
            }
        }
    }
}

impl LimitYaml {
    fn read(self, field: &str) -> Result<Limit, FieldError> {
        let by = match (self.key.as_deref(), self.header) {
            (None, None) => By::Everyone,
            (None, Some(name)) => By::Header(header_name(&name, &format!("{field}.header"))?),
            (Some("clientAddress"), None) => By::ClientAddress,
            (Some("clientIdentity"), None) => By::ClientIdentity,
            (Some(_), Some(_)) => {
                return Err(wrong(format!("{field}.header"), "only one of key and header may be set"));
            }
            (Some(key), None) => {
                let message = format!(
                    "{key:?} is not what clients are told apart by; write clientAddress or clientIdentity, or header: NAME \
                     instead of key, or neither for one limit of all clients together"
                );
                return Err(wrong(format!("{field}.key"), message));
            }
        };
        let requests = number(self.requests, &format!("{field}.requests"))?;
        let burst = self.burst.map(|burst| number(burst, &format!("{field}.burst"))).transpose()?;
        let per = self.per.map_or(SECOND, |GoDuration(time)| time);
        if !(SHORTEST_TIME..=LONGEST_TIME).contains(&per) {
            return Err(wrong(format!("{field}.per"), "is not a time from 1ms to 24h"));
        }
        let quota = Quota { requests, per, burst: burst.unwrap_or(requests) };
        if per.as_nanos() * u128::from(quota.burst) / u128::from(requests) > LONGEST_REFILL.as_nanos() {
            let message =
                "takes more than 73 years to come back at this rate, longer than can be counted; write less";
            return Err(wrong(format!("{field}.burst"), message));
        }
        let exempt = addresses(&self.exempt, &format!("{field}.exempt"))?;
        Ok(Limit { exempt, ..Limit::new(by, quota) })
    }
}

fn number(number: u64, field: &str) -> Result<u32, FieldError> {
    let read = u32::try_from(number).ok().filter(|number| (1..=MOST_REQUESTS).contains(number));
    read.ok_or_else(|| {
        let hint = if number == 0 { "; to let nobody in, write an AuthorizationPolicy" } else { "" };
        wrong(field, format!("{number} is not a number of requests; write 1 to {MOST_REQUESTS}{hint}"))
    })
}

fn addresses(list: &[String], field: &str) -> Result<AddressSet, FieldError> {
    let read = |(number, text): (usize, &String)| {
        block(text).ok_or_else(|| {
            let message =
                format!("{text:?} is neither an address nor a block; write it as 10.0.0.1 or 10.0.0.0/8");
            wrong(format!("{field}[{number}]"), message)
        })
    };
    Ok(AddressSet::new(list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?))
}
