use std::collections::BTreeSet;

use clap::Parser;
use proptest::prelude::*;
use selvedge_control_plane::resources::kinds::{Feedback, acted_on, followed};
use selvedge_tests::manifests::{documents, read_strictly};
use serde_json::Value;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn install(flags: &[&str]) -> String {
    let args = Program::parse_from(["install"].iter().chain(flags)).args;
    manifests(&args).unwrap()
}

fn object<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The documents of `text` that `others` has not.
fn only_in(text: &str, others: &str) -> String {
    let others: Vec<&str> = others.split("---\n").collect();
    let only: Vec<&str> = text.split("---\n").filter(|document| !others.contains(document)).collect();
    only.join("---\n")
}

#[test]
fn the_default_installation() {
    insta::assert_snapshot!(install(&[]));
}

#[test]
fn what_several_replicas_add() {
    insta::assert_snapshot!(only_in(&install(&["--ha"]), &install(&[])));
}

#[test]
fn an_installation_with_values_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let values = directory.path().join("values.yaml");
    fs::write(
        &values,
        "controlPlane:\n  podLabels: {team: mesh}\n  podAnnotations: {note: \"9990\"}\n  tolerations: [{operator: Exists}]\n\
         image: {pullSecrets: [registry]}\nvalidator: {enabled: false}\n",
    )
    .unwrap();
    let flags = [
        "--namespace=mesh",
        "--values",
        values.to_str().unwrap(),
        "--set=controlPlane.log=info,selvedge=debug",
        "--image-registry=registry.example/mesh",
        "--image-tag=dev",
    ];

    insta::assert_snapshot!(only_in(&install(&flags), &install(&["--namespace=mesh"])));
}

#[test]
fn webhooks_come_last_and_the_namespace_first() {
    let kinds: Vec<String> = documents(&install(&[]))
        .iter()
        .map(|object| object["kind"].as_str().unwrap_or_default().to_owned())
        .collect();

    assert_eq!(kinds.first().map(String::as_str), Some("Namespace"));
    let (_, last) = kinds.split_at(kinds.len() - 2);
    assert_eq!(last, ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
}

/// The rules of <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>, which the
/// namespace enforces.
#[test]
fn the_control_planes_pod_keeps_to_the_restricted_level_of_pod_security() {
    let objects = documents(&install(&["--ha"]));
    let enforced = &object(&objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "restricted");

    let pod = &object(&objects, "Deployment")["spec"]["template"]["spec"];
    let security = &pod["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_ne!(security["runAsUser"], 0);
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"] {
        assert_eq!(pod.get(field), None, "{field}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(volume["emptyDir"].is_object() && volume.as_object().unwrap().len() == 2, "{volume}");
    }
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}));
        assert!(container["ports"].as_array().unwrap().iter().all(|port| port.get("hostPort").is_none()));
    }
}

#[test]
fn only_several_replicas_have_a_disruption_budget() {
    let has = |flags: &[&str]| install(flags).contains("PodDisruptionBudget");

    assert!(!has(&[]));
    assert!(has(&["--ha"]));
    assert!(has(&["--set=controlPlane.replicas=2"]));
    assert!(!has(&["--ha", "--set=controlPlane.replicas=1"]));
}

#[test]
fn a_wrong_value_is_refused_with_the_flag_that_brought_it() {
    let args = Program::parse_from(["install", "--set=image.tags=a"]).args;

    let error = format!("{:#}", manifests(&args).unwrap_err());

    assert_eq!(error, "--set: image.tags: there is no such value; did you mean image.tag?");
    assert!(Program::try_parse_from(["install", "--namespace=Mesh"]).is_err());
}

