//! Reads `x-forwarded-client-cert`: who called, as the server's own sidecar proved it.

use http::HeaderMap;

/// The header in which a sidecar tells its app the caller's verified identity.
pub const HEADER: &str = "x-forwarded-client-cert";

/// The `URI=` of the last element: the one that the nearest sidecar wrote.
pub fn caller(headers: &HeaderMap) -> Option<String> {
    let value = headers.get_all(HEADER).iter().next_back()?.to_str().ok()?;
    let element = split_outside_quotes(value, ',').pop()?;
    split_outside_quotes(element, ';').into_iter().find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case("uri").then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Certificate subjects are quoted and may hold either separator.
fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller_of(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        caller(&headers)
    }

    #[test]
    fn the_nearest_sidecar_names_the_caller() {
        let frontend = Some("spiffe://cluster.local/ns/default/sa/frontend".to_owned());

        assert_eq!(
            caller_of("By=spiffe://x;Hash=ab;URI=spiffe://cluster.local/ns/default/sa/frontend"),
            frontend
        );
        assert_eq!(
            caller_of("URI=spiffe://far,By=x;URI=spiffe://cluster.local/ns/default/sa/frontend"),
            frontend
        );
    }

    #[test]
    fn a_quoted_subject_hides_no_identity() {
        assert_eq!(
            caller_of(r#"Subject="CN=a;URI=evil,URI=evil";URI=spiffe://good"#).unwrap(),
            "spiffe://good"
        );
    }

    #[test]
    fn no_header_is_no_caller() {
        assert_eq!(caller(&HeaderMap::new()), None);
        assert_eq!(caller_of("By=spiffe://x"), None);
    }
}
