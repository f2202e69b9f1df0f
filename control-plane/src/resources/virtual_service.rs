//! `VirtualService`: which requests to a host go where, the first match in list order; and which opaque
//! connections.
//!
//! A match with a condition that we cannot check is dropped and reported: applied without that condition
//! it would send requests where nobody asked for them to go.

use std::{collections::BTreeMap, time::Duration};

use selvedge_model::{HeaderField, Layer, Match, RetryPolicy};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    export_to::{self, ExportTo},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    typed::{FieldError, Seen},
    words::{GoDuration, StringMatchWords, header_field, port_number},
};

mod retries;
mod tcp;

pub use tcp::TcpRoute;
pub(super) use tcp::server_name;

/// The gateway that means "every sidecar".
const MESH: &str = "mesh";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("VirtualService", ISTIO_NETWORKING, "virtualservices", Feedback::Conditions)
        .read_as_spec::<Words>(|document| document.with_spec(read));

/// What a `VirtualService` says.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualServiceSpec {
    /// Whose clients it is for.
    pub export_to: ExportTo,
    /// The hosts as they are written, lower case: names, short names, or `*.suffix`.
    pub hosts: Vec<String>,
    /// Whether sidecars follow it (its gateways are absent or include `mesh`).
    pub for_sidecars: bool,
    /// Its HTTP routes, in order.
    pub http: Vec<HttpRoute>,
    /// Its TLS and TCP routes, in order.
    pub tcp: Vec<TcpRoute>,
}

impl VirtualServiceSpec {
    /// Its routes for opaque connections of one layer.
    pub fn opaque(&self, layer: Layer) -> impl Iterator<Item = &TcpRoute> {
        self.tcp.iter().filter(move |route| route.layer == layer)
    }
}

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
    /// Where they go; none = answered 503.
    pub destinations: Vec<Destination>,
    /// Time for the whole request, retries included.
    pub timeout: Option<Duration>,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
}

/// One entry of `match`, for whatever is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct PortMatch<C> {
    /// The service port that it is for; `None` = any.
    pub port: Option<u16>,
    /// What the request or the connection must look like.
    pub condition: C,
}

/// The conditions of `matches` that are for `port`, empty where there are no matches: everything. `None` if there are,
/// and none is for this port.
pub fn on_port<C: Clone>(matches: Option<&[PortMatch<C>]>, port: u16) -> Option<Vec<C>> {
    let Some(matches) = matches else { return Some(Vec::new()) };
    let here = matches.iter().filter(|one| one.port.is_none_or(|own| own == port));
    let here: Vec<_> = here.map(|one| one.condition.clone()).collect();
    (!here.is_empty()).then_some(here)
}

