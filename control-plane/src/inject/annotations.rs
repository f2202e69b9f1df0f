//! What may be set on a pod or a namespace: `config.selvedge.io/NAME` for every NAME of one table.
//!
//! Reading, checking and the list in the guide all come from this table. A setting that is not in it, or that has an
//! invalid value, is refused with the reason. The proxy's and `selvedge-init`'s own
//! checks are the same ones (a test of `selvedge-cli` holds each against the other), so that nothing which
//! passes here makes a container fail to start.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use ipnet::IpNet;

use super::settings::Quantity;
use crate::resources::{filter_of, port_ranges, sampling_of, sinks_of};

/// What every setting's annotation begins with.
pub const PREFIX: &str = "config.selvedge.io/";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// What may be set.
    pub values: Values,
    /// What acts on it.
    pub acts: Acts,
    /// What it does, for people.
    pub what: &'static str,
}

/// What may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// The name of an image.
    Image,
    /// Names of objects, such as `registry,mirror`.
    Names,
    /// The name of an object, such as `collector-ca`.
    Name,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// Ports and ranges of them, such as `25,8000-8010`.
    Ports,
    /// Ports without ranges, such as `25,3306`.
    PortNumbers,
    /// Networks and addresses, such as `10.0.0.0/8,fd00::1`.
    Networks,
    /// A length of time, such as `500ms` or `1m 30s`.
    Time,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// An amount of CPU or memory as Kubernetes writes it, such as `100m` or `64Mi`.
    Amount,
    /// A level, or directives such as `info,selvedge_proxy=debug`.
    LogFilter,
    /// Where lines of the access log go, such as `json,otlp`.
    AccessLog,
    /// An expression of the access log's filter.
    Expression,
    /// Percent, such as `1.5`, or `off`.
    Share,
    /// The URL of a collector, such as `http://collector.observability:4317`.
    Collector,
}

