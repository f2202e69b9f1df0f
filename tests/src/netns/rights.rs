//! The right to make network namespaces: root's, or that of a user namespace of the test's own.

use std::{
    env,
    process::{Command, Stdio},
};

use rustix::thread::{CapabilitySet, capabilities};

/// Set in the environment of a test that runs in a user namespace of its own.
const INSIDE: &str = "SELVEDGE_NETNS_INSIDE";

/// What the tests run and no crate brings along.
const TOOLS: [(&str, &str, &str); 4] = [
    ("ip", "-V", "iproute2"),
    ("nft", "-v", "nftables"),
    ("iptables", "-V", "iptables"),
    ("setpriv", "-V", "util-linux"),
];

/// Runs a test that makes network namespaces, on a runtime of one thread.
///
/// Without root's rights it runs the test again in a user namespace, which needs `newuidmap` and some
/// subordinate ids (`/etc/subuid`). Where that is impossible too, CI fails, and other people are told.
pub fn netns<F: AsyncFnOnce()>(test: F) {
    if let Some(missing) = missing_tool() {
        return refuse(&missing);
    }
    if may_make_namespaces() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(test());
    }
    if env::var_os(INSIDE).is_some() || !user_namespace().arg("true").status().is_ok_and(|s| s.success()) {
        return refuse("neither root's rights nor user namespaces with subordinate ids (package uidmap)");
    }
    // The closure's type is named after the function around it: `netns::scenarios::bridge::{{closure}}`.
    let name = std::any::type_name::<F>();
    let (_crate, name) = name.split_once("::").expect("a path");
    let name = name.trim_end_matches("::{{closure}}");
    let again = user_namespace()
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    print!("{said}");
    assert!(again.status.success() && said.contains("1 passed"), "failed in a user namespace");
}

fn may_make_namespaces() -> bool {
    let wanted = CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

fn user_namespace() -> Command {
    let mut command = Command::new("unshare");
    // The network namespace too, since a thread that leaves it must have a right to come back.
    command.args(["--user", "--map-root-user", "--map-auto", "--net", "--"]).stderr(Stdio::null());
    command
}

fn missing_tool() -> Option<String> {
    TOOLS.into_iter().find_map(|(tool, version, package)| {
        let status = Command::new(tool).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_err().then(|| format!("the tool {tool} (package {package})"))
    })
}

/// Says that a test is not run, for want of this; in CI it fails.
pub fn refuse(missing: &str) {
    assert!(env::var_os("CI").is_none(), "tests of real networks must run in CI; missing here: {missing}");
    println!("not run: tests of real networks need what is missing here: {missing}");
}
