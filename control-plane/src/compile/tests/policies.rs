//! `PeerAuthentication`: which document decides for a workload's port.

use super::*;

/// Documents in the given order: namespace, name, spec.
fn peer_authentications(list: &[(&str, &str, &str)]) -> String {
    let one = |(namespace, name, spec): &(&str, &str, &str)| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    };
    list.iter().map(one).collect()
}

/// Mode and rule of `port` of the workload `default/reviews-v1`.
fn rule(list: &[(&str, &str, &str)], port: u16) -> (MtlsMode, String) {
    let (mesh, _) = compiled(&format!("{MESH}{}", peer_authentications(list)));
    let workload = &mesh.workloads[&"default/reviews-v1".parse().unwrap()];
    let rule = workload.policy.rule(port);
    (rule.mode, rule.name.to_string())
}

const MESH_WIDE: (&str, &str, &str) = ("istio-system", "mesh", "{mtls: {mode: STRICT}}");
const NAMESPACE: (&str, &str, &str) = ("default", "ns", "{mtls: {mode: DISABLE}}");
const WORKLOAD: (&str, &str, &str) = (
    "default",
    "own",
    "{selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9001: {mode: STRICT}, 9002: {}}}",
);

#[test]
fn without_documents_both_are_let_in() {
    assert_eq!(rule(&[], 9001), (MtlsMode::Permissive, "mesh default".to_owned()));
}

#[test]
fn the_workload_beats_the_namespace_and_that_the_mesh() {
    let all = [MESH_WIDE, NAMESPACE, WORKLOAD];

    assert_eq!(rule(&all[..1], 1), (MtlsMode::Strict, "PeerAuthentication istio-system/mesh".to_owned()));
    assert_eq!(rule(&all[..2], 1), (MtlsMode::Disable, "PeerAuthentication default/ns".to_owned()));
    assert_eq!(rule(&all, 1), (MtlsMode::Permissive, "PeerAuthentication default/own".to_owned()));
    assert_eq!(rule(&all, 9001), (MtlsMode::Strict, "PeerAuthentication default/own".to_owned()));
    assert_eq!(rule(&all, 9002), (MtlsMode::Permissive, "PeerAuthentication default/own".to_owned()));
}

#[test]
fn an_unset_mode_is_the_next_wider_one() {
    let unset = ("default", "ns", "{}");
    let unset_workload = ("default", "own", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: UNSET}}");

    let strict = (MtlsMode::Strict, "PeerAuthentication istio-system/mesh".to_owned());
    assert_eq!(rule(&[MESH_WIDE, unset], 1), strict);
    assert_eq!(rule(&[MESH_WIDE, unset, unset_workload], 1), strict);
}

#[test]
fn a_selector_that_selects_others_changes_nothing() {
    let others = ("default", "own", "{selector: {matchLabels: {app: ratings}}, mtls: {mode: DISABLE}}");
    let elsewhere = ("shop", "own", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}");

    assert_eq!(rule(&[others, elsewhere], 1).0, MtlsMode::Permissive);
}

#[test]
fn the_first_of_a_level_wins_and_the_others_are_reported() {
    let second = |document: (&'static str, &'static str, &'static str), name: &'static str| {
        (document.0, name, document.2)
    };
    let list = [
        MESH_WIDE,
        NAMESPACE,
        WORKLOAD,
        second(MESH_WIDE, "late-mesh"),
        second(NAMESPACE, "late-ns"),
        second(WORKLOAD, "late-own"),
        ("istio-system", "ignored", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}"),
    ];
    let (_, problems) = compiled(&format!("{MESH}{}", peer_authentications(&list)));

    let told = errors(&problems);
    assert!(told[0].contains("PeerAuthentication istio-system/mesh"), "{told:?}");
    assert!(told[1].contains("PeerAuthentication default/ns"), "{told:?}");
    assert!(told[2].contains("workload default/reviews-v1") && told[2].contains("default/own"), "{told:?}");
    assert!(told.last().is_some_and(|last| last.contains("root namespace")), "{told:?}");
    assert_eq!(rule(&list, 9001).1, "PeerAuthentication default/own");
}
