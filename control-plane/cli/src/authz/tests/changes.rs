//! What a change refuses, and the exit status.

use std::process::ExitCode;

use clap::Parser as _;

use super::{BY_SERVICE_ACCOUNT, DENY_ALL, EXERCISE_3, Files, Line, status, tiers, tried, vault};

#[test]
fn a_server_without_a_sidecar_is_asked_for_by_its_clients_only() {
    let egress = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: inside}
spec: {podSelector: {matchLabels: {app: frontend}}, policyTypes: [Egress]}
";
    let (text, _) = tried(&[&tiers()], egress, &[]).unwrap();
    let to_legacy: Vec<&str> = text.lines().filter(|line| line.contains(" default/legacy ")).collect();

    assert_eq!(to_legacy.len(), 1, "{text}");
    assert!(to_legacy[0].starts_with("default/frontend") && to_legacy[0].contains("denied"), "{text}");
}

#[test]
fn what_a_change_refuses() {
    let (text, breaks) = tried(&[&tiers()], EXERCISE_3, &[]).unwrap();

    assert!(breaks);
    insta::assert_snapshot!(text);
}

#[test]
fn what_strict_refuses() {
    let (text, breaks) = tried(&[&vault()], "", &["--strict"]).unwrap();

    assert!(breaks);
    insta::assert_snapshot!(text);
}

#[test]
fn strict_takes_the_place_of_what_the_whole_mesh_has() {
    let permissive = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a-mode, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
";
    assert!(tried(&[&vault(), permissive], "", &["--strict"]).unwrap().1);
    // The policy of the namespace goes before, and nothing changes.
    let namespace = permissive.replace("istio-system", "default");
    assert!(!tried(&[&vault(), &namespace], "", &["--strict"]).unwrap().1);
}

#[test]
fn a_change_of_what_requests_are_asked_is_no_promise() {
    let narrower = BY_SERVICE_ACCOUNT.replace("methods: [GET]", "methods: [HEAD]");
    let (text, breaks) = tried(&[&vault(), BY_SERVICE_ACCOUNT], &narrower, &["-o", "json"]).unwrap();
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();

    assert!(breaks);
    crate::documented::is_documented("authz", &said);
    assert_eq!(said["refused"], serde_json::json!([]), "{text}");
    assert_eq!(said["judged_anew"][0]["from"], "default/web", "{text}");

    let (text, breaks) = tried(&[&vault(), BY_SERVICE_ACCOUNT], BY_SERVICE_ACCOUNT, &[]).unwrap();
    assert!(!breaks, "{text}");
}

#[test]
fn who_gains_breaks_nothing() {
    let (text, breaks) =
        tried(&[&vault(), DENY_ALL], &DENY_ALL.replace("spec: {", "spec: {rules: [{}], "), &[]).unwrap();

    assert!(!breaks);
    assert!(text.contains("would be let in, or some requests: 6"), "{text}");
}

#[test]
fn a_change_that_cannot_be_used_is_no_answer() {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    let error = tried(&[&vault()], other, &[]).unwrap_err();
    assert!(error.contains("holds no document"), "{error}");
    for (change, named) in [
        (DENY_ALL.replace("selector:", "selektor:"), "selektor"),
        (DENY_ALL.replace("spec: {", "spec: {action: CUSTOM, provider: {name: a}, rules: [{}], "), "CUSTOM"),
        ("a: [".to_owned(), "change.yaml"),
    ] {
        let error = tried(&[&vault()], &change, &[]).unwrap_err();
        assert!(error.contains(named) && error.ends_with("correct it first"), "{error}");
    }
}

#[test]
fn the_exit_status_says_whether_somebody_would_be_refused() {
    let files = Files::new(&[&vault()], DENY_ALL);
    let (breaks, fails) = (ExitCode::from(1), ExitCode::from(2));

    assert_eq!(status(&files, &["matrix"]), ExitCode::SUCCESS);
    assert_eq!(status(&files, &["try", "-f", files.change()]), breaks);
    assert_eq!(status(&files, &["try", "--strict"]), breaks);
    assert_eq!(status(&files, &["try", "-f", "/nowhere/at/all"]), fails);
    let open = Files::new(&[&vault()], &DENY_ALL.replace("spec: {", "spec: {rules: [{}], "));
    assert_eq!(status(&open, &["try", "-f", open.change()]), ExitCode::SUCCESS);
    assert!(Line::try_parse_from(files.line(&["try"])).is_err(), "neither a file nor --strict");
}
