//! What a request is kept together with others by: the hash that its backend's balancer picks with, and the cookie that
//! its answer gives to a client that has none.
//!
//! A cookie of the proxy's making is a random number that is signed. It names no endpoint. One of the same name that is not
//! signed is most likely the app's own, which must not be replaced: it keeps requests together as it is, as in Envoy, but
//! by a hash that a client cannot know.

use std::net::IpAddr;

use http::{
    HeaderValue, Request,
    header::{COOKIE, HOST},
};
use selvedge_model::{WorkloadName, route::query_value};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    balance::address_bytes,
    bind::{Affinity, AffinityCookie, BoundBackend, Signature},
    step::Conn,
    worker::Worker,
};

/// The hash of what a request is kept together with others by (`None`: it has nothing), and `Set-Cookie` of the answer,
/// boxed because few have it.
type Hashed = (Option<u64>, Option<Box<HeaderValue>>);

/// What `http`, which came on `conn`, is kept together with others by at `backend`. `failed`: whether an attempt before
/// has failed.
pub(super) fn hashed<B>(
    worker: &Worker,
    backend: &BoundBackend,
    http: &Request<B>,
    conn: &Conn,
    failed: bool,
) -> Hashed {
    let hash = match &backend.affinity {
        None => None,
        Some(Affinity::Cookie(cookie)) => return by_cookie(worker, cookie, http, conn, failed),
        Some(Affinity::Header(name)) => {
            of_all(http.headers().get_all(name).iter().map(HeaderValue::as_bytes))
        }
        Some(Affinity::Authority) => {
            let of_uri = http.uri().authority().map(|authority| authority.as_str().as_bytes());
            of_uri.or_else(|| http.headers().get(HOST).map(HeaderValue::as_bytes)).map(xxh3_64)
        }
        Some(Affinity::Path) => http.uri().path_and_query().map(|path| xxh3_64(path.as_str().as_bytes())),
        Some(Affinity::Query(name)) => {
            query_value(http.uri().query().unwrap_or_default(), name).map(|value| xxh3_64(value.as_bytes()))
        }
        Some(Affinity::SourceAddress) => {
            let is_apps = conn.outbound().is_some();
            Some(of_address(conn.client_address(http), is_apps.then_some(&worker.settings.workload)))
        }
    };
    (hash, None)
}

fn by_cookie<B>(
    worker: &Worker,
    cookie: &AffinityCookie,
    http: &Request<B>,
    conn: &Conn,
    failed: bool,
) -> Hashed {
    let is_kept = !(failed && cookie.renewed_on_failure && cookie.given.is_some());
    match of_values(cookie, || cookie_values(http, &cookie.name)) {
        Some((hash, is_ours)) if is_kept || !is_ours => return (Some(hash), None),
        Some(_) | None => {}
    }
    let Some(given) = &cookie.given else { return (None, None) };
    let number = worker.rng.borrow_mut().u128(..);
    let value = match &cookie.signature {
        Some(signature) => signature.value(number),
        None => format!("{number:032x}"),
    };
    let hash = Some(xxh3_64(value.as_bytes()));
    (hash, given.with(&value, conn.is_secure()).map(Box::new))
}

/// The hash of the first of a cookie's `values` that is ours, or of the first that somebody else has set; and whether it is ours.
fn of_values<'v, V: Iterator<Item = &'v [u8]>>(
    cookie: &AffinityCookie,
    values: impl Fn() -> V,
) -> Option<(u64, bool)> {
    let Some(signature) = &cookie.signature else {
        return values().next().map(|value| (xxh3_64(value), true));
    };
    let mut proven = values().filter(|value| Signature::may_be(value)).take(MOST_PROVEN);
    proven.find(|value| signature.is_ours(value)).map(|value| (xxh3_64(value), true)).or_else(|| {
        let other = values().find(|value| !value.is_empty());
        other.map(|value| (signature.hash(value), false))
    })
}

/// Of how many values of one cookie it is proven whether they are ours: all of ours are signed with one key, so that the
/// first is enough, unless the app's own looks like it.
const MOST_PROVEN: usize = 2;

/// How many values of one cookie are looked at.
const MOST_VALUES: usize = 8;

/// The values of the cookie `name`, without the quotes that they may have: there may be some for several paths or domains.
pub(crate) fn cookie_values<'a, B>(http: &'a Request<B>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let crumbs = http.headers().get_all(COOKIE).iter();
    let crumbs = crumbs.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let values = crumbs.filter_map(move |crumb| {
        let value = crumb.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(bare.unwrap_or(value))
    });
    values.take(MOST_VALUES)
}