/// What acts on a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acts {
    /// The proxy, by this environment variable.
    Proxy(&'static str),
    /// `selvedge-init`, by this environment variable.
    Init(&'static str),
    /// The patch itself.
    Patch,
    /// The control plane, which reads it from the pod as it is at any time.
    ControlPlane,
    /// The control plane, which reads it from the pod and from its namespace as they are at any time.
    Live,
}

const SWITCH: Values = Values::OneOf(&["enabled", "disabled"]);

const fn setting(name: &'static str, values: Values, acts: Acts, what: &'static str) -> Setting {
    Setting { name, values, acts, what }
}

/// Every setting there is.
pub const SETTINGS: [Setting; 56] = [
    setting("proxy-image", Values::Image, Acts::Patch, "the image of the sidecar"),
    setting("init-image", Values::Image, Acts::Patch, "the image of `selvedge-init`"),
    setting(
        "image-pull-policy",
        Values::OneOf(&["Always", "IfNotPresent", "Never"]),
        Acts::Patch,
        "when both images are pulled",
    ),
    setting(
        "image-pull-secrets",
        Values::Names,
        Acts::Patch,
        "Secrets in the pod's namespace for pulling both images, besides the pod's own",
    ),
    setting(
        "native-sidecar",
        SWITCH,
        Acts::Patch,
        "`enabled`: the sidecar is an init container that keeps running (Kubernetes 1.29); `disabled`: a container",
    ),
    setting(
        "workload-api",
        SWITCH,
        Acts::Patch,
        "`enabled`: peers see the identity that SPIRE's agent gives, whose socket the volume of the CSI driver `csi.spiffe.io` has",
    ),
    setting("proxy-cpu-request", Values::Amount, Acts::Patch, "CPU that is reserved for the sidecar"),
    setting("proxy-cpu-limit", Values::Amount, Acts::Patch, "CPU that the sidecar may use"),
    setting("proxy-memory-request", Values::Amount, Acts::Patch, "memory that is reserved for the sidecar"),
    setting("proxy-memory-limit", Values::Amount, Acts::Patch, "memory that the sidecar may use"),
    setting(
        "skip-inbound-ports",
        Values::Ports,
        Acts::Init("SELVEDGE_SKIP_INBOUND_PORTS"),
        "ports of the app whose inbound connections bypass the sidecar: no mutual TLS, no policy",
    ),
    setting(
        "skip-outbound-ports",
        Values::Ports,
        Acts::Init("SELVEDGE_SKIP_OUTBOUND_PORTS"),
        "destination ports whose outbound connections bypass the sidecar",
    ),
    setting(
        "skip-outbound-networks",
        Values::Networks,
        Acts::Init("SELVEDGE_SKIP_OUTBOUND_NETWORKS"),
        "destination networks whose outbound connections bypass the sidecar",
    ),
    setting(
        "opaque-ports",
        Values::Ports,
        Acts::ControlPlane,
        "ports of the app whose connections are carried as opaque TCP",
    ),
    setting(
        "metrics-compat",
        Values::OneOf(&["none", "istio"]),
        Acts::Proxy("SELVEDGE_METRICS_COMPAT"),
        "`istio`: the sidecar's metrics have `istio_requests_total` and the like, too, which Kiali, Flagger and existing dashboards ask for",
    ),
    setting(
        "outbound-traffic-policy",
        Values::OneOf(&["allow-any", "registry-only"]),
        Acts::Proxy("SELVEDGE_OUTBOUND_TRAFFIC_POLICY"),
        "what happens to connections to destinations that no document declares",
    ),
    setting(
        "ingress",
        SWITCH,
        Acts::Proxy("SELVEDGE_INGRESS"),
        "for ingress controllers that dial pods: the `Host` of a request names the service, \
         not the address that was dialled",
    ),
    setting("workers", Values::Number(1, 256), Acts::Proxy("SELVEDGE_WORKERS"), "threads that carry traffic"),
    setting(
        "carrier",
        Values::OneOf(&["http1", "http2"]),
        Acts::Proxy("SELVEDGE_CARRIER"),
        "the HTTP version that carries HTTP/1.1 requests between sidecars",
    ),
    setting(
        "detect-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_DETECT_TIMEOUT"),
        "how long to wait for a client's first bytes before connecting to the server",
    ),
    setting(
        "drain-delay",
        Values::Time,
        Acts::Proxy("SELVEDGE_DRAIN_DELAY"),
        "how long after SIGTERM new connections are still accepted, while the app keeps its port open",
    ),
    setting(
        "drain-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_DRAIN_TIMEOUT"),
        "how long draining may take after SIGTERM",
    ),
    setting(
        "header-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_HEADER_TIMEOUT"),
        "how long the rest of a request's head may take",
    ),
    setting(
        "idle-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_IDLE_TIMEOUT"),
        "how long a client's connection may stay open without a request",
    ),
    setting(
        "tcp-idle-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_TCP_IDLE_TIMEOUT"),
        "how long an opaque connection may be silent; `0s`: no limit",
    ),
    setting(
        "tcp-max-duration",
        Values::Time,
        Acts::Proxy("SELVEDGE_TCP_MAX_DURATION"),
        "how long an opaque connection may last; `0s`: no limit",
    ),
    setting(
        "max-connection-age",
        Values::Time,
        Acts::Proxy("SELVEDGE_MAX_CONNECTION_AGE"),
        "how old a connection may be, whatever is in progress on it; `0s`: no limit",
    ),
    setting(
        "certificate-ttl",
        Values::Time,
        Acts::Proxy("SELVEDGE_CERTIFICATE_TTL"),
        "the lifetime to ask for the sidecar's certificates",
    ),
    setting(
        "max-connections",
        Values::Number(1, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_CONNECTIONS"),
        "how many connections clients may have open, for each direction",
    ),
    setting(
        "max-streams",
        Values::Number(1, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_STREAMS"),
        "how many requests one HTTP/2 connection may have in progress",
    ),
    setting(
        "adaptive-concurrency",
        SWITCH,
        Acts::Proxy("SELVEDGE_ADAPTIVE_CONCURRENCY"),
        "`enabled`: no more requests at once come to the app than it answers without delay; others are answered 503",
    ),
    setting(
        "adaptive-concurrency-max",
        Values::Number(3, 1_000_000),
        Acts::Proxy("SELVEDGE_ADAPTIVE_CONCURRENCY_MAX"),
        "with `adaptive-concurrency`, how many requests at most the app ever has in progress",
    ),
    setting(
        "adaptive-concurrency-interval",
        Values::Time,
        Acts::Proxy("SELVEDGE_ADAPTIVE_CONCURRENCY_INTERVAL"),
        "with `adaptive-concurrency`, how often it is measured how long answers take when nothing waits",
    ),
    setting(
        "max-header-bytes",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_HEADER_BYTES"),
        "how many bytes a request's head may have",
    ),
    setting(
        "max-headers",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_HEADERS"),
        "how many header fields a request may have",
    ),
    setting(
        "buffer-budget",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_BUFFER_BUDGET"),
        "how many MiB HTTP/2 windows, unfinished heads, and bodies kept for a retry may hold together",
    ),
    setting(
        "default-opaque-ports",
        Values::PortNumbers,
        Acts::Proxy("SELVEDGE_OPAQUE_PORTS"),
        "ports, of this app and of others, whose connections are opaque if no document declares the port; no ranges",
    ),
    setting(
        "proxy-protocol-from",
        Values::Networks,
        Acts::Proxy("SELVEDGE_PROXY_PROTOCOL_FROM"),
        "of gateways: load balancers that name their clients by the PROXY protocol",
    ),
    setting(
        "trusted-hops",
        Values::Number(0, u8::MAX as u64),
        Acts::Proxy("SELVEDGE_TRUSTED_HOPS"),
        "of gateways: how many proxies before it may say whom they were called by",
    ),
    setting(
        "path-slashes",
        Values::OneOf(&["decoded", "merged", "kept"]),
        Acts::Proxy("SELVEDGE_PATH_SLASHES"),
        "of gateways: what becomes of `//` and `%2F` in paths",
    ),
    setting(
        "max-connections-per-client",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_CONNECTIONS_PER_CLIENT"),
        "of gateways: how many connections one client's address may have open; 0: no limit",
    ),
    setting(
        "max-connections-per-listener",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_CONNECTIONS_PER_LISTENER"),
        "of gateways: how many connections one of several ports may have open; 0: no limit",
    ),
    setting(
        "max-handshakes-per-client",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_HANDSHAKES_PER_CLIENT"),
        "of gateways: how many of those may be in the middle of their TLS handshake; 0: no limit",
    ),
    setting(
        "max-connection-rate-per-client",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_CONNECTION_RATE_PER_CLIENT"),
        "of gateways: how many connections one client's address may open in a second; 0: no limit",
    ),
    setting(
        "max-request-rate-per-client",
        Values::Number(0, u32::MAX as u64),
        Acts::Proxy("SELVEDGE_MAX_REQUEST_RATE_PER_CLIENT"),
        "of gateways: how many requests one client's address may send in a second; 0: no limit",
    ),
    setting(
        "answer-timeout",
        Values::Time,
        Acts::Proxy("SELVEDGE_ANSWER_TIMEOUT"),
        "of gateways: how long a client may leave its answers unread; `0s`: no limit",
    ),
    setting(
        "max-body-bytes",
        Values::Number(0, u64::MAX),
        Acts::Proxy("SELVEDGE_MAX_BODY_BYTES"),
        "of gateways: how long the body of a request may be whose route does not say it; 0: no limit",
    ),
    setting(
        "access-log",
        Values::AccessLog,
        Acts::Live,
        "where lines of the access log go; `off`: none is written",
    ),
    setting(
        "access-log-filter",
        Values::Expression,
        Acts::Live,
        "which requests are lines of the access log",
    ),
    setting(
        "trace-sampling",
        Values::Share,
        Acts::Live,
        "how many percent of requests are traced that nobody has decided about; `off`: tracing is off",
    ),
    setting(
        "access-log-format",
        Values::OneOf(&["text", "json"]),
        Acts::Proxy("SELVEDGE_ACCESS_LOG_FORMAT"),
        "how lines of the access log are written to standard output, where nothing else says it",
    ),
    setting(
        "otlp-endpoint",
        Values::Collector,
        Acts::Proxy("SELVEDGE_OTLP_ENDPOINT"),
        "the OpenTelemetry collector that is sent spans, and lines of the access log",
    ),
    setting(
        "otlp-protocol",
        Values::OneOf(&["grpc", "http"]),
        Acts::Proxy("SELVEDGE_OTLP_PROTOCOL"),
        "what the collector is spoken to with",
    ),
    setting(
        "otlp-ca-config-map",
        Values::Name,
        Acts::Patch,
        "the ConfigMap in the pod's namespace whose `ca.crt` has the authorities that a collector at `https://` is believed by",
    ),
    setting("log-level", Values::LogFilter, Acts::Proxy("SELVEDGE_LOG"), "what the sidecar logs"),
    setting(
        "log-format",
        Values::OneOf(&["text", "json"]),
        Acts::Proxy("SELVEDGE_LOG_FORMAT"),
        "how the sidecar's log lines are written",
    ),
];

/// Settings that have a meaning only at a gateway.
pub const OF_GATEWAYS: [&str; 10] = [
    "max-connections-per-listener",
    "answer-timeout",
    "max-body-bytes",
    "proxy-protocol-from",
    "trusted-hops",
    "path-slashes",
    "max-connections-per-client",
    "max-handshakes-per-client",
    "max-connection-rate-per-client",
    "max-request-rate-per-client",
];

/// The names in the value of a setting of [`Values::Names`].
pub(super) fn names(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// Whether `text` is the URL of a collector that is spoken to without TLS.
fn is_collector(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && !has_user
    })
}

