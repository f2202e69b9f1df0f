//! A mesh on a network: a control plane in a namespace of its own, and workloads whose connections are
//! redirected.
//!
//! Each workload is as in production: the rules first, by `selvedge-init` with no capability but `NET_ADMIN`;
//! then the app, as a user of its own; then the sidecar, as the user 2102 with no rights at all.

mod spec;
mod workload;

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    net::{Ipv6Addr, SocketAddr},
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    process::Command,
};

use http::StatusCode;
use selvedge_demo::{
    call,
    cluster::{DIRECTORY_PREFIX, START_LIMIT},
    documents,
    processes::{self, Exits, Process, Processes},
};
use selvedge_tests::poll;
use tempfile::TempDir;

use crate::{
    SELVEDGE, SELVEDGE_INIT,
    namespace::Namespace,
    network::{Kind, Network, NetworkPlace},
};
pub(crate) use spec::{APP_PORT, Mode, OTHER_PORT, Spec, client, server};
pub(crate) use workload::Workload;
use workload::entry;

/// The user that sidecars run as.
const PROXY_UID: u32 = 2102;

/// The user that apps run as.
const APP_UID: u32 = 1000;

/// A mesh of a test's own. If the test fails, the ends of all logs are printed.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// What carries its packets.
    pub(crate) network: Network,
    control: NetworkPlace,
    workloads: BTreeMap<String, Workload>,
    processes: Processes,
    control_plane: Option<Process>,
    _janitor: Process,
    _exits: Exits,
    // Dropped after the processes that use them.
    directory: TempDir,
    _binary: File,
}

impl Mesh {
    /// A control plane, with the services and policies of the canary example, and nobody else.
    pub(crate) async fn on(kind: Kind) -> Self {
        let mut network = Network::new(kind);
        let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir().unwrap();
        // So that the sidecar's user gets at its token, and at nothing else.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        for name in ["config", "logs"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        // Started by way of an open file: other users may have no way to where it lies.
        let binary = File::open(SELVEDGE).unwrap();
        let path = format!("/proc/self/fd/{}", binary.as_raw_fd());
        let (processes, exits) = Processes::new(Path::new(&path), &directory.path().join("logs"));
        let janitor = ["app", "janitor", "--directory", directory.path().to_str().unwrap()];
        let janitor = processes.start("janitor", janitor).unwrap();
        let mut mesh = Self {
            control: network.join("control-plane"),
            network,
            workloads: BTreeMap::new(),
            processes,
            control_plane: None,
            _janitor: janitor,
            _exits: exits,
            directory,
            _binary: binary,
        };
        mesh.hosts("");
        mesh.resolv_conf("");
        for (file, text) in documents::CANARY {
            mesh.write(file, text);
        }
        mesh.start_control_plane().await;
        mesh
    }

    /// The workload `name`.
    pub(crate) fn workload(&self, name: &str) -> &Workload {
        self.workloads.get(name).unwrap_or_else(|| panic!("no workload {name} was added"))
    }

    /// Writes a document that the control plane reads.
    pub(crate) fn write(&self, file: &str, text: &str) {
        replace(&self.directory.path().join("config").join(file), text);
    }

