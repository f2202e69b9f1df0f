//! A new root takes over from the old one: under load, with interruptions, and back again.

use std::{
    fs,
    io::Read,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::Signal;
use selvedge_certs::ca::Authority;
use selvedge_demo::{
    load::{Load, Plan},
    workload::Spec,
};
use selvedge_tests::{Mesh, poll};

use crate::{SELVEDGE, bootstrap::renews};

/// Sidecars renew within 10 s, and each step is looked at for some seconds.
const STEPS: Duration = Duration::from_secs(90);

async fn mesh() -> Mesh {
    let specs = [
        Spec::client("caller"),
        Spec::frontend("frontend-a"),
        Spec::server("reviews-a", "reviews", 9080),
        Spec::server("reviews-b", "reviews", 9080),
    ];
    Mesh::of(SELVEDGE, specs).await
}

/// Load that goes through every hop.
fn load(mesh: &Mesh) -> Load {
    Plan::new(mesh.workload("caller").outbound, "frontend:8080").connections(8).pace(100.0).start()
}

async fn nothing_failed(load: Load) {
    let report = load.stop().await;
    assert!(report.requests > 500, "{}", report.summary());
    assert_eq!(report.failed(), 0, "of {}: {:#?}", report.requests, report.failures);
}

fn root(mesh: &Mesh) -> [u8; 32] {
    Authority::load(&mesh.data_dir()).expect("a CA").root_sha256()
}

/// The command, while it runs; what it says is in a file.
struct Rotation {
    command: Child,
    said: tempfile::NamedTempFile,
}

impl Rotation {
    fn start(mesh: &Mesh, flags: &[&str]) -> Self {
        let said = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = Command::new(SELVEDGE);
        command.args(["certs", "rotate-root", "--data-dir"]).arg(mesh.data_dir()).args(flags);
        command.arg(format!("--admin={}", mesh.control_plane_admin_address()));
        let open = || fs::File::options().append(true).open(said.path()).expect("the file");
        command.stdout(open()).stderr(open());
        Self { command: command.spawn().expect("the binary runs"), said }
    }

    fn said(&self) -> String {
        let mut text = String::new();
        self.said.reopen().and_then(|mut file| file.read_to_string(&mut text)).expect("what it said");
        text
    }

    async fn says(&self, words: &str) {
        poll(STEPS, &format!("it says {words:?}"), async || {
            let said = self.said();
            if said.contains(words) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Ends it as a crash does.
    fn kill(&mut self) {
        self.command.kill().expect("it runs");
        self.command.wait().expect("it ends");
    }

    /// Waits until it is done; says with which status and which words.
    async fn ends(&mut self) -> (Option<i32>, String) {
        let command = &mut self.command;
        let status = poll(STEPS, "the command ends", async || {
            command.try_wait().map_err(|error| error.to_string())?.ok_or("it runs".to_owned())
        })
        .await;
        (status.code(), self.said())
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

/// Replaces the root.
pub(crate) async fn rotate(mesh: &Mesh) {
    let (status, said) = Rotation::start(mesh, &[]).ends().await;
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test]
async fn a_new_root_takes_over_under_load_and_nothing_is_dropped() {
    let mesh = mesh().await;
    let (before, of_old) = (root(&mesh), mesh.credentials("caller"));
    let token = mesh.token("caller", "1h").await.unwrap();
    let load = load(&mesh);

    let (status, said) = Rotation::start(&mesh, &[]).ends().await;

    assert_eq!(status, Some(0), "{said}");
    let steps = ["step 1 of 3", "4 of 4 sidecars", "step 2 of 3", "step 3 of 3", "done"];
    let places: Vec<_> = steps.iter().map(|step| said.find(step)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{said}");
    assert!(said.contains("these join tokens name the old root"), "{said}");
    nothing_failed(load).await;
    assert_ne!(root(&mesh), before);
    let config = mesh.control_plane_admin("/config").await.unwrap().text();
    assert!(config.contains(&selvedge_certs::facts::Fingerprint(root(&mesh)).to_string()), "{config}");
    assert!(!renews(&mesh, &of_old).await, "the old root is not trusted");
    assert!(renews(&mesh, &mesh.credentials("caller")).await);
    for name in ["next-root", "root-rotation.json"] {
        assert!(!mesh.data_dir().join(name).exists(), "{name}");
    }
    // A token of the old root's is of no use, and a new one is.
    let mut mesh = mesh;
    mesh.kill_sidecar("caller").await.unwrap();
    mesh.start_sidecar_with("caller", &token).unwrap();
    poll(STEPS, "the old token is refused", async || {
        let log = mesh.workload("caller").sidecar_process().unwrap().whole_log().unwrap();
        if log.contains("has no root with SHA-256") { Ok(()) } else { Err(log) }
    })
    .await;
    mesh.restart_sidecar("caller", &[]).await.unwrap();
}

#[tokio::test]
async fn a_change_of_roots_goes_on_where_it_was_when_everything_was_killed() {
    let mut mesh = mesh().await;
    let (before, load) = (root(&mesh), load(&mesh));

    let mut first = Rotation::start(&mesh, &[]);
    first.says("step 1 of 3").await;
    first.kill();
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    let mut second = Rotation::start(&mesh, &[]);
    second.says("step 2 of 3").await;
    second.kill();
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    let mut third = Rotation::start(&mesh, &[]);
    third.says("going on with the change of roots that was begun").await;
    let (status, said) = Rotation::start(&mesh, &[]).ends().await;
    assert!(status == Some(1) && said.contains("another `selvedge certs rotate-root` is running"), "{said}");
    let (status, said) = third.ends().await;

    assert_eq!(status, Some(0), "{said}");
    nothing_failed(load).await;
    assert_ne!(root(&mesh), before);

    // One that does not answer is waited for, by its name.
    let silent = mesh.workload("reviews-b").sidecar_process().unwrap();
    silent.freeze().await.unwrap();
    let mut again = Rotation::start(&mesh, &[]);
    again.says("waiting for default/reviews-b").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!again.said().contains("step 2"), "{}", again.said());
    silent.signal(Signal::CONT).unwrap();
    let (status, said) = again.ends().await;
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test]
async fn a_change_of_roots_can_be_taken_back() {
    let mut mesh = mesh().await;
    let (status, said) = Rotation::start(&mesh, &["--abort"]).ends().await;
    assert!(status == Some(1) && said.contains("there is nothing to take back"), "{said}");
    let (before, load) = (root(&mesh), load(&mesh));
    let token = mesh.token("late", "1h").await.unwrap();

    let mut rotation = Rotation::start(&mesh, &[]);
    rotation.says("step 2 of 3").await;
    mesh.workload("reviews-b").sidecar_process().unwrap().freeze().await.unwrap();
    rotation.says("3 of 4 sidecars; waiting for default/reviews-b").await;
    rotation.kill();
    // Who knows only the old root still finds the control plane, which shows a certificate of the new one.
    mesh.place(Spec::client("late")).unwrap();
    mesh.start_sidecar_with("late", &token).unwrap();
    mesh.sidecar_ready("late").await.unwrap();
    let mut back = Rotation::start(&mesh, &["--abort"]);
    back.says("taking back").await;
    mesh.workload("reviews-b").sidecar_process().unwrap().signal(Signal::CONT).unwrap();
    let (status, said) = back.ends().await;

    assert_eq!(status, Some(0), "{said}");
    let report = load.stop().await;
    // Those that were under way in the stopped sidecar are its own.
    assert!(report.requests > 500, "{}", report.summary());
    assert_eq!(root(&mesh), before);
    assert!(renews(&mesh, &mesh.credentials("caller")).await);
    assert!(!mesh.data_dir().join("next-root").exists());
    let (status, said) = Rotation::start(&mesh, &["--timeout", "1s"]).ends().await;
    assert!(status == Some(1) && said.contains("call the command again to go on"), "{said}");
}