/// One entry of `route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its place in the document.
    pub index: usize,
    /// The host as it is written, lower case.
    pub host: String,
    /// The subset, if one is named.
    pub subset: Option<String>,
    /// The port, if one is named.
    pub port: Option<u16>,
    /// Its share is this / the sum of all.
    pub weight: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Words {
    #[serde(default)]
    hosts: Vec<String>,
    gateways: Option<Vec<String>>,
    #[serde(default)]
    http: Vec<RouteWords>,
    #[serde(default)]
    tls: Vec<tcp::RouteWords>,
    #[serde(default)]
    tcp: Vec<tcp::RouteWords>,
    export_to: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteWords {
    name: Option<String>,
    #[serde(rename = "match", default)]
    matches: Vec<MatchWords>,
    #[serde(default)]
    route: Vec<DestinationWords>,
    timeout: Option<GoDuration>,
    retries: Option<retries::Words>,
    redirect: Option<Seen>,
    direct_response: Option<Seen>,
    delegate: Option<Seen>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatchWords {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "statPrefix")]
    _stat_prefix: Option<Seen>,
    uri: Option<StringMatchWords>,
    #[serde(default)]
    ignore_uri_case: bool,
    scheme: Option<StringMatchWords>,
    method: Option<StringMatchWords>,
    authority: Option<StringMatchWords>,
    #[serde(default)]
    headers: BTreeMap<String, StringMatchWords>,
    #[serde(default)]
    without_headers: BTreeMap<String, StringMatchWords>,
    #[serde(default)]
    query_params: BTreeMap<String, StringMatchWords>,
    port: Option<u32>,
    gateways: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct DestinationWords {
    destination: TargetWords,
    weight: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct TargetWords {
    host: String,
    subset: Option<String>,
    port: Option<PortWords>,
}

#[derive(Debug, Deserialize)]
struct PortWords {
    number: u32,
}

pub(super) fn read(words: Words, reading: &mut Reading<'_>) -> Result<VirtualServiceSpec, FieldError> {
    if words.hosts.is_empty() || words.hosts.iter().any(String::is_empty) {
        return Err(wrong("spec.hosts", "is empty; name at least one host"));
    }
    let export_to = export_to::read(words.export_to)?;
    let for_sidecars = for_sidecars(words.gateways.as_deref());
    if !for_sidecars {
        let message = "names gateways only, which are not acted on, so the document has no effect; add mesh";
        reading.not_acted_on("spec.gateways", message);
    }
    let mut http = Vec::new();
    for (index, route) in words.http.into_iter().enumerate() {
        http.push(read_route(route, index, reading)?);
    }
    let mut tcp = tcp::read(words.tls, Layer::Tls, reading)?;
    tcp.extend(tcp::read(words.tcp, Layer::Tcp, reading)?);
    let hosts = words.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    Ok(VirtualServiceSpec { export_to, hosts, for_sidecars, http, tcp })
}

fn for_sidecars(gateways: Option<&[String]>) -> bool {
    gateways.is_none_or(|list| list.is_empty() || list.iter().any(|name| name == MESH))
}

fn read_route(words: RouteWords, index: usize, reading: &mut Reading<'_>) -> Result<HttpRoute, FieldError> {
    let field = format!("spec.http[{index}]");
    let every_request = words.matches.is_empty();
    let (mut matches, mut left_out) = (Vec::new(), false);
    for (place, words) in words.matches.into_iter().enumerate() {
        match read_match(words, &format!("{field}.match[{place}]"), reading)? {
            Asked::Checkable(asked) => matches.push(*asked),
            Asked::Uncheckable => left_out = true,
            Asked::OfGateways => {}
        }
    }
    let matches = (!every_request).then_some(matches);
    let destinations = read_destinations(words.route, &format!("{field}.route"))?;
    let other = [
        ("redirect", words.redirect),
        ("directResponse", words.direct_response),
        ("delegate", words.delegate),
    ];
    let other = other.iter().find(|(_, seen)| seen.is_some()).map(|(name, _)| *name);
    match other {
        Some(name) => reading.error(
            format!("{field}.{name}"),
            "is not acted on; the requests of this route are answered 503 unless it has a route too",
        ),
        None if destinations.is_empty() => {
            return Err(wrong(field, "has no route; name at least one destination"));
        }
        None => {}
    }
    let retry = match words.retries {
        None => RetryPolicy::default(),
        Some(words) => retries::read(&words, &format!("{field}.retries"), reading)?,
    };
    let timeout = words.timeout.map(|time| time.0).filter(|time| !time.is_zero());
    Ok(HttpRoute { index, name: words.name, matches, left_out, destinations, timeout, retry })
}

/// What one entry of `match` asks.
enum Asked {
    /// Something that a sidecar can check.
    Checkable(Box<PortMatch<Match>>),
    /// Something that it cannot.
    Uncheckable,
    /// Something of gateways only.
    OfGateways,
}

fn read_match(words: MatchWords, field: &str, reading: &mut Reading<'_>) -> Result<Asked, FieldError> {
    if !for_sidecars(words.gateways.as_deref()) {
        reading.not_acted_on(format!("{field}.gateways"), "names gateways only; sidecars skip this match");
        reading.take_unknown_below(field);
        return Ok(Asked::OfGateways);
    }
    let mut unchecked =
        reading.take_unknown_below(field).into_iter().map(|unknown| unknown.field).collect::<Vec<_>>();
    let given = |words: Option<StringMatchWords>, name: &str| {
        words.map(|words| words.read_given(&format!("{field}.{name}"))).transpose()
    };
    let mut header_list = |map: BTreeMap<String, StringMatchWords>, name: &str| {
        let mut list = Vec::new();
        for (header, words) in map {
            let field = format!("{field}.{name}.{header}");
            // Claims of a token.
            if header.starts_with('@') {
                unchecked.push(field);
                continue;
            }
            list.push((header_field(&header, &field)?, words.read_header(&field)?));
        }
        Ok(list)
    };
    let mut headers = header_list(words.headers, "headers")?;
    let without_headers = header_list(words.without_headers, "withoutHeaders")?;
    let mut query = Vec::new();
    for (name, words) in words.query_params {
        let asked = words.read_header(&format!("{field}.queryParams.{name}"))?;
        query.push((name, asked));
    }
    headers.extend(given(words.scheme, "scheme")?.map(|scheme| (HeaderField::Scheme, scheme)));
    let condition = Match {
        path: given(words.uri, "uri")?,
        ignore_path_case: words.ignore_uri_case,
        method: given(words.method, "method")?,
        authority: given(words.authority, "authority")?,
        headers,
        without_headers,
        query,
        ..Match::default()
    };
    let port = words.port.map(|port| port_number(port, &format!("{field}.port"))).transpose()?;
    if unchecked.is_empty() {
        return Ok(Asked::Checkable(Box::new(PortMatch { port, condition })));
    }
    for unchecked in unchecked {
        let message =
            "is a condition that is not acted on, so the whole match is left out; remove it or the match";
        reading.error(unchecked, message);
    }
    Ok(Asked::Uncheckable)
}

fn read_destinations(words: Vec<DestinationWords>, field: &str) -> Result<Vec<Destination>, FieldError> {
    let mut destinations = Vec::new();
    for (index, words) in words.into_iter().enumerate() {
        let field = format!("{field}[{index}].destination");
        if words.destination.host.is_empty() {
            return Err(wrong(format!("{field}.host"), "is empty; name a host"));
        }
        let port = words.destination.port;
        destinations.push(Destination {
            index,
            host: words.destination.host.to_ascii_lowercase(),
            subset: words.destination.subset.filter(|subset| !subset.is_empty()),
            port: port.map(|port| port_number(port.number, &format!("{field}.port.number"))).transpose()?,
            weight: words.weight.unwrap_or(0),
        });
    }
    if let [only] = destinations.as_mut_slice() {
        // A single destination gets everything, whatever its weight.
        only.weight = 1;
        return Ok(destinations);
    }
    let several = !destinations.is_empty();
    destinations.retain(|destination| destination.weight > 0);
    if several && destinations.is_empty() {
        return Err(wrong(field, "has weights that sum to 0; give at least one destination a weight"));
    }
    Ok(destinations)
}
