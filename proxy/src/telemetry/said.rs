//! Text of a request's head, shared with the head: noting it for the access log copies and allocates nothing.

use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery},
};

/// See the module. As long as this lives, so does the buffer that the head was read into.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Held);

#[derive(Debug, Clone, Default)]
enum Held {
    #[default]
    Nothing,
    Authority(Authority),
    Path(PathAndQuery),
    /// Of visible ASCII.
    Field(HeaderValue),
    Own(Box<str>),
}

impl Said {
    /// The authority in a request's URI.
    pub(super) fn authority(authority: &Authority) -> Self {
        Self(Held::Authority(authority.clone()))
    }

    /// The path, without its query.
    pub(super) fn path(uri: &Uri) -> Self {
        Self(uri.path_and_query().cloned().map_or(Held::Nothing, Held::Path))
    }

    /// The value of a field. Nothing: it is not text.
    pub(super) fn value(value: &HeaderValue) -> Self {
        Self(if value.to_str().is_ok() { Held::Field(value.clone()) } else { Held::Nothing })
    }

    /// A text of its own, which keeps no buffer alive.
    pub(super) fn own(text: Option<String>) -> Self {
        Self(text.map_or(Held::Nothing, |text| Held::Own(text.into())))
    }

    /// The text; `None`: nothing was said.
    pub(super) fn get(&self) -> Option<&str> {
        match &self.0 {
            Held::Nothing => None,
            Held::Authority(authority) => Some(authority.as_str()),
            Held::Path(path) => Some(path.path()),
            Held::Field(value) => value.to_str().ok(),
            Held::Own(text) => Some(text),
        }
    }

    /// The text; empty: nothing was said.
    pub(super) fn as_str(&self) -> &str {
        self.get().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_without_the_query_and_only_if_it_is_text() {
        let request = http::Request::get("http://reviews:9080/a/b?secret=1")
            .header("x-text", "some")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap())
            .body(())
            .unwrap();
        let value = |name| Said::value(&request.headers()[name]);

        assert_eq!(Said::path(request.uri()).get(), Some("/a/b"));
        assert_eq!(Said::authority(request.uri().authority().unwrap()).get(), Some("reviews:9080"));
        assert_eq!(value("x-text").get(), Some("some"));
        assert_eq!(value("x-bytes").get(), None);
        assert_eq!(Said::path(&Uri::from_static("reviews:9080")).as_str(), "");
        assert_eq!(Said::own(Some("short".to_owned())).get(), Some("short"));
    }
}
