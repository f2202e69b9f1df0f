//! The RFCs' sentences as rows: what arrives, and what goes on.

use http::header::{CONNECTION, TE};

use super::*;

/// Fields, each `name: value`, separated by bars.
fn fields(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in text.split('|').map(str::trim).filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    headers
}

/// The same, of `headers`, in the order of their names.
fn text(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    lines.join(" | ")
}

#[test]
fn spaces_around_a_value_do_not_go_on() {
    let mut headers = HeaderMap::new();
    for value in ["plain", " before", "after\t", " \tboth \t", "in side", " ", ""] {
        headers.append("x", HeaderValue::from_str(value).unwrap());
    }

    request(&mut headers, false).unwrap();

    let values: Vec<_> = headers.get_all("x").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(values, ["plain", "before", "after", "both", "in side", "", ""]);
}

#[test]
fn a_request_goes_on_without_what_concerns_its_connection() {
    for (sentence, arrives, goes_on) in [
        ("nothing to do", "a: 1 | a: 2 | b:", "a: 1 | a: 2 | b: "),
        (
            "RFC 9110, 7.6.1: Connection goes, and what it names",
            "connection: x-hop, Y | x-hop: 1 | y: 2 | z: 3",
            "z: 3",
        ),
        ("in all its lines", "connection: close | connection: x-hop | x-hop: 1", ""),
        ("whatever its bytes are", "connection: \u{e9}, x-hop | x-hop: 1", ""),
        ("with empty words, and words that name nothing", "connection: ,, close ,x y, | x: 1", "x: 1"),
        (
            "but not what the request is about",
            "connection: host, content-length | host: a | content-length: 3",
            "content-length: 3 | host: a",
        ),
        (
            "fields that are known to be about the connection",
            "keep-alive: timeout=5 | proxy-connection: close | upgrade: h2c | transfer-encoding: chunked",
            "",
        ),
        ("10.1.4: trailers are accepted from here on, too", "te: trailers | connection: te", "te: trailers"),
        ("and nothing else is", "te: gzip;q=0.5, Trailers, deflate", "te: trailers"),
        ("in any line", "te: gzip | te: trailers", "te: trailers"),
        ("or nothing at all", "te: gzip | connection: te", ""),
        ("10.1.1: 100-continue has been met", "expect: 100-Continue", ""),
        ("other expectations are the app's", "expect: 200-ok", "expect: 200-ok"),
        (
            "11.7: credentials are for whoever asked",
            "proxy-authorization: Basic eA==",
            "proxy-authorization: Basic eA==",
        ),
        ("6.6.2: what trailers there will be is for everybody", "trailer: x-sum", "trailer: x-sum"),
        (
            "7.6.2, 7.6.3: a sidecar is not counted among proxies",
            "max-forwards: 0 | via: 1.1 a",
            "max-forwards: 0 | via: 1.1 a",
        ),
        ("8.6: a length that was stated stays", "content-length: 0", "content-length: 0"),
    ] {
        let mut headers = fields(arrives);
        request(&mut headers, false).unwrap();
        assert_eq!(text(&headers), goes_on, "{sentence}: {arrives}");
    }
}

#[test]
fn two_lengths_of_a_request_are_refused() {
    assert!(request(&mut fields("content-length: 3 | content-length: 3"), false).is_err());
}

#[test]
fn what_concerns_a_connection_is_known_by_its_place() {
    for (place, name) in hops::HOPS.iter().enumerate() {
        assert_eq!(hops::place(name.as_str()), Some(place), "{name}");
    }
}

/// In each way in which an app may read it.
const FORGED: [&str; 10] = [
    "x-forwarded-client-cert",
    "X_Forwarded_Client_Cert",
    "x-forwarded_client-cert",
    "x.forwarded.client.cert",
    "l5d-client-id",
    "L5d_Client_Id",
    "selvedge-error",
    "Selvedge_Error",
    "selvedge-hop",
    "selvedge_fresh_connection",
];

#[test]
fn what_only_sidecars_say_is_taken_from_whoever_else_says_it() {
    for forged in FORGED {
        for from_sidecar in [false, true] {
            let mut headers = fields(&format!("{forged}: x | {forged}: y | a: 1"));
            request(&mut headers, from_sidecar).unwrap();
            assert_eq!(text(&headers), "a: 1", "{forged}");
        }
        let mut headers = fields(&format!("{forged}: x | a: 1"));
        trailers(&mut headers);
        assert_eq!(text(&headers), "a: 1", "{forged} in trailers");
    }
    for forged in &FORGED[6..] {
        let mut headers = fields(&format!("{forged}: x | a: 1"));
        interim(&mut headers);
        assert_eq!(text(&headers), "a: 1", "{forged} in an interim answer");
        let mut headers = fields(&format!("{forged}: x | a: 1"));
        answer(&mut headers, StatusCode::OK, true, false).unwrap();
        assert_eq!(text(&headers), "a: 1", "{forged} in an answer");
    }
}

#[test]
fn what_sidecars_say_to_each_other_passes_between_them_only() {
    let all = "selvedge-error: policy: no | selvedge-fresh-connection: 1 | selvedge-hops: 0123abcd";
    for (from_sidecar, left) in [(false, "selvedge-hops: 0123abcd"), (true, all.split_once("| ").unwrap().1)]
    {
        let mut headers = fields(all);
        request(&mut headers, from_sidecar).unwrap();
        assert_eq!(text(&headers), left, "hops are judged by whoever may have written them");
        assert_eq!(reserved::take_what_sidecars_said(&mut headers), from_sidecar);
        assert!(headers.is_empty());
    }

    let mut headers = fields("selvedge-error: policy: no");
    answer(&mut headers, StatusCode::FORBIDDEN, true, true).unwrap();
    assert_eq!(text(&headers), "selvedge-error: policy: no");
}

