//! The whole patch: what comes out, that it can be taken back, and what stands in its way.

mod precedence;

use std::collections::BTreeMap;

use clap::Parser;
use selvedge_model::TrustDomain;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: InjectArgs,
}

fn settings(arguments: &[&str]) -> InjectionSettings {
    let program = Program::parse_from(["control-plane"].iter().chain(arguments));
    let roots = vec!["0123456789abcdef".repeat(4)];
    InjectionSettings { version: "0.1.0", ..program.args.settings(roots, TrustDomain::default(), "selvedge") }
}

fn namespace(annotations: &[(&str, &str)]) -> NamespaceFacts {
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NamespaceFacts {
        name: "shop".to_owned(),
        labels: BTreeMap::from([(INJECT.to_owned(), "enabled".to_owned())]),
        annotations: annotations.collect(),
    }
}

fn patch(pod: &Value, arguments: &[&str]) -> (Vec<Operation>, Vec<String>) {
    match decide(pod, &namespace(&[]), &settings(arguments), false) {
        Ok(Decision::Inject { patch, warnings }) => (patch, warnings),
        other => panic!("{other:?}"),
    }
}

fn applied(pod: &Value, operations: &[Operation]) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn injected(pod: &Value, arguments: &[&str]) -> Value {
    applied(pod, &patch(pod, arguments).0)
}

fn refusal(pod: &Value) -> String {
    decide(pod, &namespace(&[]), &settings(&[]), false).unwrap_err().to_string()
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap()
}

fn names<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

/// A pod as small as the API server takes it.
fn small() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    })
}

/// A pod with some of everything.
fn large() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "web-",
            "labels": { "app": "web" },
            "annotations": {
                "prometheus.io/scrape": "true", "prometheus.io/port": "9102",
                "config.selvedge.io/log-level": "warn", "config.selvedge.io/skip-outbound-ports": "25,8000-8010",
                "config.selvedge.io/ingress": "enabled", "config.selvedge.io/proxy-memory-limit": "16Mi",
            },
        },
        "spec": {
            "shareProcessNamespace": true,
            "imagePullSecrets": [{ "name": "registry" }],
            "initContainers": [{ "name": "migrate", "image": "migrate" }],
            "containers": [
                {
                    "name": "app", "image": "app",
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                    "livenessProbe": {
                        "initialDelaySeconds": 3,
                        "httpGet": { "path": "/healthz?full=1", "port": "http", "httpHeaders": [{ "name": "X-Cost", "value": "$5" }] },
                        "timeoutSeconds": 2,
                    },
                    "readinessProbe": { "tcpSocket": { "port": 8080 } },
                    "startupProbe": { "grpc": { "port": 9000, "service": "web" } },
                    "lifecycle": {
                        "postStart": { "exec": { "command": ["true"] } },
                        "preStop": { "httpGet": { "path": "/leave", "port": 8080, "scheme": "HTTPS" } },
                    },
                },
                {
                    "name": "helper", "image": "helper",
                    "livenessProbe": { "exec": { "command": ["true"] } },
                    "readinessProbe": { "httpGet": { "host": "192.0.2.1", "port": 80 } },
                },
            ],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    })
}

#[test]
fn a_small_pod_gets_what_it_lacks() {
    let (operations, warnings) = patch(&small(), &[]);

    assert_eq!(warnings, Vec::<String>::new());
    insta::assert_snapshot!("small", yaml(&applied(&small(), &operations)));
    insta::assert_snapshot!("small_patch", yaml(&serde_json::to_value(&operations).unwrap()));
}

#[test]
fn a_large_pod_keeps_everything_else() {
    insta::assert_snapshot!("large", yaml(&injected(&large(), &[])));
}

