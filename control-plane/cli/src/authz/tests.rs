//! Matrices of the lesson's exercise 3 and of policies of Istio; what changes refuse; and the commands' exit status.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use selvedge_control_plane::{compile::MeshSettings, resources::Resources};
use selvedge_model::Mesh;
use tempfile::TempDir;

use super::{Args, MatrixArgs, TryArgs, compile, matrix_of, run, trying};

const EXERCISE_3: &str = include_str!("../../../../tests/kubernetes/seeds/exercise3-networkpolicies.yaml");
const BY_SERVICE_ACCOUNT: &str = include_str!("../../../../examples/policies/allow-by-service-account.yaml");
const STRICT: &str = include_str!("../../../../examples/policies/strict-mtls.yaml");
const STRICT_BUT_ONE_PORT: &str = include_str!("../../../../examples/policies/strict-except-one-port.yaml");
const LINKERD: &str = include_str!("../../../../examples/policies/linkerd-server.yaml");

/// Denies everything to the workloads of `app`.
const DENY_ALL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing}
spec: {selector: {matchLabels: {app: vault}}}
";

/// A workload at 127.0.0.`host` with a sidecar of its own (in explicit mode).
fn meshed(name: &str, host: u8, ports: &str) -> String {
    let annotation = format!("annotations: {{config.selvedge.io/inbound: '127.0.0.{host}:4143'}}");
    entry(name, host, ports, &annotation, ", security.istio.io/tlsMode: istio")
}

/// A workload without a sidecar.
fn plain(name: &str, host: u8) -> String {
    entry(name, host, "{http: 9080}", "annotations: {}", "")
}

fn entry(name: &str, host: u8, ports: &str, annotations: &str, label: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, {annotations}}}
spec:
  address: 127.0.0.{host}
  labels: {{app: {name}, tier: {name}{label}}}
  ports: {ports}
  serviceAccount: {name}
---
"
    )
}

fn tiers() -> String {
    let http = "{http: 8080}";
    [
        meshed("frontend", 1, http),
        meshed("backend", 2, http),
        meshed("database", 3, "{tcp: 5432}"),
        plain("legacy", 4),
    ]
    .concat()
}

/// A vault with two ports, a client that its policies let in, another one, and one without a sidecar.
fn vault() -> String {
    [
        meshed("vault", 1, "{http: 9080, tcp-metrics: 9090}"),
        meshed("web", 2, "{}"),
        meshed("other", 3, "{}"),
        plain("legacy", 4),
    ]
    .concat()
}

/// A directory with these documents, and beside it a file with a change.
struct Files {
    directory: TempDir,
    change: PathBuf,
}

impl Files {
    fn new(documents: &[&str], change: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("mesh.yaml"), documents.join("\n---\n")).unwrap();
        let file = directory.path().join("change.yaml");
        fs::write(&file, change).unwrap();
        Self { directory, change: file }
    }

    fn line(&self, words: &[&str]) -> Vec<String> {
        let config = self.directory.path().join("config").display().to_string();
        let words = words.iter().map(|word| (*word).to_owned());
        ["authz".to_owned()].into_iter().chain(words).chain(["--config-dir".to_owned(), config]).collect()
    }

    fn change(&self) -> &str {
        self.change.to_str().unwrap()
    }
}

#[derive(Parser)]
struct Matrix {
    #[command(flatten)]
    args: MatrixArgs,
}

