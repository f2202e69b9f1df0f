use std::time::Duration;

use serde_json::json;

use super::{super::finding::Verdict, *};
use crate::{cluster::ObjectName, install};

/// An installation in which all is well.
fn facts() -> Facts {
    let (root, roots) = root();
    let bundle = BASE64_STANDARD.encode(&root);
    let objects = install::every_object("selvedge").unwrap().into_iter().map(|wanted| {
        let mut found = wanted.clone();
        for webhook in found["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"]["caBundle"] = bundle.clone().into();
        }
        found["status"] = json!({"readyReplicas": 3});
        Expected { named: ObjectName::of(&wanted).unwrap(), wanted, found: Ok(Some(found)) }
    });
    Facts {
        namespace: "selvedge".to_owned(),
        objects: objects.collect(),
        trust_roots: Some(roots),
        namespaces: vec![json!({"metadata": {"name": "shop", "labels": {"selvedge.io/inject": "enabled"}}})],
        pods: vec![pod("shop", "reviews-1")],
        tried_pod: Some(Ok(
            json!({"spec": {"initContainers": [{"name": PROXY_CONTAINER, "restartPolicy": "Always"}]}}),
        )),
        ..Facts::default()
    }
}

/// A root in PEM, and the ConfigMap that publishes it.
fn root() -> (Vec<u8>, Value) {
    let pem =
        selvedge_certs::ca::CaPem::new_root(&"cluster.local".parse().unwrap(), SystemTime::now()).unwrap();
    let text = String::from_utf8(pem.certificate.clone()).unwrap();
    (pem.certificate, json!({"data": {"ca.pem": text}}))
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "annotations": {INJECTED: VERSION}},
        "status": {"phase": "Running", "initContainerStatuses": [{"name": PROXY_CONTAINER, "ready": true}]},
    })
}

fn judged(facts: &Facts) -> Findings {
    judged_at(facts, SystemTime::now())
}

fn judged_at(facts: &Facts, now: SystemTime) -> Findings {
    let mut findings = Findings::default();
    installation(facts, now, &mut findings);
    findings
}

/// The one finding that is not well: how bad it is, and what it says.
fn only_trouble(facts: &Facts) -> (Verdict, String) {
    trouble_among(&judged(facts))
}

fn trouble_among(findings: &Findings) -> (Verdict, String) {
    let trouble: Vec<_> = findings.list.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    let [finding] = trouble[..] else { panic!("{trouble:#?}") };
    assert!(finding.remedy.is_some(), "nothing to do: {finding:?}");
    (finding.verdict, finding.what.clone())
}

fn found_mut<'a>(facts: &'a mut Facts, kind: &str) -> &'a mut Value {
    let object = facts.objects.iter_mut().find(|object| object.named.kind.kind == kind).unwrap();
    object.found.as_mut().unwrap().as_mut().unwrap()
}

fn remove(facts: &mut Facts, kind: &str) {
    facts.objects.iter_mut().find(|object| object.named.kind.kind == kind).unwrap().found = Ok(None);
}

#[test]
fn where_all_is_well_nothing_is_to_be_done() {
    let findings = judged(&facts());

    assert_eq!(findings.count(Verdict::Ok), findings.list.len(), "{:#?}", findings.list);
    for section in ["control plane", "certificates", "webhooks", "sidecars"] {
        assert!(findings.list.iter().any(|finding| finding.section == section), "{section}");
    }
}

#[test]
fn without_an_installation_that_is_all_that_is_said() {
    let mut facts = facts();
    for object in &mut facts.objects {
        object.found = Ok(None);
    }

    let (verdict, what) = only_trouble(&facts);

    assert_eq!(verdict, Verdict::Error);
    assert!(what.contains("no control plane in the namespace selvedge"), "{what}");
}

#[test]
fn objects_that_are_missing_are_named_unless_values_leave_them_out() {
    let mut facts = facts();
    remove(&mut facts, "ValidatingWebhookConfiguration");
    assert_eq!(judged(&facts).count(Verdict::Error), 0);

    found_mut(&mut facts, "Deployment")["spec"]["replicas"] = json!(1);
    remove(&mut facts, "PodDisruptionBudget");
    assert_eq!(judged(&facts).count(Verdict::Error), 0);

    remove(&mut facts, "ClusterRoleBinding");
    let (verdict, what) = only_trouble(&facts);
    assert_eq!(
        (verdict, what.as_str()),
        (Verdict::Error, "missing: ClusterRoleBinding selvedge-control-plane")
    );
}

