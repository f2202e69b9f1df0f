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

/// Our chain, in the table `filter`, for new connections that the kernel takes for old ones.
pub const STALE: &str = "SELVEDGE_STALE";

/// Our chain for connections that come in.
pub const INBOUND: &str = "SELVEDGE_INBOUND";

/// The rule that leaves alone what is not addressed to this host. Rules without it were set by an older version.
pub const FOR_OTHERS: &str = "-m addrtype ! --dst-type LOCAL -j RETURN";

/// A table, with the rules of its built-in chains that lead into chains of ours.
struct Table {
    name: &'static str,
    /// Whether these rules come before those of others (`-I`) or after them (`-A`).
    place: &'static str,
    /// The rule, without `-A` and its target, and the target.
    jumps: &'static [(&'static str, &'static str)],
}

/// Those in which we have chains.
const TABLES: [Table; 2] = [
    // Docker's resolver has its rules there.
    Table { name: "nat", place: "-A", jumps: &[("OUTPUT -p tcp", OUTBOUND), ("PREROUTING -p tcp", INBOUND)] },
    // A firewall accepts there what it takes for a part of an old connection.
    Table {
        name: "filter",
        place: "-I",
        jumps: &[("OUTPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", STALE)],
    },
];

/// Their names.
pub const TABLE_NAMES: [&str; 2] = [TABLES[0].name, TABLES[1].name];

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

/// Sets our chains again. `saved`: what `iptables-save` prints now of [`TABLE_NAMES`].
pub fn set(options: &Options, family: Family, saved: &str) -> String {
    let Options { proxy_uid, proxy_gid, outbound_port, inbound_port, admin_port, .. } = options;
    let and_group = proxy_gid.map(|gid| format!(" --gid-owner {gid}")).unwrap_or_default();
    let proxys = format!("-m owner --uid-owner {proxy_uid}{and_group}");
    let mut left_alone = vec!["-o lo -j RETURN".to_owned(), format!("{proxys} -j RETURN")];
    for ports in &options.skip_outbound_ports {
        left_alone.push(format!("-p tcp --dport {} -j RETURN", ports.written(':')));
    }
    for network in options.skip_outbound_networks.iter().filter(|network| family.has(network)) {
        left_alone.push(format!("-d {} -j RETURN", network.trunc()));
    }

    let mut outbound = left_alone.clone();
    outbound.push(format!("-p tcp -j REDIRECT --to-ports {outbound_port}"));

    let mut inbound = vec!["-i lo -j RETURN".to_owned(), FOR_OTHERS.to_owned()];
    inbound.push(format!("-p tcp --dport {inbound_port} -j RETURN"));
    inbound.push(format!("-p tcp --dport {admin_port} -j RETURN"));
    for ports in &options.skip_inbound_ports {
        inbound.push(format!("-p tcp --dport {} -j RETURN", ports.written(':')));
    }
    inbound.push(format!("-p tcp -j REDIRECT --to-ports {inbound_port}"));

    let translated = "-m conntrack --ctstate DNAT";
    let reset = "-j REJECT --reject-with tcp-reset";
    let mut stale = vec![format!("{proxys} {translated} -p tcp --dport {outbound_port} {reset}")];
    stale.push(format!("{translated} -j RETURN"));
    stale.extend(left_alone);
    stale.push(format!("-p tcp {reset}"));

    let mut text = String::new();
    for table in TABLES {
        begin(&mut text, &table);
        for (_, chain) in table.jumps {
            let rules = match *chain {
                OUTBOUND => &outbound,
                INBOUND => &inbound,
                _ => &stale,
            };
            for rule in rules {
                writeln!(text, "-A {chain} {rule}").expect(GROWS);
            }
        }
        for (from, chain) in table.jumps {
            if !jumps(saved, from, chain) {
                writeln!(text, "{} {from} -j {chain}", table.place).expect(GROWS);
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Whether our chains are there. `saved`: what `iptables-save` prints now of [`TABLE_NAMES`].
pub fn is_set(saved: &str) -> bool {
    let is_there = |chain| saved.lines().any(|line| line.starts_with(&format!(":{chain} ")));
    TABLES.iter().flat_map(|table| table.jumps).any(|(_, chain)| is_there(chain))
}

/// Removes our chains, whether they are there or not. `saved`: what `iptables-save` prints now of [`TABLE_NAMES`].
pub fn remove(saved: &str) -> String {
    let mut text = String::new();
    for table in TABLES {
        begin(&mut text, &table);
        for (from, chain) in table.jumps {
            if jumps(saved, from, chain) {
                writeln!(text, "-D {from} -j {chain}").expect(GROWS);
            }
            writeln!(text, "-X {chain}").expect(GROWS);
        }
        text.push_str("COMMIT\n");
    }
    text
}

const GROWS: &str = "a String grows";

fn begin(text: &mut String, table: &Table) {
    writeln!(text, "*{}", table.name).expect(GROWS);
    for (_, chain) in table.jumps {
        writeln!(text, ":{chain} - [0:0]").expect(GROWS);
    }
}

fn jumps(saved: &str, from: &str, chain: &str) -> bool {
    let rule = format!("-A {from} -j {chain}");
    saved.lines().any(|line| line.trim_end() == rule)
}
