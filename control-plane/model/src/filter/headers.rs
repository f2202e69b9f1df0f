//! Changes of headers (Gateway API `RequestHeaderModifier`, `ResponseHeaderModifier`; `VirtualService` `headers`).

use std::{fmt, net::IpAddr, str::FromStr, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

/// What changes in a message's headers: first what is removed, then what is set, then what is added. The default
/// changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HeaderChanges {
    /// Headers of which nothing is left.
    #[serde(serialize_with = "names")]
    pub remove: Vec<HeaderName>,
    /// Headers that have this value alone.
    pub set: Vec<HeaderChange>,
    /// Headers that have this value besides those that they had.
    pub add: Vec<HeaderChange>,
}

impl HeaderChanges {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Those of them that may be made: see [`may_change`].
    #[must_use]
    pub fn that_may_be_made(&self) -> Self {
        let may = |change: &&HeaderChange| may_change(&change.name);
        Self {
            remove: self.remove.iter().filter(|name| may_change(name)).cloned().collect(),
            set: self.set.iter().filter(may).cloned().collect(),
            add: self.add.iter().filter(may).cloned().collect(),
        }
    }

    /// Whether some value has a command, so that it takes [`Commands`] to know it.
    pub fn has_commands(&self) -> bool {
        self.set.iter().chain(&self.add).any(|change| change.value.has_commands())
    }

    /// Makes them, in values without commands alone.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for HeaderChange { name, value } in &self.set {
            if let [Piece::Text(value)] = value.pieces() {
                headers.insert(name.clone(), value.clone());
            }
        }
        for HeaderChange { name, value } in &self.add {
            if let [Piece::Text(value)] = value.pieces() {
                headers.append(name.clone(), value.clone());
            }
        }
    }

    /// The same changes, each command replaced by what it stands for. A header whose value becomes empty by that is left
    /// out, as by Envoy.
    #[must_use]
    pub fn said(&self, commands: &Commands<'_>) -> Self {
        let said = |changes: &[HeaderChange]| {
            let said = changes.iter().filter_map(|HeaderChange { name, value }| {
                Some(HeaderChange { name: name.clone(), value: value.said(commands)? })
            });
            said.collect()
        };
        Self { remove: self.remove.clone(), set: said(&self.set), add: said(&self.add) }
    }
}

/// What the commands in a header's value stand for.
#[derive(Debug, Clone, Copy)]
pub struct Commands<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The client's own address, also where trusted proxies tell it.
    pub remote_address: IpAddr,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// When the request came.
    pub start_time: SystemTime,
    /// The name of the host that the proxy runs on.
    pub hostname: &'a str,
}

/// Whether a filter may change the header called `name`. It may not change what decides where a message goes and where
/// it ends (`Host` is changed by a rewrite of the authority), what concerns a connection (RFC 9110, section 7.6.1), and
/// what only sidecars write.
pub fn may_change(name: &HeaderName) -> bool {
    const OURS: &str = "selvedge-";
    const NEVER: &[&str] = &[
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
    ];
    // Apps may read other marks as dashes.
    let read = name.as_str().replace(|mark: char| !mark.is_ascii_alphanumeric(), "-");
    !NEVER.contains(&read.as_str()) && !read.starts_with(OURS)
}

fn names<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

/// A header and the value that it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderChange {
    /// The header.
    #[serde(serialize_with = "name")]
    pub name: HeaderName,
    /// The value.
    pub value: HeaderText,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

/// A header's value, in which Envoy's commands may stand: `%REQ(name)%`, `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`,
/// `%PROTOCOL%`, `%START_TIME%`, `%HOSTNAME%`, and `%%` for a percent sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderText {
    source: String,
    pieces: Vec<Piece>,
}

/// A part of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(HeaderValue),
    /// The value of this header of the request; nothing if it has none.
    RequestHeader(HeaderName),
    /// The address of the client, without its port.
    RemoteAddress,
    /// `HTTP/1.1` or `HTTP/2`.
    Protocol,
    /// When the request came: RFC 3339 in UTC, to the millisecond.
    StartTime,
    /// The name of the host that the proxy runs on.
    Hostname,
}

