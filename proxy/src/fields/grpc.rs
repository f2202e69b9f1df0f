//! What gRPC says in header fields and trailers (gRPC over HTTP/2).

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

use super::get_rare;

/// How a call ended.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// After how many milliseconds a call may be tried again (gRFC A6, "Pushback").
pub const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What it says of that in words.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a message with these headers is gRPC (gRPC over HTTP/2, "Content-Type").
pub fn is_grpc(headers: &HeaderMap) -> bool {
    get_rare(headers, &CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// How a gRPC call ended, as an answer's headers or trailers say it.
pub fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    get_rare(fields, &GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether an answer is a failure, as far as its head says.
pub fn has_failed(status: u16, grpc_status: Option<u8>) -> bool {
    status == 429 || status >= 500 || grpc_status.is_some_and(|status| status != 0)
}

/// `text` as gRPC writes messages: percent-encoded outside printable ASCII.
pub fn grpc_message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("?"))
}