#[test]
fn a_classic_sidecar_comes_before_the_apps_and_after_the_init_containers() {
    let classic = ["--native-sidecars=false"];
    let pod = injected(&large(), &classic);

    assert_eq!(names(&pod, "initContainers"), ["migrate", "selvedge-init"]);
    assert_eq!(names(&pod, "containers"), ["selvedge-proxy", "app", "helper"]);
    let wait = &pod["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"];
    assert_eq!(*wait, json!(["/selvedge-proxy", "wait", "--timeout", "120s"]));
    assert_eq!(pod["spec"]["containers"][1]["livenessProbe"]["httpGet"]["path"], "/app-health/app/livez");
    let (_, warnings) = patch(&large(), &classic);
    assert!(warnings[0].contains("init containers are not in the mesh"), "{warnings:?}");
}

#[test]
fn a_native_sidecar_comes_before_the_pods_own_init_containers() {
    let pod = injected(&large(), &[]);

    assert_eq!(names(&pod, "initContainers"), ["selvedge-init", "selvedge-proxy", "migrate"]);
    assert_eq!(names(&pod, "containers"), ["app", "helper"]);
    assert_eq!(pod["spec"]["initContainers"][1]["restartPolicy"], "Always");
}

#[test]
fn a_pod_with_a_sidecar_gets_no_other_and_no_change() {
    for arguments in [&[] as &[&str], &["--native-sidecars=false"]] {
        let once = injected(&large(), arguments);

        let again = decide(&once, &namespace(&[]), &settings(arguments), false).unwrap();

        assert_eq!(again, Decision::Skip { reason: Reason::AlreadyInjected, patch: Vec::new() });
    }
}

#[test]
fn what_was_injected_can_be_taken_back_to_the_letter() {
    let mut bare = small();
    bare.as_object_mut().unwrap().remove("metadata");
    let mut null = bare.clone();
    null["metadata"] = Value::Null;
    assert_eq!(injected(&null, &[]), injected(&bare, &[]), "as YAML has a key with nothing below");
    for pod in [small(), large(), bare] {
        for arguments in [&[] as &[&str], &["--native-sidecars=false"]] {
            let mut reverted = injected(&pod, arguments);

            assert!(revert::revert(&mut reverted));

            assert_eq!(reverted.to_string(), pod.to_string());
            assert!(!revert::revert(&mut reverted), "there is nothing more to take back");
        }
    }
}

#[test]
fn a_pod_is_marked_by_our_label_and_istios_stays_whoevers_it_is() {
    let mut own = small();
    own["metadata"]["labels"] = json!({ "app": "a", TLS_MODE: "disabled" });
    let marked = injected(&own, &[]);
    let mut reverted = marked.clone();

    assert_eq!(injected(&small(), &[])["metadata"]["labels"].get(TLS_MODE), None);
    assert_eq!(marked["metadata"]["labels"][SIDECAR_LABEL], SIDECAR_INJECTED);
    assert!(revert::revert(&mut reverted));
    assert_eq!(reverted, own);
}

