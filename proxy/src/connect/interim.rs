//! Interim answers (RFC 9110, section 15.2) on their way from an app to its client: `103 Early Hints`.
//!
//! They are passed on where HTTP/1.1 goes on as HTTP/1.1. hyper does not report those that come by HTTP/2, and cannot
//! send any there. `100 Continue` and `101 Switching Protocols` have rules of their own.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::{body::Body, fields, step::Conn};

/// Has interim answers to `request` passed on to the client that it came from on `conn`, if that can have any.
pub(super) fn pass_on(request: &mut http::Request<Body>, conn: &Conn) {
    let Some(watch) = conn.watch.get() else { return };
    let Some(exchange) = watch.exchange() else { return };
    let watch = Arc::clone(watch);
    hyper::ext::on_informational(request, move |answer| {
        if answer.status() != StatusCode::CONTINUE {
            watch.interim(exchange, &text(answer.status(), answer.headers()));
        }
    });
}

/// An interim answer as HTTP/1.1 writes it.
fn text(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    fields::interim(&mut headers);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hints_are_written_without_what_concerns_one_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "</a.css>"),
            ("link", "</b.css>"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("selvedge-error", "policy: no"),
            ("selvedge_error", "policy: no"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }

        let text = String::from_utf8(text(StatusCode::EARLY_HINTS, &headers)).unwrap();

        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n");
    }
}