#[test]
fn the_control_plane_understands_the_arguments_that_it_is_given() {
    #[derive(Debug, Parser)]
    struct ControlPlane {
        #[command(flatten)]
        args: selvedge_control_plane::cli::Args,
    }
    let flags = ["--namespace=mesh", "--image-tag=1.10", "--set=injector.settings.log-level=warn"];
    let objects = documents(&install(&flags));
    let container = &object(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let given = container["args"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());

    let args = ControlPlane::try_parse_from(["control-plane"].into_iter().chain(given)).unwrap().args;

    assert_eq!(args.namespace, "mesh");
    assert_eq!(
        (args.inject.proxy_image.as_deref().unwrap_or_default(), args.inject.inject_default.len()),
        ("selvedge-proxy:1.10", 1)
    );
    for (port, listens) in
        [("grpc", args.listen), ("webhook", args.webhook.webhook_listen), ("admin", args.admin)]
    {
        let ports = container["ports"].as_array().unwrap();
        let open = ports.iter().find(|open| open["name"] == port).unwrap();
        assert_eq!(open["containerPort"], listens.port(), "{port}");
        assert!(listens.ip().is_unspecified(), "{port}");
    }
}

/// `group/resource verb`, of every rule of a role.
fn rights(role: &Value) -> BTreeSet<String> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                rights.extend(texts(&rule["verbs"]).iter().map(|verb| format!("{group}/{resource} {verb}")));
            }
        }
    }
    rights
}

/// What it may do to make gateways.
fn for_gateways() -> BTreeSet<String> {
    let all = ["create", "delete", "get", "list", "patch", "watch"];
    let made = ["apps/deployments", "/serviceaccounts", "/services", "policy/poddisruptionbudgets"];
    let made = made.iter().flat_map(|kind| all.map(|verb| format!("{kind} {verb}")));
    let of_the_api = [
        "gateways get",
        "gateways/status patch",
        "gatewayclasses create",
        "gatewayclasses get",
        "gatewayclasses/status patch",
        "listenersets get",
        "listenersets/status patch",
    ];
    let of_the_api = of_the_api.map(|right| format!("gateway.networking.k8s.io/{right}"));
    let others = [
        "/configmaps get",
        "apiextensions.k8s.io/customresourcedefinitions get",
        "gateway.networking.x-k8s.io/xlistenersets get",
        "gateway.networking.x-k8s.io/xlistenersets/status patch",
        "networking.k8s.io/ingressclasses create",
        "networking.k8s.io/ingresses get",
        "networking.k8s.io/ingresses/status patch",
    ];
    made.chain(of_the_api).chain(others.map(str::to_owned)).collect()
}