/// Whether an object may be called `name`: a DNS subdomain (RFC 1123).
fn is_object_name(name: &str) -> bool {
    let inner =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
    let at_an_end = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    (1..=253).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(at_an_end)
        && name.ends_with(at_an_end)
}

/// The setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// Checks `value`.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let refused = |expected: &str| Err(format!("{value:?} is {expected}"));
        match self.values {
            Values::Image => match value {
                "" => refused("not an image"),
                _ if value.contains(char::is_whitespace) => refused("not an image: it has a space in it"),
                _ => Ok(()),
            },
            Values::Name => match is_object_name(value) {
                true => Ok(()),
                false => refused("not the name of an object; write for example collector-ca"),
            },
            Values::Names => match names(value).all(is_object_name) {
                true => Ok(()),
                false => refused("not a list of names; write for example registry,mirror"),
            },
            Values::OneOf(words) => match words.contains(&value) {
                true => Ok(()),
                false => refused(&format!("not one of {}", words.join(", "))),
            },
            Values::PortNumbers => {
                let port = |text: &str| text.parse::<u16>().is_ok();
                match value.split(',').all(port) {
                    true => Ok(()),
                    false => refused("not a list of ports; write for example 3306,6379"),
                }
            }
            Values::Ports => match port_ranges(value) {
                Ok(ports) if ports.is_empty() => refused("not a port; write for example 25,8000-8010"),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Values::Networks => {
                let network = |text: &str| {
                    let text = text.trim();
                    text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok()
                };
                match value.split(',').all(network) {
                    true => Ok(()),
                    false => refused("not a list of networks; write for example 10.0.0.0/8,fd00::1"),
                }
            }
            Values::Time => match humantime::parse_duration(value) {
                Ok(_) => Ok(()),
                Err(_) => refused("not a length of time; write for example 500ms, 30s or 1h 30m"),
            },
            Values::Number(least, most) => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => refused(&format!("not a whole number from {least} to {most}")),
            },
            Values::Amount => match value.parse::<Quantity>() {
                Ok(_) => Ok(()),
                Err(error) => refused(error),
            },
            Values::LogFilter => selvedge_ops::logging::check(value).map_err(|error| error.to_string()),
            Values::AccessLog => sinks_of(value).map(drop),
            Values::Expression => filter_of(value).map(drop),
            Values::Share => sampling_of(value).map(drop),
            Values::Collector => match is_collector(value) {
                true => Ok(()),
                false => refused(
                    "not the address of a collector; write for example http://collector.observability:4317",
                ),
            },
        }
    }
}

