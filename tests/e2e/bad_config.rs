//! Bad configuration: one clear report, and everything else keeps working.

use std::{path::Path, process::Command};

use selvedge_demo::{apps::reviews, call, load::Plan, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use crate::SELVEDGE;

const V1: &str = "reviews-v1-a";

async fn canary() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write_canary().unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("frontend"), Spec::reviews(V1, "v1"), Spec::reviews("reviews-v2", "v2")])
        .await
        .unwrap();
    mesh
}

/// Waits until the control plane reports a problem whose file and message hold these words.
async fn reported(mesh: &Mesh, file: &str, words: &str) -> Value {
    poll(SOON, &format!("a problem in {file}: {words}"), async || {
        let problems = mesh.control_plane_admin("/problems").await;
        let problems: Vec<Value> =
            problems.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        let found = problems.iter().find(|problem| {
            problem["path"].as_str().is_some_and(|path| path.ends_with(file))
                && problem.to_string().contains(words)
        });
        found.cloned().ok_or_else(|| format!("{problems:?}"))
    })
    .await
}

/// Waits until a request of `user`'s is answered by `version`.
async fn sees(mesh: &Mesh, user: &str, version: &str) {
    let frontend = mesh.workload("frontend");
    poll(SOON, &format!("{user} sees {version}"), async || {
        let answer = frontend.call(call::to("reviews:9080", "/").header("end-user", user)).await;
        let answer: reviews::Answer =
            answer.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        if answer.version == version { Ok(()) } else { Err(answer.version) }
    })
    .await;
}

async fn nothing_fails(mesh: &Mesh) {
    let report = Plan::new(mesh.workload("frontend").outbound, "reviews:9080").requests(200).run().await;
    assert_eq!(report.failed(), 0, "{}", report.summary());
}

#[tokio::test]
async fn malformed_yaml_beside_good_yaml_is_reported_and_changes_nothing_else() {
    let mesh = canary().await;

    mesh.write("broken.yaml", "kind: Service\nmetadata: {name: [\n").unwrap();
    let problem = reported(&mesh, "broken.yaml", "").await;
    assert!(problem["line"].as_u64().is_some(), "{problem}");
    nothing_fails(&mesh).await;

    // The good files still count.
    mesh.edit("virtualservice.yaml", |text| text.replace("exact: jason", "exact: maria")).unwrap();
    sees(&mesh, "maria", "v2").await;
}

#[tokio::test]
async fn a_document_that_turns_bad_keeps_its_last_good_version_even_over_a_restart() {
    let mut mesh = canary().await;
    sees(&mesh, "jason", "v2").await;

    mesh.edit("virtualservice.yaml", |text| text.replace("hosts:", "hosts: {")).unwrap();
    reported(&mesh, "virtualservice.yaml", "").await;
    sees(&mesh, "jason", "v2").await;

    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    reported(&mesh, "virtualservice.yaml", "").await;
    mesh.add([Spec::client("other")]).await.unwrap();
    let other = mesh.workload("other");
    let answer = other.call(call::to("reviews:9080", "/").header("end-user", "jason")).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v2");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_holds_up_no_change() {
    let mut mesh = canary().await;
    sees(&mesh, "jason", "v2").await;
    // Whatever is saved is written there first; the kernel says that there is no space left.
    let saved = mesh.data_dir().join("last-good");
    std::os::unix::fs::symlink("/dev/full", saved.join(".writing")).unwrap();

    for (before, after) in [("jason", "maria"), ("maria", "peter")] {
        mesh.edit("virtualservice.yaml", |text| text.replace(before, after)).unwrap();
        sees(&mesh, after, "v2").await;
        sees(&mesh, before, "v1").await;
        reported(&mesh, "last-good", "No space left").await;
    }
    nothing_fails(&mesh).await;

    std::fs::remove_file(saved.join(".writing")).unwrap();
    mesh.edit("virtualservice.yaml", |text| format!("# There is room again.\n{text}")).unwrap();
    poll(SOON, "it is reported no more", async || {
        let problems = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?;
        if problems.text().contains("No space left") { Err(problems.text()) } else { Ok(()) }
    })
    .await;
    // What was changed meanwhile is known after a restart.
    mesh.edit("virtualservice.yaml", |text| text.replace("hosts:", "hosts: {")).unwrap();
    reported(&mesh, "virtualservice.yaml", "").await;
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("other")]).await.unwrap();
    let other = mesh.workload("other");
    let answer = other.call(call::to("reviews:9080", "/").header("end-user", "peter")).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v2");
}

