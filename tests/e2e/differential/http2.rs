//! The same of HTTP/2, which clients begin with: an app is spoken to as its client speaks.

mod apparatus;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::Frame;

use super::*;
use apparatus::{Apparatus2, Told};

/// Frames, and whether the stream breaks after them.
type Frames = (Vec<Frame<Bytes>>, bool);

type Plan = Arc<Mutex<Option<Told>>>;

/// Fields, each `name: value`, separated by bars.
fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in text.split('|').map(str::trim).filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once(':').expect("name: value");
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, value.trim().parse().expect("a value"));
    }
    headers
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers(text: &str) -> Frame<Bytes> {
    Frame::trailers(headers(text))
}

#[tokio::test]
async fn an_app_of_http2_sees_what_it_would_see_without_us() {
    let mut apparatus = Apparatus2::new().await;
    apparatus.tell(Told {
        status: 204,
        fields: HeaderMap::new(),
        frames: (Vec::new(), false),
        ends_at_once: true,
    });
    let mut complaints = Complaints::default();
    type Row = (&'static str, &'static str, fn() -> Option<Vec<Frame<Bytes>>>);
    let bodies: [Row; 6] = [
        ("no body", "", || None),
        ("an empty body", "", || Some(vec![])),
        ("a length", "content-length: 3", || Some(vec![data("abc")])),
        ("no length", "", || Some(vec![data("ab"), data("c")])),
        ("trailers", "te: trailers | trailer: x-sum", || {
            Some(vec![data("abc"), trailers("x-sum: 1 | x-sum: 2 | y: 3")])
        }),
        ("trailers alone", "te: trailers", || Some(vec![trailers("x-sum: 1")])),
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        for (name, lines, frames) in bodies {
            compare(&mut apparatus, &mut complaints, (method, name, "/x"), lines, frames, &[]).await;
        }
    }
    for (name, target, lines, gone) in [
        ("fields", "/x", "a: 1 | b: | a: 2 | c: , | user-agent: x | accept: */* | x_y: 1", &[][..]),
        ("crumbs", "/x", "cookie: a=1 | cookie: b=2", &[]),
        ("credentials", "/x", "authorization: a | proxy-authorization: b | via: 2 a | max-forwards: 0", &[]),
        ("a query", "/a;b//c%2Fd?e=f?g&&%zz", "", &[]),
        ("an empty query", "/a?", "", &[]),
        (
            "gRPC's",
            "/a.B/C",
            "content-type: application/grpc+proto | te: trailers | grpc-timeout: 5S | x-bin: AAA",
            &[],
        ),
        ("a Host that says the same", "/x", "host: app:8080", &["host"]),
        ("an expectation", "/x", "expect: 100-continue", &["expect"]),
        (
            "what we say ourselves",
            "/x",
            "x-forwarded-client-cert: By=a | x_forwarded_client_cert: By=b | selvedge-error: x | selvedge_fresh_connection: 1 | selvedge-hop: 1",
            &[
                "x-forwarded-client-cert",
                "x_forwarded_client_cert",
                "selvedge-error",
                "selvedge_fresh_connection",
                "selvedge-hop",
            ],
        ),
    ] {
        compare(
            &mut apparatus,
            &mut complaints,
            ("POST", name, target),
            lines,
            || Some(vec![data("abc")]),
            gone,
        )
        .await;
    }
}

async fn compare(
    apparatus: &mut Apparatus2,
    complaints: &mut Complaints,
    (method, name, target): (&str, &str, &str),
    lines: &str,
    frames: impl Fn() -> Option<Vec<Frame<Bytes>>>,
    gone: &[&str],
) {
    let name = format!("{method} {name}");
    let request = || {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{APP}{target}"))
            .body(())
            .expect("a request");
        *request.headers_mut() = headers(lines);
        request
    };
    let sent = || frames().map(|frames| (frames, false));
    let (direct, _) = apparatus.exchange(Way::Direct, request(), sent()).await;
    let direct = direct.unwrap_or_else(|| panic!("{name}: the app does not read it"));
    for way in WAYS {
        let (app, answer) = apparatus.exchange(way, request(), sent()).await;

        complaints.expect(
            "the answer",
            &name,
            way,
            answer.map(|answer| answer.first),
            Some("204 No Content".to_owned()),
        );
        let mut expected = direct.clone();
        expected.fields = without(&direct.fields, gone);
        if let Some(peer) = forwarded(way) {
            expected.fields.insert("x-forwarded-client-cert".to_owned(), vec![peer]);
        }
        complaints.expect("what arrives", &name, way, app, Some(expected));
    }
}

