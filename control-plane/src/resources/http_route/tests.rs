//! What `HTTPRoute`s and `GRPCRoute`s say alone.

use std::{path::Path, sync::Arc, time::Duration};

use selvedge_model::{
    RetryOn, RetryPolicy, StringMatch,
    filter::{Fraction, OriginMatch, OwnAnswer, PathRewrite, Redirect, RedirectPort},
};

use super::{super::*, *};
use crate::problem::Severity;

fn read(kind: &str, rules: &str) -> Decoded {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n\
         spec: {{parentRefs: [{{group: \"\", kind: Service, name: a}}], rules: {rules}}}"
    );
    decode(&text, &Arc::from(Path::new("mesh.yaml")), "default").remove(0)
}

fn rules(decoded: &Decoded) -> &[HttpRouteRule] {
    match &decoded.outcome {
        DecodeOutcome::Understood(Resource::HttpRoute(document)) => &document.spec.rules,
        other => panic!("{other:?}: {:?}", decoded.problems),
    }
}

/// The filters of a rule that has these, and a match on the prefix `/`.
fn filters(filters: &str) -> RouteFilters {
    rules(&read("HTTPRoute", &format!("[{{filters: [{filters}]}}]")))[0].filters.clone()
}

/// The first error in a document with these rules.
fn error(kind: &str, rules: &str) -> String {
    let decoded = read(kind, rules);
    let error = decoded.problems.iter().find(|problem| problem.severity == Severity::Error);
    error.map(|problem| format!("{}: {}", problem.field, problem.message)).unwrap_or_default()
}

fn redirect(fields: &str) -> Redirect {
    let filters = filters(&format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}"));
    match filters.filters.answer {
        Some(OwnAnswer::Redirect(redirect)) => redirect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redirect_is_302_to_the_port_of_its_scheme_unless_it_says_more() {
    let base = redirect("hostname: example.org");
    let expected = Redirect {
        status: 302,
        scheme: None,
        host: Some("example.org".to_owned()),
        port: RedirectPort::OfScheme,
        path: None,
        pieces: Vec::new(),
    };
    assert_eq!(base, expected);

    let full = redirect(
        "scheme: https, port: 8083, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /new}",
    );
    assert_eq!((full.scheme.as_deref(), full.port), (Some("https"), RedirectPort::Explicit(8083)));
    assert_eq!((full.status, full.path), (308, Some(PathRewrite::Full("/new".to_owned()))));
    let prefix = redirect("path: {type: ReplacePrefixMatch, replacePrefixMatch: \"\"}");
    assert_eq!(prefix.path, Some(PathRewrite::PrefixBySegments(String::new())));
}

#[test]
fn headers_are_literals_and_the_first_of_a_name_counts() {
    let filters = filters(
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '50%'}, {name: x-a, value: no}], \
         add: [{name: x-b, value: b}], remove: [X-C]}}, \
         {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x-d]}}",
    );
    let changes = filters.filters.request_headers;
    assert_eq!(changes.set.len(), 1);
    assert_eq!(changes.set[0].value, selvedge_model::filter::HeaderText::literal("50%").unwrap());
    assert_eq!((changes.add[0].name.as_str(), changes.remove[0].as_str()), ("x-b", "x-c"));
    assert_eq!(filters.filters.response_headers.remove[0].as_str(), "x-d");
}

#[test]
fn a_rewrite_changes_host_and_path() {
    let filters = filters(
        "{type: URLRewrite, urlRewrite: {hostname: a.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}",
    );
    let rewrite = filters.filters.rewrite;
    assert_eq!(rewrite.authority.as_deref(), Some("a.example"));
    assert_eq!(rewrite.path, Some(PathRewrite::PrefixBySegments("/x".to_owned())));
}

#[test]
fn a_mirror_takes_a_percentage_a_fraction_or_everything() {
    for (more, parts) in [
        ("", 1_000_000),
        (", percent: 42", 420_000),
        (", fraction: {numerator: 1}", 10_000),
        (", fraction: {numerator: 1, denominator: 8}", 125_000),
    ] {
        let mirror =
            format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: b, port: 1}}{more}}}}}");
        let found = filters(&format!("{mirror}, {mirror}"));
        assert_eq!(found.mirrors.len(), 2, "it may be there several times");
        assert_eq!(found.mirrors[1].field, "spec.rules[0].filters[1].requestMirror.backendRef");
        assert_eq!(
            (found.mirrors[0].fraction, &*found.mirrors[0].to.name),
            (Fraction::of_million(parts).unwrap(), "b")
        );
    }
}