    /// Changes a document that the control plane reads.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.directory.path().join("config").join(file)).unwrap();
        self.write(file, &change(text));
    }

    /// What the command answers on the control plane's host, of what the control plane reads.
    pub(crate) fn selvedge(&self, words: &[&str]) -> std::process::Output {
        let mut command = Command::new(SELVEDGE);
        command.args(words).arg("--config-dir").arg(self.directory.path().join("config"));
        self.control.namespace.inside(|| command.output()).unwrap()
    }

    /// What a workload's sidecar has logged.
    pub(crate) fn sidecar_log(&self, name: &str) -> String {
        fs::read_to_string(self.processes.log(&format!("{name} sidecar"))).unwrap()
    }

    /// Writes the file of names that all sidecars look addresses up in; at first there are none.
    pub(crate) fn hosts(&self, text: &str) {
        replace(&self.hosts_file(), text);
    }

    fn hosts_file(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    /// Writes the file that says which DNS servers all sidecars ask; at first there are none.
    pub(crate) fn resolv_conf(&self, text: &str) {
        replace(&self.resolv_conf_file(), text);
    }

    fn resolv_conf_file(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// Adds workloads and waits until all are ready.
    pub(crate) async fn add(&mut self, specs: impl IntoIterator<Item = Spec>) {
        let places: Vec<(Spec, NetworkPlace)> = specs
            .into_iter()
            .map(|spec| {
                let place = self.network.join(&spec.name);
                (spec, place)
            })
            .collect();
        self.add_in(places).await;
    }

    /// Adds workloads, each in its place, and waits until all are ready.
    pub(crate) async fn add_in(&mut self, places: impl IntoIterator<Item = (Spec, NetworkPlace)>) {
        let mut names = Vec::new();
        for (spec, place) in places {
            names.push(spec.name.clone());
            self.place(spec, place);
        }
        for name in &names {
            self.start(name);
        }
        for name in &names {
            self.ready(name).await;
        }
    }

    /// Kills a workload's processes and takes its namespace away. The mesh's documents still name it.
    pub(crate) async fn lose(&mut self, name: &str) {
        self.kill_sidecar(name).await;
        let mut workload = self.workloads.remove(name).unwrap();
        if let Some(app) = workload.app.take() {
            app.kill().await.unwrap();
        }
        workload.place.namespace.ip("link delete eth0");
    }

    /// Kills a workload's sidecar without warning.
    pub(crate) async fn kill_sidecar(&mut self, name: &str) {
        let sidecar = self.workloads.get_mut(name).and_then(|workload| workload.sidecar.take());
        if let Some(sidecar) = sidecar {
            sidecar.kill().await.unwrap();
        }
    }

    /// Kills the control plane without warning.
    pub(crate) async fn kill_control_plane(&mut self) {
        if let Some(process) = self.control_plane.take() {
            process.kill().await.unwrap();
        }
    }

    /// Starts a workload's sidecar again.
    pub(crate) async fn restart_sidecar(&mut self, name: &str) {
        self.start_sidecar(name);
        self.ready(name).await;
    }

    /// Waits until a workload's app and sidecar are ready.
    pub(crate) async fn ready(&self, name: &str) {
        let workload = self.workload(name);
        if let Some(app) = &workload.app {
            app.listener("app", START_LIMIT).await.unwrap();
        }
        if let Some(sidecar) = &workload.sidecar {
            sidecar.listener("admin", START_LIMIT).await.unwrap();
            let admin = workload.loopback(4191 + workload.spec.shift);
            self.daemon_ready(&format!("{name}'s sidecar is ready"), workload.namespace(), admin).await;
        }
    }

    fn place(&mut self, spec: Spec, place: NetworkPlace) {
        let workload = Workload { spec, place, app: None, sidecar: None };
        self.write(&format!("workload-{}.yaml", workload.spec.name), &entry(&workload));
        if workload.spec.mode == Mode::Redirected {
            redirect(workload.namespace());
        }
        self.workloads.insert(workload.spec.name.clone(), workload);
    }

    fn start(&mut self, name: &str) {
        self.start_app(name);
        if self.workload(name).spec.mode != Mode::NoSidecar {
            self.start_sidecar(name);
        }
    }

    fn start_app(&mut self, name: &str) {
        let workload = self.workload(name);
        let Some(version) = &workload.spec.version else { return };
        let listen = format!("[::]:{}", workload.address().port());
        let arguments = ["app", "reviews", "--name", name, "--version", version, "--listen", &listen];
        let arguments = arguments.into_iter().chain(["--exit-on-stdin-close"]);
        let processes = self.processes.as_user(APP_UID);
        let app = workload.namespace().inside(|| processes.start(&format!("{name} app"), arguments));
        self.workloads.get_mut(name).unwrap().app = Some(app.unwrap());
    }

    fn start_sidecar(&mut self, name: &str) {
        let workload = self.workload(name);
        let token = self.token(&workload.spec);
        let mut arguments = vec!["proxy".to_owned(), "--exit-on-stdin-close".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--workload", format!("{}/{name}", workload.spec.namespace));
        flag("--control-plane", SocketAddr::new(self.control.address, 8086).to_string());
        flag("--token-file", token);
        flag("--hosts-file", self.hosts_file().to_str().unwrap().to_owned());
        flag("--resolv-conf", self.resolv_conf_file().to_str().unwrap().to_owned());
        if workload.spec.mode == Mode::Explicit {
            let any =
                |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port + workload.spec.shift).to_string();
            flag("--app", workload.address().to_string());
            flag("--outbound", workload.outbound().to_string());
            flag("--inbound", any(4143));
            flag("--admin", any(4191));
        } else {
            arguments.push("--redirected".to_owned());
        }
        arguments.extend(workload.spec.flags.iter().map(ToString::to_string));
        let processes = self.processes.as_user(PROXY_UID);
        let sidecar = workload.namespace().inside(|| processes.start(&format!("{name} sidecar"), arguments));
        self.workloads.get_mut(name).unwrap().sidecar = Some(sidecar.unwrap());
    }

    /// A file with a join token, for the sidecar's user alone.
    fn token(&self, spec: &Spec) -> String {
        let data = self.directory.path().join("data");
        let mut command = Command::new(SELVEDGE);
        command.args(["token", "create", "--namespace", spec.namespace, "--ttl", "1h"]);
        command.args(["--service-account", &spec.app, "--data-dir"]).arg(data);
        let token = self.control.namespace.expect(&mut command);
        let file = self.directory.path().join(format!("{}.token", spec.name));
        fs::write(&file, token.trim()).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        chown(&file, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        file.to_str().unwrap().to_owned()
    }

    async fn start_control_plane(&mut self) {
        let directory = |name| self.directory.path().join(name).to_str().unwrap().to_owned();
        let (config, data) = (directory("config"), directory("data"));
        let arguments =
            ["control-plane", "--config-dir", &config, "--data-dir", &data, "--exit-on-stdin-close"];
        let namespace = &self.control.namespace;
        let process = namespace.inside(|| self.processes.start("control-plane", arguments)).unwrap();
        let admin = process.listener("admin", START_LIMIT).await.unwrap();
        self.daemon_ready("the control plane is ready", namespace, admin).await;
        self.control_plane = Some(process);
    }

    async fn daemon_ready(&self, what: &str, namespace: &Namespace, admin: SocketAddr) {
        poll(START_LIMIT, what, async || {
            let call = call::to(&admin.to_string(), "/ready");
            match namespace.run(move || call::send(admin, call)).await {
                Ok(answer) if answer.status == StatusCode::OK => Ok(()),
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.text().trim())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in self.processes.logs() {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            eprintln!("--- {name}\n{}", processes::tail(&log));
        }
    }
}

/// Writes a file as a whole: nobody sees a part of it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// Sets the rules in a namespace, with the one capability that it takes.
pub(crate) fn redirect(namespace: &Namespace) {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all", SELVEDGE_INIT]);
    let said = namespace.expect(&mut command);
    assert!(said.contains("verified: a connection to"), "{}: {said}", namespace.name());
}
