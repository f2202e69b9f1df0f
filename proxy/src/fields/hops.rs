//! Fields that concern only the connection that a message came on (RFC 9110, section 7.6.1).
//!
//! `Proxy-Authenticate` and `Proxy-Authorization` are not among them: no sidecar asks for credentials, so they
//! are the app's own (section 11.7). `Via` and `Max-Forwards` count proxies that a client can tell from the app,
//! which a sidecar is not: they pass unchanged.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

use super::reserved;

/// How long the sender keeps the connection (RFC 2068, section 19.7.1.1).
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Those that go in any case.
pub(super) static HOPS: [HeaderName; 6] =
    [CONNECTION, TE, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// The place in [`HOPS`] of a field of this name.
pub(super) fn place(name: &str) -> Option<usize> {
    Some(match name {
        "connection" => 0,
        "te" => 1,
        "keep-alive" => 2,
        "proxy-connection" => 3,
        "transfer-encoding" => 4,
        "upgrade" => 5,
        _ => return None,
    })
}

/// Whether a field of this name may have to go.
pub(super) fn concerns_connection(name: &str) -> bool {
    place(name).is_some()
}

/// Removes what only concerns the connection that a message came on, and what its `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let mut there = [false; HOPS.len()];
    for place in headers.keys().filter_map(|name| place(name.as_str())) {
        there[place] = true;
    }
    let [connection, te, ..] = there;
    let accepts_trailers = te && lists(headers, &TE, "trailers");
    if connection {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    for (name, _) in HOPS.iter().zip(there).filter(|(_, is_there)| *is_there) {
        headers.remove(name);
    }
    if accepts_trailers {
        // Trailers are passed on, whatever else the next connection may not be asked for (section 10.1.4).
        headers.insert(TE, const { HeaderValue::from_static("trailers") });
    }
}

/// The fields that `Connection` names, in all its lines; but not what goes in any case, not what a message cannot do without, and
/// not what only we say: a client must not take away what is not its own.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).into_iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let words = words.map(<[u8]>::trim_ascii).filter(|word| !word.eq_ignore_ascii_case(b"keep-alive"));
    let names = words.filter_map(|word| HeaderName::from_bytes(word).ok());
    names.filter(|name| !is_essential(name) && headers.contains_key(name)).collect()
}

fn is_essential(name: &HeaderName) -> bool {
    *name == HOST || *name == CONTENT_LENGTH || reserved::is_reserved(name.as_str())
}

/// Whether one of the comma-separated words of the field called `name` is `word`.
pub fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).into_iter();
    let mut words = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    words.any(|listed| listed.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}
