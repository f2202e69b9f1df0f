//! Answers of our own: redirects, direct responses, faults and CORS.

use std::time::Duration;

use selvedge_model::filter::{
    Abort, Cors, Delay, DirectResponse, Fraction, OriginMatch, OwnAnswer, PathRewrite, Redirect,
    RedirectPort, UnmatchedPreflights,
};

use super::{super::*, forwarding, refused, routes, virtual_service};

#[test]
fn a_redirect_says_where_to() {
    let redirect =
        |words: &str| match &routes(&virtual_service(&format!("  - redirect: {words}\n")))[0].answer {
            Some(OwnAnswer::Redirect(redirect)) => redirect.clone(),
            other => panic!("{other:?}"),
        };
    let plain = Redirect { scheme: None, port: RedirectPort::OfAuthority, ..Redirect::to_https(301) };

    let path = Some(PathRewrite::Full("/b".to_owned()));
    assert_eq!(redirect("{uri: /b}"), Redirect { path: path.clone(), ..plain.clone() });
    let with_query = Some(PathRewrite::Full("/b?c=d".to_owned()));
    assert_eq!(redirect("{uri: '/b?c=d'}"), Redirect { path: with_query, ..plain.clone() });
    let all = redirect("{uri: /b, authority: b.example, port: 8443, scheme: https, redirectCode: 308}");
    let host = Some("b.example".to_owned());
    let port = RedirectPort::Explicit(8443);
    let scheme = Some("https".to_owned());
    assert_eq!(all, Redirect { status: 308, scheme: scheme.clone(), host, port, path, pieces: Vec::new() });
    let prefix = Some(PathRewrite::Prefix("/new".to_owned()));
    assert_eq!(redirect("{prefixRewrite: /new}"), Redirect { path: prefix, ..plain.clone() });
    for (word, port) in
        [("FROM_PROTOCOL_DEFAULT", RedirectPort::Default), ("FROM_REQUEST_PORT", RedirectPort::OfRequest)]
    {
        let words = format!("{{scheme: https, derive_port: {word}, redirect_code: 302}}");
        let expected = Redirect { status: 302, scheme: scheme.clone(), port, ..plain.clone() };
        assert_eq!(redirect(&words), expected);
    }
}

#[test]
fn a_direct_response_is_a_status_and_a_body() {
    let answer =
        |words: &str| match &routes(&virtual_service(&format!("  - directResponse: {words}\n")))[0].answer {
            Some(OwnAnswer::Direct(DirectResponse { status, body })) => (*status, body.to_vec()),
            other => panic!("{other:?}"),
        };

    assert_eq!(answer("{status: 503}"), (503, Vec::new()));
    assert_eq!(answer("{status: 200, body: {string: 'out of order'}}"), (200, b"out of order".to_vec()));
    for bytes in ["+/8=", "-_8=", "-_8"] {
        assert_eq!(answer(&format!("{{status: 418, body: {{bytes: '{bytes}'}}}}")), (418, vec![0xfb, 0xff]));
    }
    let longest = "x".repeat(1 << 20);
    assert_eq!(answer(&format!("{{status: 200, body: {{string: {longest}}}}}")).1.len(), 1 << 20);
}

#[test]
fn answers_that_cannot_be_given_are_refused() {
    let too_long =
        format!("directResponse: {{status: 200, body: {{string: {}}}}}", "x".repeat((1 << 20) + 1));
    for (words, at) in [
        ("redirect: {}", "redirect"),
        ("redirect: {redirectCode: 302}", "redirect"),
        ("redirect: {uri: /b, redirectCode: 304}", "redirect.redirectCode"),
        ("redirect: {uri: /b, prefixRewrite: /c}", "redirect"),
        ("redirect: {uri: b}", "redirect.uri"),
        ("redirect: {authority: 'a b'}", "redirect.authority"),
        ("redirect: {port: 70000}", "redirect.port"),
        ("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}", "redirect"),
        ("redirect: {uri: /b, derivePort: SOMEHOW}", "redirect.derivePort"),
        ("redirect: {scheme: ftp}", "redirect.scheme"),
        ("directResponse: {status: 199}", "directResponse.status"),
        ("directResponse: {status: 600}", "directResponse.status"),
        ("directResponse: {body: {string: a}}", "directResponse"),
        ("directResponse: {status: 200, body: {string: a, bytes: YQ==}}", "directResponse.body"),
        ("directResponse: {status: 200, body: {bytes: '!'}}", "directResponse.body.bytes"),
        (&too_long, "directResponse.body"),
    ] {
        let decoded = virtual_service(&format!("  - {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].{at}"), 7), "{at}");
    }
}