#[derive(Parser)]
struct Try {
    #[command(flatten)]
    args: TryArgs,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn matrix(documents: &[&str], format: &str) -> String {
    let files = Files::new(documents, "");
    matrix_of(&Matrix::try_parse_from(files.line(&["-o", format])).unwrap().args).unwrap()
}

/// What a change comes to, and whether it breaks something.
fn tried(documents: &[&str], change: &str, more: &[&str]) -> Result<(String, bool), String> {
    let files = Files::new(documents, change);
    let file = if change.is_empty() { Vec::new() } else { vec!["-f", files.change()] };
    trying::answer(&Try::try_parse_from(files.line(&[&file, more].concat())).unwrap().args)
}

fn status(files: &Files, words: &[&str]) -> ExitCode {
    run(Line::try_parse_from(files.line(words)).unwrap().args).unwrap()
}

#[test]
fn the_matrix_of_exercise_3() {
    insta::assert_snapshot!(matrix(&[&tiers(), EXERCISE_3], "table"));
}

#[test]
fn the_matrix_of_policies_of_istio() {
    insta::assert_snapshot!(matrix(&[&vault(), BY_SERVICE_ACCOUNT, STRICT], "table"));
}

#[test]
fn a_port_of_its_own_mode() {
    let reviews = [meshed("reviews", 1, "{http: 9080, tcp-metrics: 9090}"), plain("legacy", 2)].concat();
    insta::assert_snapshot!(matrix(&[&reviews, STRICT_BUT_ONE_PORT], "table"));
}

#[test]
fn routes_of_a_server_of_linkerd_depend_on_the_request() {
    let voting = [meshed("voting", 1, "{http: 8080}"), meshed("web", 2, "{}"), plain("legacy", 3)].concat();
    insta::assert_snapshot!(matrix(&[&voting, LINKERD], "table"));
}

#[test]
fn a_picture_shows_what_is_not_denied() {
    insta::assert_snapshot!(matrix(&[&vault(), BY_SERVICE_ACCOUNT], "dot"));
}

#[test]
fn json_has_one_object_for_each_pair() {
    let text = matrix(&[&tiers(), EXERCISE_3], "json");
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pairs = said["pairs"].as_array().unwrap();

    assert_eq!(pairs.len(), 12, "{text}");
    let denied = pairs.iter().find(|one| one["from"] == "default/frontend" && one["port"] == 5432).unwrap();
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["mutual_tls"], true);
    assert!(denied["rule"].as_str().unwrap().contains("NetworkPolicy default/database-policy"), "{denied}");
    assert!(denied["why"].is_string());
}

#[test]
fn who_is_revoked_is_denied() {
    let revocation = "apiVersion: selvedge.io/v1alpha1
kind: Revocation
metadata: {name: stolen}
spec: {workloads: [web], reason: stolen}
";
    let text = matrix(&[&vault(), revocation], "table");

    let line = text.lines().find(|line| line.starts_with("default/web ") && line.contains(" 9090 ")).unwrap();
    assert!(line.contains("denied") && line.contains("Revocation default/stolen"), "{line}");
}

#[test]
fn a_port_of_opaque_bytes_never_depends_on_requests() {
    let service = "apiVersion: v1
kind: Service
metadata: {name: metrics}
spec: {selector: {app: vault}, ports: [{name: tcp-metrics, port: 9090}]}
";
    let text = matrix(&[&vault(), service, BY_SERVICE_ACCOUNT], "table");

    let line = text.lines().find(|line| line.starts_with("default/web ") && line.contains("9090")).unwrap();
    assert!(line.contains("denied"), "{line}");
}

#[test]
fn a_port_that_passes_by_the_sidecar_lets_everybody_in() {
    let pod = |name: &str, host: u8, annotations: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, selvedge.io/sidecar: injected}}, annotations: {annotations}}}
spec: {{serviceAccountName: {name}, containers: [{{name: a, ports: [{{containerPort: 80}}, {{containerPort: 90}}]}}]}}
status: {{phase: Running, podIP: 10.1.0.{host}}}
---
"
        )
    };
    let documents = [
        pod("vault", 1, "{config.selvedge.io/skip-inbound-ports: '90'}"),
        pod("web", 2, "{}"),
        DENY_ALL.to_owned(),
    ]
    .concat();
    let settings = MeshSettings::default();
    let mut resources = Resources::default();
    trying::put(&mut resources, &documents, Path::new("mesh.yaml"), &settings).unwrap();
    let matrix = super::matrix::of(&compile(&resources, &settings, &Mesh::default()).0);
    let to_vault: Vec<(u16, &str, bool)> = matrix
        .iter()
        .filter(|(pair, _)| pair.to == "default/vault")
        .map(|(pair, cell)| (pair.port, cell.outcome.word(), cell.mutual_tls))
        .collect();

    assert_eq!(to_vault, [(80, "denied", true), (90, "allowed", false)]);
}

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
fn without_a_sidecar_there_is_no_matrix() {
    assert!(matrix(&[&plain("legacy", 1)], "table").starts_with("there are no two workloads"));
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
