//! Changes of headers (Gateway API `RequestHeaderModifier`, `ResponseHeaderModifier`; `VirtualService` `headers`).

use std::{fmt, str::FromStr};

use http::{HeaderName, HeaderValue};
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
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        text.parse::<HeaderText>().unwrap().pieces
    }

    fn text(text: &'static str) -> Piece {
        Piece::Text(HeaderValue::from_static(text))
    }

    #[test]
    fn commands_stand_among_text() {
        assert_eq!(pieces("plain"), [text("plain")]);
        assert_eq!(pieces(""), [text("")]);
        assert_eq!(pieces("100%% sure"), [text("100% sure")]);
        assert_eq!(
            pieces("a %REQ(X-Trace)%%PROTOCOL% b"),
            [
                text("a "),
                Piece::RequestHeader(HeaderName::from_static("x-trace")),
                Piece::Protocol,
                text(" b")
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(
            "%UPSTREAM_HOST%".parse::<HeaderText>(),
            Err(HeaderTextError::UnknownCommand("UPSTREAM_HOST".to_owned()))
        );
        assert_eq!("50%".parse::<HeaderText>(), Err(HeaderTextError::Unfinished));
        assert!(matches!("a\nb".parse::<HeaderText>(), Err(HeaderTextError::Forbidden(_))));
        assert!(matches!("%REQ(a b)%".parse::<HeaderText>(), Err(HeaderTextError::UnknownCommand(_))));
    }

    #[test]
    fn a_literal_reads_back_as_itself() {
        let literal = HeaderText::literal("50% %REQ(a)%").unwrap();

        assert_eq!(literal.pieces, [text("50% %REQ(a)%")]);
        assert_eq!(literal.to_string().parse::<HeaderText>().unwrap(), literal);
    }
}