#[test]
fn names_that_only_look_like_ours_pass() {
    let alike = "forwarded: x | l5d-client: x | selvedge: x | selvedgeerror: x | x-forwarded-client-certs: x | x-forwarded-for: x";
    let mut headers = fields(alike);
    request(&mut headers, false).unwrap();
    assert_eq!(text(&headers), alike);
}

#[test]
fn connection_cannot_take_our_own_fields_away() {
    let mut headers =
        fields("connection: x-forwarded-client-cert, selvedge-error | selvedge-error: policy: no");
    answer(&mut headers, StatusCode::FORBIDDEN, true, true).unwrap();
    assert_eq!(text(&headers), "selvedge-error: policy: no");
}

#[test]
fn an_answer_goes_on_with_at_most_one_length() {
    use Framing::{Doubtful, Sound};
    let ok = StatusCode::OK;
    for (sentence, status, has_body, arrives, goes_on, framing) in [
        ("nothing to do", ok, true, "content-length: 5 | a: 1", "a: 1 | content-length: 5", Sound),
        (
            "RFC 9112, 6.3: chunked overrides",
            ok,
            true,
            "content-length: 99 | transfer-encoding: chunked",
            "",
            Doubtful,
        ),
        (
            "whatever the length says",
            ok,
            true,
            "content-length: x | transfer-encoding: Chunked",
            "",
            Doubtful,
        ),
        (
            "also in an answer to HEAD",
            ok,
            false,
            "content-length: 99 | transfer-encoding: chunked",
            "",
            Doubtful,
        ),
        ("alone it is our own affair", ok, true, "transfer-encoding: chunked", "", Sound),
        ("a HEAD may say any coding", ok, false, "transfer-encoding: gzip, chunked", "", Sound),
        ("identity is none", ok, true, "transfer-encoding: identity", "", Sound),
        (
            "RFC 9110, 8.6: equal lengths are one",
            ok,
            true,
            "content-length: 5, 5",
            "content-length: 5",
            Sound,
        ),
        ("in lines, too", ok, true, "content-length: 5 | content-length: 5", "content-length: 5", Sound),
        ("what is no length is not passed on", ok, false, "content-length: -5", "", Sound),
        ("nor what differs", ok, false, "content-length: 5 | content-length: 6", "", Sound),
        ("nor what is empty", ok, false, "content-length:", "", Sound),
        ("204 has no length", StatusCode::NO_CONTENT, false, "content-length: 0", "", Sound),
        ("101 has no length", StatusCode::SWITCHING_PROTOCOLS, false, "content-length: 0", "", Sound),
        (
            "15.4.5: 304 may have one",
            StatusCode::NOT_MODIFIED,
            false,
            "content-length: 7",
            "content-length: 7",
            Sound,
        ),
        (
            "7.6.1: what concerns the connection goes",
            ok,
            true,
            "connection: close, x-hop | x-hop: 1 | keep-alive: 5 | upgrade: h2",
            "",
            Sound,
        ),
        (
            "but not the length",
            ok,
            true,
            "connection: content-length | content-length: 5",
            "content-length: 5",
            Sound,
        ),
        (
            "11.7.1: an app may be a proxy that asks",
            ok,
            true,
            "proxy-authenticate: Basic",
            "proxy-authenticate: Basic",
            Sound,
        ),
    ] {
        let mut headers = fields(arrives);
        let found = answer(&mut headers, status, has_body, false);
        assert_eq!((text(&headers).as_str(), found), (goes_on, Ok(framing)), "{sentence}: {arrives}");
    }
}

#[test]
fn a_body_in_a_coding_that_nobody_asked_for_is_not_passed_on() {
    for coding in [
        "gzip, chunked",
        "gzip",
        "chunked, gzip",
        "chunked, chunked",
        "identity | content-length: 3",
        "chunked | transfer-encoding: chunked",
        "",
    ] {
        let mut headers = fields(&format!("transfer-encoding: {coding}"));
        assert!(answer(&mut headers, StatusCode::OK, true, false).is_err(), "{coding}");
    }
}

#[test]
fn trailers_have_nothing_that_decides_where_a_message_ends_or_goes() {
    let mut headers = fields(
        "content-length: 3 | host: a | transfer-encoding: chunked | trailer: x | te: trailers | connection: x \
         | upgrade: h2c | keep-alive: 5 | proxy-connection: close | grpc-status: 0 | x-sum: 1 | x-sum: 2",
    );
    trailers(&mut headers);
    assert_eq!(text(&headers), "grpc-status: 0 | x-sum: 1 | x-sum: 2");
}

#[test]
fn a_body_says_where_it_ends_once() {
    let mut headers = HeaderMap::new();
    frame_body(&mut headers);
    assert_eq!(text(&headers), "transfer-encoding: chunked");

    let mut headers = fields("content-length: 3");
    frame_body(&mut headers);
    assert_eq!(text(&headers), "content-length: 3");
}

#[test]
fn a_usual_message_costs_no_change() {
    let mut headers = fields("host: a | accept: */* | user-agent: x | content-length: 3");
    let before = headers.clone();
    request(&mut headers, false).unwrap();
    assert_eq!(headers, before);
    assert!(!headers.contains_key(CONNECTION) && !headers.contains_key(TE));
}