#[test]
fn fields_that_exclude_each_other_are_refused() {
    let route = "route: [{destination: {host: a}}]";
    let (redirect, direct) = ("redirect: {uri: /b}", "directResponse: {status: 200}");
    let (fault, rewrite) = ("fault: {delay: {fixedDelay: 1s, percentage: {value: 1}}}", "rewrite: {uri: /b}");
    for (one, other, at) in [
        (redirect, route, "route"),
        (redirect, direct, "directResponse"),
        (redirect, fault, "fault"),
        (redirect, rewrite, "rewrite"),
        (direct, route, "route"),
        (direct, fault, "fault"),
        (direct, rewrite, "rewrite"),
    ] {
        let decoded = virtual_service(&format!("  - {one}\n    {other}\n"));
        let (field, line, message) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].{at}"), 8), "{one} {other}");
        assert!(message.contains("remove one of them"), "{message}");
    }
}

#[test]
fn what_has_no_effect_beside_an_answer_is_told() {
    for answer in ["redirect: {uri: /b}", "directResponse: {status: 200}"] {
        for (field, value) in [
            ("timeout", "1s"),
            ("retries", "{attempts: 2}"),
            ("mirror", "{host: b}"),
            ("mirrors", "[{destination: {host: b}}]"),
            ("headers", "{request: {set: {a: b}}}"),
        ] {
            let decoded = virtual_service(&format!("  - {answer}\n    {field}: {value}\n"));
            let [(told, line, Severity::Warning)] = told(&decoded)[..] else { panic!("{decoded:?}") };
            assert!(told.starts_with(&format!("spec.http[0].{field}")) && line == 8, "{decoded:?}");
            assert_eq!(routes(&decoded).len(), 1, "it stays in force");
        }
        let decoded =
            virtual_service(&format!("  - {answer}\n    headers: {{response: {{set: {{a: b}}}}}}\n"));
        assert_eq!(decoded.problems, [], "{answer}");
    }
}

#[test]
fn a_fault_is_for_a_share_of_requests() {
    let fault = |words: &str| {
        let decoded = forwarding(&format!("    fault: {words}\n"));
        let warnings = told(&decoded).len();
        (routes(&decoded)[0].fault.clone().unwrap(), warnings)
    };
    let delay = |millis, parts| Delay {
        time: Duration::from_millis(millis),
        fraction: Fraction::of_million(parts).unwrap(),
    };
    let abort = |status, grpc, parts| Abort { status, grpc, fraction: Fraction::of_million(parts).unwrap() };

    let (both, _) = fault(
        "{delay: {fixedDelay: 0.5s, percentage: {value: 0.1}}, abort: {httpStatus: 555, percentage: {value: 100}}}",
    );
    assert_eq!(both.delay, Some(delay(500, 1_000)));
    assert_eq!(both.abort, Some(abort(555, None, 1_000_000)));
    assert_eq!(fault("{delay: {fixed_delay: 7s, percent: 25}}").0.delay, Some(delay(7_000, 250_000)));
    let words = "{abort: {grpcStatus: UNAVAILABLE, percentage: {value: 50}}}";
    assert_eq!(fault(words).0.abort, Some(abort(503, Some(14), 500_000)));
    let (never, warnings) = fault("{abort: {httpStatus: 500}}");
    assert_eq!((never.abort, warnings), (Some(abort(500, None, 0)), 1));
    assert_eq!(fault("{abort: {httpStatus: 500, percentage: {}}}").0.abort, Some(abort(500, None, 0)));
    let (nothing, warnings) = fault("{abort: {percentage: {value: 1}}, delay: {percentage: {value: 1}}}");
    assert_eq!((nothing.abort, nothing.delay, warnings), (None, None, 2));
}

