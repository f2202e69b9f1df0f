//! The scripts that start the canary in containers, where something that they need is missing: one clear message, with
//! the remedy, and nothing done. The real thing is run by `examples/canary/verify`.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// What the scripts run and every Linux has.
const EVERYWHERE: &[&str] = &[
    "bash", "cat", "chmod", "cp", "cut", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sed", "seq",
    "sleep", "tail", "tee",
];

/// A daemon that answers to everything and has everything.
const DAEMON: &str = "case $1 in info) echo linux ;; esac";

/// What Docker's own client says without one.
const NO_DAEMON: &str = "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1";

/// A PATH of a test's own, with nothing in it but what scripts can count on.
struct Machine {
    path: TempDir,
}

impl Machine {
    fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        for name in EVERYWHERE {
            let found = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(name));
            let found = found.into_iter().find(|found| found.exists());
            symlink(found.unwrap_or_else(|| panic!("{name} is not there")), path.path().join(name)).unwrap();
        }
        Self { path }
    }

    /// With a program that does this.
    fn with(self, name: &str, script: &str) -> Self {
        let program = self.path.path().join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// What a script says that must fail; on standard error, and in one line.
    fn fails(&self, script: &str) -> String {
        let output = Command::new("/bin/bash")
            .arg(root().join(script))
            .env("PATH", self.path.path())
            .env("CANARY_BUILD", "no")
            .env("TMPDIR", self.path.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{script}: {said}");
        assert_eq!(said.lines().count(), 1, "{script}: one message, and no more:\n{said}");
        said
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Both of those that people start the canary with.
const STARTS: [&str; 2] = ["examples/canary/up", "examples/canary/verify"];

/// Whoever gets into one sidecar is not to find what another could be with.
#[test]
fn each_sidecar_of_the_canary_is_given_its_own_token_and_no_other() {
    let compose = fs::read_to_string(root().join("examples/canary/compose.yaml")).unwrap();
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, volumes) = services.split_once("\nvolumes:\n").unwrap();
    let mut sidecars = 0;
    for lines in services.split("-proxy:\n").collect::<Vec<_>>().windows(2) {
        let name = lines[0].lines().last().unwrap().trim();
        let service = lines[1].split("depends_on").next().unwrap();
        assert!(service.contains(&format!("volumes: [\"token-{name}:/token:ro\"]")), "{name}: {service}");
        assert_eq!(service.matches("token-").count(), 1, "{name}: {service}");
        assert!(services.contains(&format!("token-{name}:/tokens/default/{name}\n")), "{name}");
        assert!(volumes.contains(&format!("  token-{name}: ")), "{name}");
        sidecars += 1;
    }
    assert_eq!(sidecars, 3);
    // Nor does what all sidecars have in common mount anything.
    let (_, common) = compose.split_once("x-proxy: &proxy\n").unwrap();
    assert!(!common.split("\n\n").next().unwrap().contains("volumes"));
}

#[test]
fn without_docker_it_is_said_what_to_install() {
    for script in STARTS {
        let said = Machine::new().fails(script);
        assert!(said.contains("Docker is not installed: apt-get install"), "{script}: {said}");
    }
    let said = Machine::new().with("cargo", "").fails("deploy/docker/build");
    assert!(said.contains("docker is not installed: apt-get install"), "{said}");
}

#[test]
fn without_a_daemon_it_is_said_how_to_start_one_and_what_docker_says() {
    let machine = Machine::new().with("docker", NO_DAEMON).with("cargo", "").with("curl", "").with("nft", "");
    for script in ["examples/canary/up", "examples/canary/verify", "deploy/docker/build"] {
        let said = machine.fails(script);
        for words in ["no Docker daemon answers", "systemctl start docker", "docker.sock"] {
            assert!(said.contains(words), "{script}: {said}");
        }
    }
}

#[test]
fn without_what_images_are_built_with_it_is_said_what_to_install() {
    let machine = Machine::new().with("docker", DAEMON);
    let said = machine.fails("deploy/docker/build");
    assert!(said.contains("cargo is not installed") && said.contains("rustup"), "{said}");
    if !["/usr/sbin/nft", "/sbin/nft"].iter().any(|nft| Path::new(nft).exists()) {
        let said = machine.with("cargo", "").fails("deploy/docker/build");
        assert!(said.contains("nft") && said.contains("apt-get install nftables"), "{said}");
    }
}

#[test]
fn without_compose_or_curl_or_the_images_it_is_said_which() {
    let no_compose = "case $1 in info) ;; *) exit 1 ;; esac";
    let no_images = "case $1 in image) exit 1 ;; esac";
    for script in STARTS {
        let said = Machine::new().with("docker", no_compose).with("curl", "").fails(script);
        assert!(said.contains("apt-get install docker-compose"), "{script}: {said}");

        let said = Machine::new().with("docker", DAEMON).fails(script);
        assert!(said.contains("apt-get install curl"), "{script}: {said}");

        let said = Machine::new().with("docker", no_images).with("curl", "").fails(script);
        assert!(
            said.contains("no image selvedge:dev") && said.contains("CANARY_BUILD=no"),
            "{script}: {said}"
        );
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_to_take_another() {
    let taken = "case \"$*\" in *' up '*) echo 'Bind for 127.0.0.1:8080 failed: port is already allocated'; exit 1 ;; esac";
    for script in STARTS {
        let said = Machine::new().with("docker", taken).with("curl", "").fails(script);
        assert!(said.contains("port 8080") && said.contains("CANARY_PORT=8081"), "{script}: {said}");
    }
}
