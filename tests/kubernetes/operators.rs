//! What people who run a cluster are told of it: `selvedge status`, `stat` and `check`, through the API server and the kubelet
//! into the control plane's pod.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{
    SELVEDGE,
    cluster::Cluster,
    control_plane::NAMESPACE,
    kubelet::{items, text},
};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(90);

/// As much as `selvedge status` needs.
const WATCHER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watcher, namespace: selvedge}
rules:
- {apiGroups: [''], resources: [pods], verbs: [list]}
- {apiGroups: [''], resources: [pods/portforward], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watcher, namespace: selvedge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watcher}
subjects: [{kind: ServiceAccount, name: watcher, namespace: selvedge}]
";

/// While the pods of a Deployment `web` and a client of theirs run, which has sent 30 requests.
pub(crate) async fn see_what_is_so(cluster: &mut Cluster) {
    the_newest_change_has_arrived_at_every_sidecar(cluster).await;
    what_was_sent_is_counted(cluster).await;
    the_dashboard_shows_what_the_replicas_know(cluster).await;
    who_may_not_look_is_told(cluster).await;
    everything_is_looked_at(cluster).await;
}

async fn the_newest_change_has_arrived_at_every_sidecar(cluster: &mut Cluster) {
    cluster.api().service_account(NAMESPACE, "watcher").await;
    cluster.server.apply(WATCHER).await;
    let kubeconfig = cluster.server.kubeconfig_of(NAMESPACE, "watcher").await;

    let output = selvedge(cluster, &kubeconfig, &["status", "--json", "--all", "--wait=30s"]).await;

    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["arrived"], &report["up_to_date"]), (&json!(true), &json!(4)), "{report:#}");
    let replica = cluster.ready(NAMESPACE, ("app.kubernetes.io/component", "control-plane"), 1).await;
    assert!(items(&report["proxies"]).all(|proxy| proxy["replica"] == *replica[0]), "{report:#}");
    let identities: Vec<&str> = items(&report["proxies"]).map(|proxy| text(&proxy["identity"])).collect();
    assert!(identities.contains(&"spiffe://cluster.local/ns/shop/sa/client"), "{report:#}");

    let output = selvedge(cluster, &kubeconfig, &["status"]).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("has arrived everywhere: 4 of 4 proxies have it\n"), "{said}");
}

async fn what_was_sent_is_counted(cluster: &mut Cluster) {
    let kubeconfig = cluster.server.kubeconfig_of(NAMESPACE, "watcher").await;
    cluster
        .until("all requests are counted", async |cluster| {
            let output =
                selvedge(cluster, &kubeconfig, &["stat", "--to=shop/*", "--since=1h", "--json"]).await;
            assert!(output.status.success(), "{output:?}");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let requests = &report["rows"][0]["requests"];
            let counts = ["count", "failures", "mtls_percent"].map(|name| &requests[name]);
            if counts == [&json!(30), &json!(0), &json!(100.0)] { Ok(()) } else { Err(format!("{report:#}")) }
        })
        .await;
}

/// As a browser on the node sees it.
async fn the_dashboard_shows_what_the_replicas_know(cluster: &mut Cluster) {
    let kubeconfig = cluster.server.kubeconfig_of(NAMESPACE, "watcher").await;
    let mut command = Command::new(SELVEDGE);
    command.env("KUBECONFIG", &kubeconfig).args(["dashboard", "--no-browser"]).kill_on_drop(true);
    command.stdout(Stdio::piped());
    let mut child = cluster.host.namespace.inside(|| command.spawn()).unwrap();
    let mut url = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    timeout(LIMIT, said.read_line(&mut url)).await.expect("it serves in time").unwrap();
    let (address, path) = url.trim().strip_prefix("http://").unwrap().split_once('/').unwrap();
    let address: SocketAddr = address.parse().unwrap();

    let replica = cluster.ready(NAMESPACE, ("app.kubernetes.io/component", "control-plane"), 1).await;
    let page = page(cluster, address, &format!("/{path}?since=1h"), "localhost").await;
    assert!(page.contains(&*replica[0]) && page.contains(" failed of "), "{page}");
    assert!(!page.contains("what one replica"), "{page}");
    let page = self::page(cluster, address, "/dashboard/proxies", "localhost").await;
    assert!(page.contains("shop/client"), "{page}");
    let refused = self::page(cluster, address, "/dashboard/overview", "evil.example").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
}

/// The answer to a GET of `path` by that name.
async fn page(cluster: &Cluster, address: SocketAddr, path: &str, host: &str) -> String {
    let stream = cluster.host.namespace.inside(|| std::net::TcpStream::connect(address)).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(stream).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn who_may_not_look_is_told(cluster: &Cluster) {
    let kubeconfig = cluster.server.kubeconfig_of(NAMESPACE, "default").await;

    let output = selvedge(cluster, &kubeconfig, &["status"]).await;

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("system:serviceaccount:selvedge:default"), "{said}");
}

async fn everything_is_looked_at(cluster: &Cluster) {
    let kubeconfig = cluster.server.admin_kubeconfig();

    let output = selvedge(cluster, &kubeconfig, &["check", "--json"]).await;

    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let of = |verdict: &str| -> Vec<&str> {
        items(&report["findings"])
            .filter(|finding| finding["verdict"] == verdict)
            .map(|finding| text(&finding["what"]))
            .collect()
    };
    let well = of("ok");
    for (begin, end) in [
        ("the newest configuration has arrived at all 4 connected proxies", ""),
        ("the root certificate expires in ", ""),
        ("the issuer of workloads' certificates expires in ", ""),
        ("the certificate of the port for proxies expires in ", ""),
        ("the certificate of the webhooks expires in ", ""),
        // As this server's version asks for.
        ("a pod that asks for a sidecar gets one, as an ordinary container", ""),
        ("4 sidecars have version ", ", like the control plane"),
    ] {
        let found = well.iter().any(|what| what.starts_with(begin) && what.ends_with(end));
        assert!(found, "{begin}…{end}: {report:#}");
    }
    // That Kubernetes is too old, as the tests' server says of itself.
    let errors = of("error");
    assert!(errors.iter().all(|what| what.ends_with("is too old")), "{report:#}");
    assert_eq!(report["documents"]["passed"], true, "{report:#}");
}

/// On the node, where the API server is.
async fn selvedge(cluster: &Cluster, kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.env("KUBECONFIG", kubeconfig).args(arguments).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = cluster.host.namespace.inside(|| command.spawn()).unwrap();
    timeout(LIMIT, child.wait_with_output()).await.expect("it ends in time").unwrap()
}
