//! What an answer says of whether, and when, its request is to be sent again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

use crate::fields::{GRPC_PUSHBACK, get_rare, remove_rare, reserved::RETRIED};

/// After what time a server that failed wants to be asked again; the longest time: never.
pub(super) fn not_before(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(milliseconds) = get_rare(headers, &GRPC_PUSHBACK) {
        // What is no number, and a number below 0, means never.
        let milliseconds = milliseconds.to_str().ok().and_then(|text| text.parse().ok());
        return Some(milliseconds.map_or(Duration::MAX, Duration::from_millis));
    }
    // RFC 9110, section 10.2.3. With other statuses it is not about the load.
    if status != 429 && status != 503 {
        return None;
    }
    let text = get_rare(headers, &RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Takes the mark away with which a peer's sidecar says that the request was tried again behind it, in vain.
pub(super) fn was_retried(headers: &mut HeaderMap) -> bool {
    remove_rare(headers, &RETRIED).is_some()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn asked(status: u16, name: HeaderName, value: &'static str) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        not_before(status, &HeaderMap::from_iter([(name, HeaderValue::from_static(value))]), now)
    }

    #[test]
    fn a_time_is_said_in_seconds_or_as_a_date() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("3", seconds(3)),
            (" 120 ", seconds(120)),
            ("99999999999999999999", Some(Duration::MAX)),
            ("Sun, 06 Nov 1994 08:49:44 GMT", seconds(7)),
            ("Sunday, 06-Nov-94 08:49:38 GMT", seconds(1)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(asked(503, RETRY_AFTER, value), expected, "{value}");
            assert_eq!(asked(429, RETRY_AFTER, value), expected, "{value}");
            assert_eq!(asked(500, RETRY_AFTER, value), None, "{value}");
        }
    }

    #[test]
    fn grpc_says_milliseconds_or_never() {
        for (value, expected) in
            [("250", Duration::from_millis(250)), ("-1", Duration::MAX), ("x", Duration::MAX)]
        {
            assert_eq!(asked(200, GRPC_PUSHBACK, value), Some(expected), "{value}");
        }
    }
}
