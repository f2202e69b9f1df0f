//! Changes of headers, on the way out and on the way back.

use std::{borrow::Cow, time::SystemTime};

use http::HeaderMap;
use selvedge_model::filter::{Commands, HeaderChanges};

use crate::{
    bind::BoundChanges,
    step::{HttpVersion, Matched},
};

/// Changes that can be made without the request that they were made for.
pub(super) struct Prepared<'a>(Cow<'a, HeaderChanges>);

impl Prepared<'_> {
    /// Makes them.
    pub(super) fn make(&self, headers: &mut HeaderMap) {
        self.0.apply(headers);
    }
}

/// `bound`, with what its commands stand for now.
pub(super) fn prepared<'a>(bound: &'a BoundChanges, matched: &Matched) -> Prepared<'a> {
    let Some(hostname) = &bound.hostname else { return Prepared(Cow::Borrowed(&bound.changes)) };
    let now = SystemTime::now();
    let commands = Commands {
        headers: matched.http.headers(),
        remote_address: matched.conn.peer.ip(),
        protocol: match matched.conn.version {
            HttpVersion::Http1 => "HTTP/1.1",
            HttpVersion::Http2 => "HTTP/2",
        },
        start_time: now.checked_sub(matched.age()).unwrap_or(now),
        hostname,
    };
    Prepared(Cow::Owned(bound.changes.said(&commands)))
}

/// Changes the headers of the request itself.
pub(super) fn change_request(bound: &BoundChanges, matched: &mut Matched) {
    if bound.changes.is_empty() {
        return;
    }
    let changes = prepared(bound, matched);
    changes.make(matched.http.headers_mut());
}
