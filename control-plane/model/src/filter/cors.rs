//! Who may call from a page of another origin (Gateway API `CORS`; `VirtualService` `corsPolicy`).

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};
use serde::Serialize;

use crate::FullRegex;

/// The Fetch standard's CORS protocol, as a proxy answers it for the app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cors {
    /// The origins that may call; any of these.
    pub allow_origins: Vec<OriginMatch>,
    /// `Access-Control-Allow-Methods`; `*` alone = any.
    pub allow_methods: Vec<String>,
    /// `Access-Control-Allow-Headers`; `*` alone = any.
    pub allow_headers: Vec<String>,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: Vec<String>,
    /// `Access-Control-Max-Age`, in whole seconds; `None` = not said.
    pub max_age: Option<Duration>,
    /// `Access-Control-Allow-Credentials: true`.
    pub allow_credentials: bool,
    /// What becomes of a preflight from an origin that may not call.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What an origin must look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum OriginMatch {
    /// Any.
    Any,
    /// Equal, ignoring the case of scheme and host.
    Exact(String),
    /// Begins with this.
    Prefix(String),
    /// The whole origin matches.
    Regex(FullRegex),
}

/// `corsPolicy.unmatchedPreflights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum UnmatchedPreflights {
    /// It goes to the app, as any request (Istio's default).
    #[default]
    Forward,
    /// It is answered 200 without the headers that would allow the call.
    Ignore,
}

/// What CORS makes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Crossing {
    /// A preflight: it is answered 200 with these headers.
    Preflight(HeaderMap),
    /// It goes on. Its answer gets what [`Cors::allow`] adds for this origin; `None`: for none that may call.
    Goes(Option<HeaderValue>),
}

impl Cors {
    /// What becomes of a request with this method and these headers (Fetch, "CORS protocol").
    pub fn judge(&self, method: &Method, headers: &HeaderMap) -> Crossing {
        let Some(origin) = headers.get(ORIGIN) else { return Crossing::Goes(None) };
        let may_call = self.may_call(origin);
        let is_preflight = *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        match (is_preflight, may_call, self.unmatched_preflights) {
            (true, true, _) => Crossing::Preflight(self.preflight(origin, headers)),
            (true, false, UnmatchedPreflights::Ignore) => {
                let mut answer = HeaderMap::new();
                self.vary(&mut answer);
                Crossing::Preflight(answer)
            }
            _ => Crossing::Goes(may_call.then(|| origin.clone())),
        }
    }

    /// Adds to an answer what lets a page of `origin` read it, instead of what the app has said of that; to one for
    /// nobody who may call, only that it depends on the origin.
    pub fn allow(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        self.vary(headers);
        let Some(origin) = origin else { return };
        self.allow_origin(headers, origin);
        insert(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose_headers);
    }

    fn may_call(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        self.allow_origins.iter().any(|allowed| match allowed {
            OriginMatch::Any => true,
            OriginMatch::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            OriginMatch::Prefix(prefix) => origin.starts_with(prefix.as_str()),
            OriginMatch::Regex(regex) => regex.is_match(origin),
        })
    }

    fn preflight(&self, origin: &HeaderValue, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.vary(&mut headers);
        self.allow_origin(&mut headers, origin);
        let said = [
            (ACCESS_CONTROL_ALLOW_METHODS, &self.allow_methods, ACCESS_CONTROL_REQUEST_METHOD),
            (ACCESS_CONTROL_ALLOW_HEADERS, &self.allow_headers, ACCESS_CONTROL_REQUEST_HEADERS),
        ];
        for (name, allowed, asked_in) in said {
            // With credentials `*` is not a wildcard but a name (Fetch, "CORS protocol and credentials").
            if self.allow_credentials && allowed.iter().any(|one| one == "*") {
                headers.extend(asked.get(asked_in).map(|asked| (name, asked.clone())));
            } else {
                insert(&mut headers, name, allowed);
            }
        }
        // Browsers read it in the answer itself; Gateway API asks for it here, too (`exposeHeaders`), as Envoy does it.
        insert(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose_headers);
        if let Some(age) = self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age.as_secs()));
        }
        headers
    }

    fn allow_origin(&self, headers: &mut HeaderMap, origin: &HeaderValue) {
        let said = if self.is_for_any() { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, said);
        if self.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Caches must tell origins apart, unless all get the same answer (Fetch, "CORS protocol and HTTP caches").
    fn vary(&self, headers: &mut HeaderMap) {
        let says = |value: &HeaderValue| {
            let mut words = value.as_bytes().split(|byte| *byte == b',');
            words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"origin") || word.trim_ascii() == b"*")
        };
        if !self.is_for_any() && !headers.get_all(VARY).iter().any(says) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// Whether every origin gets the same answer.
    fn is_for_any(&self) -> bool {
        !self.allow_credentials && self.allow_origins.contains(&OriginMatch::Any)
    }
}

