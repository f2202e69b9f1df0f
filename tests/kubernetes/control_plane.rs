//! A replica of the control plane outside the cluster, on loopback: with the rights that the chart gives it, and no
//! more.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use selvedge_demo::{
    call,
    processes::{Exits, Process, Processes},
};
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::SELVEDGE;

/// The namespace of the control plane's own objects, and its account there.
pub(crate) const NAMESPACE: &str = "selvedge";
pub(crate) const ACCOUNT: &str = "selvedge-control-plane";

/// How long a start may take, with many others on the machine.
const START: Duration = Duration::from_secs(60);

/// What says who may do what.
const RIGHTS: [&str; 6] =
    ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// What `selvedge install` prints.
pub(crate) fn manifests(arguments: &[&str]) -> String {
    let output = Command::new(SELVEDGE).arg("install").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Those of the documents that are of these kinds.
pub(crate) fn of_kinds(documents: &str, kinds: &[&str]) -> String {
    let wanted = |document: &&str| {
        kinds.iter().any(|kind| document.lines().any(|line| line == format!("kind: {kind}")))
    };
    documents.split("\n---\n").filter(wanted).collect::<Vec<_>>().join("\n---\n")
}

/// Gives the control plane's account its rights; says how it comes to the server.
pub(crate) async fn rights(server: &ApiServer) -> PathBuf {
    server.apply(&of_kinds(&manifests(&[]), &RIGHTS)).await;
    server.kubeconfig_of(NAMESPACE, ACCOUNT).await
}

/// A replica that runs.
pub(crate) struct ControlPlane {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) webhook: SocketAddr,
}

impl ControlPlane {
    /// Starts one as `name`, and waits until it is ready.
    pub(crate) async fn start(processes: &Processes, name: &str, kubeconfig: &Path, data: &Path) -> Self {
        Self::start_with(processes, name, kubeconfig, data, &["--webhook-listen=127.0.0.1:0"]).await
    }

    /// The same, with more flags, of which one says where the webhook is.
    pub(crate) async fn start_with(
        processes: &Processes,
        name: &str,
        kubeconfig: &Path,
        data: &Path,
        more: &[&str],
    ) -> Self {
        let data = data.join(name);
        let arguments = [
            "control-plane",
            "--exit-on-stdin-close",
            "--source=kubernetes",
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--data-dir={}", data.display()),
            &format!("--pod-name={name}"),
            "--listen=127.0.0.1:0",
            "--admin=127.0.0.1:0",
        ];
        let process = processes.start(name, arguments.iter().chain(more)).unwrap();
        let grpc = process.listener("grpc", START).await.unwrap();
        let admin = process.listener("admin", START).await.unwrap();
        let webhook = process.listener("webhook", START).await.unwrap();
        let replica = Self { process, grpc, admin, webhook };
        poll(START, &format!("{name} is ready"), async || {
            let answer = call::send(admin, call::to(&admin.to_string(), "/ready")).await;
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}\n{}", answer.text(), replica.process.log_tail())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        replica
    }

    /// What its admin port says at a path.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        call::send(self.admin, call::to(&self.admin.to_string(), path)).await.unwrap().json().unwrap()
    }

    /// That the role which it has was enough. An API server that is just starting refuses what it will allow.
    pub(crate) async fn lacked_no_right(&self, server: &ApiServer) {
        let log = self.process.whole_log().unwrap();
        for line in log.lines().filter(|line| line.to_lowercase().contains("forbidden")) {
            let right = refused(line).unwrap_or_else(|| panic!("{line}"));
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),
                    "resourceAttributes": right,
                },
            });
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let review = server.api().create(path, &review).await.unwrap();
            assert_eq!(review["status"]["allowed"], true, "{line}");
        }
    }

    /// Waits until the problems that it knows are such.
    pub(crate) async fn problems(&self, what: &str, so: impl Fn(&str) -> bool) {
        poll(SOON, what, async || {
            let problems = self.admin("/problems").await.to_string();
            if so(&problems) { Ok(()) } else { Err(problems) }
        })
        .await;
    }
}

/// What an API server refused, in its words: `pods "a" is forbidden: User "u" cannot get resource "pods" in API group
/// "" in the namespace "n"`.
fn refused(line: &str) -> Option<Value> {
    let (before, after) = line.split_once(" is forbidden: User ")?;
    let quoted = |behind: &str| Some(after.split_once(behind)?.1.split_once('"')?.0);
    let verb = after.split_once(" cannot ")?.1.split_once(' ')?.0;
    let resource = quoted("resource \"")?;
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let name = before.strip_suffix('"').and_then(|before| Some(before.rsplit_once('"')?.1));
    Some(json!({
        "verb": verb, "group": quoted("API group \"")?, "resource": resource, "subresource": part,
        "namespace": quoted("namespace \"").unwrap_or_default(), "name": name.unwrap_or_default(),
    }))
}

/// A server of all kinds, on which a replica that has the rights of the chart, and a directory for its data, can be started.
pub(crate) struct Prepared {
    processes: Processes,
    _exits: Exits,
    kubeconfig: PathBuf,
    data: PathBuf,
    pub(crate) server: ApiServer,
}

impl Prepared {
    /// `None`: what this needs is missing.
    pub(crate) async fn new() -> Option<Self> {
        let server = ApiServer::start(assets()?).await;
        for kinds in [kinds::CORE, kinds::GATEWAY, kinds::ISTIO] {
            server.serve(kinds).await;
        }
        let kubeconfig = rights(&server).await;
        let (processes, exits) = processes(&server);
        let data = server.directory().join("data");
        std::fs::create_dir(&data).unwrap();
        Some(Self { processes, _exits: exits, kubeconfig, data, server })
    }

    /// Starts a replica as `name`.
    pub(crate) async fn start(&self, name: &str) -> ControlPlane {
        ControlPlane::start(&self.processes, name, &self.kubeconfig, &self.data).await
    }
}

/// Processes of `selvedge`, with a place for their logs.
pub(crate) fn processes(server: &ApiServer) -> (Processes, Exits) {
    let logs = server.directory().join("selvedge-logs");
    std::fs::create_dir_all(&logs).unwrap();
    Processes::new(Path::new(SELVEDGE), &logs)
}
