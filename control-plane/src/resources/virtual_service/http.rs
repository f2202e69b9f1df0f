//! `http`: what becomes of requests.

use std::time::Duration;

use selvedge_model::{
    Match, RetryPolicy,
    filter::{Cors, Fault, HeaderChanges, OwnAnswer, Rewrite},
};
use serde::Deserialize;

use super::{
    Destination, DestinationYaml, Headers, PortMatch, TargetYaml,
    answers::{self, DirectYaml, RedirectYaml},
    conflicts::Given,
    cors, fault, headers,
    matches::{self, Asked},
    mirrors::{self, Mirrors},
    read_destinations, retries, rewrite,
};
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
    values::{GoDuration, more_than_nothing},
};

/// One entry of `http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Its place in the document.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Which requests; any of these. `None` = every request; an empty list = none.
    pub matches: Option<Vec<PortMatch<Match>>>,
    /// Whether matches are left out because they cannot be checked.
    pub left_out: bool,
    /// Where they go; none if they are answered at once.
    pub destinations: Vec<Destination>,
    /// The answer that needs no destination.
    pub answer: Option<OwnAnswer>,
    /// What changes in the headers of requests and answers.
    pub headers: Option<Headers>,
    /// What changes in the path and the authority.
    pub rewrite: Option<Rewrite>,
    /// Failures that are made on purpose.
    pub fault: Option<Fault>,
    /// Who may call from a page of another origin.
    pub cors: Option<Cors>,
    /// Who gets copies of requests.
    pub mirrors: Mirrors,
    /// The document whose routes count in its place.
    pub delegate: Option<DelegateTo>,
    /// Time for the whole request, retries included.
    pub timeout: Option<Duration>,
    /// When a failed attempt is followed by another.
    pub retry: Option<RetryPolicy>,
}

/// The name of a document without hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DelegateTo {
    /// Its name.
    pub name: String,
    /// Its namespace; `None` = that of the document that delegates.
    pub namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteYaml {
    name: Option<String>,
    #[serde(rename = "match", default)]
    matches: Vec<matches::Yaml>,
    #[serde(default)]
    route: Vec<ShareYaml>,
    redirect: Option<RedirectYaml>,
    direct_response: Option<DirectYaml>,
    delegate: Option<DelegateTo>,
    headers: Option<headers::Yaml>,
    rewrite: Option<rewrite::Yaml>,
    fault: Option<fault::Yaml>,
    cors_policy: Option<cors::Yaml>,
    mirror: Option<TargetYaml>,
    #[serde(default)]
    mirrors: Vec<mirrors::MirrorYaml>,
    mirror_percentage: Option<fault::PercentYaml>,
    mirror_percent: Option<u32>,
    timeout: Option<GoDuration>,
    retries: Option<retries::Yaml>,
}

/// One entry of `route`.
#[derive(Debug, Deserialize)]
struct ShareYaml {
    destination: TargetYaml,
    weight: Option<u32>,
    headers: Option<headers::Yaml>,
}

pub(super) fn read(
    mut yaml: RouteYaml,
    index: usize,
    is_delegate: bool,
    reading: &mut Reading<'_>,
) -> Result<HttpRoute, FieldError> {
    let field = format!("spec.http[{index}]");
    let below = |name: &str| format!("{field}.{name}");
    yaml.given().check(&field)?;
    if is_delegate || yaml.delegates() {
        for (place, yaml) in yaml.matches.iter().enumerate() {
            yaml.refuse_regexes(&format!("{field}.match[{place}]"))?;
        }
    }
    let mirrors = mirrors::read(yaml.take_mirrors(), &field)?;
    let (matches, left_out) = read_matches(yaml.matches, &field, reading)?;
    let redirect = yaml.redirect.map(|yaml| answers::read_redirect(yaml, &below("redirect"))).transpose()?;
    let direct =
        yaml.direct_response.map(|yaml| answers::read_direct(yaml, &below("directResponse"))).transpose()?;
    let mut route = HttpRoute {
        index,
        name: yaml.name,
        matches,
        left_out,
        destinations: read_shares(yaml.route, &below("route"), reading)?,
        answer: redirect.map(OwnAnswer::Redirect).or(direct.map(OwnAnswer::Direct)),
        headers: None,
        rewrite: yaml.rewrite.map(|yaml| rewrite::read(yaml, &below("rewrite"))).transpose()?,
        fault: None,
        cors: None,
        mirrors,
        delegate: yaml.delegate.map(|to| read_delegate(to, &below("delegate"))).transpose()?,
        timeout: yaml
            .timeout
            .map(|time| more_than_nothing(time, &below("timeout"), "leave it out for no limit"))
            .transpose()?,
        retry: None,
    };
    if let Some(yaml) = yaml.headers {
        route.headers = Some(headers::read(yaml, &below("headers"), reading)?);
    }
    if let Some(yaml) = yaml.fault {
        route.fault = Some(fault::read(yaml, &below("fault"), reading)?);
    }
    if let Some(yaml) = yaml.cors_policy {
        route.cors = Some(cors::read(yaml, &below("corsPolicy"), reading)?);
    }
    if let Some(yaml) = yaml.retries {
        route.retry = Some(retries::read(&yaml, &below("retries"), reading)?);
    }
    route.check_authority(&below("headers.request"))?;
    route.report_beside_answer(&field, reading);
    Ok(route)
}

