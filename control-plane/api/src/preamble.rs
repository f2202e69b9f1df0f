//! The first bytes inside mesh TLS: a 16-bit big-endian length, then a [`wire::Preamble`].

use prost::Message;

use crate::wire;

/// The longest preamble that a peer may send, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// Why a preamble was refused.
#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    /// A peer that is not one of ours, or a newer one.
    #[error("the preamble is {length} bytes; at most {MAX_LENGTH} are accepted")]
    TooLong {
        /// What the length prefix says.
        length: usize,
    },
    /// The bytes are no protobuf message.
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

/// The preamble with its length prefix, as it is sent.
pub fn encode(preamble: &wire::Preamble) -> Vec<u8> {
    let length = preamble.encoded_len();
    let mut bytes = Vec::with_capacity(2 + length);
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    preamble.encode(&mut bytes).expect("a Vec grows as needed");
    bytes
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
/// If it is no preamble, or asks for what this version does not know.
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
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(&valid());

        assert_eq!(length([bytes[0], bytes[1]]).unwrap(), bytes.len() - 2);
        assert_eq!(decode(&bytes[2..]).unwrap(), valid());
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
