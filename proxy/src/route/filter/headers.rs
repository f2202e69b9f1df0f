//! Changes of headers, on the way out and on the way back.

use std::{borrow::Cow, time::SystemTime};

use selvedge_model::filter::{Commands, HeaderChanges, ReadyChanges};

use crate::step::{HttpVersion, Matched};

/// The changes that are `ready`, with what their commands stand for now.
pub(super) fn said<'a>(ready: &'a ReadyChanges, matched: &Matched) -> Cow<'a, HeaderChanges> {
    ready.said(|hostname| {
        let now = SystemTime::now();
        Commands {
            headers: matched.http.headers(),
            remote_address: matched.conn.client_address(&matched.http),
            protocol: match matched.conn.version {
                HttpVersion::Http1 => "HTTP/1.1",
                HttpVersion::Http2 => "HTTP/2",
            },
            start_time: now.checked_sub(matched.age()).unwrap_or(now),
            hostname,
        }
    })
}

/// Changes the headers of the request itself.
pub(super) fn change_request(ready: &ReadyChanges, matched: &mut Matched) {
    if ready.changes.is_empty() {
        return;
    }
    let changes = said(ready, matched);
    changes.apply(matched.http.headers_mut());
}
