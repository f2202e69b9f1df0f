//! What the `http` routes of a `VirtualService` mean alone.

mod answers;
mod changes;
mod shadowed;

use std::time::Duration;

use selvedge_model::{RetryOn, RetryPolicy, StringMatch};

use super::{virtual_service::Follower, *};

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
fn a_path_means_what_it_means_in_a_request_and_one_that_none_can_have_is_told() {
    let decoded = virtual_service(
        "  - match: [{uri: {exact: /%7Ejohn}}, {uri: {prefix: '/my app/%2'}}, {uri: {prefix: '/100%/'}}]\n    route: [{destination: {host: a}}]\n",
    );

    let matches = routes(&decoded)[0].matches.as_ref().unwrap();
    let paths: Vec<_> = matches.iter().map(|one| one.condition.path.clone().unwrap()).collect();
    let (exact, prefix) =
        (StringMatch::Exact("/~john".to_owned()), |path: &str| StringMatch::Prefix(path.to_owned()));
    assert_eq!(paths, [exact, prefix("/my%20app/%2"), prefix("/100%/")]);
    let [problem] = &decoded.problems[..] else { panic!("{decoded:?}") };
    assert_eq!(problem.field, "spec.http[0].match[2].uri");
}

#[test]
fn a_match_with_an_unchecked_condition_is_left_out_and_reported() {
    for condition in ["headers: {a: {suffix: x}}", "header: {a: {exact: x}}"] {
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
    assert_eq!(decoded.problems, []);
    let matches = route.matches.as_deref().unwrap();
    let followed = |follower| matches.iter().map(|one| one.is_for(80, follower)).collect::<Vec<_>>();
    assert_eq!(followed(Follower::Sidecar), [false, true]);
    assert_eq!(followed(Follower::Gateway("default", "edge")), [true, true]);
    assert_eq!(followed(Follower::Gateway("shop", "edge")), [false, false]);
}

#[test]
fn a_match_for_port_0_is_for_every_port_as_in_istio() {
    let decoded = virtual_service("  - match: [{port: 0}]\n    route: [{destination: {host: a}}]\n");
    assert_eq!(decoded.problems, []);
    assert_eq!(routes(&decoded)[0].matches.as_ref().unwrap()[0].port, None);

    let decoded = only(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  \
         tcp: [{match: [{port: 0}], route: [{destination: {host: a}}]}]\n",
    );
    assert_eq!(decoded.problems, []);
    let Resource::VirtualService(document) = understood(&decoded) else { panic!("{decoded:?}") };
    assert_eq!(document.spec.tcp[0].matches.as_ref().unwrap()[0].port, None);
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
        "    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,reset,unavailable,503,retriable-status-codes'}\n",
    );
    assert_eq!(listed.per_try_timeout, Some(Duration::from_secs(2)));
    assert!(listed.on.gateway_error && listed.on.reset && !listed.on.connect_failure);
    assert_eq!((listed.on.grpc_statuses, listed.on.status_codes), (vec![14], vec![503]));
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
    for word in ["99", "599", "5XX", "often", "5xx, reset", "5xx,", " 5xx"] {
        assert_eq!(refused(&read(word)).0, "spec.http[0].retries.retryOn", "{word}");
    }
    let remote = forwarding("    retries: {attempts: 1, retryRemoteLocalities: true}\n");
    let reported = [("spec.http[0].retries.retryRemoteLocalities", 8, Severity::NotActedOn)];
    assert_eq!(told(&remote), reported);
}

#[test]
fn retries_without_attempts_are_refused_if_they_say_how() {
    for words in [
        "{attempts: 0, perTryTimeout: 1s}",
        "{retryOn: 5xx}",
        "{attempts: 0, retryOn: 5xx}",
        "{attempts: 0, retryRemoteLocalities: true}",
    ] {
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
