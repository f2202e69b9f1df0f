//! Identities from a SPIFFE agent, such as SPIRE's: sidecars with `--workload-api`.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use selvedge_certs::{bundle::Bundle, tls::Credentials};
use selvedge_demo::{
    call,
    load::{Load, Plan},
    workload::Spec,
};
use selvedge_tests::{
    Mesh, SOON, poll,
    spiffe::{Agent, SpireCa, Svid},
};
use serde_json::Value;

use crate::{SELVEDGE, bootstrap::renews};

const HOUR: Duration = Duration::from_secs(3600);
const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
const CALLER: &str = "spiffe://cluster.local/ns/default/sa/caller";

/// A caller with a certificate of the control plane's, and a server whose identity an agent gives.
struct Rig {
    mesh: Mesh,
    spire: SpireCa,
    agent: Agent,
}

impl Rig {
    /// Nothing is waited for.
    async fn new(svids: impl FnOnce(&SpireCa) -> Vec<Svid>) -> Self {
        let (mut mesh, spire) = (Mesh::empty(SELVEDGE), SpireCa::new("cluster.local"));
        let agent = Agent::start(&mesh.directory().join("agent.sock"), svids(&spire));
        mesh.service("reviews", 9080);
        let roots = roots(&mesh);
        fs::write(&roots, spire.root_pem()).unwrap();
        mesh.control_plane_flag("--workload-roots", roots.to_str().unwrap());
        mesh.start_control_plane().await.unwrap();
        let server = Spec::server("reviews-a", "reviews", 9080).flag("--workload-api", &agent.address());
        mesh.place(server).unwrap();
        mesh.start_app("reviews-a").unwrap();
        mesh.app_listens("reviews-a").await.unwrap();
        mesh.add([Spec::client("caller")]).await.unwrap();
        mesh.start_sidecar("reviews-a").await.unwrap();
        Self { mesh, spire, agent }
    }

    /// With a good SVID, and ready.
    async fn ready() -> Self {
        let rig = Self::new(|spire| vec![spire.svid(REVIEWS, HOUR)]).await;
        rig.mesh.sidecar_ready("reviews-a").await.unwrap();
        rig
    }

    fn write_roots(&self, cas: &[&SpireCa]) {
        let pem: String = cas.iter().map(|ca| ca.root_pem()).collect();
        fs::write(roots(&self.mesh), pem).unwrap();
    }

    async fn status(&self) -> (u16, String) {
        let answer = self.mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
        let error = answer.proxy_error().unwrap_or_default().to_owned();
        (answer.status.as_u16(), error)
    }

    async fn answers(&self, status: u16) -> String {
        poll(SOON, &format!("the server answers {status}"), async || {
            let (found, error) = self.status().await;
            if found == status { Ok(error) } else { Err(format!("{found}: {error}")) }
        })
        .await
    }

    fn log(&self, workload: &str) -> String {
        self.mesh.workload(workload).sidecar_process().unwrap().whole_log().unwrap()
    }

