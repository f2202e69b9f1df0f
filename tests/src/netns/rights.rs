//! The right to make network namespaces: root's, or that of a user namespace of the test's own.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::thread::{CapabilitySet, capabilities};

use crate::needs::{Need, left_out};

/// Set in the environment of a test that runs in a user namespace of its own.
const INSIDE: &str = "SELVEDGE_NETNS_INSIDE";

/// What the tests run, and no crate brings along.
const TOOLS: [Need; 4] = [Need::Ip, Need::Nft, Need::Iptables, Need::Setpriv];

/// Runs a test that makes network namespaces, on a runtime of one thread.
///
/// Without root's rights it runs the test again in a user namespace, which needs `newuidmap` and some
/// subordinate ids (`/etc/subuid`). Where that is impossible too, the test is left out: see [`Need::leave_out`].
pub fn netns<F: AsyncFnOnce()>(test: F) {
    if !TOOLS.into_iter().all(Need::is_here) {
        return;
    }
    if may_make_namespaces() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(test());
    }
    if env::var_os(INSIDE).is_some() || found().is_none() {
        return Need::Namespaces.leave_out();
    }
    // The closure's type is named after the function around it: `netns::scenarios::bridge::{{closure}}`.
    let name = std::any::type_name::<F>();
    let (_crate, name) = name.split_once("::").expect("a path");
    let name = name.trim_end_matches("::{{closure}}");
    let again = user_namespace()
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .env(left_out::RUN, left_out::run())
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

/// What gives us the right to make namespaces: our own rights, or the program that makes a user namespace with them.
pub(crate) fn found() -> Option<PathBuf> {
    let mut inside = user_namespace();
    let right = may_make_namespaces() || inside.arg("true").status().is_ok_and(|status| status.success());
    right.then(|| inside.get_program().into())
}

/// The program that makes a user namespace for one user, if it may.
pub(crate) fn user_namespaces() -> Option<PathBuf> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--net", "true"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success()).then(|| command.get_program().into())
}

fn user_namespace() -> Command {
    let mut command = Command::new("unshare");
    // The network namespace too, since a thread that leaves it must have a right to come back.
    command.args(["--user", "--map-root-user", "--map-auto", "--net", "--"]).stderr(Stdio::null());
    command
}