#[tokio::test]
async fn trailers_of_http2_say_nothing_that_only_sidecars_say() {
    const FORGED: &str = "x-sum: 1 | x-forwarded-client-cert: By=a | x_forwarded_client_cert: By=b | selvedge-error: policy: no | selvedge_error: x | content-length: 9 | host: b | trailer: y";
    let mut apparatus = Apparatus2::new().await;
    let (fields, frames) =
        (headers("content-type: application/grpc"), (vec![data("ok"), trailers(FORGED)], false));
    apparatus.tell(Told { status: 200, fields, frames, ends_at_once: false });
    let mut complaints = Complaints::default();
    for way in WAYS {
        let request = Request::post(format!("http://{APP}/a.B/C"))
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let frames = (vec![data("abc"), trailers(FORGED)], false);

        let (app, answer) = apparatus.exchange(way, request, Some(frames)).await;

        for (end, seen) in [("the app", app), ("the client", answer)] {
            let seen = seen.unwrap_or_else(|| panic!("{way:?}: {end} sees nothing"));
            assert!(seen.is_whole, "{way:?}: {end}: {seen:?}");
            let left: Vec<_> = seen.trailers.keys().map(String::as_str).collect();
            complaints.expect(end, "trailers", way, left, vec!["x-sum"]);
        }
    }
}

#[tokio::test]
async fn a_client_of_http2_sees_what_it_would_see_without_us() {
    let mut apparatus = Apparatus2::new().await;
    let mut complaints = Complaints::default();
    type Row =
        (&'static str, &'static str, u16, &'static str, fn() -> Option<Frames>, &'static [&'static str]);
    let rows: [Row; 24] = [
        ("a length", "GET", 200, "content-length: 2", || Some((vec![data("ok")], false)), &[]),
        ("no length", "GET", 200, "", || Some((vec![data("o"), data("k")], false)), &[]),
        ("no body", "GET", 200, "", || None, &[]),
        ("a length of 0", "GET", 200, "content-length: 0", || None, &[]),
        ("an empty body", "GET", 200, "", || Some((vec![], false)), &[]),
        (
            "trailers",
            "GET",
            200,
            "trailer: x-sum",
            || Some((vec![data("ok"), trailers("x-sum: 1 | y: 2")], false)),
            &[],
        ),
        (
            "trailers alone",
            "POST",
            200,
            "",
            || Some((vec![trailers("grpc-status: 5 | grpc-message: no")], false)),
            &[],
        ),
        (
            "a gRPC status in the head",
            "POST",
            200,
            "content-type: application/grpc | grpc-status: 5",
            || None,
            &[],
        ),
        ("less than the length", "GET", 200, "content-length: 9", || Some((vec![data("ok")], false)), &[]),
        ("more than the length", "GET", 200, "content-length: 1", || Some((vec![data("ok")], false)), &[]),
        ("no body in spite of a length", "GET", 200, "content-length: 9", || None, &[]),
        ("a break", "GET", 200, "", || Some((vec![data("ok")], true)), &[]),
        (
            "a break within the length",
            "GET",
            200,
            "content-length: 9",
            || Some((vec![data("ok")], true)),
            &[],
        ),
        ("a break at once", "GET", 200, "", || Some((vec![], true)), &[]),
        ("HEAD", "HEAD", 200, "content-length: 1234", || None, &[]),
        ("HEAD without a length", "HEAD", 200, "", || None, &[]),
        ("304", "GET", 304, "content-length: 1234 | etag: x", || None, &[]),
        ("304 to HEAD", "HEAD", 304, "content-length: 1234", || None, &[]),
        ("204", "GET", 204, "x: y", || None, &[]),
        ("205", "GET", 205, "content-length: 0", || None, &[]),
        ("another status", "GET", 599, "", || None, &[]),
        (
            "fields",
            "GET",
            200,
            "a: 1 | b: | a: 2 | set-cookie: a | set-cookie: b | via: x | x-forwarded-client-cert: y",
            || None,
            &[],
        ),
        (
            "what we say ourselves",
            "GET",
            200,
            "selvedge-error: policy: no | selvedge_error: x | selvedge-hop: 1",
            || None,
            &["selvedge-error", "selvedge_error", "selvedge-hop"],
        ),
        (
            "two equal lengths",
            "GET",
            200,
            "content-length: 2 | content-length: 2",
            || Some((vec![data("ok")], false)),
            &[],
        ),
    ];
    for (name, method, status, lines, frames, gone) in rows {
        let request =
            || Request::builder().method(method).uri(format!("http://{APP}/x")).body(()).expect("a request");
        let (frames, ends_at_once) = (frames().unwrap_or_default(), frames().is_none());
        apparatus.tell(Told { status, fields: headers(lines), frames, ends_at_once });
        let (_, direct) = apparatus.exchange(Way::Direct, request(), None).await;
        for way in WAYS {
            let (_, mut got) = apparatus.exchange(way, request(), None).await;
            // A retry is another request.
            while apparatus.requests.try_recv().is_ok() {}
            let Some(direct) = &direct else {
                // Where there is none, we say so.
                let error = got.and_then(|got| got.fields.get("selvedge-error").cloned());
                complaints.expect("the refusal", name, way, error.is_some(), true);
                continue;
            };
            let mut expected = direct.clone();
            expected.fields = without(&direct.fields, gone);
            if name == "two equal lengths" {
                expected.fields.insert("content-length".to_owned(), vec!["2".to_owned()]);
            }
            for seen in [&mut expected].into_iter().chain(&mut got) {
                // hyper adds one at every hop that has none.
                seen.fields.remove("date");
                if !seen.is_whole {
                    // What came before the break may have come or not.
                    seen.body = Bytes::new();
                }
            }
            complaints.expect("what arrives", name, way, got, Some(expected));
        }
    }
}
