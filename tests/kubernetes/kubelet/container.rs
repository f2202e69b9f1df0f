//! One container: a process with a root, a user, capabilities and an environment of its own.
//!
//! The root is made by a script that is written out and run by `unshare`, so that it can be read when a test fails.
//! Of the machine it sees its programs and libraries; its `/etc` and all else are its own.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use selvedge_demo::processes::{Process, Processes};
use selvedge_tests::{kubernetes::Api, netns::namespace::Namespace};
use serde_json::Value;

use super::{
    Image,
    environment::{environment, expanded},
    items,
    pod::Facts,
    text,
};

/// What container runtimes leave to root.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
];

/// What a container sees of the machine.
const SHARED: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc"];

/// Where one container's things are.
pub(super) struct Ground<'a> {
    pub(super) api: &'a Api,
    pub(super) processes: &'a Processes,
    pub(super) namespace: &'a Namespace,
    /// The pod's directory: `volumes`, `etc`, and a root for each container.
    pub(super) directory: &'a Path,
}

/// A container that runs, or has run.
pub(crate) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    /// It was told to run beside the others, although it is an init container.
    pub(super) sidecar: bool,
    pub(super) object: Value,
    pub(super) restarts: u32,
    pub(super) ready: bool,
    pub(super) started: bool,
    process: Process,
    /// What runs a program inside it, the program itself left out.
    enter: Vec<String>,
}

impl Container {
    pub(super) async fn start(
        ground: &Ground<'_>,
        pod: &Value,
        facts: &Facts,
        object: &Value,
        images: &[Image],
    ) -> Self {
        let reference = text(&object["image"]);
        let image = images.iter().find(|image| image.is(reference));
        let image = image.unwrap_or_else(|| panic!("no image {reference} for {}", object["name"]));
        let env = environment(ground.api, pod, facts, object, &image.env).await;
        let words = |key: &str| {
            let words: Vec<String> = items(&object[key]).map(|word| expanded(text(word), &env)).collect();
            words
        };
        let (command, arguments) = (words("command"), words("args"));
        let mut run = if command.is_empty() { image.entrypoint.clone() } else { command };
        run.extend(arguments);
        let user = user(pod, object, image);
        let rights = rights(pod, object, user, facts);
        let name = text(&object["name"]).to_owned();
        let root = ground.directory.join("roots").join(&name);
        fs::create_dir_all(&root).unwrap();
        let env: Vec<String> = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let script = script(ground.directory, &root, object, image, &rights, &env, &run);
        let file = ground.directory.join(format!("{name}.sh"));
        fs::write(&file, script).unwrap();
        let arguments =
            ["--mount", "--uts", "--propagation", "private", "--", "/bin/sh", file.to_str().unwrap()];
        let metadata = &pod["metadata"];
        let called = format!("{}_{}_{name}", text(&metadata["namespace"]), text(&metadata["name"]));
        let process = ground.namespace.inside(|| ground.processes.start(&called, arguments)).unwrap();
        let mut enter: Vec<String> = ["nsenter", "--mount", "--uts", "--net", "--root", "--wd", "--target"]
            .map(str::to_owned)
            .to_vec();
        enter.extend([process.pid().to_string(), "--".to_owned()]);
        enter.extend(rights.iter().cloned());
        enter.extend(["/usr/bin/env".to_owned(), "-i".to_owned()]);
        enter.extend(env);
        Self {
            name,
            image: reference.to_owned(),
            sidecar: object["restartPolicy"] == "Always",
            object: object.clone(),
            restarts: 0,
            ready: false,
            started: false,
            process,
            enter,
        }
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// How it ended: none while it runs, and 128 + N if a signal N ended it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.process.exit()?.status;
        Some(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255))
    }

    /// Runs a program in it to its end; says what it printed.
    ///
    /// # Errors
    /// If it fails: everything that it printed.
    pub(crate) async fn exec(&self, program: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new(&self.enter[0]);
        command.args(&self.enter[1..]).args(program).kill_on_drop(true);
        let output = command.output().await.map_err(|error| error.to_string())?;
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        if output.status.success() { Ok(stdout) } else { Err(format!("{}: {stdout}{stderr}", output.status)) }
    }

    /// Runs what is to run before it is told to end, and tells it.
    pub(super) async fn terminate(&self, limit: std::time::Duration) {
        if self.exit_code().is_some() {
            return;
        }
        self.hook("preStop").await;
        let _ = self.process.signal(Signal::TERM);
        if self.process.wait(limit).await.is_err() {
            let _ = self.process.kill().await;
        }
    }

    /// Runs a hook, if there is one, to its end.
    pub(super) async fn hook(&self, name: &str) {
        let program: Vec<&str> =
            items(&self.object["lifecycle"][name]["exec"]["command"]).map(text).collect();
        if !program.is_empty() {
            // A hook that fails is told to people; the container goes on, or ends, all the same.
            let _ = self.exec(&program).await;
        }
    }
}

