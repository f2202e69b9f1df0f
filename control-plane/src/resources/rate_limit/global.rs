//! `global` of a `RateLimit`: a server that counts for all proxies together, and what it is told.

use std::{sync::Arc, time::Duration};

use selvedge_model::limit::{
    Descriptor, Entry, LONGEST_WAIT, LONGEST_WORD, MOST_DESCRIPTORS, OnFailure, TIMEOUT, Value,
};
use serde::Deserialize;

use super::{
    super::{
        document::wrong,
        typed::FieldError,
        values::{GoDuration, header_name},
    },
    LimitTarget, SHORTEST_TIME,
};

const SERVICE: &str = "spec.global.service";
const DESCRIPTORS: &str = "spec.global.descriptors";

/// What `global` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalSpec {
    /// Who is asked.
    pub server: ServerRef,
    /// Which of its limits are meant.
    pub domain: String,
    /// How long its answer is waited for.
    pub timeout: Duration,
    /// What holds if there is none.
    pub on_failure: OnFailure,
    /// What it is told.
    pub descriptors: Vec<DescriptorSpec>,
}

/// A descriptor, before it is known which Service a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorSpec {
    /// At least one.
    pub entries: Vec<EntrySpec>,
}

/// One of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntrySpec {
    /// It does not depend on the Service.
    Usual(Entry),
    /// The host of the Service, under this key.
    Service(Arc<str>),
}

impl DescriptorSpec {
    /// Whether it tells the Service.
    pub fn tells_service(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, EntrySpec::Service(_)))
    }

    /// What the server is told of requests for `service`; `None`: it tells the Service, and there is none.
    pub fn of(&self, service: Option<&str>) -> Option<Descriptor> {
        let entries = self.entries.iter().map(|entry| match entry {
            EntrySpec::Usual(entry) => Some(entry.clone()),
            EntrySpec::Service(key) => {
                Some(Entry { key: Arc::clone(key), value: Value::Fixed(Arc::from(service?)) })
            }
        });
        Some(Descriptor { entries: entries.collect::<Option<_>>()? })
    }
}

