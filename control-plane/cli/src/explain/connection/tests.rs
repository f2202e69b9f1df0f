//! What is said of connections, over the lesson's exercise 3 and over policies of Istio and Linkerd, and of bad questions.

use std::{fs, path::Path};

use clap::Parser;
use selvedge_control_plane::sources::directory::{self, Options};

use super::{Explanation, Overall, Question, of, text};
use crate::{
    documented::is_documented,
    explain::{arguments::ConnectionArgs, ends::Outcome},
    testing::{BY_SERVICE_ACCOUNT, EXERCISE_3, LINKERD, STRICT, meshed, vault},
};

/// Two ways to one of the vault's ports.
const SERVICES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: vault}
spec: {selector: {app: vault}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: metrics}
spec: {selector: {app: vault}, ports: [{name: tcp-metrics, port: 9090}]}
---
";

fn tiers() -> String {
    [
        meshed("frontend", 1, "{http: 8080}"),
        meshed("backend", 2, "{http: 8080}"),
        meshed("database", 3, "{tcp: 5432}"),
    ]
    .concat()
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ConnectionArgs,
}

fn explain(documents: &[&str], words: &[&str]) -> Result<Explanation, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mesh.yaml"), documents.join("\n---\n")).unwrap();
    let config: &Path = directory.path();
    let line = [&["connection", "--config-dir", config.to_str().unwrap()], words].concat();
    let args = Line::try_parse_from(line).map_err(|error| error.to_string())?.args;
    let loaded = directory::load(config, Options::default()).unwrap();
    of(&loaded, &args, Question::new(&args)?).inspect(|explanation| is_documented("explain", explanation))
}

fn outcome(documents: &[&str], from: &str, to: &str, more: &[&str]) -> Overall {
    explain(documents, &[&["--from", from, "--to", to], more].concat()).unwrap().outcome
}

#[test]
fn both_ends_of_exercise_3() {
    let documents = [&*tiers(), EXERCISE_3];
    let said = |from, to| text(&explain(&documents, &["--from", from, "--to", to]).unwrap());

    insta::assert_snapshot!(said("default/backend", "default/database:5432"));
    insta::assert_snapshot!(said("default/frontend", "default/database:5432"));
}

#[test]
fn each_kind_of_policy_is_asked_by_itself() {
    let documents = [&*vault(), SERVICES, BY_SERVICE_ACCOUNT, STRICT];
    let said = |from, to, more: &[&str]| {
        text(&explain(&documents, &[&["--from", from, "--to", to], more].concat()).unwrap())
    };

    insta::assert_snapshot!(said("default/web", "vault:80", &[]));
    insta::assert_snapshot!(said("default/legacy", "default/vault:9080", &["-X", "POST", "-H", "a: b"]));
}

#[test]
fn a_request_decides_what_depends_on_it() {
    let documents = [&*vault(), SERVICES, BY_SERVICE_ACCOUNT];
    let asked = |more: &[&str]| outcome(&documents, "default/web", "vault:80", more);

    assert_eq!(asked(&[]), Overall::DependsOnTheRequest);
    assert_eq!(asked(&["-X", "GET"]), Overall::Allowed);
    assert_eq!(asked(&["--path", "/any?where"]), Overall::Allowed);
    assert_eq!(asked(&["-X", "POST"]), Overall::Denied);
    // Of opaque bytes no request is seen.
    assert_eq!(outcome(&documents, "default/web", "metrics:9090", &["-X", "GET"]), Overall::Denied);
}

#[test]
fn routes_of_a_server_of_linkerd_are_asked_of_the_request() {
    let voting = [meshed("voting", 1, "{http: 8080}"), meshed("web", 2, "{}")].concat();
    let documents = [&*voting, LINKERD];
    let asked = |more: &[&str]| {
        explain(&documents, &[&["--from", "default/web", "--to", "default/voting:8080"], more].concat())
            .unwrap()
    };

    assert_eq!(asked(&[]).outcome, Overall::DependsOnTheRequest);
    let nowhere = asked(&["--path", "/there/is/no/route"]);
    assert_eq!(nowhere.outcome, Overall::Denied);
    let steps = &nowhere.places[0].destination;
    assert_eq!(steps.last().map(|step| step.asked), Some("Linkerd's policies"));
    assert_eq!(steps.last().map(|step| step.judgement.outcome), Some(Outcome::Denied));
}

