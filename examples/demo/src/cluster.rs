//! A mesh of real processes on loopback addresses: a control plane on a directory of YAML, and workloads.
//!
//! A workload is an app process and its sidecar process, with an address of its own (see [`crate::ground`]) and
//! a join token made by the real command. Nothing here reaches into a process: configuration is edited as
//! files, state is read from admin ports.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use http::StatusCode;
use tempfile::TempDir;

use crate::{
    call::{self, Answer, CallError},
    documents::{self, Entry},
    ground::{Ground, GroundError},
    processes::{self, Exits, Process, ProcessError, Processes},
    wait::{self, TooLate},
    workload::{AppKind, Spec, Workload},
};

/// How long a process may take until it listens, and then until it is ready.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a process may take to finish what is in progress.
const STOP_LIMIT: Duration = Duration::from_secs(35);

/// The control plane's host number on the mesh's subnet; workloads count from the next.
const CONTROL_PLANE_HOST: u8 = 1;

/// What the names of all temporary directories begin with.
pub const DIRECTORY_PREFIX: &str = "selvedge-demo-";

/// Why a mesh cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The temporary directory cannot be made, or a file in it not written.
    #[error("cannot write {}: {source}; TMPDIR chooses another place", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No addresses.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// A process that is not as it should be.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A state that did not come.
    #[error(transparent)]
    TooLate(#[from] TooLate),
    /// An admin port that does not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// `selvedge token create` failed.
    #[error("`selvedge token create` for {workload} ended with {status}: {stderr}")]
    Token {
        /// For whom.
        workload: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// More workloads than a subnet has addresses.
    #[error("a mesh has at most 200 workloads here")]
    Full,
}

/// The control plane's process and where it is.
#[derive(Debug)]
struct ControlPlane {
    process: Option<Process>,
    /// More flags.
    flags: Vec<String>,
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// A mesh of processes. Dropping it kills them all and removes its directory.
#[derive(Debug)]
pub struct Cluster {
    control_plane: ControlPlane,
    workloads: BTreeMap<String, Workload>,
    hosts: u8,
    processes: Processes,
    _janitor: Process,
    // Dropped after the processes that use them.
    directory: TempDir,
    ground: Ground,
}

impl Cluster {
    /// A mesh of nothing: addresses, an empty configuration directory, and who clears up after us.
    ///
    /// `logs`: where the processes' logs go, if they are to outlive the mesh.
    ///
    /// # Errors
    /// If addresses or a directory cannot be had, each with what to do about it.
    pub fn create(binary: &Path, logs: Option<&Path>) -> Result<(Self, Exits), ClusterError> {
        let ground = Ground::claim()?;
        let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).tempdir();
        let directory = directory.map_err(|source| file_error(&std::env::temp_dir(), source))?;
        let logs = logs.map_or_else(|| directory.path().join("logs"), Path::to_owned);
        for path in [&directory.path().join("config"), &logs] {
            fs::create_dir_all(path).map_err(|source| file_error(path, source))?;
        }
        let (processes, exits) = Processes::new(binary, &logs);
        let janitor =
            ["app".as_ref(), "janitor".as_ref(), "--directory".as_ref(), directory.path().as_os_str()];
        let janitor = processes.start("janitor", janitor)?;
        let control_plane = ControlPlane {
            process: None,
            flags: Vec::new(),
            grpc: ground.socket(CONTROL_PLANE_HOST, 8086)?,
            admin: ground.socket(CONTROL_PLANE_HOST, 9990)?,
        };
        let cluster = Self {
            control_plane,
            workloads: BTreeMap::new(),
            hosts: CONTROL_PLANE_HOST,
            processes,
            _janitor: janitor,
            directory,
            ground,
        };
        Ok((cluster, exits))
    }

    /// The addresses.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Where further processes can be started.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The directory of all that this mesh writes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory that the control plane reads.
    pub fn config_dir(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// The directory in which the control plane keeps its CA and its token key.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    // === configuration ===

    /// Writes a configuration file whole, as an editor does: beside it, then renamed onto it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<(), ClusterError> {
        let path = self.config_dir().join(file);
        let beside = path.with_extension("new");
        fs::write(&beside, text).map_err(|source| file_error(&beside, source))?;
        fs::rename(&beside, &path).map_err(|source| file_error(&path, source))
    }

    /// Writes the canary example's files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_canary(&self) -> Result<(), ClusterError> {
        documents::CANARY.iter().try_for_each(|(file, text)| self.write(file, text))
    }

    /// Edits a configuration file.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn edit(&self, file: &str, edit: impl FnOnce(&str) -> String) -> Result<(), ClusterError> {
        let path = self.config_dir().join(file);
        let text = fs::read_to_string(&path).map_err(|source| file_error(&path, source))?;
        self.write(file, &edit(&text))
    }

    /// Deletes a configuration file.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub fn remove(&self, file: &str) -> Result<(), ClusterError> {
        let path = self.config_dir().join(file);
        fs::remove_file(&path).map_err(|source| file_error(&path, source))
    }

    // === control plane ===

    /// Gives the control plane one more flag, from its next start on.
    pub fn control_plane_flag(&mut self, name: &str, value: &str) {
        self.control_plane.flags.extend([name.to_owned(), value.to_owned()]);
    }

    /// Starts the control plane, where it was before if it ran before.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn start_control_plane(&mut self) -> Result<(), ClusterError> {
        let mut arguments = flags(&[
            ("--listen", self.control_plane.grpc.to_string()),
            ("--admin", self.control_plane.admin.to_string()),
            ("--config-dir", self.config_dir().display().to_string()),
            ("--data-dir", self.data_dir().display().to_string()),
        ]);
        arguments.insert(0, "control-plane".to_owned());
        arguments.push("--exit-on-stdin-close".to_owned());
        arguments.extend(self.control_plane.flags.iter().cloned());
        let process = self.processes.start("control-plane", arguments)?;
        let process = self.control_plane.process.insert(process);
        process.listener("grpc", START_LIMIT).await?;
        process.listener("admin", START_LIMIT).await?;
        let admin = self.control_plane.admin;
        let ready = ready("the control plane", admin);
        while_alive(self.control_plane.process.as_ref(), ready).await
    }

    /// Kills the control plane without warning.
    ///
    /// # Errors
    /// If it does not die.
    pub async fn kill_control_plane(&mut self) -> Result<(), ClusterError> {
        if let Some(process) = self.control_plane.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// The control plane's process, while there is one.
    pub fn control_plane_process(&self) -> Option<&Process> {
        self.control_plane.process.as_ref()
    }

    /// Where proxies connect to the control plane.
    pub fn control_plane_address(&self) -> SocketAddr {
        self.control_plane.grpc
    }

    /// Where its admin port is.
    pub fn control_plane_admin_address(&self) -> SocketAddr {
        self.control_plane.admin
    }

    /// What the control plane's admin port says at `path`.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn control_plane_admin(&self, path: &str) -> Result<Answer, CallError> {
        let admin = self.control_plane.admin;
        call::send(admin, call::to(&admin.to_string(), path)).await
    }

    /// A join token, from `selvedge token create`.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn token(&self, service_account: &str, ttl: &str) -> Result<String, ClusterError> {
        self.token_with(service_account, &["--ttl", ttl]).await
    }

    /// The same with these flags.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn token_with(&self, service_account: &str, flags: &[&str]) -> Result<String, ClusterError> {
        self.token_in("default", service_account, flags).await
    }

    async fn token_in(
        &self,
        namespace: &str,
        service_account: &str,
        flags: &[&str],
    ) -> Result<String, ClusterError> {
        let mut command = self.processes.command();
        command.args(["token", "create", "--namespace", namespace, "--service-account", service_account]);
        command.args(flags).arg("--data-dir").arg(self.data_dir());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(|source| ProcessError::Start {
            name: "token create".to_owned(),
            binary: self.processes.binary().to_owned(),
            source,
        })?;
        if !output.status.success() {
            return Err(ClusterError::Token {
                workload: service_account.to_owned(),
                status: output.status,
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    // === workloads ===

    /// Adds workloads: entries first, then all processes, then waits until each is ready.
    ///
    /// # Errors
    /// If one cannot be started or is not ready in time.
    pub async fn add(&mut self, specs: impl IntoIterator<Item = Spec>) -> Result<(), ClusterError> {
        let mut names = Vec::new();
        for spec in specs {
            names.push(spec.name.clone());
            self.place(spec)?;
        }
        for name in &names {
            self.start_app(name)?;
            self.start_sidecar(name).await?;
        }
        for name in &names {
            self.app_listens(name).await?;
            self.sidecar_ready(name).await?;
        }
        Ok(())
    }

    /// Gives a workload its addresses and writes its `WorkloadEntry`; starts nothing.
    ///
    /// # Errors
    /// If there is no address, or the entry cannot be written.
    pub fn place(&mut self, spec: Spec) -> Result<(), ClusterError> {
        self.hosts += 1;
        let host = self.hosts;
        if host > 200 {
            return Err(ClusterError::Full);
        }
        let workload = Workload {
            app: self.ground.socket(host, spec.port)?,
            outbound: self.ground.socket(host, 4140)?,
            inbound: self.ground.socket(host, 4143)?,
            admin: self.ground.socket(host, 4191)?,
            app_process: None,
            sidecar_process: None,
            spec,
        };
        let entry = Entry {
            name: &workload.spec.name,
            namespace: workload.spec.namespace,
            service_account: &workload.spec.service_account,
            labels: &workload.spec.labels,
            app: workload.app,
            inbound: workload.spec.sidecar.then_some(workload.inbound),
        };
        self.write(&entry_file(&workload.spec.name), &documents::workload_entry(&entry))?;
        self.workloads.insert(workload.spec.name.clone(), workload);
        Ok(())
    }

    /// The workload `name`.
    ///
    /// # Panics
    /// If there is none; names are our callers' own.
    pub fn workload(&self, name: &str) -> &Workload {
        self.workloads.get(name).unwrap_or_else(|| panic!("no workload {name} was placed"))
    }

    fn workload_mut(&mut self, name: &str) -> &mut Workload {
        self.workloads.get_mut(name).unwrap_or_else(|| panic!("no workload {name} was placed"))
    }

    /// All workloads.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values()
    }

    /// Starts a workload's app, where it was before if it ran before.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_app(&mut self, name: &str) -> Result<(), ClusterError> {
        let workload = self.workload(name);
        let kind = match &workload.spec.app {
            AppKind::None => return Ok(()),
            AppKind::Reviews(version) => vec!["reviews".to_owned(), "--version".to_owned(), version.clone()],
            AppKind::Frontend => {
                vec!["frontend".to_owned(), "--outbound".to_owned(), workload.outbound.to_string()]
            }
            AppKind::Grpc => vec!["grpc".to_owned()],
        };
        let mut arguments = vec!["app".to_owned()];
        arguments.extend(kind);
        arguments.extend(flags(&[("--name", name.to_owned()), ("--listen", workload.app.to_string())]));
        arguments.push("--exit-on-stdin-close".to_owned());
        let process = self.processes.start(&app_name(name), arguments)?;
        self.workload_mut(name).app_process = Some(process);
        Ok(())
    }

    /// Tells a workload's app to end, and waits until it has finished what is in progress.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn stop_app(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(process) = self.workload_mut(name).app_process.take() {
            process.terminate(STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// Waits until a workload's app listens.
    ///
    /// # Errors
    /// If it does not.
    pub async fn app_listens(&self, name: &str) -> Result<(), ClusterError> {
        if let Some(process) = self.workload(name).app_process() {
            process.listener("app", START_LIMIT).await?;
        }
        Ok(())
    }

    /// Kills a workload's app without warning.
    ///
    /// # Errors
    /// If it does not die.
    pub async fn kill_app(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(process) = self.workload_mut(name).app_process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Starts a workload's sidecar with a new join token; does nothing if it is to have none.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_sidecar(&mut self, name: &str) -> Result<(), ClusterError> {
        if !self.workload(name).spec.sidecar {
            return Ok(());
        }
        let spec = &self.workload(name).spec;
        let token = self.token_in(spec.namespace, &spec.service_account, &["--ttl", "1h"]).await?;
        self.start_sidecar_with(name, &token)
    }

    /// Starts a workload's sidecar with this join token.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_sidecar_with(&mut self, name: &str, token: &str) -> Result<(), ClusterError> {
        // A file, because command lines can be read by everyone on the host.
        let token_file = self.directory().join(format!("{name}.token"));
        write_secret(&token_file, token).map_err(|source| file_error(&token_file, source))?;
        let workload = self.workload(name);
        let usual = [
            ("--workload", format!("{}/{name}", workload.spec.namespace)),
            ("--control-plane", self.control_plane.grpc.to_string()),
            ("--token-file", token_file.display().to_string()),
            ("--app", workload.app.to_string()),
            ("--outbound", workload.outbound.to_string()),
            ("--inbound", workload.inbound.to_string()),
            ("--admin", workload.admin.to_string()),
            // Nobody looks at `/ready` to balance load here, so that nothing is won by leaving later.
            ("--drain-delay", "0s".to_owned()),
        ];
        let own = &workload.spec.flags;
        let usual = usual.into_iter().filter(|(flag, _)| own.iter().all(|other| other != flag));
        let mut arguments = vec!["proxy".to_owned()];
        arguments.extend(flags(&usual.collect::<Vec<_>>()));
        arguments.push("--exit-on-stdin-close".to_owned());
        arguments.extend_from_slice(own);
        let process = self.processes.start(&sidecar_name(name), arguments)?;
        self.workload_mut(name).sidecar_process = Some(process);
        Ok(())
    }

    /// Waits until a workload's sidecar has its certificate and its policy.
    ///
    /// # Errors
    /// If it does not get them in time.
    pub async fn sidecar_ready(&self, name: &str) -> Result<(), ClusterError> {
        let workload = self.workload(name);
        let Some(process) = workload.sidecar_process() else { return Ok(()) };
        for listener in ["outbound", "inbound", "admin"] {
            process.listener(listener, START_LIMIT).await?;
        }
        while_alive(Some(process), ready(&sidecar_name(name), workload.admin)).await
    }

    /// Ends a workload's sidecar gracefully, and starts it again with other flags.
    ///
    /// # Errors
    /// If it does not end, or is not ready again in time.
    pub async fn restart_sidecar(&mut self, name: &str, flags: &[(&str, &str)]) -> Result<(), ClusterError> {
        self.stop_sidecar(name).await?;
        let flags = flags.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned);
        self.workload_mut(name).spec.flags = flags.collect();
        self.start_sidecar(name).await?;
        self.sidecar_ready(name).await
    }

    /// Kills a workload's sidecar without warning.
    ///
    /// # Errors
    /// If it does not die.
    pub async fn kill_sidecar(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(process) = self.workload_mut(name).sidecar_process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Ends a workload's sidecar gracefully.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn stop_sidecar(&mut self, name: &str) -> Result<(), ClusterError> {
        if let Some(process) = self.workload_mut(name).sidecar_process.take() {
            process.terminate(STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// The ends of all processes' logs.
    pub fn log_tails(&self) -> String {
        let mut text = String::new();
        for log in self.processes.logs() {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            text.push_str(&format!("--- {name}\n{}\n", processes::tail(&log)));
        }
        text
    }

    /// The first line of each panic that a process' log tells of, with the process' name.
    pub fn panics(&self) -> Vec<String> {
        let logs = self.processes.logs();
        let lines = logs.iter().filter_map(|log| {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = String::from_utf8_lossy(&std::fs::read(log).ok()?).into_owned();
            let line =
                text.lines().find(|line| line.starts_with("thread '") && line.contains("panicked at"))?;
            Some(format!("{name}: {line}"))
        });
        lines.collect()
    }

    /// The name and process id of everything that runs.
    pub fn running(&self) -> Vec<(String, u32)> {
        let workloads = self.workloads.values().flat_map(|w| [w.app_process(), w.sidecar_process()]);
        let all = workloads.chain([self.control_plane_process()]).flatten();
        all.map(|process| (process.name().to_owned(), process.pid())).collect()
    }
}

/// The file of a workload's `WorkloadEntry` in the configuration directory.
pub fn entry_file(workload: &str) -> String {
    format!("workload-{workload}.yaml")
}

/// What the process of a workload's app is called.
pub fn app_name(workload: &str) -> String {
    format!("{workload} app")
}

/// What the process of a workload's sidecar is called.
pub fn sidecar_name(workload: &str) -> String {
    format!("{workload} sidecar")
}

/// Waits until an admin port says that its daemon is ready.
async fn ready(name: &str, admin: SocketAddr) -> Result<(), TooLate> {
    wait::until(START_LIMIT, &format!("{name} is ready"), async || {
        match call::send(admin, call::to(&admin.to_string(), "/ready")).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status, answer.text().trim())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// Waits for `state`, unless the process ends, which says more than that the state did not come.
async fn while_alive(
    process: Option<&Process>,
    state: impl Future<Output = Result<(), TooLate>>,
) -> Result<(), ClusterError> {
    let Some(process) = process else { return Ok(state.await?) };
    tokio::select! {
        biased;
        Ok(_) = process.wait(START_LIMIT * 2) => match process.exit() {
            Some(exit) => Err(ProcessError::from(exit).into()),
            None => Ok(()),
        },
        outcome = state => Ok(outcome?),
    }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect()
}

fn file_error(path: &Path, source: io::Error) -> ClusterError {
    ClusterError::File { path: path.to_owned(), source }
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mesh_leaves_no_directory_behind() {
        // `/bin/cat` stands in for the binary: it does not know these arguments and ends at once.
        let (cluster, mut exits) = Cluster::create(Path::new("/bin/cat"), None).unwrap();
        let directory = cluster.directory().to_owned();
        cluster.write_canary().unwrap();
        cluster.edit("virtualservice.yaml", |text| text.replace("weight: 90", "weight: 50")).unwrap();
        let edited = fs::read_to_string(directory.join("config/virtualservice.yaml")).unwrap();
        assert!(edited.contains("weight: 50") && !edited.contains("weight: 90"));

        let exit = tokio::time::timeout(START_LIMIT, exits.next()).await.unwrap();
        assert_eq!(exit.name, "janitor");
        drop(cluster);

        assert!(!directory.exists());
    }
}