#[test]
fn origins_of_cors_may_have_wildcards() {
    let cors = |fields: &str| filters(&format!("{{type: CORS, cors: {{{fields}}}}}")).filters.cors.unwrap();
    let some = cors(
        "allowOrigins: ['*', 'https://a.example', 'https://*.b.example'], allowMethods: [GET, '*'], allowHeaders: [x-a], \
         exposeHeaders: [x-b], allowCredentials: true, maxAge: 60",
    );

    assert_eq!(
        some.allow_origins[..2],
        [OriginMatch::Any, OriginMatch::Exact("https://a.example".to_owned())]
    );
    let OriginMatch::Regex(wild) = &some.allow_origins[2] else { panic!("{some:?}") };
    assert!(wild.is_match("https://x.b.example") && wild.is_match("https://x.y.b.example"));
    for other in ["https://b.example", "https://.b.example.evil", "http://x.b.example", "https://xxb-example"]
    {
        assert!(!wild.is_match(other), "{other}");
    }
    assert_eq!((some.max_age, some.allow_credentials), (Some(Duration::from_secs(60)), true));
    assert_eq!(cors("allowOrigins: ['*']").max_age, Some(Duration::from_secs(5)));
}

#[test]
fn times_of_attempts_need_a_retry_and_are_otherwise_the_requests() {
    let times = |fields: &str| {
        let decoded = read("HTTPRoute", &format!("[{{{fields}}}]"));
        let rule = &rules(&decoded)[0];
        (rule.timeouts.map(|timeouts| timeouts.request), rule.retry.clone())
    };
    let (second, two) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
    assert_eq!(times("name: a"), (None, None));
    assert_eq!(times("timeouts: {request: 0s}"), (Some(None), None));
    assert_eq!(times("timeouts: {request: 2s}"), (Some(two), None));
    assert_eq!(times("timeouts: {request: 2s, backendRequest: 1s}"), (Some(second), None));
    let (timeout, retry) = times(
        "timeouts: {request: 2s, backendRequest: 1s}, retry: {codes: [503, 500, 503], attempts: 3, backoff: 100ms}",
    );
    let retry = retry.unwrap();
    assert_eq!((timeout, retry.per_try_timeout, retry.attempts), (Some(two), second, 3));
    let on = RetryOn { status_codes: vec![500, 503], per_try_timeout: true, ..RetryOn::istio_default() };
    assert_eq!(retry.on, on);
    assert_eq!(retry.backoff, Duration::from_millis(100));
    assert_eq!(times("retry: {}").1, Some(RetryPolicy::default()));
}

#[test]
fn annotations_of_linkerd_go_before_the_fields_of_every_rule() {
    let said = |annotations: &str, fields: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, annotations: {{{annotations}}}}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: a}}], rules: [{{{fields}}}]}}\n"
        );
        let decoded = decode(&text, &Arc::from(Path::new("mesh.yaml")), "default").remove(0);
        assert_eq!(decoded.problems, []);
        let rule = rules(&decoded)[0].clone();
        let timeouts = rule.timeouts.unwrap_or_default();
        let retry = rule.retry.map(|retry| (retry.attempts, retry.per_try_timeout));
        (timeouts.request, timeouts.stream.response, retry)
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));

    let fields = "timeouts: {request: 9s, backendRequest: 8s}, retry: {attempts: 7}";
    assert_eq!(said("", fields), (seconds(9), None, Some((7, seconds(8)))));
    assert_eq!(said("timeout.linkerd.io/request: 2s", fields), (seconds(2), None, Some((7, seconds(8)))));
    assert_eq!(
        said("timeout.linkerd.io/response: 1s", fields),
        (seconds(9), seconds(1), Some((7, seconds(8))))
    );
    let retries = "retry.linkerd.io/limit: '2', retry.linkerd.io/timeout: 3s";
    assert_eq!(said(retries, fields), (seconds(9), None, Some((2, seconds(3)))));
    assert_eq!(said("retry.linkerd.io/http: 5xx", fields).2, Some((1, seconds(8))));
    assert_eq!(said("", "name: a"), (None, None, None));
}

