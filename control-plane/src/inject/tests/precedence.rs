//! Who decides about a pod's sidecar, and what it is told.

use serde_json::{Value, json};

use super::{super::*, applied, injected, large, namespace, patch, refusal, settings, small};

#[test]
fn the_pod_beats_its_namespace_which_beats_the_defaults() {
    let mut pod = small();
    pod["metadata"]["annotations"] = json!({ "config.selvedge.io/log-level": "debug" });
    let namespace = namespace(&[
        ("config.selvedge.io/log-level", "error"),
        ("config.selvedge.io/workers", "2"),
        ("config.selvedge.io/opaque-ports", "9000"),
    ]);
    let settings = settings(&["--inject-default=workers=4", "--inject-default=carrier=http1"]);

    let Ok(Decision::Inject { patch, .. }) = decide(&pod, &namespace, &settings, false) else { panic!() };

    let pod = applied(&pod, &patch);
    let env = &pod["spec"]["initContainers"][1]["env"];
    let value = |name: &str| {
        let mut env = env.as_array().unwrap().iter();
        env.find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    assert_eq!(value("SELVEDGE_LOG"), "debug");
    assert_eq!(value("SELVEDGE_WORKERS"), "2");
    assert_eq!(value("SELVEDGE_CARRIER"), "http1");
    // The control plane looks for it on the pod.
    assert_eq!(pod["metadata"]["annotations"]["config.selvedge.io/opaque-ports"], "9000");
}

#[test]
fn a_default_request_gives_way_to_a_limit_that_is_less() {
    let pod = injected(&large(), &[]);

    let resources = &pod["spec"]["initContainers"][1]["resources"];
    assert_eq!(
        *resources,
        json!({ "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "16Mi" } })
    );
}

#[test]
fn who_asks_decides_and_the_pod_before_its_namespace() {
    let quiet = NamespaceFacts { name: "quiet".to_owned(), ..NamespaceFacts::default() };
    let says = |kind: &str, value: &str| {
        let mut pod = small();
        pod["metadata"][kind] = json!({ INJECT: value });
        pod
    };
    let reason = |pod: &Value, namespace: &NamespaceFacts| match decide(pod, namespace, &settings(&[]), false)
    {
        Ok(Decision::Inject { .. }) => None,
        Ok(Decision::Skip { reason, .. }) => Some(reason),
        Err(refused) => panic!("{refused}"),
    };

    assert_eq!(reason(&small(), &quiet), Some(Reason::NotAsked));
    assert_eq!(reason(&small(), &namespace(&[])), None);
    for kind in ["annotations", "labels"] {
        assert_eq!(reason(&says(kind, "enabled"), &quiet), None);
        assert_eq!(reason(&says(kind, "disabled"), &namespace(&[])), Some(Reason::Disabled));
    }
    assert!(refusal(&says("labels", "yes")).contains("neither enabled nor disabled"));
    assert!(matches!(decide(&small(), &quiet, &settings(&[]), true), Ok(Decision::Inject { .. })));
}

#[test]
fn a_pod_that_cannot_have_a_sidecar_says_why() {
    let with = |path: &str, value: Value| {
        let mut pod = small();
        let (parent, field) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value;
        pod
    };

    for (pod, word) in [
        (with("/spec/hostNetwork", true.into()), "host-network"),
        (with("/spec/initContainers", json!([{ "name": "istio-init" }])), "other-mesh"),
        (with("/spec/os", json!({ "name": "windows" })), "windows"),
        (with("/metadata/annotations", json!({ "kubernetes.io/config.mirror": "x" })), "static-pod"),
        (with("/metadata/labels", json!({ INJECT: "disabled" })), "disabled"),
    ] {
        let Ok(Decision::Skip { reason, patch }) = decide(&pod, &namespace(&[]), &settings(&[]), false)
        else {
            panic!("{pod}")
        };
        assert_eq!(reason.word(), word);
        assert_eq!(applied(&pod, &patch)["metadata"]["annotations"][SKIPPED], word);
    }
}

#[test]
fn what_the_sidecar_could_not_live_with_is_refused_all_at_once() {
    let mut pod = small();
    pod["metadata"]["annotations"] =
        json!({ "config.selvedge.io/workers": "0", "config.selvedge.io/x": "1" });
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 4191 }]);
    pod["spec"]["securityContext"] = json!({ "runAsUser": 2102 });
    pod["spec"]["volumes"] = json!([{ "name": "selvedge-token" }]);

    let error = refusal(&pod);

    for part in ["workers", "no such setting", "port 4191", "user 2102", "volume selvedge-token"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn each_pods_proxy_has_a_group_of_its_own_and_the_rules_know_it() {
    let group = || {
        let settings = settings(&[]).with_own_group();
        let decided = decide(&small(), &namespace(&[]), &settings, false);
        let Ok(Decision::Inject { patch, .. }) = decided else { panic!("{decided:?}") };
        let pod = applied(&small(), &patch);
        let [init, proxy] = &pod["spec"]["initContainers"].as_array().unwrap()[..] else { panic!("{pod}") };
        let group = proxy["securityContext"]["runAsGroup"].as_u64().unwrap();
        assert_eq!(init["env"][0], json!({ "name": "SELVEDGE_PROXY_GID", "value": group.to_string() }));
        assert!((10_000..65_534).contains(&group), "{group}");
        group
    };

    let groups: std::collections::BTreeSet<u64> = (0..20).map(|_| group()).collect();

    assert!(groups.len() > 15, "{groups:?}");
}

#[test]
fn limits_below_requests_are_refused() {
    let mut pod = small();
    pod["metadata"]["annotations"] =
        json!({ "config.selvedge.io/proxy-cpu-request": "1", "config.selvedge.io/proxy-cpu-limit": "500m" });

    assert!(refusal(&pod).contains("proxy-cpu-limit 500m is less than"), "{}", refusal(&pod));
}

#[test]
fn a_job_with_a_classic_sidecar_is_told_how_it_ends() {
    let mut pod = small();
    pod["spec"]["restartPolicy"] = "OnFailure".into();

    assert_eq!(patch(&pod, &[]).1, Vec::<String>::new(), "a native sidecar ends by itself");
    let (_, warnings) = patch(&pod, &["--native-sidecars=false"]);
    assert!(warnings[0].contains("/shutdown"), "{warnings:?}");
}

#[test]
fn a_namespace_that_forbids_redirection_is_warned_of() {
    let mut namespace = namespace(&[]);
    namespace.labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "baseline".to_owned());

    let Ok(Decision::Inject { warnings, .. }) = decide(&small(), &namespace, &settings(&[]), false) else {
        panic!()
    };

    assert!(warnings[0].contains("namespace shop enforces"), "{warnings:?}");
}

#[test]
fn a_probe_at_a_port_that_no_container_has_stays_and_is_warned_of() {
    let mut pod = small();
    pod["spec"]["containers"][0]["livenessProbe"] = json!({ "httpGet": { "port": "web" } });

    let (operations, warnings) = patch(&pod, &[]);

    assert_eq!(applied(&pod, &operations)["spec"]["containers"][0], pod["spec"]["containers"][0]);
    assert!(warnings[0].contains("spec.containers.0.livenessProbe"), "{warnings:?}");
}
