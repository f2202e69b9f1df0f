//! The rules as iptables has them, for `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! With `--noflush` a line `:CHAIN - [0:0]` makes or empties a chain of that name and touches no other. The jump
//! into our chain is the one rule that stands among other people's, and iptables would add it again each time:
//! so it is written only if it is not there yet.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::Options;

/// Our chain for connections that leave.
pub const OUTBOUND: &str = "SELVEDGE_OUTBOUND";

/// Our chain for connections that come in.
pub const INBOUND: &str = "SELVEDGE_INBOUND";

/// The rule that leaves alone what is not addressed to this host. Rules without it were set by an older version.
pub const FOR_OTHERS: &str = "-m addrtype ! --dst-type LOCAL -j RETURN";

/// Where the built-in chains lead into ours.
const JUMPS: [(&str, &str); 2] = [("OUTPUT", OUTBOUND), ("PREROUTING", INBOUND)];

/// iptables has one program for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `iptables`
    V4,
    /// `ip6tables`
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The program that takes the text of [`set`] and [`remove`].
    pub fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    /// The program that prints what is there.
    pub fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }

    fn has(self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(_) => self == Self::V4,
            IpNet::V6(_) => self == Self::V6,
        }
    }
}

/// Sets our chains again. `saved`: what `iptables-save -t nat` prints now.
pub fn set(options: &Options, family: Family, saved: &str) -> String {
    let mut text = beginning();
    let Options { proxy_uid, proxy_gid, outbound_port, inbound_port, admin_port, .. } = options;
    let and_group = proxy_gid.map(|gid| format!("--gid-owner {gid} ")).unwrap_or_default();
    let mut outbound = |rule: &str| writeln!(text, "-A {OUTBOUND} {rule}").expect(GROWS);
    outbound("-o lo -j RETURN");
    outbound(&format!("-m owner --uid-owner {proxy_uid} {and_group}-j RETURN"));
    for ports in &options.skip_outbound_ports {
        outbound(&format!("-p tcp --dport {} -j RETURN", ports.written(':')));
    }
    for network in options.skip_outbound_networks.iter().filter(|network| family.has(network)) {
        outbound(&format!("-d {} -j RETURN", network.trunc()));
    }
    outbound(&format!("-p tcp -j REDIRECT --to-ports {outbound_port}"));

    let mut inbound = |rule: &str| writeln!(text, "-A {INBOUND} {rule}").expect(GROWS);
    inbound("-i lo -j RETURN");
    inbound(FOR_OTHERS);
    inbound(&format!("-p tcp --dport {inbound_port} -j RETURN"));
    inbound(&format!("-p tcp --dport {admin_port} -j RETURN"));
    for ports in &options.skip_inbound_ports {
        inbound(&format!("-p tcp --dport {} -j RETURN", ports.written(':')));
    }
    inbound(&format!("-p tcp -j REDIRECT --to-ports {inbound_port}"));

    for (hook, chain) in JUMPS {
        if !jumps(saved, hook, chain) {
            writeln!(text, "-A {}", jump(hook, chain)).expect(GROWS);
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// Whether our chains are there. `saved`: what `iptables-save -t nat` prints now.
pub fn is_set(saved: &str) -> bool {
    JUMPS.iter().any(|(_, chain)| saved.lines().any(|line| line.starts_with(&format!(":{chain} "))))
}

/// Removes our chains, whether they are there or not. `saved`: what `iptables-save -t nat` prints now.
pub fn remove(saved: &str) -> String {
    let mut text = beginning();
    for (hook, chain) in JUMPS {
        if jumps(saved, hook, chain) {
            writeln!(text, "-D {}", jump(hook, chain)).expect(GROWS);
        }
        writeln!(text, "-X {chain}").expect(GROWS);
    }
    text.push_str("COMMIT\n");
    text
}

const GROWS: &str = "a String grows";

fn beginning() -> String {
    format!("*nat\n:{OUTBOUND} - [0:0]\n:{INBOUND} - [0:0]\n")
}

fn jump(hook: &str, chain: &str) -> String {
    format!("{hook} -p tcp -j {chain}")
}

fn jumps(saved: &str, hook: &str, chain: &str) -> bool {
    let rule = format!("-A {}", jump(hook, chain));
    saved.lines().any(|line| line.trim_end() == rule)
}
