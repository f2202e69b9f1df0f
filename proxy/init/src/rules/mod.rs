//! The rules: a pure function of the options to the text that a tool takes.
//!
//! Six decisions that a reader may question:
//!
//! - What goes out on `lo` is left alone. That is 127.0.0.0/8 and ::1, Docker's resolver at 127.0.0.11 among
//!   them, and also the namespace's own addresses: an app that calls itself stays inside, as with Linkerd and
//!   Istio. What comes in on `lo` was sent from here.
//! - Inbound connections that are not addressed to this host are left alone, as if the rules were not there. Otherwise
//!   a host that uses this one as its next hop could reach, with this host's address, everything that this host may.
//!   Connections that this host forwards for containers or virtual machines are left alone, too. The outbound chain
//!   needs no such rule, because forwarded connections do not pass the output hook.
//! - The proxy is known by its user, and its group if one is named: a mark on its sockets would take a capability that a
//!   sidecar should not have, and its cgroup is not known yet. A proxy that calls its own workload dials its own listener.
//! - The rules live in a table or in chains of their own and are never flushed with anybody else's: Docker's
//!   resolver, for one, has its rules in the same `nat` table.
//! - Only the first packet of a connection meets a NAT rule, so that connections which are there when the rules
//!   come stay as they are. Set the rules before the app starts.
//! - The kernel remembers a connection that was reset for 10 s more, and takes a new one between the same addresses and
//!   ports for it: that meets no NAT rule, and goes where the old one went. The app and its proxy call the same addresses,
//!   so an app's connection could go out past the proxy in plaintext, and a proxy's own come back to it. Where NAT has
//!   not done what our rule says, a new connection is therefore reset at once. Its client dials again, from another port.

pub mod foreign;
pub mod iptables;
pub mod nft;

use std::fmt;

use crate::Options;

/// Who puts rules into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// nftables: one table for IPv4 and IPv6, set in one transaction.
    Nft,
    /// iptables-restore and ip6tables-restore.
    Iptables,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
        })
    }
}

/// All of the rules, for people to read or to feed to the tool by themselves.
pub fn text(options: &Options, tool: Tool) -> String {
    match tool {
        Tool::Nft => nft::set(options),
        Tool::Iptables => iptables::Family::ALL
            .map(|family| {
                let rules = iptables::set(options, family, "");
                format!("# {} --noflush\n{rules}", family.restore())
            })
            .concat(),
    }
}

#[cfg(test)]
mod tests;