    async fn says(&self, words: &str) {
        poll(SOON, &format!("the sidecar says {words:?}"), async || {
            let log = self.log("reviews-a");
            if log.contains(words) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    async fn used(&self, svids: f64) {
        self.metric("selvedge_workload_api_svids_total", svids).await;
    }

    async fn metric(&self, name: &str, value: f64) {
        poll(SOON, &format!("{name} is {value}"), async || {
            let found =
                self.mesh.workload("reviews-a").metric(name).await.map_err(|error| error.to_string())?;
            if found == Some(value) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn is_not_ready(&self) -> String {
        poll(SOON, "it is not ready", async || {
            let ready =
                self.mesh.workload("reviews-a").admin("/ready").await.map_err(|error| error.to_string())?;
            let text = ready.text();
            if ready.status == 503 && text.contains("certificate") { Ok(text) } else { Err(text) }
        })
        .await
    }

    fn load(&self) -> Load {
        Plan::new(self.mesh.workload("caller").outbound, "reviews:9080").connections(4).pace(100.0).start()
    }
}

fn roots(mesh: &Mesh) -> PathBuf {
    mesh.directory().join("spire.pem")
}

/// Waits until `load` has got some answers to what it sends from now on.
async fn carries(load: &Load) {
    let answers = || load.look(|report| report.requests);
    let enough = answers() + 20;
    poll(SOON, "requests are answered", async || match answers() {
        count if count < enough => Err(count),
        _ => Ok(()),
    })
    .await;
}

async fn nothing_failed(load: Load) {
    let report = load.stop().await;
    assert_eq!(report.failed(), 0, "of {}: {:#?}", report.requests, report.failures);
}

#[tokio::test]
async fn peers_accept_an_identity_of_the_agents_in_both_directions() {
    let mut rig = Rig::ready().await;

    assert_eq!(rig.status().await.0, 200);
    rig.used(1.0).await;
    rig.metric("selvedge_workload_api_connected", 1.0).await;
    let config = rig.mesh.workload("reviews-a").admin_json("/config").await.unwrap();
    let certificate = &config["certificate"];
    assert_eq!(certificate["identity"], REVIEWS);
    assert_eq!(certificate["workload_api"], rig.agent.address());
    assert_eq!((&certificate["roots"], &certificate["workload_roots"]), (&1.into(), &1.into()));
    // `selvedge status` says who gives each its identity, and until when.
    let admin = rig.mesh.control_plane_admin_address().to_string();
    poll(SOON, "the control plane knows of the agent's SVID", async || {
        let output =
            Command::new(SELVEDGE).args(["status", "--all", "-o", "json", "--admin", &admin]).output();
        let said: Value = serde_json::from_slice(&output.expect("it runs").stdout).expect("JSON");
        let proxies = said["proxies"].as_array().expect("a list");
        let of = |name: &str| {
            proxies.iter().find(|one| one["workload"].as_str() == Some(name)).cloned().unwrap_or_default()
        };
        let (server, caller) = (of("default/reviews-a"), of("default/caller"));
        let is_so = server["identity_from"] == "workload-api"
            && server["svid_expires_at"].is_string()
            && caller["identity_from"] == "control-plane"
            && ["trust_roots", "workload_roots"]
                .iter()
                .all(|roots| said[*roots].as_array().is_some_and(|roots| roots.len() == 1));
        if is_so { Ok(()) } else { Err(format!("{said:#}")) }
    })
    .await;

    let expiry = rig.mesh.workload("reviews-a").metric("selvedge_certificate_expiry_timestamp_seconds").await;
    let left = expiry.unwrap().unwrap() - selvedge_tests::issuer::now() as f64;
    assert!((3000.0..3700.0).contains(&left), "that of the SVID, and not of 24 h: {left}");

    let metrics = rig.mesh.control_plane_admin("/metrics").await.unwrap().text();
    let ends = "selvedge_control_plane_certificate_expiry_timestamp_seconds{certificate=\"workload-roots\"} ";
    assert!(metrics.contains(ends), "{metrics}");

    // And the caller's.
    let agent = Agent::start(&rig.mesh.directory().join("other.sock"), vec![rig.spire.svid(CALLER, HOUR)]);
    rig.mesh.restart_sidecar("caller", &[("--workload-api", &agent.address())]).await.unwrap();
    assert_eq!(rig.status().await.0, 200);
    // It is the agent's CA that they are believed by.
    rig.write_roots(&[&SpireCa::new("cluster.local")]);
    let error = rig.answers(503).await;
    assert!(error.contains("identity") || error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_new_svid_is_in_use_at_once_and_nothing_is_dropped() {
    let rig = Rig::ready().await;
    let load = rig.load();

    for round in 2..5 {
        rig.agent.say(vec![rig.spire.svid(REVIEWS, HOUR)]);
        rig.used(f64::from(round)).await;
        carries(&load).await;
    }

    nothing_failed(load).await;
}

#[tokio::test]
async fn without_the_agent_the_last_svid_is_used_until_it_expires_and_then_refused() {
    let mut rig = Rig::new(|spire| vec![spire.svid(REVIEWS, Duration::from_secs(8))]).await;
    rig.mesh.sidecar_ready("reviews-a").await.unwrap();
    assert_eq!(rig.status().await.0, 200);

    rig.agent.kill();
    rig.metric("selvedge_workload_api_connected", 0.0).await;
    rig.says("no answer from the SPIFFE Workload API").await;
    assert_eq!(rig.status().await.0, 200, "the last one is still good");
    rig.is_not_ready().await;
    rig.answers(503).await;

    rig.agent.say(vec![rig.spire.svid(REVIEWS, HOUR)]);
    rig.agent.start_again();
    rig.answers(200).await;
    rig.mesh.sidecar_ready("reviews-a").await.unwrap();
}

#[tokio::test]
async fn an_identity_that_is_not_the_workloads_own_is_not_used() {
    let elsewhere = "spiffe://elsewhere.example/ns/default/sa/reviews";
    let foreign = SpireCa::new("elsewhere.example");
    let mut rig = Rig::new(|_| vec![foreign.svid(elsewhere, HOUR)]).await;
    rig.says(&format!(
        "the agent says that this process is {elsewhere}, and the control plane that it is {REVIEWS}"
    ))
    .await;
    rig.is_not_ready().await;
    assert_eq!(rig.status().await.0, 503);

    rig.agent.say(vec![rig.spire.svid("spiffe://cluster.local/ns/default/sa/admin", HOUR)]);
    rig.says("that this process is spiffe://cluster.local/ns/default/sa/admin").await;
    rig.agent.say(vec![rig.spire.svid("spiffe://cluster.local/k8s-workload", HOUR)]);
    rig.says("that this process is spiffe://cluster.local/k8s-workload").await;
    assert_eq!(rig.status().await.0, 503);

    // Of several, the one that is ours; of two that are, the first.
    let (first, second) = (rig.spire.svid(REVIEWS, HOUR), rig.spire.svid(REVIEWS, 2 * HOUR));
    let admin = rig.spire.svid("spiffe://cluster.local/ns/default/sa/admin", HOUR);
    rig.agent.say(vec![admin.clone(), first.clone(), second]);
    rig.answers(200).await;
    let config = rig.mesh.workload("reviews-a").admin_json("/config").await.unwrap();
    let not_after = selvedge_certs::facts::Utc(first.leaf().not_after).to_string();
    assert_eq!(config["certificate"]["not_after"], not_after.as_str());

    // What the agent leaves out is taken back.
    rig.agent.say(vec![admin]);
    rig.says("the SVID in use was taken back by the agent").await;
    rig.is_not_ready().await;
    rig.mesh.restart_sidecar("caller", &[]).await.unwrap();
    rig.answers(503).await;
    rig.agent.say(vec![first]);
    rig.answers(200).await;
    rig.agent.say(vec![]);
    rig.says("has no identity for this process").await;
    rig.is_not_ready().await;
}

#[tokio::test]
async fn a_new_ca_of_the_agents_takes_over_once_the_mesh_trusts_it() {
    let rig = Rig::ready().await;
    let (next, load) = (SpireCa::new("cluster.local"), rig.load());

    // Too early: every peer would refuse it.
    rig.agent.say(vec![next.svid(REVIEWS, HOUR)]);
    rig.says("peers would refuse it").await;
    rig.says("with --workload-roots").await;
    rig.metric("selvedge_workload_api_svids_total", 1.0).await;
    rig.write_roots(&[&rig.spire, &next]);
    rig.used(2.0).await;
    rig.write_roots(&[&next]);
    poll(SOON, "the old root is not trusted any more", async || {
        let config =
            rig.mesh.workload("caller").admin_json("/config").await.map_err(|error| error.to_string())?;
        let count = config["certificate"]["workload_roots"].clone();
        if count == 1 && config["certificate"]["generation"].as_u64() > Some(2) {
            Ok(())
        } else {
            Err(config.to_string())
        }
    })
    .await;
    carries(&load).await;
    fs::write(roots(&rig.mesh), "nothing").unwrap();
    poll(SOON, "the roots stay as they were", async || {
        let log = rig.mesh.control_plane_process().unwrap().whole_log().unwrap();
        if log.contains("the roots in --workload-roots stay as they were") { Ok(()) } else { Err(log) }
    })
    .await;

    carries(&load).await;
    nothing_failed(load).await;
}

#[tokio::test]
async fn the_agents_ca_vouches_for_nobody_to_the_control_plane() {
    let rig = Rig::ready().await;
    let Bundle { trust_domain, roots, .. } = rig.mesh.credentials("caller").bundle;
    let bundle = Bundle::new(trust_domain, roots);

    let ours = rig.mesh.credentials("caller");
    assert!(renews(&rig.mesh, &ours).await);
    let leaf = rig.spire.svid(CALLER, HOUR).leaf();
    assert!(!renews(&rig.mesh, &Credentials { leaf, bundle }).await, "a SPIRE server signs for no member");
}
