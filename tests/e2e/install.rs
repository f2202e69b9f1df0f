//! `selvedge install` and the Helm chart are one: Helm's own engine makes the same objects.

use std::{collections::BTreeMap, fs, path::Path};

use selvedge_tests::manifests::documents;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    SELVEDGE,
    foreign::{script, succeeds},
};

const EVERYTHING: &str = r#"
createNamespace: true
image: {registry: "registry.example:5000/mesh", tag: "1.10", pullPolicy: Always, pullSecrets: [one, two]}
trustDomain: mesh.example
tokenVerification: jwks
rootNamespace: mesh-policies
routeOwnership: namespace
controlPlane:
  replicas: 5
  log: info,selvedge_control_plane=debug
  resources: {requests: {cpu: "1", memory: 1Gi}, limits: {cpu: 2}}
  antiAffinity: required
  priorityClassName: system-cluster-critical
  nodeSelector: {pool: "7"}
  tolerations: [{key: mesh, operator: Exists, effect: NoSchedule}, {operator: Exists, tolerationSeconds: 30}]
  podAnnotations: {empty: "", text: "a: b # c", number: "1e3"}
  podLabels: {team: mesh}
injector: {nativeSidecars: false, settings: {proxy-memory-limit: 256Mi, log-level: "warn"}, failurePolicy: Ignore, annotatedFailurePolicy: Fail, timeoutSeconds: 3, excludedNamespaces: []}
validator: {enabled: false}
"#;

#[tokio::test]
async fn helm_makes_the_same_objects_as_install() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/selvedge");
    let directory = tempfile::tempdir().unwrap();
    let ha = fs::read_to_string(chart.join("values-ha.yaml")).unwrap();
    let cases = [
        ("default", "createNamespace: true\n".to_owned()),
        ("ha", format!("createNamespace: true\n{ha}")),
        ("everything", EVERYTHING.to_owned()),
    ];

    for (name, values) in cases {
        let file = directory.path().join(name);
        fs::write(&file, values).unwrap();
        let Some(mut helm) = script("helm_template.py") else { return };
        let theirs = succeeds(helm.arg(&chart).arg("mesh").arg(&file)).await;
        let mut install = Command::new(SELVEDGE);
        let ours = succeeds(install.args(["install", "--namespace=mesh", "--values"]).arg(&file)).await;

        let (ours, theirs) = (by_name(&ours), by_name(&theirs));
        assert!(ours.keys().eq(theirs.keys()), "{name}: {:?} {:?}", ours.keys(), theirs.keys());
        for (object, ours) in &ours {
            assert_eq!(ours, &theirs[object], "{name}: {object}");
        }
    }
}

/// All objects. Who manages them is the one thing in which the two must differ.
fn by_name(text: &str) -> BTreeMap<String, Value> {
    let name = |mut object: Value| {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "somebody".into();
        if let Some(pod) = object.pointer_mut("/spec/template/metadata/labels") {
            pod["app.kubernetes.io/managed-by"] = "somebody".into();
        }
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    };
    documents(text).into_iter().map(name).collect()
}