#[test]
fn what_gateway_api_refuses_is_refused() {
    let filter = |text: &str| format!("[{{filters: [{text}]}}]");
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: a}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a}}";
    let set = |name: &str| {
        filter(&format!(
            "{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: '{name}', value: x}}]}}}}"
        ))
    };
    let mirror = |more: &str| {
        filter(&format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: a, port: 1}}, {more}}}}}"
        ))
    };
    for (rules, expected) in [
        ("[{matches: [{path: {value: a}}]}]".to_owned(), "path.value: \"a\" is not a path"),
        ("[{matches: [{path: {value: /a//b}}]}]".to_owned(), "holds \"//\""),
        ("[{matches: [{path: {value: /a/..}}]}]".to_owned(), "holds \"/..\""),
        ("[{matches: [{path: {type: RegularExpression, value: '('}}]}]".to_owned(), "RE2"),
        ("[{matches: [{path: {type: Glob, value: /}}]}]".to_owned(), "is not known here"),
        ("[{matches: [{method: get}]}]".to_owned(), "is not known here"),
        ("[{matches: [{headers: [{name: ':path', value: a}]}]}]".to_owned(), "is not the name of a header"),
        ("[{matches: [{queryParams: [{name: '', value: a}]}]}]".to_owned(), "is empty"),
        (filter(&format!("{redirect}, {rewrite}")), "exclude each other"),
        (filter(&format!("{redirect}, {redirect}")), "is given twice"),
        (
            format!("[{{filters: [{redirect}], backendRefs: [{{name: a, port: 1}}]}}]"),
            "rules[0].filters: has RequestRedirect, which stands beside backendRefs",
        ),
        (filter("{type: RequestRedirect}"), "requestRedirect: is missing"),
        (filter("{type: URLRewrite, urlRewrite: {}, cors: {}}"), "filters[0].cors: does not belong"),
        (filter("{type: Sieve}"), "is not known here"),
        (filter("{type: RequestRedirect, requestRedirect: {statusCode: 200}}"), "is not the status of a redirect"),
        (filter("{type: RequestRedirect, requestRedirect: {scheme: ftp}}"), "is not known here"),
        (filter("{type: RequestRedirect, requestRedirect: {port: 70000}}"), "is not a port"),
        (filter("{type: RequestRedirect, requestRedirect: {hostname: '*.a'}}"), "is not a host name"),
        (
            filter("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: a}}}"),
            "is not a path",
        ),
        (
            filter("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /a}}}"),
            "gives both replacements",
        ),
        (
            "[{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]}]".to_owned(),
            "needs exactly one match",
        ),
        (set("a b"), "is not the name of a header"),
        (set(":authority"), "is not the name of a header"),
        (set("Host"), "use a URLRewrite"),
        (set("content-length"), "belongs to the connection"),
        (mirror("percent: 101"), "101 is more than 100"),
        (mirror("fraction: {numerator: 1, denominator: 0}"), "is 0; use for example 100"),
        (mirror("fraction: {numerator: 3, denominator: 2}"), "is more than all"),
        (mirror("percent: 1, fraction: {numerator: 1}"), "gives percent and fraction"),
        (filter("{type: CORS, cors: {allowOrigins: [a.example]}}"), "is not an origin"),
        ("[{timeouts: {request: 1.5s}}]".to_owned(), "is not a duration"),
        ("[{timeouts: {request: 1s, backendRequest: 2s}}]".to_owned(), "is longer than"),
        ("[{retry: {codes: [200]}}]".to_owned(), "is not the status of a failure"),
        ("[{retry: {backoff: 0s}}]".to_owned(), "is 0"),
        ("[{backendRefs: [{name: a, port: 1, weight: 1000001}]}]".to_owned(), "is more than 1000000"),
    ] {
        let found = error("HTTPRoute", &rules);
        assert!(found.contains(expected), "{rules}: {found:?}");
    }
    for (rules, expected) in [
        ("[{matches: [{method: {}}]}]".to_owned(), "method: is empty"),
        ("[{matches: [{method: {service: a/b}}]}]".to_owned(), "is not the name of a service"),
        (filter(redirect), "a GRPCRoute has no RequestRedirect"),
    ] {
        let found = error("GRPCRoute", &rules);
        assert!(found.contains(expected), "{rules}: {found:?}");
    }
}