fn read_delegate(to: DelegateTo, field: &str) -> Result<DelegateTo, FieldError> {
    if to.name.is_empty() {
        return Err(wrong(format!("{field}.name"), "is empty; name a VirtualService without hosts"));
    }
    Ok(DelegateTo { namespace: to.namespace.filter(|namespace| !namespace.is_empty()), ..to })
}

type Matches = Option<Vec<PortMatch<Match>>>;

/// What the list `match` of the route at `field` asks, and whether some of it is left out.
fn read_matches(
    list: Vec<matches::Yaml>,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<(Matches, bool), FieldError> {
    if list.is_empty() {
        return Ok((None, false));
    }
    let (mut matches, mut left_out) = (Vec::new(), false);
    for (place, yaml) in list.into_iter().enumerate() {
        match matches::read(yaml, place, field, reading)? {
            Asked::Checkable(asked) => matches.push(*asked),
            Asked::Uncheckable => left_out = true,
        }
    }
    Ok((Some(matches), left_out))
}

fn read_shares(
    list: Vec<ShareYaml>,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Vec<Destination>, FieldError> {
    let (mut targets, mut headers) = (Vec::new(), Vec::new());
    for (index, yaml) in list.into_iter().enumerate() {
        targets.push(DestinationYaml { destination: yaml.destination, weight: yaml.weight });
        headers.push(match yaml.headers {
            Some(yaml) => headers::read(yaml, &format!("{field}[{index}].headers"), reading)?,
            None => Headers::default(),
        });
    }
    let mut destinations = read_destinations(targets, field)?;
    for destination in &mut destinations {
        destination.headers = std::mem::take(&mut headers[destination.index]);
    }
    Ok(destinations)
}

impl RouteYaml {
    fn given(&self) -> Given {
        Given {
            delegate: self.delegate.is_some(),
            route: !self.route.is_empty(),
            redirect: self.redirect.is_some(),
            direct_response: self.direct_response.is_some(),
            rewrite: self.rewrite.is_some(),
            fault: self.fault.is_some(),
        }
    }

    fn take_mirrors(&mut self) -> mirrors::Yaml {
        mirrors::Yaml {
            mirror: self.mirror.take(),
            mirrors: std::mem::take(&mut self.mirrors),
            percentage: self.mirror_percentage,
            percent: self.mirror_percent,
        }
    }

    /// Whether it leaves the requests to another document.
    pub(super) fn delegates(&self) -> bool {
        self.delegate.is_some()
    }
}

impl HttpRoute {
    /// Reports what of the route at `field` has no effect, because its requests are answered at once.
    fn report_beside_answer(&self, field: &str, reading: &mut Reading<'_>) {
        let by = match &self.answer {
            None | Some(OwnAnswer::Unusable(_)) => return,
            Some(OwnAnswer::Redirect(_)) => "redirect",
            Some(OwnAnswer::Direct(_)) => "directResponse",
        };
        let changes_request = |headers: &Headers| headers.request != HeaderChanges::default();
        for (name, is_given) in [
            ("timeout", self.timeout.is_some()),
            ("retries", self.retry.is_some()),
            ("mirror", self.mirrors.single.is_some()),
            ("mirrors", !self.mirrors.list.is_empty()),
            ("headers.request", self.headers.as_ref().is_some_and(changes_request)),
        ] {
            if is_given {
                let message = format!(
                    "has no effect beside {by}, which answers at once, so that nothing is sent on; remove one of them"
                );
                reading.warning(format!("{field}.{name}"), message);
            }
        }
    }

    /// Refuses an authority that is said twice; `field` is where the headers are.
    fn check_authority(&self, field: &str) -> Result<(), FieldError> {
        let by_header = self.headers.as_ref().is_some_and(|headers| headers.authority.is_some());
        let by_rewrite = self.rewrite.as_ref().is_some_and(|rewrite| rewrite.authority.is_some());
        if by_header && by_rewrite {
            return Err(wrong(field, "sets the authority, as rewrite.authority does; keep one of them"));
        }
        Ok(())
    }
}