/// Says `words` in one line, if there are any.
fn insert(headers: &mut HeaderMap, name: HeaderName, words: &[String]) {
    if let Ok(value) = HeaderValue::from_str(&words.join(","))
        && !value.is_empty()
    {
        headers.insert(name, value);
    } else {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn cors(allow_origins: Vec<OriginMatch>) -> Cors {
        Cors {
            allow_origins,
            allow_methods: words(&["GET", "POST"]),
            allow_headers: words(&["x-a", "x-b"]),
            expose_headers: words(&["x-c"]),
            max_age: Some(Duration::from_secs(60)),
            allow_credentials: false,
            unmatched_preflights: UnmatchedPreflights::Forward,
        }
    }

    fn exact(origin: &str) -> Vec<OriginMatch> {
        vec![OriginMatch::Exact(origin.to_owned())]
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs =
            list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn preflight(origin: &'static str) -> HeaderMap {
        headers(&[
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-z"),
        ])
    }

    #[test]
    fn a_preflight_is_answered_for_whom_it_is_allowed() {
        let cors = cors(exact("https://a.example"));

        let answer = cors.judge(&Method::OPTIONS, &preflight("https://A.example"));

        let expected = headers(&[
            ("vary", "Origin"),
            ("access-control-allow-origin", "https://A.example"),
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-headers", "x-a,x-b"),
            ("access-control-expose-headers", "x-c"),
            ("access-control-max-age", "60"),
        ]);
        assert_eq!(answer, Crossing::Preflight(expected));
        assert_eq!(cors.judge(&Method::OPTIONS, &preflight("https://b.example")), Crossing::Goes(None));
    }

    #[test]
    fn a_preflight_of_another_origin_may_be_answered_without_allowing_anything() {
        let cors =
            Cors { unmatched_preflights: UnmatchedPreflights::Ignore, ..cors(exact("https://a.example")) };

        let answer = cors.judge(&Method::OPTIONS, &preflight("https://b.example"));

        assert_eq!(answer, Crossing::Preflight(headers(&[("vary", "Origin")])));
    }

    #[test]
    fn options_without_a_question_and_requests_without_an_origin_are_no_preflights() {
        let cors = cors(exact("https://a.example"));
        let origin = headers(&[("origin", "https://a.example")]);

        assert_eq!(
            cors.judge(&Method::OPTIONS, &origin),
            Crossing::Goes(Some(HeaderValue::from_static("https://a.example")))
        );
        assert_eq!(cors.judge(&Method::OPTIONS, &HeaderMap::new()), Crossing::Goes(None));
    }

    #[test]
    fn wildcards_are_spelled_out_where_there_are_credentials() {
        let any = Cors {
            allow_methods: words(&["*"]),
            allow_headers: words(&["*"]),
            ..cors(vec![OriginMatch::Any])
        };
        let Crossing::Preflight(plain) = any.judge(&Method::OPTIONS, &preflight("https://x")) else {
            panic!()
        };
        assert_eq!(plain["access-control-allow-origin"], "*");
        assert_eq!(plain["access-control-allow-methods"], "*");
        assert!(!plain.contains_key(VARY));

        let any = Cors { allow_credentials: true, ..any };
        let Crossing::Preflight(secret) = any.judge(&Method::OPTIONS, &preflight("https://x")) else {
            panic!()
        };
        assert_eq!(secret["access-control-allow-origin"], "https://x");
        assert_eq!(secret["access-control-allow-credentials"], "true");
        assert_eq!(secret["access-control-allow-methods"], "PUT");
        assert_eq!(secret["access-control-allow-headers"], "x-z");
        assert_eq!(secret[VARY], "Origin");
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let cors = cors(vec![
            OriginMatch::Prefix("https://a.".to_owned()),
            OriginMatch::Regex(FullRegex::new("https://b[0-9]").unwrap()),
        ]);
        for origin in ["https://a.example", "https://b7"] {
            let origin = HeaderValue::from_static(origin);
            let asked = [(ORIGIN, origin.clone())].into_iter().collect();
            let Crossing::Goes(Some(allowed)) = cors.judge(&Method::GET, &asked) else {
                panic!("{origin:?}")
            };
            let mut answer =
                headers(&[("access-control-allow-origin", "of the app"), ("vary", "accept, ORIGIN")]);

            cors.allow(&mut answer, Some(&allowed));

            assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
            assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-c");
            assert_eq!(answer.get_all(VARY).iter().count(), 1);
        }
        let mut answer = HeaderMap::new();
        cors.allow(&mut answer, None);
        assert_eq!(answer, headers(&[("vary", "Origin")]));
    }
}
