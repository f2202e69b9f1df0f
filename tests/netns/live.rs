//! A change of policy reaches what is in progress: of redirected connections of all kinds, those that it forbids end within
//! a second of its arrival at the sidecar that enforces it, and the others go on.
//!
//! When it arrived the sidecar's own log says, so that the time that the control plane takes to read a file is not counted.

mod open;
mod serve;

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use selvedge_tests::{SOON, policies::peer_authentication, poll};

use self::open::{Kind, Open};
use crate::{
    mesh::{APP_PORT, Mesh, Mode, OTHER_PORT, client},
    network,
    rights::netns,
};

/// What a sidecar promises, from the arrival of a change to the end of what it forbids.
const PROMISED: Duration = Duration::from_secs(1);

/// How often a change is made that did not take effect in time: the machine may have had something else to do.
const ATTEMPTS: usize = 3;

/// Has sidecars log when configuration has arrived, in a form that can be read.
const FLAGS: &[&str] = &["--log", "info,selvedge_proxy::discovery=debug", "--log-format", "json"];

const SERVER: &str = "server";

/// Clients, of which policies keep some. The last two have no sidecar.
const CLIENTS: [&str; 4] = ["kept", "forbidden", "plain-kept", "plain-forbidden"];

/// A change, the workload whose sidecar enforces it, and whom it forbids.
struct Change {
    documents: String,
    enforced_by: &'static str,
    forbids: &'static [&'static str],
}

fn document(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

/// By who the clients with a sidecar are, and by the addresses of the others.
fn istio(mesh: &Mesh) -> String {
    let address = mesh.workload("plain-forbidden").place.address;
    let spec = format!(
        "{{selector: {{matchLabels: {{app: {SERVER}}}}}, action: DENY, rules: [{{from: [{{source: {{serviceAccounts: \
         [forbidden]}}}}, {{source: {{ipBlocks: [{address}]}}}}]}}]}}"
    );
    document("security.istio.io/v1", "AuthorizationPolicy", "own", &spec)
}

fn linkerd(mesh: &Mesh) -> String {
    let version = "policy.linkerd.io/v1alpha1";
    let server = |name: &str| {
        let spec = format!("{{podSelector: {{matchLabels: {{app: {SERVER}}}}}, port: {name}}}");
        document("policy.linkerd.io/v1beta3", "Server", name, &spec)
    };
    let address = mesh.workload("plain-kept").place.address;
    let allow = |name: &str, kind: &str, spec: &str| {
        let target = "targetRef: {kind: Namespace, name: default}";
        let required = format!("[{{group: policy.linkerd.io, kind: {kind}, name: {name}}}]");
        let policy = format!("{{{target}, requiredAuthenticationRefs: {required}}}");
        document(version, kind, name, spec) + &document(version, "AuthorizationPolicy", name, &policy)
    };
    [
        server("http"),
        server("other"),
        allow("ours", "MeshTLSAuthentication", "{identityRefs: [{kind: ServiceAccount, name: kept}]}"),
        allow("theirs", "NetworkAuthentication", &format!("{{networks: [{{cidr: {address}/32}}]}}")),
    ]
    .concat()
}

fn changes(mesh: &Mesh) -> [Change; 5] {
    let own = |spec: &str| document("networking.k8s.io/v1", "NetworkPolicy", "own", spec);
    let ingress = format!(
        "{{podSelector: {{matchLabels: {{app: {SERVER}}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: [{{key: app, \
         operator: In, values: [kept, plain-kept]}}]}}}}]}}]}}"
    );
    let egress = "{podSelector: {matchLabels: {app: forbidden}}, policyTypes: [Egress]}";
    let both = &["forbidden", "plain-forbidden"];
    [
        Change { documents: istio(mesh), enforced_by: SERVER, forbids: both },
        Change { documents: linkerd(mesh), enforced_by: SERVER, forbids: both },
        Change { documents: own(&ingress), enforced_by: SERVER, forbids: both },
        Change { documents: own(egress), enforced_by: "forbidden", forbids: &["forbidden"] },
        Change {
            documents: peer_authentication(Some(SERVER), "STRICT"),
            enforced_by: SERVER,
            forbids: &["plain-kept", "plain-forbidden"],
        },
    ]
}

/// Connections of every kind by every client, all in progress.
async fn opened(mesh: &Mesh) -> Vec<Open> {
    let mut all = Vec::new();
    for client in CLIENTS {
        for kind in Kind::ALL {
            let port = if kind == Kind::Opaque { OTHER_PORT } else { APP_PORT };
            let address = std::net::SocketAddr::new(mesh.workload(SERVER).place.address, port);
            let what = format!("{client} opens {kind:?}");
            let open = poll(SOON, &what, || Open::new(mesh.workload(client), kind, address)).await;
            all.push(open);
        }
    }
    all
}

/// When configuration first arrived at the sidecar of `workload` after `since`.
fn arrived(mesh: &Mesh, workload: &str, since: SystemTime) -> Option<SystemTime> {
    let log = mesh.sidecar_log(workload);
    let received = log.lines().filter(|line| line.contains("configuration received"));
    let times = received.filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        humantime::parse_rfc3339_weak(line["timestamp"].as_str()?).ok()
    });
    times.filter(|time| *time > since).min()
}

