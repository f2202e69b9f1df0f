//! The time that a gRPC caller gives its call (gRPC over HTTP/2, "grpc-timeout").
//!
//! The caller ends the call by itself when it is over; that the proxy does so as well frees what the call
//! holds here and at the server even if the caller's word to cancel is lost. It only ever shortens the
//! route's own timeout.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most digits that the number may have.
const DIGITS: usize = 8;

/// What `headers` give; `None` if they give nothing, or nothing that can be read.
pub fn given(headers: &HeaderMap) -> Option<Duration> {
    // Few requests have it. To compare the names that are there costs less than a look-up, which hashes the name.
    let (_, value) = headers.iter().find(|(name, _)| *name == GRPC_TIMEOUT)?;
    parse(value.to_str().ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().last()?;
    let number = &text[..at];
    if number.len() > DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("999999999n", None),
            ("+1S", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
            ("1é", None),
            ("S", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
