//! What is known of a cluster, by the steps that lead there.

use std::collections::BTreeSet;

use selvedge_model::MtlsMode;
use serde_json::{Value, json};

use super::held::{ClusterObjects, EVERY_KIND, Step};
use crate::{
    problem::{DocumentName, Severity},
    resources::kinds::followed,
    sources::Loaded,
};

fn index(kind: &str) -> usize {
    followed().position(|wanted| wanted.kind == kind).unwrap()
}

/// Everything is listed, and there is nothing.
fn empty() -> ClusterObjects {
    let mut held = ClusterObjects::new("default");
    for index in 0..followed().count() {
        held.take((index, Step::Missing));
    }
    held.changed().expect("the first state counts, even if it is empty");
    held
}

fn service(name: &str, port: u16, generation: i64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": generation},
        "spec": {"ports": [{"port": port}]}
    })
}

fn take(held: &mut ClusterObjects, kind: &str, step: Step) {
    held.take((index(kind), step));
}

/// Name and first port of every service, in order.
fn services(loaded: &Loaded) -> Vec<(String, u16)> {
    let services = loaded.resources.services.iter();
    services.map(|document| (document.name.name.to_string(), document.spec.ports[0].port)).collect()
}

/// One step of a cluster's story: of which kind, and what becomes of which object.
fn random_step(random: &mut fastrand::Rng) -> (&'static str, Step) {
    let name = random.choice(["a", "b", "c", "d"]).unwrap();
    let kind = *random.choice(&["Pod", "Service", "HTTPRoute", "GRPCRoute", "ServiceAccount"]).unwrap();
    let spec = match (kind, random.u8(0..5)) {
        ("Service", broken @ 0..2) => json!({"ports": [{"port": broken, "nobody": "knows this"}]}),
        ("Service", port) => json!({"ports": [{"port": port}]}),
        ("HTTPRoute", 0) => {
            json!({"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "/a.*"}}]}]})
        }
        ("HTTPRoute" | "GRPCRoute", 1) => json!({"rules": 5}),
        ("HTTPRoute" | "GRPCRoute", host) => json!({"hostnames": [format!("h{host}.example.com")]}),
        (_, node) => json!({"nodeName": format!("node{node}"), "containers": []}),
    };
    let version = match kind {
        "HTTPRoute" | "GRPCRoute" => "gateway.networking.k8s.io/v1",
        _ => "v1",
    };
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": random.u8(0..3)},
        "spec": spec,
    });
    if random.bool() {
        object["metadata"]["creationTimestamp"] = json!(format!("2026-01-0{}T00:00:00Z", random.u8(1..4)));
    }
    let step = match random.u8(0..12) {
        0..7 => Step::Applied(object),
        7..10 => Step::Deleted(object),
        10 => Step::Listed,
        _ => Step::Failed(unreachable()),
    };
    (kind, step)
}

#[test]
fn what_is_changed_in_its_place_is_what_would_be_put_together_anew() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..40 {
        let (mut held, mut anew) = (empty(), empty());
        for _ in 0..100 {
            let mut twin = random.clone();
            let (kind, step) = random_step(&mut random);
            take(&mut held, kind, step);
            let (kind, step) = random_step(&mut twin);
            take(&mut anew, kind, step);
            if random.u8(0..3) > 0 {
                anew.forget();
                let (loaded, whole) = (held.changed(), anew.changed());
                // Who has forgotten always tells.
                assert!(loaded.is_none() || loaded == whole);
            }
        }
        take(&mut held, "Service", Step::Applied(service("last", 1, 1)));
        take(&mut anew, "Service", Step::Applied(service("last", 1, 1)));
        anew.forget();
        assert_eq!(held.changed(), anew.changed());
    }
}

#[test]
fn a_pod_that_comes_or_changes_leaves_all_other_documents_as_they_are_in_memory() {
    let pod = |name: &str, node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "uid": name,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node, "containers": []}
        })
    };
    let mut held = empty();
    take(&mut held, "Pod", Step::Applied(pod("b", "one")));
    let first = held.changed().unwrap();
    assert!(!held.is_put_together_anew());

    take(&mut held, "Pod", Step::Applied(pod("a", "one")));
    take(&mut held, "Pod", Step::Applied(pod("b", "two")));
    take(&mut held, "Pod", Step::Applied(pod("c", "one")));
    take(&mut held, "Pod", Step::Deleted(pod("c", "one")));
    assert!(!held.is_put_together_anew());
    let second = held.changed().unwrap();

    let names: Vec<_> = second.resources.pods.iter().map(|pod| pod.name.name.to_string()).collect();
    assert_eq!((names, first.resources.pods.len()), (vec!["a".to_owned(), "b".to_owned()], 1));
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn unreachable() -> selvedge_kubernetes::Error {
    selvedge_kubernetes::Error::Unreachable { server: "https://api".into(), reason: "refused".into() }
}

