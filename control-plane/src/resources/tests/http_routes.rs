//! What the `http` routes of a `VirtualService` mean alone.

use std::time::Duration;

use selvedge_model::{
    RetryOn, RetryPolicy, StringMatch,
    filter::{
        Abort, Cors, Delay, DirectResponse, Fraction, OriginMatch, OwnAnswer, PathRewrite, Redirect,
        RedirectPort, RegexRewrite, Rewrite, UnmatchedPreflights,
    },
};

use super::*;
use crate::resources::virtual_service::Headers;

fn virtual_service(http: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a]\n  http:\n{http}"
    ))
}

fn routes(decoded: &Decoded) -> &[virtual_service::HttpRoute] {
    match understood(decoded) {
        Resource::VirtualService(document) => &document.spec.http,
        other => panic!("{other:?}"),
    }
}

/// The one route that forwards to `a` and has these fields besides, each on a line of its own.
fn forwarding(fields: &str) -> Decoded {
    virtual_service(&format!("  - route: [{{destination: {{host: a}}}}]\n{fields}"))
}

/// The field, line and message of the error for which `decoded` is refused.
fn refused(decoded: &Decoded) -> (&str, u64, &str) {
    assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{decoded:?}");
    let [problem] = &decoded.problems[..] else { panic!("{decoded:?}") };
    (&problem.field, problem.line.unwrap_or(0), &problem.message)
}

#[test]
fn a_match_reads_every_condition() {
    let decoded = virtual_service(
        "  - name: first\n    match:\n    - uri: {prefix: /a}\n      ignoreUriCase: true\n      scheme: {exact: http}\n      method: {exact: GET}\n      authority: {regex: 'a.*'}\n      headers: {End-User: {exact: jason}, x-there: {}, x-any: {regex: '*'}}\n      withoutHeaders: {x-not: {}}\n      queryParams: {debug: {exact: ''}}\n      port: 80\n    route: [{destination: {host: a}}]\n",
    );

    assert_eq!(told(&decoded), []);
    let route = &routes(&decoded)[0];
    let matched = &route.matches.as_ref().unwrap()[0];
    assert_eq!(route.name.as_deref(), Some("first"));
    assert_eq!(matched.port, Some(80));
    assert_eq!(matched.condition.path, Some(StringMatch::Prefix("/a".to_owned())));
    assert!(matched.condition.ignore_path_case);
    let headers: Vec<_> =
        matched.condition.headers.iter().map(|(name, m)| (name.as_ref(), m.clone())).collect();
    assert_eq!(
        headers,
        [
            ("end-user", StringMatch::Exact("jason".to_owned())),
            ("x-any", StringMatch::Present),
            ("x-there", StringMatch::Present),
            (":scheme", StringMatch::Exact("http".to_owned()))
        ]
    );
    assert_eq!(matched.condition.query, [("debug".to_owned(), StringMatch::Exact(String::new()))]);
}

#[test]
fn a_match_with_an_unchecked_condition_is_left_out_and_reported() {
    for condition in [
        "headers: {'@request.auth.claims.sub': {exact: a}}",
        "headers: {a: {suffix: x}}",
        "header: {a: {exact: x}}",
    ] {
        let decoded = virtual_service(&format!(
            "  - match: [{{uri: {{prefix: /x}}, {condition}}}, {{uri: {{exact: /y}}}}]\n    route: [{{destination: {{host: a}}}}]\n"
        ));

        let route = &routes(&decoded)[0];
        assert!(route.left_out, "{condition}");
        assert_eq!(route.matches.as_ref().unwrap().len(), 1, "{condition}");
        assert_eq!(told(&decoded).len(), 1, "{condition}: {:?}", decoded.problems);
        assert_eq!(decoded.problems[0].severity, Severity::Error, "{condition}");
    }
}

#[test]
fn a_match_for_gateways_only_is_not_for_sidecars() {
    let decoded = virtual_service(
        "  - match: [{gateways: [edge]}, {gateways: [edge, mesh]}]\n    route: [{destination: {host: a}}]\n",
    );

    let route = &routes(&decoded)[0];
    assert!(!route.left_out);
    assert_eq!(route.matches.as_ref().unwrap().len(), 1);
    assert_eq!(decoded.problems[0].severity, Severity::NotActedOn);
}

