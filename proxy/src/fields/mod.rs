//! Header fields that do not pass unchanged: fields about the connection or the length of a message, and fields that
//! only sidecars write.
//!
//! Each kind of message has one function here. It goes through the names once, and does no more for a usual message.
//! The rules are those of RFC 9110 and RFC 9112; each has its section beside it, and a row in a test.

pub mod claims;
mod grpc;
pub mod hops;
pub mod length;
mod rare;
pub mod reserved;
mod websocket;

pub use self::{
    grpc::{GRPC_MESSAGE, GRPC_PUSHBACK, GRPC_STATUS, grpc_message, grpc_status, has_failed, is_grpc},
    rare::{get_rare, remove_rare},
    reserved::FORWARDED_CLIENT_CERT,
    websocket::WebSocket,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, EXPECT, HOST, InvalidHeaderValue, TRAILER, TRANSFER_ENCODING},
};

/// `text` as a value of which copies are made, as retries and logs do: it has one place in memory, where a text that is copied
/// into a value has two.
///
/// # Errors
/// If it has a byte that no value has.
pub fn shared<const N: usize>(text: [u8; N]) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from_owner(text))
}

/// What must be done, by the names of a message's fields.
#[derive(Debug, Default)]
struct Found {
    /// Something concerns the connection only.
    hops: bool,
    length: bool,
    reserved: bool,
    expect: bool,
}

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "content-length" => found.length = true,
                "expect" => found.expect = true,
                word if hops::concerns_connection(word) => found.hops = true,
                word => found.reserved |= reserved::is_reserved(word),
            }
        }
        found
    }
}

/// Removes from a request the fields that its next reader must not see. A mesh peer's sidecar (`from_sidecar`) may send
/// fields that only sidecars write.
///
/// # Errors
/// What is wrong with it, for whoever sent it.
pub fn request(headers: &mut HeaderMap, from_sidecar: bool) -> Result<(), &'static str> {
    trim(headers);
    let found = Found::among(headers);
    if found.hops {
        hops::strip(headers);
    }
    if found.reserved {
        reserved::strip_request(headers, from_sidecar);
    }
    // Of HTTP/1 a second one has been refused before.
    if found.length && headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err("the request has more than one Content-Length");
    }
    if found.expect {
        // It has been met: the server that read the request says 100 as soon as somebody wants the body, which
        // is when there is a connection for it. What else may be expected is the app's to judge (RFC 9110,
        // section 10.1.1).
        let is_met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        if headers.get_all(EXPECT).iter().all(is_met) {
            headers.remove(EXPECT);
        }
    }
    Ok(())
}

/// Takes spaces and tabs from the beginning and the end of each value. HTTP/1 drops them where it is read; HTTP/2 forbids
/// them (RFC 9113, section 8.2.1), but some gRPC clients send them. If they stayed, the app could see another value than a
/// policy has decided on.
fn trim(headers: &mut HeaderMap) {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    for value in headers.values_mut() {
        let bytes = value.as_bytes();
        if bytes.first().is_some_and(is_space) || bytes.last().is_some_and(is_space) {
            // What is left of a value is one.
            let mut trimmed =
                HeaderValue::from_bytes(bytes.trim_ascii()).unwrap_or(const { HeaderValue::from_static("") });
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// What an answer says about the connection that it came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Its end was beyond doubt.
    Sound,
    /// It had two lengths, of which one holds: nothing more is to be read on its connection.
    Doubtful,
}

/// Removes from an answer with `status` the fields that its next reader must not see, and leaves at most one length.
/// `has_body`: something follows its head. `from_sidecar`: a mesh peer's sidecar sent it.
///
/// # Errors
/// If its body cannot be read, because of a coding that nobody asked for.
pub fn answer(
    headers: &mut HeaderMap,
    status: StatusCode,
    has_body: bool,
    from_sidecar: bool,
) -> Result<Framing, &'static str> {
    let found = Found::among(headers);
    let mut framing = Framing::Sound;
    if found.hops {
        if let Some(coding) = length::coding(headers) {
            if has_body && !coding.can_be_read(found.length) {
                return Err("a Transfer-Encoding other than chunked, which nobody had asked for");
            }
            // RFC 9112, section 6.3: it overrides Content-Length, which must not be passed on.
            if headers.remove(CONTENT_LENGTH).is_some() {
                framing = Framing::Doubtful;
            }
        }
        hops::strip(headers);
    }
    if found.length {
        length::settle(headers, status);
    }
    if found.reserved && !from_sidecar {
        reserved::strip_answer(headers);
    }
    Ok(framing)
}

/// Removes from an interim answer the fields that its next reader must not see. It has no body, and no sidecar makes
/// one.
pub fn interim(headers: &mut HeaderMap) {
    hops::strip(headers);
    headers.remove(CONTENT_LENGTH);
    reserved::strip_answer(headers);
}

/// Removes from trailers the fields that must not be in them (RFC 9110, section 6.5.1): those that decide where a
/// message ends or goes, those about a connection, and those that only sidecars write.
pub fn trailers(headers: &mut HeaderMap) {
    let misplaced = |name: &&HeaderName| {
        let word = name.as_str();
        **name == CONTENT_LENGTH
            || **name == HOST
            || **name == TRAILER
            || hops::concerns_connection(word)
            || reserved::is_reserved(word)
    };
    remove_all(headers, misplaced);
}

/// Removes the fields whose names are `unwanted`. Allocates only if there are some.
fn remove_all(headers: &mut HeaderMap, unwanted: impl FnMut(&&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(unwanted).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Marks a request's body as one that ends with its last chunk, if nothing else says where it ends. hyper does
/// so only for methods that usually have one (RFC 9112, section 6: any request may).
pub fn frame_body(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, const { HeaderValue::from_static("chunked") });
    }
}

#[cfg(test)]
mod tests;