#[test]
fn of_a_kind_that_is_asked_for_by_its_metadata_nothing_else_is_read() {
    let by_metadata: Vec<_> = followed().filter(|kind| kind.is_metadata).collect();

    assert!(by_metadata.iter().any(|kind| kind.kind == "ServiceAccount"));
    for kind in by_metadata {
        assert_eq!(kind.known_fields(), [], "{}", kind.kind);
    }
}

#[test]
fn nothing_counts_before_every_kind_is_listed_or_known_to_be_missing() {
    let mut held = ClusterObjects::new("default");
    for index in 1..followed().count() {
        held.take((index, Step::Missing));
    }
    held.take((0, Step::Listing));
    assert!(held.changed().is_none());

    held.take((0, Step::Listed));

    assert!(held.changed().is_some());
    assert!(held.changed().is_none(), "and only once");
}

#[test]
fn a_listing_takes_the_place_of_what_was_known_once_it_is_complete() {
    let mut held = empty();
    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("a", 1, 1)));
    take(&mut held, "Service", Step::Present(service("b", 1, 1)));
    take(&mut held, "Service", Step::Listed);
    assert_eq!(services(&held.changed().unwrap()), [("a".into(), 1), ("b".into(), 1)]);

    // The API server forgot where we were (410 Gone), and meanwhile a is gone and b has changed.
    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("b", 2, 2)));
    assert!(held.changed().is_none(), "half a listing is none");
    take(&mut held, "Service", Step::Listed);

    assert_eq!(services(&held.changed().unwrap()), [("b".into(), 2)]);
}

#[test]
fn a_listing_of_what_is_known_changes_nothing_and_keeps_the_documents() {
    let mut held = empty();
    take(&mut held, "Service", Step::Applied(service("a", 1, 1)));
    let before = held.changed().unwrap();

    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("a", 1, 1)));
    take(&mut held, "Service", Step::Listed);
    // The kind was not listed before: that it is now counts.
    let after = held.changed().unwrap();
    assert!(std::sync::Arc::ptr_eq(&before.resources.services[0], &after.resources.services[0]));

    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("a", 1, 1)));
    take(&mut held, "Service", Step::Listed);
    assert!(held.changed().is_none());
    take(&mut held, "Service", Step::Applied(service("a", 1, 1)));
    assert!(held.changed().is_none());
}

#[test]
fn an_object_that_fails_keeps_its_last_good_version_and_is_named_by_its_kind() {
    let mut held = empty();
    take(&mut held, "Service", Step::Applied(service("a", 1, 1)));
    held.changed().unwrap();

    take(&mut held, "Service", Step::Applied(service("a", 0, 2)));
    take(&mut held, "Service", Step::Applied(service("b", 0, 1)));
    let loaded = held.changed().unwrap();

    assert_eq!(services(&loaded), [("a".into(), 1)]);
    let told = errors(&loaded);
    assert!(told[0].starts_with("Service shop/a: spec.ports[0].port: "), "{told:?}");
    assert!(told[0].ends_with("its last good version stays in use"), "{told:?}");
    assert!(told[1].ends_with("nothing of it is in use"), "{told:?}");
    let generation = |name: &str| {
        loaded.objects.iter().find(|object| &*object.name.name == name).map(|object| object.generation)
    };
    assert_eq!((generation("a"), generation("b")), (Some(2), Some(1)), "who wrote it is told of this one");

    // Even a listing that begins again does not forget it.
    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("a", 0, 2)));
    take(&mut held, "Service", Step::Listed);
    assert_eq!(services(&held.changed().unwrap()), [("a".into(), 1)]);
}

