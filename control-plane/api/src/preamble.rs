//! The first bytes inside mesh TLS: a 16-bit big-endian length, then a [`wire::Preamble`]; and, where opaque
//! TCP is carried, what the other side says to it: a length again, then a [`wire::Answer`].

use std::sync::Arc;

use prost::Message;
use selvedge_model::naming::Naming;

use crate::wire;

/// The longest preamble, or answer, that a peer may send, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// The answer that what follows is the app's, as it is sent.
pub const ACCEPTED: [u8; 2] = [0, 0];

/// Why a preamble, or an answer to one, was refused.
#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    /// A peer that is not one of ours, or a newer one.
    #[error("the preamble is {length} bytes; at most {MAX_LENGTH} are accepted")]
    TooLong {
        /// What the length prefix says.
        length: usize,
    },
    /// The bytes are not a protobuf message.
    #[error("the preamble cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A value that this version does not know, or one that makes no sense.
    #[error("the preamble's {field} is {value}, which this version does not serve")]
    Unsupported {
        /// Which field.
        field: &'static str,
        /// What was sent.
        value: i64,
    },
}

/// The preamble with its length prefix, as it is sent. What is only for display is left out where it would be too long.
pub fn encode(preamble: &wire::Preamble) -> Vec<u8> {
    if preamble.encoded_len() > MAX_LENGTH {
        return prefixed(&wire::Preamble { naming: None, ..preamble.clone() });
    }
    prefixed(preamble)
}

impl From<&Naming> for wire::Naming {
    fn from(naming: &Naming) -> Self {
        let Naming { owner, app, version, service, revision } = naming;
        let [owner, app, version, service, revision] =
            [owner, app, version, service, revision].map(|text| text.to_string());
        Self { owner, app, version, service, revision }
    }
}

impl From<&wire::Naming> for Naming {
    fn from(naming: &wire::Naming) -> Self {
        let wire::Naming { owner, app, version, service, revision } = naming;
        let [owner, app, version, service, revision] =
            [owner, app, version, service, revision].map(|text| Arc::from(text.as_str()));
        Self { owner, app, version, service, revision }
    }
}

/// The answer that the connection is refused, with its length prefix, as it is sent. `why` is cut where it is
/// longer than can be sent.
pub fn encode_refusal(why: &str) -> Vec<u8> {
    let longest = why.floor_char_boundary(MAX_LENGTH - 8);
    prefixed(&wire::Answer { refused: Some(why[..longest].to_owned()) })
}

fn prefixed(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(2 + length);
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    message.encode(&mut bytes).expect("a Vec grows as needed");
    bytes
}

/// Decodes an answer without its prefix. `Some`: the connection is refused, for this reason.
///
/// # Errors
/// If it is not an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Option<String>, PreambleError> {
    Ok(wire::Answer::decode(bytes)?.refused)
}

/// The length that a prefix announces.
///
/// # Errors
/// If it is more than [`MAX_LENGTH`].
pub fn length(prefix: [u8; 2]) -> Result<usize, PreambleError> {
    let length = usize::from(u16::from_be_bytes(prefix));
    if length > MAX_LENGTH { Err(PreambleError::TooLong { length }) } else { Ok(length) }
}

/// Decodes a preamble without its prefix, and checks its values.
///
/// # Errors
/// If it is not a preamble, or asks for what this version does not know.
pub fn decode(bytes: &[u8]) -> Result<wire::Preamble, PreambleError> {
    let preamble = wire::Preamble::decode(bytes)?;
    let unsupported = |field, value: i64| PreambleError::Unsupported { field, value };
    let carrier = match wire::Carrier::try_from(preamble.carrier) {
        Ok(carrier) if carrier != wire::Carrier::Unspecified => carrier,
        _ => return Err(unsupported("carrier", preamble.carrier.into())),
    };
    if !(1..=65535).contains(&preamble.port) {
        return Err(unsupported("port", preamble.port.into()));
    }
    let app = wire::AppProtocol::try_from(preamble.app).ok();
    if app.is_none() || (carrier != wire::Carrier::Tcp && app == Some(wire::AppProtocol::Unspecified)) {
        return Err(unsupported("app", preamble.app.into()));
    }
    Ok(preamble)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> wire::Preamble {
        wire::Preamble {
            carrier: wire::Carrier::Http2.into(),
            port: 8080,
            source: "shop/frontend".into(),
            app: wire::AppProtocol::Http1.into(),
            naming: None,
        }
    }

    #[test]
    fn what_people_call_the_client_is_left_out_where_it_is_too_long() {
        let naming = Naming { owner: "web".into(), version: "v1".into(), ..Naming::default() };
        let named = |naming: &Naming| wire::Preamble { naming: Some(naming.into()), ..valid() };
        let told = |preamble| decode(&encode(&preamble)[2..]).unwrap();

        assert_eq!(told(named(&naming)).naming.as_ref().map(Naming::from), Some(naming));
        let long = Naming { app: "a".repeat(MAX_LENGTH).into(), ..Naming::default() };
        assert_eq!(told(named(&long)), valid());
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(&valid());

        assert_eq!(length([bytes[0], bytes[1]]).unwrap(), bytes.len() - 2);
        assert_eq!(decode(&bytes[2..]).unwrap(), valid());
    }

    #[test]
    fn an_answer_says_whether_and_why_a_connection_is_refused() {
        assert_eq!(length(ACCEPTED).unwrap(), 0);
        assert_eq!(decode_answer(&[]).unwrap(), None);

        let refusal = encode_refusal("policy: no");
        assert_eq!(length([refusal[0], refusal[1]]).unwrap(), refusal.len() - 2);
        assert_eq!(decode_answer(&refusal[2..]).unwrap().as_deref(), Some("policy: no"));
    }

    #[test]
    fn a_long_refusal_is_cut_between_characters() {
        let refusal = encode_refusal(&"é".repeat(MAX_LENGTH));

        assert!(length([refusal[0], refusal[1]]).is_ok());
        assert!(decode_answer(&refusal[2..]).unwrap().unwrap().chars().all(|char| char == 'é'));
    }

    #[test]
    fn what_this_version_does_not_know_is_refused() {
        for preamble in [
            wire::Preamble { carrier: 9, ..valid() },
            wire::Preamble { carrier: 0, ..valid() },
            wire::Preamble { port: 0, ..valid() },
            wire::Preamble { port: 70_000, ..valid() },
            wire::Preamble { app: 0, ..valid() },
        ] {
            let bytes = encode(&preamble);
            assert!(matches!(decode(&bytes[2..]), Err(PreambleError::Unsupported { .. })), "{preamble:?}");
        }
        assert!(matches!(length([0xff, 0xff]), Err(PreambleError::TooLong { .. })));
        assert!(decode(&[0xff, 0xff, 0xff]).is_err());
    }
}