/// Makes a change, and waits until what it forbids has ended; then the rest goes on. Returns how long that took since the
/// change had arrived.
async fn changed(mesh: &Mesh, change: &Change) -> Duration {
    let (forbidden, kept): (Vec<_>, Vec<_>) =
        opened(mesh).await.into_iter().partition(|open| change.forbids.contains(&&*open.client));
    let written = SystemTime::now();
    mesh.write("policy.yaml", &change.documents);
    let ended = poll(SOON, "what is forbidden ends", async || {
        let ended: Vec<_> = forbidden.iter().map(|open| (open, open.ended())).collect();
        match ended.iter().find(|(_, ended)| ended.is_none()) {
            Some((open, _)) => Err(format!("{} by {} goes on\n{}", open.kind, open.client, change.documents)),
            None => Ok(ended.into_iter().filter_map(|(_, ended)| ended).max().unwrap()),
        }
    })
    .await;
    let arrived = arrived(mesh, change.enforced_by, written).expect("a change that has arrived");
    for open in &kept {
        let before = open.ticks();
        poll(SOON, &format!("{} by {} goes on", open.kind, open.client), async || {
            match open.ticks() > before + 2 {
                true => Ok(()),
                false => Err(format!("{:?}\n{}", open.ended(), change.documents)),
            }
        })
        .await;
    }
    assert!(ended >= arrived, "what ends before a change has arrived does not end by it");
    mesh.write("policy.yaml", "# nobody is forbidden anything\n");
    ended.duration_since(arrived).unwrap_or_default()
}

async fn every_kind() {
    let mut mesh = Mesh::on(network::Kind::Bridge).await;
    mesh.write("peerauthentication.yaml", "# everybody may come in\n");
    let [kept, forbidden, plain_kept, plain_forbidden] = CLIENTS.map(client);
    mesh.add([
        client(SERVER).flags(FLAGS),
        kept,
        forbidden.flags(FLAGS),
        plain_kept.mode(Mode::NoSidecar),
        plain_forbidden.mode(Mode::NoSidecar),
    ])
    .await;
    serve::http(mesh.workload(SERVER), APP_PORT);
    serve::opaque(mesh.workload(SERVER), OTHER_PORT);
    for change in changes(&mesh) {
        let mut took = BTreeSet::new();
        while took.first().is_none_or(|least| *least > PROMISED) {
            assert!(took.len() < ATTEMPTS, "it took {took:?}\n{}", change.documents);
            took.insert(changed(&mesh, &change).await);
        }
    }
}

#[test]
fn what_a_change_forbids_ends_within_a_second_of_its_arrival_and_nothing_else_does() {
    netns(every_kind);
}