#[test]
fn a_deleted_object_is_gone_and_so_is_a_kind_whose_crd_went() {
    let mut held = empty();
    take(&mut held, "Service", Step::Listing);
    take(&mut held, "Service", Step::Present(service("a", 1, 1)));
    take(&mut held, "Service", Step::Present(service("b", 1, 1)));
    take(&mut held, "Service", Step::Listed);
    take(&mut held, "Service", Step::Deleted(service("a", 1, 1)));
    assert_eq!(services(&held.changed().unwrap()), [("b".into(), 1)]);

    take(&mut held, "Service", Step::Failed(selvedge_kubernetes::Error::Conflict("odd".into())));
    take(&mut held, "Service", Step::Deleted(service("b", 1, 1)));
    assert_eq!(services(&held.changed().unwrap()), []);
    take(&mut held, "Service", Step::Applied(service("c", 1, 1)));
    assert_eq!(services(&held.changed().unwrap()), [("c".into(), 1)]);

    take(&mut held, "Service", Step::Missing);

    assert_eq!(services(&held.changed().unwrap()), []);
}

#[test]
fn the_oldest_object_comes_first() {
    let dated = |name: &str, time: &str| {
        let mut service = service(name, 1, 1);
        service["metadata"]["creationTimestamp"] = json!(time);
        service
    };
    let mut held = empty();
    take(&mut held, "Service", Step::Applied(dated("a", "2026-02-01T00:00:00Z")));
    take(&mut held, "Service", Step::Applied(dated("c", "2026-01-01T00:00:00Z")));
    take(&mut held, "Service", Step::Applied(dated("b", "2026-01-01T00:00:00Z")));

    let names: Vec<String> = services(&held.changed().unwrap()).into_iter().map(|(name, _)| name).collect();

    assert_eq!(names, ["b", "c", "a"]);
}

#[test]
fn an_api_server_that_is_away_is_one_problem_and_nothing_is_lost() {
    let mut held = empty();
    take(&mut held, "Service", Step::Applied(service("a", 1, 1)));
    held.changed().unwrap();

    take(&mut held, "Service", Step::Failed(unreachable()));
    take(&mut held, "Pod", Step::Failed(unreachable()));
    let away = held.changed().unwrap();
    assert_eq!(services(&away), [("a".into(), 1)]);
    assert_eq!(
        errors(&away),
        [
            "the Kubernetes API server at https://api does not answer: refused; the last known state stays in use"
        ]
    );

    held.take((EVERY_KIND, Step::Answers));
    assert_eq!(errors(&held.changed().unwrap()), [] as [String; 0]);
}

#[test]
fn a_kind_that_may_not_be_listed_is_named_and_keeps_the_rest_waiting() {
    let mut held = ClusterObjects::new("default");
    for index in 1..followed().count() {
        held.take((index, Step::Missing));
    }

    held.take((0, Step::Failed(selvedge_kubernetes::Error::Forbidden("namespaces is forbidden".into()))));
    assert!(held.changed().is_none(), "policies that cannot be read must not count as none");

    held.take((0, Step::Listing));
    held.take((0, Step::Listed));
    assert_eq!(errors(&held.changed().unwrap()), [] as [String; 0]);
}

#[test]
fn nodes_that_may_not_be_listed_are_named_and_keep_nothing_waiting() {
    let mut held = ClusterObjects::new("default");
    let nodes = index("Node");
    for index in (0..followed().count()).filter(|index| *index != nodes) {
        held.take((index, Step::Missing));
    }
    assert!(held.changed().is_none(), "they are waited for, as long as nothing is known of them");

    held.take((nodes, Step::Failed(selvedge_kubernetes::Error::Forbidden("nodes is forbidden".into()))));

    let told = errors(&held.changed().expect("only places are unknown"));
    assert!(told.len() == 1 && told[0].contains("nodes is forbidden"), "{told:?}");
}

#[test]
fn an_object_of_a_kind_that_nothing_acts_on_is_reported() {
    let mut held = empty();

    take(
        &mut held,
        "EnvoyFilter",
        Step::Applied(json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "x", "namespace": "shop", "uid": "u", "generation": 1}, "spec": {}
        })),
    );

    let loaded = held.changed().unwrap();
    assert_eq!(loaded.problems[0].severity, Severity::NotActedOn);
    assert_eq!(
        loaded.problems[0].to_string(),
        "EnvoyFilter shop/x: EnvoyFilter (networking.istio.io/v1alpha3) is not acted on"
    );
    assert_eq!(loaded.objects.len(), 1);
}

