//! Whatever the options, the rules are text that the tools take.

use std::{
    io::Write as _,
    num::NonZeroU16,
    process::{Command, Stdio},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use selvedge_init::{
    Options, PortRange,
    rules::{iptables, iptables::Family, nft},
};
use selvedge_tests::needs::Need;

/// Feeds `text` to a tool in a user and network namespace of its own, so that nothing here is touched and root
/// is not needed. There is one user in it, the proxy's, and one group: a rule may only name those whom
/// the namespace knows.
fn takes(program: &[&str], proxy_uid: u32, proxy_gid: u32, text: &str) -> Result<(), String> {
    let mut command = Command::new("unshare");
    let (user, group) = (format!("--map-user={proxy_uid}"), format!("--map-group={proxy_gid}"));
    command.args(["--user", &user, &group, "--keep-caps", "--net", "--"]).args(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("unshare: {error}"))?;
    child.stdin.take().unwrap().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program:?}: {said}\n{text}")) }
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (port(), port()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    proptest::collection::vec(range, 0..20)
}

fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, n)| Ipv4Net::new(ip.into(), n).unwrap().into());
    let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(ip, n)| Ipv6Net::new(ip.into(), n).unwrap().into());
    proptest::collection::vec(prop_oneof![v4, v6], 0..20)
}

prop_compose! {
    fn options()(
        proxy_uid in 1u32..u32::MAX,
        proxy_gid in proptest::option::of(1u32..u32::MAX),
        (outbound_port, inbound_port, admin_port) in (port(), port(), port()),
        skip_outbound_ports in ports(),
        skip_outbound_networks in networks(),
        skip_inbound_ports in ports(),
        force in any::<bool>(),
    ) -> Options {
        Options {
            proxy_uid, proxy_gid, outbound_port, inbound_port, admin_port,
            skip_outbound_ports, skip_outbound_networks, skip_inbound_ports, force,
        }
    }
}

#[test]
fn the_tools_take_the_rules_whatever_the_options() {
    if ![Need::Nft, Need::Iptables, Need::UserNamespaces].into_iter().all(Need::is_here) {
        return;
    }
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(options in options())| {
        let takes = |program: &[&str], text: &str| takes(program, options.proxy_uid, options.proxy_gid.unwrap_or(1), text);
        takes(&["nft", "-c", "-f", "-"], &nft::set(&options)).unwrap();
        takes(&["iptables-restore", "--noflush"], &iptables::set(&options, Family::V4, "")).unwrap();
        takes(&["ip6tables-restore", "--noflush"], &iptables::set(&options, Family::V6, "")).unwrap();
    });
}
