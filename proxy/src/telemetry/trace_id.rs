//! The trace that a request is part of, as its `traceparent` says: exemplars name it.

use std::fmt;

use http::HeaderMap;

/// The id of a trace that somebody keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId(pub(super) u128);

/// The bit of the flags that says that whoever called keeps the trace.
const SAMPLED: u8 = 1;

impl TraceId {
    /// The trace in the `traceparent` of a request (W3C Trace Context); `None`: there is none that is kept.
    pub(super) fn sampled(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("traceparent")?.as_bytes();
        // `<version>-<trace id>-<parent id>-<flags>`; versions after the first may say more behind.
        let [_, _, b'-', rest @ ..] = value else { return None };
        let (id, rest) = rest.split_at_checked(32)?;
        let [b'-', rest @ ..] = rest else { return None };
        let (_, rest) = rest.split_at_checked(16)?;
        let [b'-', high, low, ..] = rest else { return None };
        let flags = digit(*high)? << 4 | digit(*low)?;
        let id = id.iter().try_fold(0_u128, |id, byte| Some(id << 4 | u128::from(digit(*byte)?)))?;
        (flags & SAMPLED != 0 && id != 0).then_some(Self(id))
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(traceparent: &str) -> Option<String> {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), traceparent.parse().ok()?)]);
        TraceId::sampled(&headers).map(|id| id.to_string())
    }

    #[test]
    fn only_a_trace_that_is_kept_is_named() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(sampled(&format!("00-{id}-b7ad6b7169203331-01")).as_deref(), Some(id));
        assert_eq!(sampled(&format!("cc-{id}-b7ad6b7169203331-03-more")).as_deref(), Some(id));
        assert_eq!(sampled(&format!("00-{id}-b7ad6b7169203331-00")), None);
        for wrong in [
            "",
            "00",
            "00-short-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        ] {
            assert_eq!(sampled(wrong), None, "{wrong}");
        }
        assert_eq!(TraceId::sampled(&HeaderMap::new()), None);
    }
}