/// Why a text cannot be a header's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTextError {
    /// A command that is not known here.
    #[error(
        "%{0}% is not a command that is acted on; use %REQ(name)%, %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%, %PROTOCOL%, %START_TIME% or %HOSTNAME%, or write %% for a percent sign"
    )]
    UnknownCommand(String),
    /// A percent sign by itself.
    #[error("a % begins a command that does not end; write %% for a percent sign")]
    Unfinished,
    /// A character that no header may hold.
    #[error("{0:?} cannot be the value of a header")]
    Forbidden(String),
}

impl HeaderText {
    /// `text` as it is, with no command in it (Gateway API).
    ///
    /// # Errors
    /// If no header may hold it.
    pub fn literal(text: &str) -> Result<Self, HeaderTextError> {
        let value = HeaderValue::from_str(text).map_err(|_| HeaderTextError::Forbidden(text.to_owned()))?;
        Ok(Self { source: text.replace('%', "%%"), pieces: vec![Piece::Text(value)] })
    }

    /// Its parts, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether there is a command in it.
    pub fn has_commands(&self) -> bool {
        !matches!(self.pieces.as_slice(), [Piece::Text(_)])
    }

    /// It with each command replaced by what it stands for; `None` if nothing is left by that.
    fn said(&self, commands: &Commands<'_>) -> Option<Self> {
        if !self.has_commands() {
            return Some(self.clone());
        }
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::RequestHeader(name) => {
                    let value = commands.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
                    bytes.extend_from_slice(value);
                }
                Piece::RemoteAddress => bytes.extend(commands.remote_address.to_string().bytes()),
                Piece::Protocol => bytes.extend_from_slice(commands.protocol.as_bytes()),
                Piece::StartTime => {
                    let time = humantime::format_rfc3339_millis(commands.start_time);
                    bytes.extend(time.to_string().bytes());
                }
                Piece::Hostname => bytes.extend_from_slice(commands.hostname.as_bytes()),
            }
        }
        let value = HeaderValue::from_bytes(&bytes).ok().filter(|value| !value.is_empty())?;
        Some(Self { source: String::new(), pieces: vec![Piece::Text(value)] })
    }
}

impl FromStr for HeaderText {
    type Err = HeaderTextError;

    fn from_str(source: &str) -> Result<Self, HeaderTextError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once('%') {
            text.push_str(before);
            let (command, after) = after.split_once('%').ok_or(HeaderTextError::Unfinished)?;
            rest = after;
            if command.is_empty() {
                text.push('%');
                continue;
            }
            flush(&mut text, &mut pieces)?;
            pieces.push(command_of(command)?);
        }
        text.push_str(rest);
        if !text.is_empty() || pieces.is_empty() {
            flush_any(&text, &mut pieces)?;
        }
        Ok(Self { source: source.to_owned(), pieces })
    }
}

fn flush(text: &mut String, pieces: &mut Vec<Piece>) -> Result<(), HeaderTextError> {
    if text.is_empty() {
        return Ok(());
    }
    flush_any(&std::mem::take(text), pieces)
}

fn flush_any(text: &str, pieces: &mut Vec<Piece>) -> Result<(), HeaderTextError> {
    let value = HeaderValue::from_str(text).map_err(|_| HeaderTextError::Forbidden(text.to_owned()))?;
    pieces.push(Piece::Text(value));
    Ok(())
}

fn command_of(command: &str) -> Result<Piece, HeaderTextError> {
    let unknown = || HeaderTextError::UnknownCommand(command.to_owned());
    if let Some(name) = command.strip_prefix("REQ(").and_then(|rest| rest.strip_suffix(')')) {
        return name.parse().map(Piece::RequestHeader).map_err(|_| unknown());
    }
    match command {
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Ok(Piece::RemoteAddress),
        "PROTOCOL" => Ok(Piece::Protocol),
        "START_TIME" => Ok(Piece::StartTime),
        "HOSTNAME" => Ok(Piece::Hostname),
        _ => Err(unknown()),
    }
}

/// As it is written, which reads back as the same.
impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Serialize for HeaderText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

#[cfg(test)]
mod tests;