/// The hash of the client at `address`. An app that calls its sidecar over loopback, as all of them do there, counts as
/// the workload that it is.
pub(crate) fn of_address(address: IpAddr, app: Option<&WorkloadName>) -> u64 {
    match app.filter(|_| address.is_loopback()) {
        Some(workload) => {
            let of_namespace = xxh3_64(workload.namespace().as_bytes());
            xxh3_64_with_seed(workload.name().as_bytes(), of_namespace)
        }
        None => xxh3_64(&address_bytes(address)),
    }
}

/// The hash of all `values`, in their order; `None` if there is none.
fn of_all<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    values.fold(None, |before, value| Some(xxh3_64_with_seed(value, before.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_model::{ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, SessionKey};

    use super::*;

    fn with(lines: &[&str]) -> Request<()> {
        let mut request = Request::builder();
        for line in lines {
            request = request.header(COOKIE, *line);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let request = with(&["xuser=1; user=\"a b\" ;user=2", "last=3"]);
        let values = |request: &Request<()>, name: &str| -> Vec<Vec<u8>> {
            cookie_values(request, name).map(<[u8]>::to_vec).collect()
        };

        assert_eq!(values(&request, "user"), [&b"a b"[..], b"2"]);
        assert_eq!(values(&request, "last"), [b"3"]);
        assert!(values(&request, "use").is_empty() && values(&with(&["user"]), "user").is_empty());
        assert_eq!(values(&with(&["user=1;".repeat(100).as_str()]), "user").len(), MOST_VALUES);
    }

    /// A cookie that proxies give, or one of the app's own.
    fn cookie(ttl: Option<Duration>) -> AffinityCookie {
        let cookie = HashCookie {
            name: "user".to_owned(),
            ttl,
            path: None,
            attributes: Vec::new(),
            renewed_on_failure: false,
            key: Some(SessionKey([7; 32])),
        };
        let hash =
            ConsistentHash { key: HashKey::Cookie(cookie), table: HashTable::MAGLEV, load_bound: None };
        match Affinity::of(&LoadBalancer::ConsistentHash(hash)) {
            Some(Affinity::Cookie(cookie)) => cookie,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_several_cookies_ours_counts_first_and_then_one_that_somebody_else_has_set() {
        let given = cookie(Some(Duration::ZERO));
        let signature = given.signature.as_ref().unwrap();
        let ours = signature.value(1);
        let of = |cookie: &AffinityCookie, line: &str| {
            let request = with(&[line]);
            of_values(cookie, || cookie_values(&request, "user"))
        };

        let hash = xxh3_64(ours.as_bytes());
        assert_eq!(of(&given, &format!("user=1; user={ours}")), Some((hash, true)));
        assert_eq!(of(&given, "user=; user=\"1\"; user=2"), Some((signature.hash(b"1"), false)));
        assert_ne!(signature.hash(b"1"), xxh3_64(b"1"), "whoever knows the function does not know the hash");
        // Of what is made up so that it looks like ours, no more is looked into than there is reason to.
        let made_up = "A".repeat(ours.len());
        let after = |count| format!("{}user={ours}", format!("user=1; user={made_up}; ").repeat(count));
        assert_eq!(of(&given, &after(1)), Some((hash, true)));
        assert_eq!(of(&given, &after(2)), Some((signature.hash(b"1"), false)));
        assert_eq!(of(&given, "user="), None);
        assert_eq!(of(&given, "other=1"), None);
        assert_eq!(of(&cookie(None), "user=1"), Some((xxh3_64(b"1"), true)), "of the app's own alone");
    }

    #[test]
    fn apps_on_loopback_are_told_by_their_workloads() {
        let (one, other) =
            (WorkloadName::new("default", "a").unwrap(), WorkloadName::new("default", "b").unwrap());
        let (loopback, pod) = ("127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap());

        assert_ne!(of_address(loopback, Some(&one)), of_address(loopback, Some(&other)));
        assert_eq!(of_address(pod, Some(&one)), of_address(pod, Some(&other)));
        assert_eq!(of_address(pod, None), of_address("::ffff:10.0.0.1".parse().unwrap(), None));
    }

    #[test]
    fn the_order_of_a_headers_values_counts_and_none_is_nothing() {
        let of = |values: &[&'static str]| of_all(values.iter().map(|value| value.as_bytes()));

        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a"]), Some(xxh3_64(b"a")));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
    }
}