#[test]
fn gateways_can_be_switched_off_and_then_nothing_may_be_made_for_them() {
    let objects = documents(&install(&["--set=gateways.enabled=false"]));
    let rights = rights(object(&objects, "ClusterRole"));
    let args = &object(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"];

    assert!(args.as_array().unwrap().contains(&"--gateways=false".into()), "{args}");
    let reads = |right: &&String| right.ends_with(" list") || right.ends_with(" watch");
    let left: Vec<_> = for_gateways().intersection(&rights).filter(|right| !reads(right)).cloned().collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn the_role_reads_the_kinds_that_are_followed_and_writes_the_status_of_those_that_have_one_for_us() {
    let mut wanted = BTreeSet::from(
        [
            "events.k8s.io/events create",
            "authentication.k8s.io/tokenreviews create",
            "admissionregistration.k8s.io/mutatingwebhookconfigurations get",
            "admissionregistration.k8s.io/mutatingwebhookconfigurations patch",
            "admissionregistration.k8s.io/validatingwebhookconfigurations get",
            "admissionregistration.k8s.io/validatingwebhookconfigurations patch",
            // The certificates of gateways, each by its name.
            "/configmaps list",
            "/configmaps watch",
            "/secrets list",
            "/secrets watch",
        ]
        .map(str::to_owned),
    );
    wanted.extend(for_gateways());
    for kind in followed() {
        let resource = format!("{}/{}", kind.group(), kind.plural);
        wanted.extend([format!("{resource} list"), format!("{resource} watch")]);
        if matches!(kind.feedback, Feedback::Parents | Feedback::Ancestors | Feedback::Conditions) {
            wanted.extend([format!("{resource} get"), format!("{resource}/status patch")]);
        }
    }

    assert_eq!(rights(object(&documents(&install(&[])), "ClusterRole")), wanted);
}

/// Those of Kubernetes itself are made or checked by its own rules, and every pod would wait for the answer.
#[test]
fn the_webhook_checks_every_kind_that_is_acted_on_and_is_not_of_kubernetes_itself() {
    let objects = documents(&install(&[]));
    let webhook = object(&objects, "ValidatingWebhookConfiguration");
    let groups: BTreeSet<&str> = webhook["webhooks"][0]["rules"][0]["apiGroups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group.as_str().unwrap())
        .collect();

    let of_kubernetes = ["", "discovery.k8s.io", "networking.k8s.io"];
    let wanted: BTreeSet<&str> =
        acted_on().iter().map(|kind| kind.group()).filter(|group| !of_kubernetes.contains(group)).collect();
    assert_eq!(groups, wanted);
}

#[test]
fn each_kind_of_our_own_comes_with_its_definition() {
    let objects = documents(&install(&[]));
    let defined: BTreeSet<String> = objects
        .iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .flat_map(|object| {
            let spec = &object["spec"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let rest = format!(
                "{} {} {}",
                text(&spec["names"]["kind"]),
                text(&spec["names"]["plural"]),
                text(&spec["scope"])
            );
            let versions = spec["versions"].as_array().unwrap().iter();
            let versions: Vec<String> = versions
                .map(|version| format!("{}/{} {rest}", text(&spec["group"]), text(&version["name"])))
                .collect();
            versions
        })
        .collect();

    let ours = followed().filter(|kind| kind.group().ends_with("selvedge.io"));
    let wanted: BTreeSet<String> = ours
        .flat_map(|kind| {
            let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
            kind.api_versions
                .iter()
                .map(move |version| format!("{version} {} {} {scope}", kind.kind, kind.plural))
        })
        .collect();
    assert_eq!(defined, wanted);
}

const CHOICES: [&str; 27] = [
    "createNamespace=false",
    "controlPlane.antiAffinity=required",
    "controlPlane.log=info,a[b]=\"debug: x\"",
    "controlPlane.nodeSelector=null",
    "controlPlane.podAnnotations.note=true",
    "controlPlane.podLabels.team=007",
    "controlPlane.priorityClassName=system-cluster-critical",
    "controlPlane.replicas=2",
    "controlPlane.resources.limits=null",
    "controlPlane.tolerations=[{\"operator\": \"Exists\"}]",
    "gateways.enabled=false",
    "gatewayCertificates.enabled=false",
    "gatewayCertificates.namespaces={shop,edge}",
    "image.pullSecrets={a,b}",
    "image.registry=registry.example:5000/a",
    "injector.excludedNamespaces={}",
    "injector.nativeSidecars=false",
    "injector.settings.log-level=warn",
    "jwksCaConfigMap=authorities",
    "networkPolicy.apiServer=[{\"ipBlock\": {\"cidr\": \"192.0.2.0/24\"}}]",
    "networkPolicy.enabled=false",
    "networkPolicy.monitoring=[]",
    "tokenVerification=jwks",
    "validator.enabled=false",
    "webhookClientCa.configMap=api-servers",
    "webhookClientCa.names={kube-apiserver}",
    "workloadRootsConfigMap=spire-bundle",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_combination_of_values_makes_objects_without_unknown_fields(
        chosen in proptest::sample::subsequence(CHOICES.to_vec(), 0..=CHOICES.len()),
    ) {
        let flags: Vec<String> = chosen.iter().map(|choice| format!("--set={choice}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();

        for object in documents(&install(&flags)) {
            prop_assert_eq!(read_strictly(&object), Ok(()), "{}", object);
        }
    }
}
