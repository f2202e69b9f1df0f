//! That the tests' node does with pods what nodes do: without this, what pods show of the mesh would show nothing.

use selvedge_tests::{kubernetes::assets, netns::rights::netns};

use serde_json::json;

use crate::{
    SELVEDGE, SELVEDGE_CONTROL_PLANE, SELVEDGE_INIT, SELVEDGE_PROXY, cluster::Cluster, kubelet::Image,
};

/// Images that any test may run.
pub(crate) fn images() -> Vec<Image> {
    // Answers as the version and on the port that its environment says.
    let app =
        "exec /selvedge app reviews --name $HOSTNAME --version ${VERSION:-v1} --listen [::]:${PORT:-80}";
    vec![
        Image::of("nginx", SELVEDGE, "/selvedge").entrypoint(&["/bin/sh", "-c", app]),
        Image::of("selvedge", SELVEDGE, "/selvedge"),
        // As their Dockerfiles have it.
        Image::of("selvedge-control-plane", SELVEDGE_CONTROL_PLANE, "/selvedge-control-plane")
            .user(2102)
            .env("SELVEDGE_CONFIG_DIR", "/config")
            .env("SELVEDGE_DATA_DIR", "/data"),
        Image::of("selvedge-init", SELVEDGE_INIT, "/selvedge-init"),
        Image::of("selvedge-proxy", SELVEDGE_PROXY, "/selvedge-proxy").user(2102),
    ]
}

const PODS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: v1
kind: Pod
metadata:
  name: client
  labels: {app: client}
spec:
  serviceAccountName: client
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000}
  initContainers:
  - name: first
    image: selvedge
    command: [sh, -c, "id -u > /data/first"]
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - name: app
    image: selvedge
    command: [sleep, infinity]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: GREETING, value: "hello $(POD)"}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: facts, mountPath: /facts, readOnly: true}
  volumes:
  - {name: data, emptyDir: {}}
  - name: facts
    projected:
      sources:
      - serviceAccountToken: {audience: selvedge, path: token}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: registry.example/library/nginx:1.27
        readinessProbe: {httpGet: {path: /, port: 80}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080, targetPort: 80}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: once, image: selvedge, command: ["true"]}]
"#;

async fn node() {
    let Some(assets) = assets() else { return };
    let mut cluster = Cluster::new(assets, images()).await;
    cluster.server.apply(PODS).await;

    cluster.ready("default", ("app", "web"), 2).await;
    cluster.ready("default", ("app", "client"), 1).await;
    let exec = async |cluster: &Cluster, script: &str| {
        let pod = cluster.pod("default", "client");
        pod.container("app")
            .exec(&["/bin/sh", "-c", script])
            .await
            .unwrap_or_else(|said| said)
            .trim()
            .to_owned()
    };

    assert_eq!(
        exec(&cluster, "cat /data/first; id -u; id -G; echo $GREETING").await,
        "1000\n1000\n1000 3000\nhello client"
    );
    assert_eq!(exec(&cluster, "cat /facts/labels").await, "app=\"client\"");
    assert!(exec(&cluster, "cat /facts/token").await.starts_with("ey"));
    assert!(exec(&cluster, "touch /elsewhere").await.contains("Read-only"));
    assert!(exec(&cluster, "touch /facts/x").await.contains("Read-only"));
    let answer = exec(&cluster, "curl -sS http://web:8080/").await;
    assert!(answer.contains("\"pod\":\"web-"), "{answer}");
    cluster
        .until("the Job is done", async |cluster| {
            let job = cluster.api().get("/apis/batch/v1/namespaces/default/jobs/once").await.unwrap();
            if job["status"]["succeeded"] == 1 { Ok(()) } else { Err(job["status"].to_string()) }
        })
        .await;

    cluster.server.kubectl(&["delete", "deployment", "web"], "").await.unwrap();
    cluster.ready("default", ("app", "web"), 0).await;
    assert!(exec(&cluster, "curl -sS -m 2 http://web:8080/ || echo nobody").await.ends_with("nobody"));

    cluster.server.namespace("passing", json!({})).await;
    cluster.server.kubectl(&["delete", "namespace", "passing", "--wait=false"], "").await.unwrap();
    cluster
        .until("the namespace is gone", async |cluster| {
            match cluster.api().get("/api/v1/namespaces/passing").await {
                Ok(there) => Err(there["status"].to_string()),
                Err(_) => Ok(()),
            }
        })
        .await;
}

#[test]
fn pods_run_as_their_objects_say() {
    netns(node);
}