/// A server that a document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRef {
    /// The namespace of the Service; `None`: the document's own, unless the host has a dot.
    pub namespace: Option<String>,
    /// The name of a Service, or a host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    service: String,
    domain: String,
    timeout: Option<GoDuration>,
    failure_mode: Option<String>,
    descriptors: Vec<DescriptorYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DescriptorYaml {
    entries: Vec<EntryYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EntryYaml {
    key: Option<String>,
    value: Option<String>,
    header: Option<String>,
    from: Option<String>,
}

impl Yaml {
    /// What it says in a document that is for `targets`.
    pub(super) fn read(self, targets: &[LimitTarget]) -> Result<GlobalSpec, FieldError> {
        let Self { service, domain, timeout, failure_mode, descriptors } = self;
        let timeout = timeout.map_or(TIMEOUT, |GoDuration(time)| time);
        if !(SHORTEST_TIME..=LONGEST_WAIT).contains(&timeout) {
            return Err(wrong("spec.global.timeout", "is not a time from 1ms to 10s"));
        }
        let on_failure = match failure_mode.as_deref() {
            None | Some("Open") => OnFailure::Open,
            Some("Closed") => OnFailure::Closed,
            Some(mode) => {
                let message = format!(
                    "{mode:?} is not what may hold while the server does not answer; write Open (requests go on) or \
                     Closed (they are refused)"
                );
                return Err(wrong("spec.global.failureMode", message));
            }
        };
        if descriptors.is_empty() {
            let message = "is empty, so the server would never be asked; write at least one, such as {entries: [{from: \
                           clientAddress}]}";
            return Err(wrong(DESCRIPTORS, message));
        }
        few(descriptors.len(), DESCRIPTORS)?;
        let read = |(number, one): (usize, DescriptorYaml)| {
            one.read(&format!("{DESCRIPTORS}[{number}].entries"), targets)
        };
        Ok(GlobalSpec {
            server: server(&service)?,
            domain: word(domain, "spec.global.domain")?,
            timeout,
            on_failure,
            descriptors: descriptors.into_iter().enumerate().map(read).collect::<Result<_, _>>()?,
        })
    }
}

impl DescriptorYaml {
    fn read(self, field: &str, targets: &[LimitTarget]) -> Result<DescriptorSpec, FieldError> {
        if self.entries.is_empty() {
            let message = "is empty; write at least one entry, such as {header: x-user}";
            return Err(wrong(field, message));
        }
        few(self.entries.len(), field)?;
        let numbered = self.entries.into_iter().enumerate();
        let read = |(number, one): (usize, EntryYaml)| one.read(&format!("{field}[{number}]"), targets);
        Ok(DescriptorSpec { entries: numbered.map(read).collect::<Result<_, _>>()? })
    }
}

impl EntryYaml {
    fn read(self, field: &str, targets: &[LimitTarget]) -> Result<EntrySpec, FieldError> {
        let Self { key, value, header, from } = self;
        let all_are = |is_it: fn(&LimitTarget) -> bool| !targets.is_empty() && targets.iter().all(is_it);
        let key = match key {
            Some(key) => Some(Arc::from(word(key, &format!("{field}.key"))?)),
            None => None,
        };
        let value = match (value, header, from.as_deref()) {
            (Some(value), None, None) => Value::Fixed(word(value, &format!("{field}.value"))?.into()),
            (None, Some(name), None) => Value::Header(header_name(&name, &format!("{field}.header"))?),
            (None, None, Some("clientAddress")) => Value::ClientAddress,
            (None, None, Some("clientIdentity")) => Value::ClientIdentity,
            (None, None, Some("route")) if all_are(|one| matches!(one, LimitTarget::Route { .. })) => {
                Value::Route
            }
            (None, None, Some("service")) if all_are(|one| matches!(one, LimitTarget::Service(_))) => {
                return Ok(EntrySpec::Service(key.unwrap_or_else(|| Arc::from("service"))));
            }
            (None, None, Some("service")) => {
                let message = "is known only where all targetRefs are Services; write a value instead";
                return Err(wrong(format!("{field}.from"), message));
            }
            (None, None, Some("route")) => {
                let message = "is known only where all targetRefs are routes; write a value instead";
                return Err(wrong(format!("{field}.from"), message));
            }
            (None, None, Some(from)) => {
                let message =
                    format!("{from:?} is unknown; write clientAddress, clientIdentity, route or service");
                return Err(wrong(format!("{field}.from"), message));
            }
            _ => return Err(wrong(field, "must have one of value, header and from")),
        };
        let key = key.unwrap_or_else(|| Arc::from(value.usual_key()));
        Ok(EntrySpec::Usual(Entry { key, value }))
    }
}

/// The server that `text` names.
fn server(text: &str) -> Result<ServerRef, FieldError> {
    let read = || {
        let (name, port) = text.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        let (namespace, host) = match name.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) && !name.contains('.') => {
                (Some(namespace.to_owned()), name)
            }
            Some(_) => return None,
            None => (None, name),
        };
        is_name(host).then(|| ServerRef { namespace, host: host.to_ascii_lowercase(), port })
    };
    read().ok_or_else(|| {
        let message = format!(
            "{text:?} names no server; write NAMESPACE/NAME:PORT of a Service, NAME:PORT of one in this namespace, or \
             HOST:PORT"
        );
        wrong(SERVICE, message)
    })
}

/// Whether `text` may be a name or a host.
fn is_name(text: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(is_usual)
}

fn word(text: String, field: &str) -> Result<String, FieldError> {
    match text.len() {
        0 => Err(wrong(field, "is missing")),
        length if length > LONGEST_WORD => {
            Err(wrong(field, format!("has {length} bytes, and may have {LONGEST_WORD}")))
        }
        _ => Ok(text),
    }
}

fn few(number: usize, field: &str) -> Result<(), FieldError> {
    if number > MOST_DESCRIPTORS {
        return Err(wrong(field, format!("has {number} items, and may have {MOST_DESCRIPTORS}")));
    }
    Ok(())
}