#[test]
fn a_role_of_an_older_version_is_found_by_what_it_lacks() {
    let mut facts = facts();
    found_mut(&mut facts, "ClusterRole")["rules"][0]["resources"] = json!(["namespaces", "nodes", "pods"]);

    let (verdict, what) = only_trouble(&facts);

    assert_eq!(verdict, Verdict::Error);
    assert!(what.ends_with("list services, watch services"), "{what}");
}

#[test]
fn replicas_that_are_not_ready_say_why() {
    let mut facts = facts();
    facts.control_plane_pods = vec![json!({
        "metadata": {"name": "selvedge-control-plane-1"},
        "status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
    })];
    found_mut(&mut facts, "Deployment")["status"]["readyReplicas"] = json!(2);
    let (verdict, what) = only_trouble(&facts);
    assert_eq!(verdict, Verdict::Warning);
    assert_eq!(what, "2 of 3 replicas are ready (selvedge-control-plane-1: ImagePullBackOff)");

    found_mut(&mut facts, "Deployment")["status"] = json!({});
    assert_eq!(only_trouble(&facts).0, Verdict::Error);
}

#[test]
fn a_root_that_ends_soon_is_told_long_before() {
    let facts = facts();
    let text = facts.trust_roots.as_ref().unwrap()["data"]["ca.pem"].as_str().unwrap();
    let end = selvedge_certs::facts::Facts::parse(pem::parse(text).unwrap().contents()).unwrap().not_after;

    let (verdict, what) = trouble_among(&judged_at(&facts, end - Duration::from_secs(30 * 86_400)));
    assert_eq!(verdict, Verdict::Warning);
    assert!(what.starts_with("the root certificate expires in 30 days"), "{what}");

    let (verdict, what) = trouble_among(&judged_at(&facts, end + Duration::from_secs(1)));
    assert_eq!(verdict, Verdict::Error);
    assert!(what.contains("expired"), "{what}");
}

/// With a replica whose certificates are valid for so long around now, in seconds.
fn with_replica(certificates: &[(&str, i64, i64)]) -> Facts {
    let at = |offset: i64| {
        let now = SystemTime::now();
        let distance = Duration::from_secs(offset.unsigned_abs());
        humantime::format_rfc3339(if offset < 0 { now - distance } else { now + distance }).to_string()
    };
    let lives: serde_json::Map<_, _> = certificates
        .iter()
        .map(|(name, from, to)| ((*name).to_owned(), json!({"not_before": at(*from), "not_after": at(*to)})))
        .collect();
    let config = json!({"configuration_version": 1, "proxies": [], "certificates": lives});
    let mut facts = facts();
    facts.replicas.insert("selvedge-control-plane-1".to_owned(), Ok(serde_json::from_value(config).unwrap()));
    facts
}

#[test]
fn a_certificate_of_a_replica_that_is_not_renewed_is_told_before_it_ends() {
    let hour = 3600;
    let root = ("root", -hour, 1_000 * 24 * hour);
    let well = [
        root,
        ("issuer", -hour, 300 * 24 * hour),
        ("grpc", -hour, 23 * hour),
        ("webhook", -16 * hour, 8 * hour),
    ];
    let findings = judged(&with_replica(&well));
    assert_eq!(findings.count(Verdict::Ok), findings.list.len(), "{:#?}", findings.list);
    let said: Vec<_> = findings.list.iter().map(|finding| finding.what.as_str()).collect();
    assert!(
        said.iter().any(|what| what.starts_with("the certificate of the webhooks expires in 7 hours")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|what| what.starts_with("the issuer of workloads' certificates expires in 299 days")),
        "{said:?}"
    );

    let (verdict, what) = only_trouble(&with_replica(&[root, ("webhook", -21 * hour, 3 * hour)]));
    assert_eq!(verdict, Verdict::Warning);
    assert!(what.contains("was not renewed (selvedge-control-plane-1)"), "{what}");

    let (verdict, what) = only_trouble(&with_replica(&[root, ("webhook", -24 * hour, -1)]));
    assert_eq!(verdict, Verdict::Error);
    assert!(what.starts_with("the certificate of the webhooks expired on "), "{what}");

    let (verdict, what) = only_trouble(&with_replica(&[root, ("issuer", -90 * 24 * hour, 10 * 24 * hour)]));
    assert_eq!(verdict, Verdict::Warning);
    assert!(what.starts_with("the issuer of workloads' certificates expires in 9 days"), "{what}");
}

#[test]
fn a_webhook_that_the_api_server_cannot_trust_is_named() {
    let mut facts = facts();
    found_mut(&mut facts, "ValidatingWebhookConfiguration")["webhooks"][0]["clientConfig"] = json!({});
    let (verdict, what) = only_trouble(&facts);
    assert_eq!(verdict, Verdict::Error);
    assert!(what.starts_with("validate.selvedge.io has no caBundle"), "{what}");

    let (other, _) = root();
    let bundle = BASE64_STANDARD.encode(other);
    found_mut(&mut facts, "ValidatingWebhookConfiguration")["webhooks"][0]["clientConfig"]["caBundle"] =
        bundle.into();
    assert!(only_trouble(&facts).1.ends_with("has the caBundle of another CA"));
}

