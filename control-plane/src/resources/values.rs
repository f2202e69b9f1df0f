//! Values that several kinds share: durations, text matches, port numbers.

use std::{fmt, time::Duration};

use http::{HeaderName, uri::PathAndQuery};
use selvedge_model::{
    FullRegex, HeaderField, Host, StringMatch,
    normalize::path::{NeverAsked, Part, comparable},
    route::UnknownField,
};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{document::wrong, label_selector::is_bounded_by_alphanumerics, typed::FieldError};

/// So many characters of a regular expression that cannot be used are repeated in the message.
const SHOWN_OF_A_REGEX: usize = 100;

/// The longest label of a DNS name, in bytes.
const LONGEST_LABEL: usize = 63;
/// The longest regular expression that Istio takes, in bytes.
pub(super) const LONGEST_REGEX: usize = 1_024;

/// Ports on which whatever is spoken is carried as it is: numbers and ranges, such as `3306,7000-7009`.
pub(super) const OPAQUE_PORTS_ANNOTATION: &str = "config.selvedge.io/opaque-ports";

/// Ports of a pod that connections reach without its sidecar, written as the former.
pub(super) const SKIP_INBOUND_PORTS_ANNOTATION: &str = "config.selvedge.io/skip-inbound-ports";

/// The ports that the annotation [`OPAQUE_PORTS_ANNOTATION`] lists, as first and last of each range.
pub(super) fn opaque_ports(
    annotations: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<(u16, u16)>, FieldError> {
    annotated_ports(annotations, OPAQUE_PORTS_ANNOTATION)
}

/// The ports that the annotation `name` lists, as first and last of each range.
pub(super) fn annotated_ports(
    annotations: &std::collections::BTreeMap<String, String>,
    name: &str,
) -> Result<Vec<(u16, u16)>, FieldError> {
    let list = annotations.get(name).map(String::as_str).unwrap_or_default();
    port_ranges(list).map_err(|message| wrong(format!("metadata.annotations[{name}]"), message))
}

/// The ports of a list of numbers and ranges, as first and last of each range.
///
/// # Errors
/// Which of them is none, and what to write.
pub fn port_ranges(list: &str) -> Result<Vec<(u16, u16)>, String> {
    let ranges = list.split(',').map(str::trim).filter(|range| !range.is_empty());
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let read = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ends = port(first).zip(port(last)).filter(|(first, last)| first <= last);
        ends.ok_or_else(|| {
            format!("{range:?} is neither a port nor a range; write for example 3306,7000-7009")
        })
    };
    ranges.map(read).collect()
}

/// A length of time as Istio writes it (Go's form): `1h2m3s`, `0.5s`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GoDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = DurationText { parse: parse_duration, examples: "1h2m3s, 0.5s or 250ms" };
        deserializer.deserialize_any(text).map(Self)
    }
}

/// A time that may not be 0, because that says nothing, or is said by leaving it out, as `remedy` has it. As in Istio.
pub(super) fn more_than_nothing(
    GoDuration(time): GoDuration,
    field: &str,
    remedy: &str,
) -> Result<Duration, FieldError> {
    if time.is_zero() {
        return Err(wrong(field, format!("is shorter than 1ms; {remedy}")));
    }
    Ok(time)
}

/// A length of time as a text, in the form that `parse` takes.
struct DurationText {
    parse: fn(&str) -> Option<Duration>,
    examples: &'static str,
}

impl Visitor<'_> for DurationText {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as 30s")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        let time = (self.parse)(text)
            .ok_or_else(|| E::custom(format!("{text:?} is not a duration; write it as {}", self.examples)))?;
        // As in Istio.
        if time.subsec_nanos() % 1_000_000 != 0 {
            let message = format!("{text:?} is finer than a millisecond; write it as {}", self.examples);
            return Err(E::custom(message));
        }
        Ok(time)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        Err(E::custom(format!("the duration {number} has no unit; write {number}s")))
    }
}

/// The time that `text` says; `None` if it is malformed, negative or longer than centuries.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, after) = rest.split_at(number);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(digits, nanos)?)?;
        rest = after;
    }
    if text.is_empty() {
        return None;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

/// The decimal number `digits` times `unit`, rounded down.
fn scaled(digits: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || digits.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let below = part * unit / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * unit + below)
}