#[test]
fn a_pod_that_was_injected_with_istios_label_is_reverted_too() {
    let mut old = injected(&small(), &[]);
    let labels = old["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove(SIDECAR_LABEL);
    labels.insert(TLS_MODE.to_owned(), "istio".into());

    assert!(revert::revert(&mut old));
    assert_eq!(old, small());
}

#[test]
fn a_collector_over_tls_is_believed_by_the_authorities_of_a_config_map() {
    for mut pod in [small(), large()] {
        pod["metadata"]["annotations"]["config.selvedge.io/otlp-ca-config-map"] = "collector-ca".into();
        pod["metadata"]["annotations"]["config.selvedge.io/otlp-endpoint"] = "http://collector:4317".into();
        let without = injected(&pod, &[]).to_string();
        assert!(!without.contains("selvedge-otlp-ca") && !without.contains("OTLP_CA"), "{without}");

        pod["metadata"]["annotations"]["config.selvedge.io/otlp-endpoint"] = "https://collector:4317".into();
        let with = injected(&pod, &[]);

        let authorities = json!({
            "name": "selvedge-otlp-ca",
            "configMap": {
                "name": "collector-ca", "items": [{ "key": "ca.crt", "path": "ca.crt" }], "optional": true
            }
        });
        assert_eq!(with["spec"]["volumes"].as_array().unwrap().last(), Some(&authorities));
        let proxy = with["spec"]["initContainers"][1].to_string();
        let directory = "/var/run/configmaps/selvedge.io/otlp-ca";
        assert!(proxy.contains(&format!("\"mountPath\":\"{directory}\"")), "{proxy}");
        assert!(
            proxy.contains(&format!("\"SELVEDGE_OTLP_CA_FILE\",\"value\":\"{directory}/ca.crt\"")),
            "{proxy}"
        );
        let mut reverted = with;
        assert!(revert::revert(&mut reverted));
        assert_eq!(reverted.to_string(), pod.to_string());
    }
}

#[test]
fn an_identity_of_spires_needs_the_volume_with_its_agents_socket() {
    for mut pod in [small(), large()] {
        let without = injected(&pod, &[]);
        pod["metadata"]["annotations"]["config.selvedge.io/workload-api"] = "enabled".into();

        let with = injected(&pod, &[]);

        let volumes = with["spec"]["volumes"].as_array().unwrap();
        let agent = json!({
            "name": "selvedge-workload-api", "csi": { "driver": "csi.spiffe.io", "readOnly": true }
        });
        assert_eq!(volumes.last(), Some(&agent));
        assert_eq!(volumes.len(), without["spec"]["volumes"].as_array().unwrap().len() + 1);
        let proxy = with["spec"]["initContainers"][1].to_string();
        let socket = "unix:///spiffe-workload-api/spire-agent.sock";
        assert!(
            proxy.contains(socket) && proxy.contains("\"mountPath\":\"/spiffe-workload-api\""),
            "{proxy}"
        );
        assert!(!without.to_string().contains("spiffe"), "{without}");
        let mut reverted = with;
        assert!(revert::revert(&mut reverted));
        assert_eq!(reverted.to_string(), pod.to_string());
    }
    let mut pod = small();
    pod["spec"]["volumes"] = json!([{ "name": "selvedge-workload-api", "emptyDir": {} }]);
    assert!(refusal(&pod).contains("volume selvedge-workload-api"));
}

#[test]
fn metrics_without_a_port_are_found_at_the_only_one() {
    let mut pod = small();
    pod["metadata"]["annotations"] = json!({ "prometheus.io/scrape": "true" });
    assert!(patch(&pod, &[]).1[0].contains("prometheus.io/port"), "there is none");

    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 9102 }]);
    let pod = injected(&pod, &[]);

    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], "4191");
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/path"], "/metrics/app");
    assert!(pod.to_string().contains(r#"{\"portNumber\":9102}"#));
}

#[test]
fn the_images_are_named_once_for_installation_and_injection() {
    let images = |arguments: &[&str]| {
        let pod = injected(&small(), arguments);
        let containers = pod["spec"]["initContainers"].as_array().unwrap().clone();
        containers.iter().map(|one| one["image"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let version = env!("CARGO_PKG_VERSION");

    assert_eq!(images(&[]), [format!("selvedge-init:{version}"), format!("selvedge-proxy:{version}")]);
    assert_eq!(
        images(&["--image-registry=registry.example/mesh/", "--image-tag=1.2"]),
        ["registry.example/mesh/selvedge-init:1.2", "registry.example/mesh/selvedge-proxy:1.2"]
    );
    assert_eq!(
        images(&["--image-registry=registry.example", "--proxy-image=mine:3", "--init-image=i"]),
        ["i", "mine:3"]
    );
}

#[test]
fn the_secrets_that_pull_our_images_come_with_the_sidecar_and_go_with_it() {
    let arguments = ["--image-pull-secrets=registry,mirror"];
    for original in [small(), large()] {
        let mut pod = injected(&original, &arguments);
        let secrets = pod["spec"]["imagePullSecrets"].clone();
        let named = |name: &str| secrets.as_array().unwrap().iter().filter(|one| one["name"] == name).count();
        assert_eq!((named("registry"), named("mirror")), (1, 1), "{secrets}");

        assert!(revert::revert(&mut pod));
        assert_eq!(pod, original);
    }
    let said =
        Program::try_parse_from(["control-plane", "--image-pull-secrets=A b"]).unwrap_err().to_string();
    assert!(said.contains("not a list of names"), "{said}");
}