#[test]
fn a_webhook_that_is_not_called_or_cannot_be_is_an_error_and_one_that_may_not_be_tried_is_none() {
    let tried = |answer: Result<Value, String>| {
        let mut facts = facts();
        facts.tried_pod = Some(answer);
        only_trouble(&facts)
    };

    assert_eq!(tried(Ok(json!({"spec": {"containers": [{"name": "app"}]}}))).0, Verdict::Error);
    let forgotten = json!({"spec": {"initContainers": [{"name": PROXY_CONTAINER}]}});
    let (verdict, what) = tried(Ok(forgotten));
    assert_eq!(verdict, Verdict::Error);
    assert!(what.contains("which the API server does not know"), "{what}");
    assert_eq!(
        tried(Err("Internal error: failed calling webhook \"a\": timeout".to_owned())).0,
        Verdict::Error
    );
    assert_eq!(tried(Err("pods is forbidden".to_owned())).0, Verdict::Warning);
}

#[test]
fn a_namespace_that_forbids_redirection_is_named_if_it_asks_for_sidecars() {
    let mut facts = facts();
    let labels = |name: &str, inject: &str| json!({"metadata": {"name": name, "labels": {INJECT: inject, "pod-security.kubernetes.io/enforce": "restricted"}}});
    facts.namespaces.extend([labels("bank", "enabled"), labels("other", "disabled")]);

    let (verdict, what) = only_trouble(&facts);

    assert_eq!(verdict, Verdict::Error);
    assert!(what.starts_with("namespace bank enforces Pod Security \"restricted\""), "{what}");
}

#[test]
fn pods_without_the_sidecar_that_their_namespace_asks_for_are_named() {
    let bare = |name: &str, annotations: Value| json!({"metadata": {"namespace": "shop", "name": name, "annotations": annotations}, "status": {"phase": "Running"}});
    let mut facts = facts();
    facts.pods.extend([bare("old", json!({})), bare("off", json!({INJECT: "disabled"}))]);
    let (verdict, what) = only_trouble(&facts);
    assert_eq!(verdict, Verdict::Warning);
    assert!(what.ends_with("asks for one: shop/old"), "{what}");

    facts.pods[1] = bare("host", json!({SKIPPED: "host-network"}));
    assert!(only_trouble(&facts).1.ends_with("could not have one: shop/host (host-network)"));
}

#[test]
fn a_sidecar_that_is_not_ready_is_an_error() {
    let mut facts = facts();
    facts.pods[0]["status"]["initContainerStatuses"][0]["ready"] = json!(false);

    assert_eq!(only_trouble(&facts).0, Verdict::Error);
}

#[test]
fn proxies_may_be_one_minor_version_older_and_never_newer() {
    for (proxy, control_plane, expected) in [
        ("1.4.2", "1.4.2", Skew::Same),
        ("1.4.1", "1.4.2", Skew::Older),
        ("1.3.9", "1.4.0", Skew::Older),
        ("1.2.0", "1.4.0", Skew::TooOld),
        ("1.5.0", "1.4.0", Skew::Newer),
        ("2.0.0", "1.4.0", Skew::Newer),
        ("1.9.0", "2.0.0", Skew::TooOld),
        ("dev", "1.4.0", Skew::TooOld),
    ] {
        assert_eq!(skew(proxy, control_plane), expected, "{proxy} {control_plane}");
    }
}

#[test]
fn an_old_cluster_and_missing_rights_are_told_before_installation() {
    let judged = |version: &str, missing: &[&str]| {
        let mut findings = Findings::default();
        let missing_rights = missing.iter().map(ToString::to_string).collect();
        let facts = Ground { server: "https://a".to_owned(), version: version.to_owned(), missing_rights };
        ground(&facts, &mut findings);
        findings
    };

    assert_eq!(judged("v1.33.1", &[]).count(Verdict::Ok), 3);
    assert_eq!(trouble_among(&judged("v1.24.0", &[])).0, Verdict::Warning);
    assert_eq!(trouble_among(&judged("v1.20.2", &[])).0, Verdict::Error);
    let (verdict, what) = trouble_among(&judged("v1.33.1+k3s1", &["create clusterroles"]));
    assert_eq!(
        (verdict, what.as_str()),
        (Verdict::Warning, "you may not install or upgrade: create clusterroles")
    );
}