/// The settings that `annotations` make, by name; what is wrong with any of them goes into `wrong`, said of
/// `whose`.
pub(super) fn read<'a>(
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
    whose: &str,
    wrong: &mut Vec<String>,
) -> BTreeMap<&'static str, String> {
    let mut set = BTreeMap::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        match find(name).map(|setting| (setting, setting.check(value))) {
            Some((setting, Ok(()))) => {
                set.insert(setting.name, value.to_owned());
            }
            Some((_, Err(reason))) => wrong.push(format!("{whose}: annotation {key}: {reason}")),
            None => wrong.push(format!("{whose}: annotation {key}: {}", unknown(name))),
        }
    }
    set
}

/// That `name` is none, and which one may have been meant.
pub(super) fn unknown(name: &str) -> String {
    let near = SETTINGS.iter().map(|setting| (distance(name, setting.name), setting.name)).min();
    match near {
        Some((distance, near)) if distance <= 1 + near.len() / 4 => {
            format!("there is no such setting; {PREFIX}{near} is one")
        }
        _ => "there is no such setting of pods or namespaces; control-plane/inject.md has the list of them"
            .to_owned(),
    }
}

/// How many characters must be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let cost = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The list of all settings, as a table in Markdown.
pub fn markdown() -> String {
    let mut text = "| setting | value | what it does |\n|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let value = match setting.values {
            Values::Image => "an image".to_owned(),
            Values::Names => "names: `registry,mirror`".to_owned(),
            Values::Name => "a name: `collector-ca`".to_owned(),
            Values::OneOf(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Values::Ports => "ports: `25,8000-8010`".to_owned(),
            Values::PortNumbers => "ports: `25,3306`".to_owned(),
            Values::Networks => "networks: `10.0.0.0/8,fd00::1`".to_owned(),
            Values::Time => "a time: `500ms`, `30s`".to_owned(),
            Values::Number(least, most) if most > 1000 => format!("a number from {least}"),
            Values::Number(least, most) => format!("a number from {least} to {most}"),
            Values::Amount => "an amount: `100m`, `64Mi`".to_owned(),
            Values::LogFilter => "a level, or `info,selvedge_proxy=debug`".to_owned(),
            Values::AccessLog => "`off`, `stdout`, `text`, `json`, `otlp`; several with commas".to_owned(),
            Values::Expression => {
                "an [expression](tracing.md#which-requests-are-lines): `response.code >= 500`".to_owned()
            }
            Values::Share => "percent: `1.5`, or `off`".to_owned(),
            Values::Collector => "a URL: `http://collector.observability:4317`".to_owned(),
        };
        writeln!(text, "| `{}` | {value} | {} |", setting.name, setting.what).expect("a String grows");
    }
    text
}

#[cfg(test)]
mod tests;