#[test]
fn host_names_are_reported_and_a_route_without_rules_has_one() {
    let text = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {name: a}\n\
        spec:\n  parentRefs: [{group: \"\", kind: Service, name: a}]\n  hostnames: [a.example]\n";
    let decoded = decode(text, &Arc::from(Path::new("mesh.yaml")), "default").remove(0);

    assert_eq!(rules(&decoded).len(), 1);
    let told: Vec<_> = decoded
        .problems
        .iter()
        .map(|problem| (problem.field.as_str(), problem.line, problem.severity))
        .collect();
    assert_eq!(told, [("spec.hostnames", Some(6), Severity::NotActedOn)]);
}

#[test]
fn a_path_means_what_it_means_in_a_request() {
    let path = |kind: &str, value: &str| {
        let decoded =
            read("HTTPRoute", &format!("[{{matches: [{{path: {{type: {kind}, value: '{value}'}}}}]}}]"));
        rules(&decoded)[0].matches[0].path.clone().unwrap()
    };
    assert_eq!(path("Exact", "/%7Ejohn"), StringMatch::Exact("/~john".to_owned()));
    assert_eq!(path("PathPrefix", "/my%2Dapp/"), StringMatch::PathPrefix("/my-app/".to_owned()));
    assert_eq!(path("PathPrefix", "/café"), StringMatch::PathPrefix("/caf%C3%A9".to_owned()));
    for value in ["/100%", "/a%00", "/a?b"] {
        let rules = format!("[{{matches: [{{path: {{value: '{value}'}}}}]}}]");
        let error = error("HTTPRoute", &rules);
        assert!(error.contains("matches no request"), "{value}: {error}");
    }
}

/// The fields of the warnings about a route with these rules, of which nothing is an error.
fn warned(kind: &str, rules: &str) -> Vec<String> {
    let warned = read(kind, rules).problems.into_iter().map(|problem| {
        assert_eq!(problem.severity, Severity::Warning, "{problem}");
        problem.field
    });
    warned.collect()
}

#[test]
fn what_asks_for_the_very_same_as_what_comes_before_is_told() {
    let to = "backendRefs: [{name: a, port: 1}]";
    let rule = |matches: &str| format!("{{matches: [{matches}], {to}}}");
    for (kind, first, same, other) in [
        ("HTTPRoute", "{}", "{path: {value: /}}", "{path: {value: /a}}"),
        ("HTTPRoute", "{path: {value: /a}}", "{path: {value: /a/}}", "{path: {type: Exact, value: /a}}"),
        (
            "HTTPRoute",
            "{headers: [{name: x, value: '1'}, {name: y, value: '2'}]}",
            "{headers: [{name: Y, value: '2'}, {name: X, value: '1'}]}",
            "{headers: [{name: x, value: '1'}]}",
        ),
        (
            "GRPCRoute",
            "{method: {service: a, method: b}}",
            "{method: {method: b, service: a}}",
            "{method: {service: a}}",
        ),
    ] {
        let rules = |later: &str| format!("[{}, {}]", rule(first), rule(later));
        assert_eq!(warned(kind, &rules(same)), ["spec.rules[1]"], "{first} {same}");
        let one_of = format!("{other}, {same}");
        assert_eq!(warned(kind, &rules(&one_of)), ["spec.rules[1].matches[1]"], "{first} {same}");
        assert_eq!(
            warned(kind, &format!("[{}]", rule(&format!("{first}, {same}")))),
            ["spec.rules[0].matches[1]"]
        );
        // The most specific match decides wherever it stands.
        assert_eq!(warned(kind, &rules(other)), [""; 0], "{first} {other}");
    }
    assert_eq!(warned("GRPCRoute", &format!("[{{{to}}}, {{matches: [{{}}], {to}}}]")), ["spec.rules[1]"]);
}

#[test]
fn what_has_no_effect_beside_a_redirect_is_told() {
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: a}}";
    let headers = |of: &str, field: &str| format!("{{type: {of}, {field}: {{remove: [x]}}}}");
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}";
    for (filters, more, expected) in [
        (String::new(), "", &[][..]),
        (headers("ResponseHeaderModifier", "responseHeaderModifier"), "", &[]),
        (headers("RequestHeaderModifier", "requestHeaderModifier"), "", &["spec.rules[0].filters"]),
        (mirror.to_owned(), "", &["spec.rules[0].filters"]),
        (
            String::new(),
            ", timeouts: {request: 1s}, retry: {attempts: 1}",
            &["spec.rules[0].timeouts", "spec.rules[0].retry"],
        ),
        (String::new(), ", sessionPersistence: {sessionName: a}", &["spec.rules[0].sessionPersistence"]),
    ] {
        let filters = if filters.is_empty() { redirect.to_owned() } else { format!("{redirect}, {filters}") };
        assert_eq!(
            warned("HTTPRoute", &format!("[{{filters: [{filters}]{more}}}]")),
            expected,
            "{filters} {more}"
        );
    }
}