#[tokio::test]
async fn the_share_of_an_unknown_subset_is_answered_503_and_the_rest_is_served() {
    let mesh = canary().await;

    mesh.edit("virtualservice.yaml", |text| text.replacen("subset: v2", "subset: v9", 1)).unwrap();
    reported(&mesh, "virtualservice.yaml", "v9").await;

    let frontend = mesh.workload("frontend");
    poll(SOON, "jason's share is answered 503", async || {
        let answer = frontend.call(call::to("reviews:9080", "/").header("end-user", "jason")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let broken = answer.status == 503
            && answer.proxy_error().is_some_and(|reason| reason.starts_with("no-backend"));
        if broken { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    nothing_fails(&mesh).await;
}

#[tokio::test]
async fn a_vanished_directory_deletes_nothing() {
    let mesh = canary().await;
    sees(&mesh, "jason", "v2").await;
    let (here, away) = (mesh.config_dir(), mesh.directory().join("away"));

    std::fs::rename(&here, &away).unwrap();
    reported(&mesh, "config", "").await;
    nothing_fails(&mesh).await;
    sees(&mesh, "jason", "v2").await;

    std::fs::rename(&away, &here).unwrap();
    mesh.edit("virtualservice.yaml", |text| text.replace("exact: jason", "exact: maria")).unwrap();
    sees(&mesh, "maria", "v2").await;
}

#[tokio::test]
async fn a_deleted_file_is_a_deleted_route() {
    let mesh = canary().await;
    sees(&mesh, "jason", "v2").await;

    mesh.remove("virtualservice.yaml").unwrap();

    // Without a route every endpoint of the service is as good as any other.
    sees(&mesh, "jason", "v1").await;
}

#[test]
fn check_names_file_line_and_remedy_of_each_bad_document() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{port: 9080}]}\n";
    write(at, "a-service.yaml", service);
    write(at, "b-service.yaml", service);
    write(at, "malformed.yaml", "kind: [\n");
    write(at, "route.yaml", &route("reviews", "- destination: {host: reviews, subset: v9}"));
    let weightless =
        "- {destination: {host: reviews}, weight: 0}\n        - {destination: {host: reviews}, weight: 0}";
    write(at, "weights.yaml", &route("ratings", weightless));

    let output = Command::new(SELVEDGE).args(["check", "--config-dir"]).arg(at).output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for (place, words) in [
        ("malformed.yaml:1", "not valid YAML"),
        ("b-service.yaml:1", "rename or remove one"),
        ("route.yaml:8", "v9"),
        ("weights.yaml:7", "sum to 0; give at least one"),
    ] {
        let found = said.lines().any(|line| line.contains(place) && line.contains(words));
        assert!(found, "no line with {place} and {words:?} in:\n{said}");
    }
}

fn route(host: &str, destinations: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\nspec:\n  \
         hosts: [{host}]\n  http:\n    - route:\n        {destinations}\n"
    )
}

fn write(directory: &Path, file: &str, text: &str) {
    std::fs::write(directory.join(file), text).unwrap();
}

/// STRICT, with one field that nobody can read.
const BAD_POLICY: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict}\nspec:\n  \
                          mtls: {mode: STRICT}\n  selector: {matchLabels: {app: reviews}}\n  portLevelMtls: \
                          {eighty: {mode: STRICT}}\n";

