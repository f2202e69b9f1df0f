//! Rewrites of path and authority. The path that is rewritten is the one that was matched, in normal form; the app sees the
//! new authority as its `Host`, and the path that the client asked for in [`ORIGINAL_PATH`], as from Envoy.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::HOST, uri::PathAndQuery};
use selvedge_model::filter::with_query;

use super::unusable;
use crate::{
    bind::{BoundAuthority, BoundFilters},
    step::{Error, Matched},
};

/// What apps behind Istio's sidecars read the path in that there was before a rewrite.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Rewrites what `filters` say.
///
/// # Errors
/// If the outcome is no path.
pub(super) fn rewrite(filters: &BoundFilters, matched: &mut Matched) -> Result<(), Error> {
    let path = match &filters.path {
        None => None,
        Some(rewrite) => {
            let uri = matched.http.uri();
            let asked = filters.matched(matched.place.map(usize::from));
            let path = with_query(rewrite.apply(uri.path(), asked), uri.query().unwrap_or_default());
            let valid = PathAndQuery::try_from(path);
            Some(valid.map_err(|_| unusable(matched, "what its rewrite makes of the path is no path"))?)
        }
    };
    if path.is_none() && filters.authority.is_none() {
        return Ok(());
    }
    let before = matched.http.uri().path_and_query();
    let original = before.filter(|before| path.as_ref().is_some_and(|path| path != *before));
    if let Some(original) = original.filter(|_| !has_rewritten(matched.rule.filters.as_deref(), filters)) {
        let original = HeaderValue::from_str(original.as_str());
        let original = original.map_err(|_| unusable(matched, "the path before its rewrite is no header"))?;
        matched.http.headers_mut().insert(ORIGINAL_PATH, original);
    }
    let uri = std::mem::take(matched.http.uri_mut());
    let uri = changed(uri, path, filters.authority.as_ref(), matched.http.headers_mut());
    *matched.http.uri_mut() = uri.ok_or_else(|| unusable(matched, "what its rewrite makes is no URI"))?;
    Ok(())
}

/// Whether the filters of the rule have rewritten the path before `filters`, which are those of a share.
fn has_rewritten(of_rule: Option<&BoundFilters>, filters: &BoundFilters) -> bool {
    of_rule.is_some_and(|of_rule| of_rule.path.is_some() && !std::ptr::eq(of_rule, filters))
}

/// `uri` with what is new in it; the authority also in `headers`, where the client may have named it.
fn changed(
    uri: Uri,
    path: Option<PathAndQuery>,
    authority: Option<&BoundAuthority>,
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

    fn host() -> HeaderMap {
        [(HOST, HeaderValue::from_static("old"))].into_iter().collect()
    }

    fn authority() -> BoundAuthority {
        BoundAuthority { authority: "new:8".parse().unwrap(), host: HeaderValue::from_static("new:8") }
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
    fn the_path_changes_alone() {
        let path = Some(PathAndQuery::from_static("/x?y"));
        let mut headers = host();
        let uri = changed("http://old/a".parse().unwrap(), path, None, &mut headers).unwrap();
        assert_eq!((uri.to_string().as_str(), headers), ("http://old/x?y", host()));
    }
}