#[test]
fn a_single_destination_gets_all_and_zero_weights_get_nothing() {
    let weights = |list: &str| {
        let decoded = virtual_service(&format!("  - route: [{list}]\n"));
        let weights: Vec<_> =
            routes(&decoded)[0].destinations.iter().map(|one| (one.host.clone(), one.weight)).collect();
        weights
    };

    assert_eq!(weights("{destination: {host: a}, weight: 0}"), [("a".to_owned(), 1)]);
    assert_eq!(
        weights("{destination: {host: a}, weight: 0}, {destination: {host: B}, weight: 7}"),
        [("b".to_owned(), 7)]
    );
}

#[test]
fn weights_that_sum_to_nothing_and_routes_to_nowhere_are_refused() {
    for (http, field) in [
        (
            "  - route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]\n",
            "spec.http[0].route",
        ),
        ("  - timeout: 1s\n", "spec.http[0]"),
        (
            "  - match: [{uri: {regex: '('}}]\n    route: [{destination: {host: a}}]\n",
            "spec.http[0].match[0].uri.regex",
        ),
        ("  - match: [{uri: {}}]\n    route: [{destination: {host: a}}]\n", "spec.http[0].match[0].uri"),
        (
            "  - route: [{destination: {host: a}}]\n    retries: {attempts: 1, retryOn: often}\n",
            "spec.http[0].retries.retryOn",
        ),
        ("  - route: [{destination: {host: a}, weight: -1}]\n", "spec.http[0].route[0].weight"),
    ] {
        let decoded = virtual_service(http);

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{http}");
        assert_eq!(decoded.problems[0].field, field);
        assert!(decoded.problems[0].line.is_some_and(|line| line >= 7), "{http}");
    }
}

#[test]
fn retries_are_read_as_istio_reads_them() {
    let retry = |words: &str| {
        let decoded = virtual_service(&format!("  - route: [{{destination: {{host: a}}}}]\n{words}"));
        routes(&decoded)[0].retry.clone().unwrap_or_default()
    };

    assert_eq!(retry(""), RetryPolicy::default());
    assert_eq!(retry("    retries: {attempts: 0}\n").attempts, 0);
    assert_eq!(retry("    retries: {attempts: 3}\n").on, RetryOn::istio_default());
    let listed = retry(
        "    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error, reset,unavailable,503,retriable-status-codes'}\n",
    );
    assert_eq!(listed.per_try_timeout, Some(Duration::from_secs(2)));
    assert!(listed.on.gateway_error && listed.on.reset && !listed.on.connect_failure);
    assert_eq!((listed.on.grpc_statuses, listed.on.status_codes), (vec![14], vec![503]));
}

