//! The one list of header fields that only sidecars write, and how they are kept from everybody else.
//!
//! A name is ours in every spelling that an app may take for it. CGI, WSGI, Rack and PHP turn `-` into `_`, so
//! `X_Forwarded_Client_Cert` and `x-forwarded-client-cert` are one to them; some turn other characters into `_`, too.
//!
//! | name | written by | read by |
//! |---|---|---|
//! | `x-forwarded-client-cert` | the sidecar of the app that is asked | its app |
//! | `selvedge-error` | whichever sidecar answers in the app's place | the client, and its sidecar |
//! | `selvedge-fresh-connection` | the client's sidecar | the server's |
//! | `selvedge-retried` | the server's sidecar, in an answer | the client's |
//! | `selvedge-hops` | any proxy, in a request that may come back to it | itself: whatever else is in it, it replaces |
//! | any other `selvedge-…` | nobody, as yet | |
//! | `l5d-client-id` | Linkerd's sidecars, none of ours | apps that have moved from Linkerd, which believe it |

use http::{HeaderMap, HeaderName};
use selvedge_ops::guarded::HOPS;

use super::remove_all;

/// The peer's verified identity, for the app (Envoy's header, Envoy's format).
pub const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static(CLIENT_CERT);

const CLIENT_CERT: &str = "x-forwarded-client-cert";

/// The client's identity as Linkerd's sidecars tell it to apps.
const LINKERD_CLIENT: &str = "l5d-client-id";

/// Says to a mesh peer's sidecar that the request is to be sent to the app on a new connection.
pub const FRESH_CONNECTION: HeaderName = HeaderName::from_static("selvedge-fresh-connection");

/// Says to a mesh peer's sidecar that the answer failed because a call of its app's failed, which was tried again in vain.
pub const RETRIED: HeaderName = HeaderName::from_static("selvedge-retried");

/// What the names of all our own fields begin with.
const OURS: &[u8] = b"selvedge-";

/// Whether an app, or a sidecar, may take a field of this name for one that only sidecars write.
pub(super) fn is_reserved(name: &str) -> bool {
    let name = name.as_bytes();
    let is = |ours: &str| name.len() == ours.len() && reads_as(name, ours.as_bytes());
    match name.first() {
        Some(b's') => is_ours(name),
        Some(b'x') => is(CLIENT_CERT),
        Some(b'l') => is(LINKERD_CLIENT),
        _ => false,
    }
}

fn is_ours(name: &[u8]) -> bool {
    name.get(..OURS.len()).is_some_and(|start| reads_as(start, OURS))
}

/// Whether `name` is `ours`, where any mark may stand for a dash. Both are in lower case, as `HeaderName`s are.
pub(crate) fn reads_as(name: &[u8], ours: &[u8]) -> bool {
    let same = |(name, ours): (&u8, &u8)| name == ours || (*ours == b'-' && !name.is_ascii_alphanumeric());
    name.iter().zip(ours).all(same)
}

/// Removes what an app may take for a field called `name`.
pub(crate) fn remove_as_read(headers: &mut HeaderMap, name: &HeaderName) {
    let is_it = |one: &&HeaderName| {
        one.as_str().len() == name.as_str().len()
            && reads_as(one.as_str().as_bytes(), name.as_str().as_bytes())
    };
    remove_all(headers, is_it);
}

/// Removes what a client may not say. If the client is a mesh peer's sidecar, removes what sidecars do not say.
pub(super) fn strip_request(headers: &mut HeaderMap, from_sidecar: bool) {
    let may_say = |name: &HeaderName| *name == HOPS || (from_sidecar && *name == FRESH_CONNECTION);
    remove_all(headers, |name| is_reserved(name.as_str()) && !may_say(name));
}

/// Removes what sidecars have said to each other, before the request goes to the app. Returns whether it needs a fresh
/// connection.
pub fn take_what_sidecars_said(headers: &mut HeaderMap) -> bool {
    if !headers.keys().any(|name| *name == FRESH_CONNECTION || *name == HOPS) {
        return false;
    }
    headers.remove(HOPS);
    headers.remove(FRESH_CONNECTION).is_some()
}

/// Removes what an app may not answer. An app may echo who called it, which is no secret.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    remove_all(headers, |name| is_ours(name.as_str().as_bytes()));
}