/// A length of time as the Gateway API writes it (GEP-2257): one to four whole numbers of `h`, `m`, `s` or `ms`, each of
/// at most five digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GatewayDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = DurationText { parse: parse_gateway_duration, examples: "1h30m, 10s or 250ms" };
        deserializer.deserialize_any(text).map(Self)
    }
}

fn parse_gateway_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 5)?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = after;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

/// `exact`, `prefix` or `regex`; none of them asks only that the text is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct StringMatchYaml {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl StringMatchYaml {
    /// Whether it is a regular expression.
    pub(super) fn is_regex(&self) -> bool {
        self.regex.is_some()
    }

    /// What is asked for; `field` is where it stands.
    pub(super) fn read(self, field: &str) -> Result<StringMatch, FieldError> {
        match (self.exact, self.prefix, self.regex) {
            (Some(exact), None, None) => Ok(StringMatch::Exact(exact)),
            (None, Some(prefix), None) => Ok(StringMatch::Prefix(prefix)),
            (None, None, Some(regex)) if regex.is_empty() => Err(wrong(
                format!("{field}.regex"),
                "is empty; write .* for any text, or exact: \"\" for none",
            )),
            (None, None, Some(regex)) if regex.len() > LONGEST_REGEX => {
                let message = format!("is longer than {LONGEST_REGEX} bytes; use prefix, or several matches");
                Err(wrong(format!("{field}.regex"), message))
            }
            (None, None, Some(regex)) => {
                full_regex(&regex, &format!("{field}.regex")).map(StringMatch::Regex)
            }
            (None, None, None) => Ok(StringMatch::Present),
            _ => Err(wrong(field, "gives more than one of exact, prefix and regex; keep one")),
        }
    }

    /// As [`Self::read`], where Istio also writes `regex: "*"` for "is there".
    pub(super) fn read_header(self, field: &str) -> Result<StringMatch, FieldError> {
        if self.regex.as_deref() == Some("*") && self.exact.is_none() && self.prefix.is_none() {
            return Ok(StringMatch::Present);
        }
        self.read(field)
    }

    /// As [`Self::read`], where an empty match is a mistake.
    pub(super) fn read_given(self, field: &str) -> Result<StringMatch, FieldError> {
        match self.read(field)? {
            StringMatch::Present => Err(wrong(field, "is empty; give exact, prefix or regex")),
            StringMatch::Prefix(prefix) if prefix.is_empty() => {
                Err(wrong(format!("{field}.prefix"), "is empty; write / to match every path"))
            }
            asked => Ok(asked),
        }
    }
}

/// Has `asks` compare paths as requests have them when they are compared. Regular expressions stay as they are.
///
/// # Errors
/// Why no request can have such a path. What is asked stays as it is then.
pub(super) fn normalize_path(asks: &mut StringMatch) -> Result<(), NeverAsked> {
    let (text, part) = match asks {
        StringMatch::Exact(text) | StringMatch::PathPrefix(text) => (text, Part::Whole),
        StringMatch::Prefix(text) => (text, Part::Beginning),
        StringMatch::Regex(_) | StringMatch::Present => return Ok(()),
    };
    *text = comparable(text, part)?;
    Ok(())
}

/// Why the regular expression `regex` at `field` cannot be used.
pub(super) fn wrong_regex(field: impl Into<String>, regex: &str, error: impl fmt::Display) -> FieldError {
    let start = regex.chars().take(SHOWN_OF_A_REGEX).collect::<String>();
    wrong(field, format!("{start:?} is not an RE2 regular expression that can be used: {error}"))
}

/// The regular expression `source`, which stands at `field`.
pub(super) fn full_regex(source: &str, field: &str) -> Result<FullRegex, FieldError> {
    FullRegex::new(source).map_err(|error| wrong_regex(field, source, error))
}

/// What a match on the header `name` looks at.
pub(super) fn header_field(name: &str, field: &str) -> Result<HeaderField, FieldError> {
    name.parse().map_err(|error: UnknownField| wrong(field, error.to_string()))
}