#[test]
fn headers_are_changed_for_a_route_and_for_one_of_its_destinations() {
    let decoded = virtual_service(
        "  - headers:\n      request: {set: {x-a: '1 %PROTOCOL%', Host: b.example}, add: {x-b: '100%%'}, remove: [x-c]}\n      response: {set: {x-d: ''}}\n    route:\n    - destination: {host: a}\n      headers: {response: {add: {x-e: e}, remove: [Server]}}\n",
    );

    assert_eq!(told(&decoded), []);
    let route = &routes(&decoded)[0];
    let Headers { request, authority, response } = route.headers.as_ref().unwrap();
    let shown = |changes: &[selvedge_model::filter::HeaderChange]| {
        let shown = changes.iter().map(|change| format!("{}={}", change.name, change.value));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(authority.as_deref(), Some("b.example"));
    assert_eq!([shown(&request.set), shown(&request.add)], ["x-a=1 %PROTOCOL%", "x-b=100%%"]);
    assert_eq!(
        (&request.remove[..], shown(&response.set)),
        (&["x-c".parse().unwrap()][..], "x-d=".to_owned())
    );
    let of_share = &route.destinations[0].headers;
    assert_eq!(shown(&of_share.response.add), "x-e=e");
    assert_eq!(of_share.response.remove, ["server".parse::<http::HeaderName>().unwrap()]);
}

#[test]
fn a_header_with_an_unknown_command_is_left_out_and_reported() {
    let decoded = forwarding(
        "    headers:\n      request:\n        set:\n          x-a: '%UPSTREAM_HOST%'\n          x-b: b\n          host: '%REQ(x)%'\n          connection: close\n",
    );

    let headers = routes(&decoded)[0].headers.as_ref().unwrap();
    assert_eq!(headers.request.set.len(), 1);
    assert_eq!((&headers.request.set[0].name, &headers.authority), (&"x-b".parse().unwrap(), &None));
    let expected =
        ["x-a", "host", "connection"].map(|name| format!("spec.http[0].headers.request.set.{name}"));
    let told = told(&decoded);
    assert_eq!(told.iter().map(|(field, ..)| (*field).to_owned()).collect::<Vec<_>>(), expected);
    assert!(told.iter().all(|(.., severity)| *severity == Severity::NotActedOn), "{told:?}");
    assert_eq!(told.iter().map(|(_, line, _)| *line).collect::<Vec<_>>(), [11, 13, 14]);
}

#[test]
fn headers_that_http_does_not_allow_are_refused() {
    for (headers, at) in [
        ("request: {set: {'a b': c}}", "request.set.a b"),
        ("request: {set: {':path': /x}}", "request.set.:path"),
        ("request: {add: {x: '50%'}}", "request.add.x"),
        ("request: {add: {x: \"a\\nb\"}}", "request.add.x"),
        ("request: {remove: [host]}", "request.remove[0]"),
        ("request: {set: {host: a, ':authority': b}}", "request.set.host"),
        ("request: {set: {host: 'a b'}}", "request.set.host"),
        ("response: {set: {':status': '200'}}", "response.set.:status"),
        ("response: {remove: ['']}", "response.remove[0]"),
    ] {
        for (decoded, above) in [
            (forwarding(&format!("    headers: {{{headers}}}\n")), "spec.http[0].headers"),
            (
                virtual_service(&format!(
                    "  - route: [{{destination: {{host: a}}, headers: {{{headers}}}}}]\n"
                )),
                "spec.http[0].route[0].headers",
            ),
        ] {
            let (field, line, _) = refused(&decoded);
            assert_eq!(field, format!("{above}.{at}"), "{headers}");
            assert!(line >= 7, "{headers}: {line}");
        }
    }
}

#[test]
fn a_rewrite_is_of_the_path_the_authority_or_both() {
    let rewrite =
        |words: &str| routes(&forwarding(&format!("    rewrite: {words}\n")))[0].rewrite.clone().unwrap();

    let prefix = Some(PathRewrite::Prefix("/b".to_owned()));
    assert_eq!(rewrite("{uri: /b}"), Rewrite { path: prefix.clone(), authority: None });
    let authority = Some("b.example:81".to_owned());
    assert_eq!(rewrite("{uri: /b, authority: 'b.example:81'}"), Rewrite { path: prefix, authority });
    let regex = PathRewrite::Regex(RegexRewrite::new("^/a/(.*)$", r"/\1").unwrap());
    for name in ["uriRegexRewrite", "uri_regex_rewrite"] {
        let words = format!("{{{name}: {{match: '^/a/(.*)$', rewrite: '/\\1'}}}}");
        assert_eq!(rewrite(&words), Rewrite { path: Some(regex.clone()), authority: None });
    }
}

#[test]
fn rewrites_that_cannot_be_used_are_refused() {
    for (words, at) in [
        ("{}", ""),
        ("{uri: b}", ".uri"),
        ("{uri: '/b?c=d'}", ".uri"),
        ("{uri: '/a b'}", ".uri"),
        ("{authority: 'a b'}", ".authority"),
        ("{authority: 'user@a'}", ".authority"),
        ("{uri: /b, uriRegexRewrite: {match: a, rewrite: b}}", ""),
        ("{uriRegexRewrite: {match: a}}", ".uriRegexRewrite"),
        ("{uriRegexRewrite: {match: '(', rewrite: b}}", ".uriRegexRewrite.match"),
        ("{uriRegexRewrite: {match: a, rewrite: '\\1'}}", ".uriRegexRewrite.rewrite"),
    ] {
        let decoded = forwarding(&format!("    rewrite: {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!((field, line), (&*format!("spec.http[0].rewrite{at}"), 8), "{words}");
    }
    let twice = forwarding("    rewrite: {authority: b}\n    headers: {request: {set: {host: c}}}\n");
    assert_eq!(refused(&twice).0, "spec.http[0].headers.request");
}

#[test]
fn a_redirect_says_where_to() {
    let redirect =
        |words: &str| match &routes(&virtual_service(&format!("  - redirect: {words}\n")))[0].answer {
            Some(OwnAnswer::Redirect(redirect)) => redirect.clone(),
            other => panic!("{other:?}"),
        };
    let plain =
        Redirect { status: 301, scheme: None, host: None, port: RedirectPort::OfAuthority, path: None };

    let path = Some(PathRewrite::Full("/b".to_owned()));
    assert_eq!(redirect("{uri: /b}"), Redirect { path: path.clone(), ..plain.clone() });
    let with_query = Some(PathRewrite::Full("/b?c=d".to_owned()));
    assert_eq!(redirect("{uri: '/b?c=d'}"), Redirect { path: with_query, ..plain.clone() });
    let all = redirect("{uri: /b, authority: b.example, port: 8443, scheme: https, redirectCode: 308}");
    let host = Some("b.example".to_owned());
    let port = RedirectPort::Explicit(8443);
    let scheme = Some("https".to_owned());
    assert_eq!(all, Redirect { status: 308, scheme: scheme.clone(), host, port, path });
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
    for status in ["UNAVAILABLE", "'14'", "14"] {
        let words = format!("{{abort: {{grpcStatus: {status}, percentage: {{value: 50}}}}}}");
        assert_eq!(fault(&words).0.abort, Some(abort(503, Some(14), 500_000)));
    }
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
        ("{abort: {grpcStatus: 17, percentage: {value: 1}}}", ".abort.grpcStatus"),
        ("{abort: {httpStatus: 500, grpcStatus: 14}}", ".abort"),
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

#[test]
fn mirrors_are_read_each_with_its_share() {
    let read = |words: &str| {
        let decoded = forwarding(&format!("    {words}\n"));
        assert!(told(&decoded).is_empty(), "{words}");
        routes(&decoded)[0].mirrors.clone()
    };
    let parts = |fraction: Option<Fraction>| fraction.map(Fraction::parts);
    for (words, percentage, percent) in [
        ("mirror: {host: B}", None, None),
        ("mirror: {host: b}\n    mirrorPercentage: {value: 0.5}", Some(5_000), None),
        ("mirror: {host: b}\n    mirror_percent: 10", None, Some(100_000)),
        ("mirror: {host: b}\n    mirrorPercent: 0", None, Some(0)),
    ] {
        let found = read(words);
        assert_eq!((parts(found.percentage), parts(found.percent)), (percentage, percent), "{words}");
        assert_eq!((found.single.map(|to| to.host).as_deref(), found.list.len()), (Some("b"), 0));
    }
    let found = read(
        "mirrors: [{destination: {host: b}}, {destination: {host: c, subset: v1}, percentage: {value: 7}}]",
    );
    let list: Vec<_> = found.list.iter().map(|one| (&*one.to.host, one.fraction.parts())).collect();
    assert_eq!((list, found.single), (vec![("b", 1_000_000), ("c", 70_000)], None));
}

#[test]
fn a_mirror_that_cannot_be_is_refused() {
    for (words, at) in [
        ("mirror: {host: ''}", "mirror.host"),
        ("mirror: {host: b, port: {number: 0}}", "mirror.port.number"),
        ("mirror: {host: b}\n    mirrorPercentage: {value: 101}", "mirrorPercentage.value"),
        ("mirror: {host: b}\n    mirrorPercent: 101", "mirrorPercent"),
        ("mirror: {host: b}\n    mirrors: [{destination: {host: b}}]", "mirror"),
        ("mirrors: [{percentage: {value: 1}}]", "mirrors[0]"),
        ("mirrors: [{destination: {host: b}, percentage: {value: -1}}]", "mirrors[0].percentage.value"),
    ] {
        let decoded = forwarding(&format!("    {words}\n"));
        let (field, line, _) = refused(&decoded);
        assert_eq!(field, format!("spec.http[0].{at}"), "{words}");
        assert!(line >= 8, "{words}");
    }
}

#[test]
fn every_word_of_retry_on_is_acted_on_or_reported() {
    let read = |on: &str| forwarding(&format!("    retries: {{attempts: 1, retry_on: '{on}'}}\n"));
    let all = read(
        "5xx,gateway-error,reset,reset-before-request,connect-failure,retriable-4xx,refused-stream,retriable-status-codes,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable,503,429",
    );
    assert_eq!(told(&all), []);
    let on = routes(&all)[0].retry.clone().unwrap().on;
    let expected = RetryOn {
        any_5xx: true,
        gateway_error: true,
        reset: true,
        reset_before_request: true,
        per_try_timeout: false,
        connect_failure: true,
        retriable_4xx: true,
        refused_stream: true,
        status_codes: vec![429, 503],
        grpc_statuses: vec![1, 4, 8, 13, 14],
    };
    assert_eq!(on, expected);
    for word in ["retriable-headers", "envoy-ratelimited", "http3-post-connect-failure"] {
        let decoded = read(&format!("reset,{word}"));
        assert_eq!(told(&decoded), [("spec.http[0].retries.retryOn", 8, Severity::NotActedOn)], "{word}");
        assert!(routes(&decoded)[0].retry.as_ref().unwrap().on.reset);
    }
    for word in ["99", "599", "5XX", "often"] {
        assert_eq!(refused(&read(word)).0, "spec.http[0].retries.retryOn", "{word}");
    }
    let remote = forwarding("    retries: {attempts: 1, retryRemoteLocalities: true}\n");
    let reported = [("spec.http[0].retries.retryRemoteLocalities", 8, Severity::NotActedOn)];
    assert_eq!(told(&remote), reported);
}

#[test]
fn retries_without_attempts_are_refused_if_they_say_how() {
    for words in ["{attempts: 0, perTryTimeout: 1s}", "{retryOn: 5xx}", "{attempts: 0, retryOn: 5xx}"] {
        assert_eq!(refused(&forwarding(&format!("    retries: {words}\n"))).0, "spec.http[0].retries");
    }
    assert_eq!(told(&forwarding("    retries: {attempts: 0}\n")), []);
}

#[test]
fn a_document_without_hosts_is_for_others_to_delegate_to() {
    let read = |spec: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {spec}\n"
        ))
    };
    let routes = "http: [{route: [{destination: {host: a}}]}]";

    assert_eq!(told(&read(&format!("{{{routes}}}"))), []);
    for (spec, at) in [
        ("{hosts: []}", "spec.hosts"),
        (&*format!("{{hosts: [''], {routes}}}"), "spec.hosts"),
        (&*format!("{{gateways: [edge], {routes}}}"), "spec.gateways"),
        (&*format!("{{{routes}, tcp: [{{route: [{{destination: {{host: a}}}}]}}]}}"), "spec.tcp"),
        ("{http: [{delegate: {name: b}}]}", "spec.http[0].delegate"),
        ("{hosts: [a], http: [{delegate: {name: ''}}]}", "spec.http[0].delegate.name"),
        (
            "{hosts: [a], http: [{delegate: {name: b}, route: [{destination: {host: a}}]}]}",
            "spec.http[0].route",
        ),
        ("{hosts: [a], http: [{delegate: {name: b}, redirect: {uri: /a}}]}", "spec.http[0].redirect"),
    ] {
        let decoded = read(spec);
        assert_eq!(refused(&decoded).0, at, "{spec}");
    }
}

#[test]
fn a_match_may_be_for_clients_of_a_namespace() {
    let read = |condition: &str| {
        virtual_service(&format!("  - match: [{{{condition}}}]\n    route: [{{destination: {{host: a}}}}]\n"))
    };

    let decoded = read("source_labels: {app: web}, sourceNamespace: shop");
    let client = &routes(&decoded)[0].matches.as_ref().unwrap()[0].condition.client;
    assert_eq!(told(&decoded), []);
    assert_eq!((client.labels["app"].as_str(), client.namespace.as_deref()), ("web", Some("shop")));
    let wrong = read("sourceNamespace: 'No Namespace'");
    assert_eq!(refused(&wrong).0, "spec.http[0].match[0].sourceNamespace");
}