/// Who the container runs as.
pub(super) fn user(pod: &Value, container: &Value, image: &Image) -> u32 {
    let asked = [&container["securityContext"], &pod["spec"]["securityContext"]];
    let asked = asked.into_iter().find_map(|context| context["runAsUser"].as_u64());
    asked.and_then(|user| u32::try_from(user).ok()).unwrap_or(image.user)
}

/// The words that give up what the container may not have.
fn rights(pod: &Value, container: &Value, user: u32, facts: &Facts) -> Vec<String> {
    let context = &container["securityContext"];
    let contexts = [context, &pod["spec"]["securityContext"]];
    let non_root = contexts.into_iter().find_map(|context| context["runAsNonRoot"].as_bool()) == Some(true);
    assert!(!non_root || user != 0, "{} is not to run as root, and would", container["name"]);
    let group = contexts.into_iter().find_map(|context| context["runAsGroup"].as_u64());
    let group = group.unwrap_or(0);
    let mut capabilities: Vec<String> = DEFAULT_CAPABILITIES.map(str::to_owned).to_vec();
    for dropped in items(&context["capabilities"]["drop"]) {
        let dropped = text(dropped).to_lowercase();
        capabilities.retain(|known| dropped != "all" && *known != dropped);
    }
    capabilities.extend(items(&context["capabilities"]["add"]).map(|added| text(added).to_lowercase()));
    let bounds: String = capabilities.iter().map(|known| format!(",+{known}")).collect();
    let mut words = vec!["/usr/bin/setpriv".to_owned()];
    words.extend([format!("--reuid={user}"), format!("--regid={group}")]);
    words.push(facts.group.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}")));
    if context["privileged"] != true {
        words.extend([format!("--bounding-set=-all{bounds}"), "--inh-caps=-all".to_owned()]);
    }
    if context["allowPrivilegeEscalation"] == false {
        words.push("--no-new-privs".to_owned());
    }
    words
}

fn script(
    directory: &Path,
    root: &Path,
    object: &Value,
    image: &Image,
    rights: &[String],
    env: &[String],
    run: &[String],
) -> String {
    let root = root.display();
    let mut text = format!("set -e\nhostname -F {}/etc/hostname\n", directory.display());
    let _ = writeln!(text, "mount -t tmpfs -o mode=755 tmpfs {root}");
    for path in SHARED {
        if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
            let _ = writeln!(text, "cp -a {path} {root}{path}");
        } else if Path::new(path).exists() {
            let _ = writeln!(text, "mkdir -p {root}{path}; mount --rbind {path} {root}{path}");
        }
    }
    let _ = writeln!(text, "mkdir -m 1777 {root}/tmp; cp -r {}/etc {root}/etc", directory.display());
    let (program, at) = &image.program;
    let _ = writeln!(text, "touch {root}{at}; mount --bind {} {root}{at}", program.display());
    for mount in items(&object["volumeMounts"]) {
        let path = super::text(&mount["mountPath"]);
        let mut from: PathBuf = directory.join("volumes").join(super::text(&mount["name"]));
        if let Some(below) = mount["subPath"].as_str() {
            from.push(below);
        }
        let make = if from.is_file() {
            format!("mkdir -p $(dirname {root}{path}); touch")
        } else {
            "mkdir -p".to_owned()
        };
        let _ = writeln!(text, "{make} {root}{path}; mount --bind {} {root}{path}", from.display());
        if mount["readOnly"] == true {
            let _ = writeln!(text, "mount -o remount,bind,ro {root}{path}");
        }
    }
    if object["securityContext"]["readOnlyRootFilesystem"] == true {
        let _ = writeln!(text, "mount -o remount,ro {root}");
    }
    let directory = object["workingDir"].as_str().unwrap_or("/");
    let words = |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let _ = writeln!(
        text,
        "exec chroot {root} {} --pdeathsig=KILL -- /usr/bin/env -i --chdir={} {} {} </dev/null",
        words(rights),
        quoted(directory),
        words(env),
        words(run),
    );
    text
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What `/etc` says in every container of a pod.
pub(super) fn write_etc(directory: &Path, facts: &Facts, hostname: &str) {
    let etc = directory.join("etc");
    fs::create_dir_all(&etc).unwrap();
    let files = [
        ("passwd", "root:x:0:0:root:/:/bin/sh\n".to_owned()),
        ("group", "root:x:0:\n".to_owned()),
        ("nsswitch.conf", "hosts: files dns\n".to_owned()),
        ("hostname", format!("{hostname}\n")),
        ("hosts", format!("127.0.0.1 localhost\n::1 localhost\n{} {hostname}\n", facts.address)),
        ("resolv.conf", facts.resolv_conf.clone()),
    ];
    for (name, text) in files {
        fs::write(etc.join(name), text).unwrap();
    }
}