/// The header called `name`.
pub(super) fn header_name(name: &str, field: &str) -> Result<HeaderName, FieldError> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| wrong(field, format!("{name:?} is not the name of a header; correct it")))
}

/// The status of a redirect.
pub(super) fn redirect_status(code: u32, field: &str) -> Result<u16, FieldError> {
    let status = u16::try_from(code).ok().filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308));
    status.ok_or_else(|| {
        wrong(field, format!("{code} is not the status of a redirect; use 301, 302, 303, 307 or 308"))
    })
}

/// Whether `text` is a path that a request may have, with or without a query.
pub(super) fn is_path_and_query(text: &str) -> bool {
    text.starts_with('/') && !text.contains('#') && text.parse::<PathAndQuery>().is_ok()
}

/// A port by number or by name.
#[derive(Debug)]
pub(super) enum NumberOrName {
    /// Its number.
    Number(u32),
    /// Its name.
    Name(String),
}

impl<'de> Deserialize<'de> for NumberOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumberVisitor;
        impl de::Visitor<'_> for NameOrNumberVisitor {
            type Value = NumberOrName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or name")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<NumberOrName, E> {
                Ok(NumberOrName::Number(u32::try_from(number).unwrap_or(u32::MAX)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<NumberOrName, E> {
                Ok(NumberOrName::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(NameOrNumberVisitor)
    }
}

/// Refuses what is neither a host nor a pattern of hosts, as Istio writes them: a name, an address, `*`, or `*` before the
/// end of a name.
pub(super) fn host_pattern(text: &str, field: &str) -> Result<(), FieldError> {
    let rest = text.strip_prefix('*').map_or(text, |end| end.strip_prefix(['.', '-']).unwrap_or(end));
    let is_host = match text {
        "*" => true,
        _ if text.starts_with('*') => matches!(rest.parse(), Ok(Host::Name(_))),
        _ => rest.parse::<Host>().is_ok(),
    };
    match is_host {
        true => Ok(()),
        false => Err(wrong(field, format!("{text:?} is not a host; write a DNS name, or *. and a domain"))),
    }
}

/// Refuses what is neither a name that can be called nor a pattern of such names. As in Istio no address is one: a service of
/// it has a name.
pub(super) fn called_host(text: &str, field: &str) -> Result<(), FieldError> {
    host_pattern(text, field)?;
    if matches!(text.parse(), Ok(Host::Ip(_))) {
        let message = format!("{text} is an address; write the name of the service that has it");
        return Err(wrong(field, message));
    }
    Ok(())
}

/// Whether `text` is a label of DNS (RFC 1123), in whichever case.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= LONGEST_LABEL && is_bounded_by_alphanumerics(text, |byte| byte == b'-')
}

/// Whether `path` is where a Unix socket can be: the whole path of a file, or a name in no file system, behind an `@`.
pub(super) fn is_socket(path: &str) -> bool {
    path.starts_with('@') || path.starts_with('/') && !path.ends_with('/')
}

/// Refuses what is not the name of a port, as Istio has it.
pub(super) fn port_name(name: &str, field: &str) -> Result<(), FieldError> {
    dns_label(name, "port", field)
}

/// Refuses what is not the name of a subset, as Istio has it.
pub(super) fn subset_name(name: &str, field: &str) -> Result<(), FieldError> {
    if name.is_empty() {
        return Err(wrong(field, "is empty; name the subset"));
    }
    dns_label(name, "subset", field)
}

/// Refuses `name` as that of a `what` if it is no label of DNS.
fn dns_label(name: &str, what: &str, field: &str) -> Result<(), FieldError> {
    if is_dns_label(name) {
        return Ok(());
    }
    let message = format!(
        "{name:?} is not the name of a {what}; use at most {LONGEST_LABEL} letters, digits and '-', a letter or digit first and \
         last"
    );
    Err(wrong(field, message))
}

/// A port number that something can listen on.
pub(super) fn port_number(number: u32, field: &str) -> Result<u16, FieldError> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| wrong(field, format!("{number} is not a port; use 1 to 65535")))
}

#[cfg(test)]
mod tests;