#[tokio::test]
async fn a_policy_that_cannot_be_used_lets_no_plaintext_in_from_the_first_moment_on() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("policy.yaml", BAD_POLICY).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("frontend"), Spec::reviews(V1, "v1")]).await.unwrap();
    let inbound = mesh.workload(V1).inbound;
    let plaintext = async || call::send(inbound, call::to("reviews:9080", "/")).await.unwrap();

    let problem = reported(&mesh, "policy.yaml", "mutual TLS only").await;
    assert_eq!(problem["severity"], "error", "{problem}");
    let refused = plaintext().await;
    assert_eq!(refused.status, 403, "{}", refused.summary());
    // A stranger is told what it lacks, and no name.
    let told = refused.proxy_error().unwrap();
    assert!(told.starts_with("policy: mutual TLS is required (STRICT)"), "{told}");
    let meshed = mesh.workload("frontend").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(meshed.status, 200, "{}", meshed.summary());

    // Over a restart too, and until it is mended.
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    assert_eq!(plaintext().await.status, 403);
    mesh.write("policy.yaml", &BAD_POLICY.replace("eighty", "80").replace("STRICT", "PERMISSIVE")).unwrap();
    poll(SOON, "what can be used is in force", async || {
        let answer = plaintext().await;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    // Then it has a good version, which stays.
    mesh.write("policy.yaml", BAD_POLICY).unwrap();
    reported(&mesh, "policy.yaml", "last good version stays in use").await;
    assert_eq!(plaintext().await.status, 200);
}

#[tokio::test]
async fn a_policy_file_that_cannot_be_read_denies_until_it_was_read_once_and_then_stays_as_it_was() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    let file = mesh.config_dir().join("policy.yaml");
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("frontend"), Spec::reviews(V1, "v1")]).await.unwrap();
    let inbound = mesh.workload(V1).inbound;
    let asked = async |mesh: &Mesh| {
        let meshed = mesh.workload("frontend").call(call::to("reviews:9080", "/")).await.unwrap();
        let plaintext = call::send(inbound, call::to("reviews:9080", "/")).await.unwrap();
        [meshed.status.as_u16(), plaintext.status.as_u16()]
    };

    reported(&mesh, "policy.yaml", "accepts nothing and calls nobody").await;
    assert_eq!(asked(&mesh).await, [403, 403]);

    let denies_strangers = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: meshed}\n\
                            spec: {rules: [{from: [{source: {principals: ['*']}}]}]}\n";
    std::fs::remove_file(&file).unwrap();
    mesh.write("policy.yaml", denies_strangers).unwrap();
    let becomes = async |mesh: &Mesh, wanted: [u16; 2]| {
        poll(SOON, &format!("answers are {wanted:?}"), async || {
            let now = asked(mesh).await;
            if now == wanted { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    };
    becomes(&mesh, [200, 403]).await;
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    reported(&mesh, "policy.yaml", "which does not exist").await;
    assert_eq!(asked(&mesh).await, [200, 403], "the last good version stays");
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    assert_eq!(asked(&mesh).await, [200, 403], "over a restart too");
    std::fs::remove_file(&file).unwrap();
    becomes(&mesh, [200, 200]).await;
}

#[test]
fn check_says_what_a_policy_that_cannot_be_used_is_taken_for() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "policy.yaml", BAD_POLICY);
    write(directory.path(), "broken.yaml", "kind: PeerAuthentication\nmetadata: {name: [\n");

    let output =
        Command::new(SELVEDGE).args(["check", "--config-dir"]).arg(directory.path()).output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    for (place, words) in [
        ("policy.yaml:7", "the workloads of namespace default that it selects accept mutual TLS only"),
        ("broken.yaml:2", "every workload of the mesh accepts mutual TLS only"),
    ] {
        let found = said.lines().any(|line| line.contains(place) && line.contains(words));
        assert!(found, "no line with {place} and {words:?} in:\n{said}");
    }
}

#[test]
fn check_fails_on_a_policy_that_is_not_enforced_unless_that_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {endpointSelector: {}}\n";
    write(directory.path(), "policy.yaml", policy);
    let check = |flags: &[&str]| {
        let command = &mut Command::new(SELVEDGE);
        let output =
            command.args(["check", "--config-dir"]).arg(directory.path()).args(flags).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };

    let (status, said) = check(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains(
            "policy.yaml:2: CiliumNetworkPolicy default/a: CiliumNetworkPolicy (cilium.io/v2) is not enforced"
        ),
        "{said}"
    );
    let (status, said) = check(&["--allow-unenforced"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("0 errors, 0 warnings, 1 field"), "{said}");
}

#[test]
fn the_examples_are_a_directory_without_errors() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies");

    let output = Command::new(SELVEDGE).args(["check", "--config-dir", examples]).output().unwrap();

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\n0 errors, "), "{said}");
}