#[test]
fn what_is_refused_as_a_whole_is_refused_by_a_kind_of_policy() {
    for (documents, from, to) in [
        ([vault(), BY_SERVICE_ACCOUNT.to_owned(), STRICT.to_owned()], "default/legacy", "default/vault:9080"),
        ([vault(), BY_SERVICE_ACCOUNT.to_owned(), String::new()], "default/other", "default/vault:9080"),
        ([tiers(), EXERCISE_3.to_owned(), String::new()], "default/frontend", "default/database:5432"),
    ] {
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let explanation = explain(&documents, &["--from", from, "--to", to]).unwrap();
        let [place] = &explanation.places[..] else { panic!("{explanation:?}") };

        assert_eq!(explanation.outcome, Overall::Denied, "{explanation:?}");
        let denying = place.destination.iter().find(|step| step.judgement.outcome == Outcome::Denied);
        assert_eq!(denying.map(|step| &step.judgement), Some(&place.judgement), "{place:?}");
    }
}

#[test]
fn whoever_has_an_address_and_no_sidecar_calls_in_plaintext() {
    let documents = [&*vault(), STRICT];

    assert_eq!(outcome(&documents, "10.9.9.9", "default/vault:9080", &[]), Overall::Denied);
    assert_eq!(outcome(&documents[..1], "10.9.9.9", "default/vault:9080", &[]), Overall::Allowed);
    // An address of a workload is the workload.
    let said =
        explain(&[&tiers(), STRICT], &["--from", "127.0.0.1", "--to", "default/backend:8080"]).unwrap();
    assert_eq!((said.from.name.as_str(), said.outcome), ("default/frontend", Overall::Allowed));
    let twins = tiers().replace("address: 127.0.0.3", "address: 127.0.0.1");
    let error = explain(&[&twins], &["--from", "127.0.0.1", "--to", "default/backend:8080"]).unwrap_err();
    assert!(error.contains("name the one that connects"), "{error}");
}

#[test]
fn endpoints_that_do_not_agree_are_no_answer() {
    let twins = [
        meshed("vault", 1, "{http: 9080}"),
        meshed("twin", 5, "{http: 9080}").replace("app: twin", "app: vault"),
    ]
    .concat();
    let deny = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing}
spec: {selector: {matchLabels: {tier: twin}}}
";
    let documents = [&*twins, SERVICES, deny];

    let said = explain(&documents, &["--from", "default/web", "--to", "vault:80"]).unwrap();
    assert_eq!(said.outcome, Overall::DependsOnTheEndpoint, "{said:?}");
    assert_eq!(said.places.len(), 2);
}

#[test]
fn who_is_revoked_is_refused_by_the_document() {
    let revocation = "apiVersion: selvedge.io/v1alpha1
kind: Revocation
metadata: {name: stolen}
spec: {workloads: [web], reason: stolen}
";
    let said =
        explain(&[&vault(), revocation], &["--from", "default/web", "--to", "default/vault:9080"]).unwrap();

    assert_eq!(said.outcome, Overall::Denied);
    let step = &said.places[0].destination[0];
    assert!(step.asked == "Revocation" && step.judgement.rule.contains("default/stolen"), "{step:?}");
}

#[test]
fn the_clients_own_policies_keep_it_from_an_address_that_nobody_declares() {
    let inside = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: inside}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
";
    let documents = [&*vault(), inside];

    assert_eq!(outcome(&documents, "default/web", "169.254.169.254:80", &[]), Overall::Denied);
    assert_eq!(outcome(&documents, "default/other", "169.254.169.254:80", &[]), Overall::Allowed);
    let registry_only = ["--outbound-traffic-policy", "registry-only"];
    assert_eq!(outcome(&documents, "default/other", "169.254.169.254:80", &registry_only), Overall::Denied);
    let said = explain(&documents, &["--from", "default/web", "--to", "default/vault:9080"]).unwrap();
    assert!(said.places[0].judgement.rule.contains("NetworkPolicy default/inside"), "{said:?}");
    assert_eq!(said.outcome, Overall::Denied);
}

#[test]
fn a_question_that_cannot_be_asked_says_what_to_write() {
    for (words, named) in [
        (["--from", "web", "--to", "vault:80"], "NAMESPACE/NAME"),
        (["--from", "default/web", "--to", "vault"], "names no port"),
        (
            ["--from", "default/web", "--to", "default/nobody:80"],
            "no document declares a workload default/nobody",
        ),
        (["--from", "10.9.9.9", "--to", "vault:80"], "depends on who asks"),
    ] {
        let error = explain(&[&vault(), SERVICES], &words).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
    let error = explain(&[&vault()], &["--from", "default/web", "--to", "default/vault:80", "--path", "x"])
        .unwrap_err();
    assert!(error.contains("slash"), "{error}");
}
