//! Rewrites of path and authority. The path that is rewritten is the one that was matched, in normal form; the app sees the
//! new authority as its `Host`, and the path that the client asked for in [`ORIGINAL_PATH`], as from Envoy.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header::HOST, uri::PathAndQuery};

use super::{ReadyAuthority, ReadyFilters};
use crate::filter::{rewrite::with_both_queries, with_query};

/// What apps behind Istio's sidecars read the path in that there was before a rewrite.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

impl ReadyFilters {
    /// Rewrites path and authority of `request`, which came here by the match at `place`. `before` are the filters that it
    /// went through before these: those of the rule, where these are a backend's.
    ///
    /// # Errors
    /// Why the outcome cannot be sent.
    pub fn rewrite<B>(
        &self,
        request: &mut Request<B>,
        place: Option<usize>,
        before: Option<&Self>,
    ) -> Result<(), &'static str> {
        let path = self.new_path(request.uri(), place)?;
        if path.is_none() && self.authority.is_none() {
            return Ok(());
        }
        let old = request.uri().path_and_query();
        let original = old.filter(|old| path.as_ref().is_some_and(|path| path != *old));
        if let Some(original) = original.filter(|_| before.is_none_or(|before| before.path.is_none())) {
            let original = HeaderValue::from_str(original.as_str());
            let original = original.map_err(|_| "the path before its rewrite is no header")?;
            request.headers_mut().insert(ORIGINAL_PATH, original);
        }
        let uri = std::mem::take(request.uri_mut());
        let uri = changed(uri, path, self.authority.as_ref(), request.headers_mut());
        *request.uri_mut() = uri.ok_or("what its rewrite makes is no URI")?;
        Ok(())
    }

    fn new_path(&self, uri: &Uri, place: Option<usize>) -> Result<Option<PathAndQuery>, &'static str> {
        let Some(rewrite) = &self.path else { return Ok(None) };
        let path = rewrite.apply(uri.path(), self.matched(place));
        if leaves_its_place(&path) {
            return Err(
                "what its rewrite makes of the path has a segment `..`, which leads out of the new path",
            );
        }
        let query = uri.query().unwrap_or_default();
        let path = if self.adds_query { with_both_queries(path, query) } else { with_query(path, query) };
        let path = PathAndQuery::try_from(path);
        path.map(Some).map_err(|_| "what its rewrite makes of the path is no path")
    }
}

/// Whether an app may find `path` elsewhere than it says. A rewrite makes such a path if it cuts a segment in two:
/// `/api` to `/app/` makes `/app/../admin` of `/api../admin`.
fn leaves_its_place(path: &str) -> bool {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    path.contains("..") && path.split(['/', '\\']).any(|segment| segment == "..")
}

/// `uri` with what is new in it; the authority also in `headers`, where the client may have named it.
fn changed(
    uri: Uri,
    path: Option<PathAndQuery>,
    authority: Option<&ReadyAuthority>,
    headers: &mut HeaderMap,
) -> Option<Uri> {
    let mut parts = uri.into_parts();
    if let Some(path) = path {
        parts.path_and_query = Some(path);
    }
    if let Some(new) = authority {
        match &mut parts.authority {
            Some(authority) => {
                *authority = new.authority.clone();
                headers.remove(HOST);
            }
            None => drop(headers.insert(HOST, new.host.clone())),
        }
    }
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::filter::{Filters, PathRewrite, Rewrite};

    fn host() -> HeaderMap {
        [(HOST, HeaderValue::from_static("old"))].into_iter().collect()
    }

    fn authority() -> ReadyAuthority {
        ReadyAuthority { authority: "new:8".parse().unwrap(), host: HeaderValue::from_static("new:8") }
    }

    #[test]
    fn the_authority_changes_where_it_is_named() {
        let mut headers = host();
        let uri = changed("/a?b".parse().unwrap(), None, Some(&authority()), &mut headers).unwrap();
        assert_eq!((uri.to_string().as_str(), &headers[HOST]), ("/a?b", &HeaderValue::from_static("new:8")));

        let mut headers = host();
        let uri = changed("http://old/a".parse().unwrap(), None, Some(&authority()), &mut headers).unwrap();
        assert_eq!((uri.to_string().as_str(), headers.get(HOST)), ("http://new:8/a", None));
    }

    #[test]
    fn no_request_gets_out_of_the_path_that_a_rewrite_gives_it() {
        let rewrite = Rewrite { path: Some(PathRewrite::Prefix("/app/".to_owned())), ..Rewrite::default() };
        let filters = Filters { rewrite, ..Filters::default() };
        let matched = Some(crate::StringMatch::Prefix("/api".to_owned()));
        let ready = ReadyFilters::new(&filters, std::iter::once(matched), || "host".into()).unwrap();
        let rewritten = |path: &str| {
            let mut request = Request::get(path).body(()).unwrap();
            ready.rewrite(&mut request, Some(0), None).map(|()| request.uri().to_string())
        };

        for path in ["/api../admin", "/api..", "/api../..?x"] {
            assert!(rewritten(path).unwrap_err().contains("`..`"), "{path}");
        }
        assert_eq!(rewritten("/api/a..b?/../").unwrap(), "/app/a..b?/../");
        assert_eq!(rewritten("/api.../a").unwrap(), "/app/.../a");
    }

    #[test]
    fn a_query_of_the_new_path_stands_before_the_requests_own_or_in_its_place() {
        for (new, adds_query, asked, expected) in [
            ("/x?a=b", true, "/api?c=d", "/x?a=b&c=d"),
            ("/x?a=b", true, "/api", "/x?a=b"),
            ("/x", true, "/api?c=d", "/x?c=d"),
            ("/x?a=b", false, "/api?c=d", "/x?a=b"),
            ("/x", false, "/api?c=d", "/x?c=d"),
        ] {
            let rewrite =
                Rewrite { path: Some(PathRewrite::Full(new.to_owned())), adds_query, authority: None };
            let filters = Filters { rewrite, ..Filters::default() };
            let ready = ReadyFilters::new(&filters, std::iter::once(None), || "host".into()).unwrap();
            let mut request = Request::get(asked).body(()).unwrap();
            ready.rewrite(&mut request, Some(0), None).unwrap();
            assert_eq!(request.uri(), expected, "{new} {adds_query} {asked}");
        }
    }

    #[test]
    fn the_path_changes_alone() {
        let path = Some(PathAndQuery::from_static("/x?y"));
        let mut headers = host();
        let uri = changed("http://old/a".parse().unwrap(), path, None, &mut headers).unwrap();
        assert_eq!((uri.to_string().as_str(), headers), ("http://old/x?y", host()));
    }
}
