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

/// Whether a field of this name may have to go.
pub(super) fn concerns_connection(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te")
}

/// Removes what only concerns the connection that a message came on, and what its `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let accepts_trailers = lists(headers, &TE, "trailers");
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, TE] {
        headers.remove(name);
    }
    if accepts_trailers {
        // Trailers are passed on, whatever else the next connection may not be asked for (section 10.1.4).
        headers.insert(TE, const { HeaderValue::from_static("trailers") });
    }
}

/// The fields that `Connection` names, in all its lines; but not what a message cannot do without, and not what
/// only we say: a client must not take away what is not its own.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).into_iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let names = words.filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok());
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
