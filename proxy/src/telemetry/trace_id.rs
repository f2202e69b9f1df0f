//! The trace that a request is part of, as its `traceparent` says: exemplars name it.

use std::fmt;

use http::HeaderMap;

use super::trace;

/// The id of a trace that somebody keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceId(pub(super) u128);

impl TraceId {
    /// The trace in the `traceparent` of a request (W3C Trace Context); `None`: there is none that is kept.
    pub(super) fn sampled(headers: &HeaderMap) -> Option<Self> {
        trace::kept(headers).map(|trace| Self(u128::from_be_bytes(trace)))
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
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        ] {
            assert_eq!(sampled(wrong), None, "{wrong}");
        }
        assert_eq!(TraceId::sampled(&HeaderMap::new()), None);
    }
}