fn policy(mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "a", "namespace": "shop", "uid": "u", "generation": 1},
        "spec": {"mtls": {"mode": mode}}
    })
}

#[test]
fn a_policy_that_was_never_good_here_is_strict_whatever_becomes_of_it() {
    let modes = |loaded: &Loaded| -> Vec<_> {
        let policies = loaded.resources.peer_authentications.iter();
        policies
            .map(|policy| (policy.unusable, policy.spec.mode.unwrap(), policy.spec.any_workload))
            .collect()
    };
    let mut held = empty();

    // As after a restart: nothing is remembered.
    take(&mut held, "PeerAuthentication", Step::Applied(policy("OPEN")));
    assert_eq!(modes(&held.changed().unwrap()), [(true, MtlsMode::Strict, false)]);

    let mut worse = policy("OPEN");
    worse["spec"]["selector"] = json!(5);
    take(&mut held, "PeerAuthentication", Step::Applied(worse));
    assert_eq!(modes(&held.changed().unwrap()), [(true, MtlsMode::Strict, true)], "no last good version");

    take(&mut held, "PeerAuthentication", Step::Applied(policy("PERMISSIVE")));
    take(&mut held, "PeerAuthentication", Step::Applied(policy("OPEN")));
    assert_eq!(modes(&held.changed().unwrap()), [(false, MtlsMode::Permissive, false)]);

    take(&mut held, "PeerAuthentication", Step::Deleted(policy("OPEN")));
    assert_eq!(modes(&held.changed().unwrap()), []);
}

fn named(name: &str) -> DocumentName {
    DocumentName { kind: "Secret".into(), namespace: "shop".into(), name: name.into() }
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": {}})
}

fn secrets(loaded: &Loaded) -> Vec<String> {
    loaded.resources.secrets.iter().map(|document| document.name.to_string()).collect()
}

#[test]
fn an_object_is_in_use_while_it_is_named_and_there() {
    let mut held = empty();
    let (a, b) = (named("a"), named("b"));
    held.name(&[a.clone(), b.clone()].into(), &BTreeSet::new());
    assert!(!held.are_named_known() && held.changed().is_none(), "nothing is known of them");

    for step in [Step::Listing, Step::Present(secret("a")), Step::Listed] {
        held.take_named(&a, step);
    }
    assert!(!held.are_named_known());
    for step in [Step::Listing, Step::Listed] {
        held.take_named(&b, step);
    }
    assert!(held.are_named_known(), "that there is none is known, too");
    assert_eq!(secrets(&held.changed().unwrap()), ["Secret shop/a"]);

    held.take_named(&b, Step::Applied(secret("b")));
    assert_eq!(secrets(&held.changed().unwrap()), ["Secret shop/a", "Secret shop/b"]);
    held.take_named(&a, Step::Deleted(secret("a")));
    assert_eq!(secrets(&held.changed().unwrap()), ["Secret shop/b"]);
    held.name(&BTreeSet::new(), &BTreeSet::new());
    assert_eq!(secrets(&held.changed().unwrap()), [""; 0]);
    held.take_named(&b, Step::Applied(secret("b")));
    assert!(held.changed().is_none(), "a watch that has not ended yet tells nobody");
}

#[test]
fn an_object_that_may_not_be_read_is_reported_and_keeps_nobody_waiting() {
    let mut held = empty();
    let (a, b) = (named("a"), named("b"));
    held.name(&[a.clone()].into(), &[b.clone()].into());
    assert!(errors(&held.changed().unwrap())[0].contains("Secret shop/b is not read"));

    let refused = selvedge_kubernetes::Error::Forbidden("secrets is forbidden".into());
    held.take_named(&a, Step::Failed(refused));

    assert!(held.are_named_known());
    let told = errors(&held.changed().unwrap()).concat();
    assert!(told.contains("Secret shop/a cannot be watched: ") && told.contains("forbidden"), "{told}");
    // The API server is away: one problem, whatever is asked for.
    held.take_named(&a, Step::Failed(unreachable()));
    assert_eq!(errors(&held.changed().unwrap()).len(), 3);
    for step in [Step::Listing, Step::Listed] {
        held.take_named(&a, step);
    }
    assert_eq!(errors(&held.changed().unwrap()).len(), 1);
    held.name(&[a, b].into(), &BTreeSet::new());
    assert!(errors(&held.changed().unwrap()).is_empty() && !held.are_named_known(), "there is room now");
}