#[test]
fn faults_that_cannot_be_made_are_refused() {
    for (words, at) in [
        ("{}", ""),
        ("{delay: {fixedDelay: 1s, percentage: {value: 100.1}}}", ".delay.percentage.value"),
        ("{delay: {fixedDelay: 1s, percentage: {value: -1}}}", ".delay.percentage.value"),
        ("{delay: {fixedDelay: 1s, percent: 101}}", ".delay.percent"),
        ("{delay: {fixedDelay: soon, percentage: {value: 1}}}", ".delay.fixedDelay"),
        ("{delay: {exponentialDelay: 1s}}", ".delay.exponentialDelay"),
        ("{abort: {httpStatus: 99, percentage: {value: 1}}}", ".abort.httpStatus"),
        ("{abort: {httpStatus: 600, percentage: {value: 1}}}", ".abort.httpStatus"),
        ("{abort: {grpcStatus: NEVER, percentage: {value: 1}}}", ".abort.grpcStatus"),
        ("{abort: {grpcStatus: 14, percentage: {value: 1}}}", ".abort.grpcStatus"),
        ("{abort: {grpcStatus: '14', percentage: {value: 1}}}", ".abort.grpcStatus"),
        ("{delay: {fixedDelay: 0s, percentage: {value: 1}}}", ".delay.fixedDelay"),
        ("{delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}", ".delay.percentage.value"),
        ("{abort: {httpStatus: 500, grpcStatus: UNAVAILABLE}}", ".abort"),
        ("{abort: {http2Error: x}}", ".abort.http2Error"),
    ] {
        let decoded = forwarding(&format!("    fault: {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].fault{at}"), 8), "{words}");
    }
}

#[test]
fn a_cors_policy_is_read_in_either_form() {
    let cors = |words: &str| {
        let decoded = forwarding(&format!("    corsPolicy: {words}\n"));
        assert_eq!(told(&decoded), [], "{words}");
        routes(&decoded)[0].cors.clone().unwrap()
    };
    let plain = Cors {
        allow_origins: vec![OriginMatch::Any],
        allow_methods: Vec::new(),
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age: None,
        allow_credentials: false,
        unmatched_preflights: UnmatchedPreflights::Forward,
    };
    let exact = || OriginMatch::Exact("https://a.example".to_owned());

    let all = cors(
        "{allowOrigins: [{exact: 'https://a.example'}, {prefix: 'http://'}, {regex: '.*'}, {exact: '*'}], allowMethods: [GET, '*'], allowHeaders: [X-A], exposeHeaders: ['*'], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}",
    );
    let regex = OriginMatch::Regex(selvedge_model::FullRegex::new(".*").unwrap());
    let prefix = OriginMatch::Prefix("http://".to_owned());
    let expected = Cors {
        allow_origins: vec![exact(), prefix, regex, OriginMatch::Any],
        allow_methods: vec!["GET".to_owned(), "*".to_owned()],
        allow_headers: vec!["X-A".to_owned()],
        expose_headers: vec!["*".to_owned()],
        max_age: Some(Duration::from_secs(86_400)),
        allow_credentials: true,
        unmatched_preflights: UnmatchedPreflights::Ignore,
    };
    assert_eq!(all, expected);
    assert_eq!(cors("{allow_origin: ['*']}"), plain);
    let old = Cors { allow_origins: vec![exact()], ..plain.clone() };
    assert_eq!(cors("{allowOrigin: ['https://a.example'], unmatchedPreflights: FORWARD}"), old);
    assert_eq!(cors("{allowOrigin: ['https://b.example'], allowOrigins: [{exact: '*'}]}"), plain);
}

#[test]
fn cors_policies_that_cannot_be_used_are_refused() {
    for (words, at) in [
        ("allowOrigins: [{}]", "allowOrigins[0]"),
        ("allowOrigins: [{exact: ''}]", "allowOrigins[0].exact"),
        ("allowOrigins: [{regex: '('}]", "allowOrigins[0].regex"),
        ("allowMethods: [get]", "allowMethods[0]"),
        ("allowHeaders: [a, 'b c']", "allowHeaders[1]"),
        ("exposeHeaders: ['']", "exposeHeaders[0]"),
        ("maxAge: 1500ms", "maxAge"),
        ("unmatchedPreflights: SOMETIMES", "unmatchedPreflights"),
    ] {
        let decoded = forwarding(&format!("    corsPolicy: {{{words}}}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].corsPolicy.{at}"), 8), "{words}");
    }
    let nobody = forwarding("    corsPolicy: {allowCredentials: true}\n");
    assert_eq!(told(&nobody), [("spec.http[0].corsPolicy", 8, Severity::Warning)]);
}
