//! `RateLimit`, and Linkerd's and nginx's words for it: what is refused, and where.

use std::time::Duration;

use selvedge_model::limit::{By, OnFailure, Quota};

use super::*;

fn limit(spec: &str) -> Decoded {
    only(&format!("apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: a}}\nspec: {spec}\n"))
}

#[test]
fn a_rate_limit_has_defaults_and_a_key() {
    let decoded = limit("{limits: [{requests: 7}, {key: clientAddress, requests: 60, per: 1m, burst: 5}]}");

    let Resource::RateLimit(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let [all, each] = &document.spec.limits[..] else { panic!("{document:?}") };
    assert_eq!(
        (&all.by, all.quota),
        (&By::Everyone, Quota { requests: 7, per: Duration::from_secs(1), burst: 7 })
    );
    let minute = Duration::from_secs(60);
    assert_eq!((&each.by, each.quota), (&By::ClientAddress, Quota { requests: 60, per: minute, burst: 5 }));
}

#[test]
fn what_a_rate_limit_cannot_mean_is_an_error_with_its_field() {
    for (spec, field, words) in [
        ("{limits: []}", "spec.limits", "limits nothing"),
        ("{limits: [{requests: 0}]}", "spec.limits[0].requests", "AuthorizationPolicy"),
        ("{limits: [{requests: 1, burst: 0}]}", "spec.limits[0].burst", "1 to 1000000"),
        ("{limits: [{requests: 1, per: 24h, burst: 1000000}]}", "spec.limits[0].burst", "73 years"),
        ("{limits: [{requests: 1, per: 25h}]}", "spec.limits[0].per", "1ms to 24h"),
        ("{limits: [{requests: 1, key: ip}]}", "spec.limits[0].key", "clientAddress"),
        ("{limits: [{requests: 1, key: clientAddress, header: a}]}", "spec.limits[0].header", "only one"),
        ("{limits: [{requests: 1, header: 'a b'}]}", "spec.limits[0].header", "not the name of a header"),
        ("{limits: [{requests: 1, exempt: [x]}]}", "spec.limits[0].exempt[0]", "10.0.0.0/8"),
        ("{limits: [{requests: 1}, {requests: 2}]}", "spec.limits[1]", "keep one"),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}], limits: [{requests: 1}]}",
            "spec.targetRefs",
            "only one",
        ),
        ("{targetRefs: [{kind: Pod, name: a}], limits: [{requests: 1}]}", "spec.targetRefs[0]", "Service"),
        ("{targetRefs: [{kind: Service}], limits: [{requests: 1}]}", "spec.targetRefs[0].name", "missing"),
        (
            "{targetRefs: [{kind: Service, name: a, sectionName: b}], limits: [{requests: 1}]}",
            "spec.targetRefs[0].sectionName",
            "only routes",
        ),
    ] {
        let decoded = limit(spec);
        let [problem] = &decoded.problems[..] else { panic!("{spec}: {:?}", decoded.problems) };
        assert_eq!((&*problem.field, problem.severity), (field, Severity::Error), "{spec}");
        assert!(problem.message.contains(words), "{spec}: {}", problem.message);
    }
}

#[test]
fn a_server_that_counts_for_all_proxies_has_envoys_defaults() {
    let decoded = limit(
        "{global: {service: infra/ratelimit:8081, domain: shop, descriptors: [{entries: [{header: X-User}, {from: \
         clientAddress}, {value: a}, {key: who, from: clientIdentity}]}]}}",
    );

    let Resource::RateLimit(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let global = document.spec.global.as_ref().expect("a server");
    assert_eq!((global.timeout, global.on_failure), (Duration::from_millis(20), OnFailure::Open));
    let server = ServerRef { namespace: Some("infra".into()), host: "ratelimit".into(), port: 8081 };
    assert_eq!(global.server, server);
    let told = global.descriptors[0].of(None).expect("it tells no Service");
    let keys = told.entries.iter().map(|entry| &*entry.key);
    assert_eq!(keys.collect::<Vec<_>>(), ["x-user", "remote_address", "generic_key", "who"]);
}

#[test]
fn what_cannot_be_asked_of_a_server_is_an_error_with_its_field() {
    const DESCRIPTORS: &str = "descriptors: [{entries: [{from: clientAddress}]}]";
    let entry = |entry: &str| {
        format!("service: 'a:1', domain: a, descriptors: [{{entries: [{{from: clientAddress}}, {entry}]}}]")
    };
    const ENTRY: &str = "spec.global.descriptors[0].entries[1]";
    for (global, field, words) in [
        (format!("service: a, domain: a, {DESCRIPTORS}"), "spec.global.service", "NAMESPACE/NAME:PORT"),
        (format!("service: 'a:0', domain: a, {DESCRIPTORS}"), "spec.global.service", "names no server"),
        (format!("service: 'b/a.c:1', domain: a, {DESCRIPTORS}"), "spec.global.service", "names no server"),
        (format!("service: 'a:1', {DESCRIPTORS}"), "spec.global.domain", "missing"),
        (format!("service: 'a:1', domain: a, timeout: 11s, {DESCRIPTORS}"), "spec.global.timeout", "10s"),
        (
            format!("service: 'a:1', domain: a, failureMode: open, {DESCRIPTORS}"),
            "spec.global.failureMode",
            "write Open",
        ),
        ("service: 'a:1', domain: a".to_owned(), "spec.global.descriptors", "never be asked"),
        (entry("{key: b}"), ENTRY, "one of value, header and from"),
        (entry("{value: b, header: c}"), ENTRY, "one of value, header and from"),
        (entry("{from: path}"), &format!("{ENTRY}.from"), "clientAddress"),
        (entry("{from: route}"), &format!("{ENTRY}.from"), "all targetRefs are routes"),
        (entry("{from: service}"), &format!("{ENTRY}.from"), "all targetRefs are Services"),
    ] {
        let decoded = limit(&format!("{{global: {{{global}}}}}"));
        let [problem] = &decoded.problems[..] else { panic!("{global}: {:?}", decoded.problems) };
        assert_eq!((&*problem.field, problem.severity), (field, Severity::Error), "{global}");
        assert!(problem.message.contains(words), "{global}: {}", problem.message);
    }
}

#[test]
fn linkerds_limits_are_checked_as_linkerd_does() {
    let policy = |spec: &str| {
        only(&format!(
            "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {{name: a}}\n\
             spec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: s}}, {spec}}}\n"
        ))
    };
    let limit = "total: {requestsPerSecond: 10}, identity: {requestsPerSecond: 5}";
    assert!(matches!(policy(limit).outcome, DecodeOutcome::Understood(_)));
    for (spec, field) in [
        ("total: {requestsPerSecond: 0}", "spec.total.requestsPerSecond"),
        (
            "total: {requestsPerSecond: 1}, identity: {requestsPerSecond: 5}",
            "spec.identity.requestsPerSecond",
        ),
        ("overrides: [{requestsPerSecond: 1, clientRefs: []}]", "spec.overrides[0].clientRefs"),
        (
            "overrides: [{requestsPerSecond: 1, clientRefs: [{kind: Pod, name: a}]}]",
            "spec.overrides[0].clientRefs[0]",
        ),
    ] {
        assert_eq!(told(&policy(spec))[0].0, field, "{spec}");
    }
}
