//! The rules as nftables has them, for `nft -f -`.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::Options;

/// Our table. Nobody else writes into it, so that it can be replaced and removed as a whole.
pub const TABLE: &str = "inet selvedge";

/// The rule that leaves alone what is not addressed to this host. Rules without it were set by an older version.
pub const FOR_OTHERS: &str = "fib daddr type != local return";

/// Replaces our table, in one transaction: declared first, so that there is always one to delete.
pub fn set(options: &Options) -> String {
    let mut text = remove();
    let Options { proxy_uid, proxy_gid, outbound_port, inbound_port, admin_port, .. } = options;
    let and_group = proxy_gid.map(|gid| format!("meta skgid {gid} ")).unwrap_or_default();
    writeln!(text, "table {TABLE} {{").expect(GROWS);

    // The priority -100 is that of iptables' nat table; its name, dstnat, is not known at the output hook.
    let left_alone = |text: &mut String| {
        rule(text, "oifname \"lo\" return");
        rule(text, &format!("meta skuid {proxy_uid} {and_group}return"));
        for ports in &options.skip_outbound_ports {
            rule(text, &format!("tcp dport {ports} return"));
        }
        for network in &options.skip_outbound_networks {
            rule(text, &format!("{} daddr {} return", family(network), network.trunc()));
        }
    };
    chain(&mut text, "outbound", "nat hook output priority -100", |text| {
        left_alone(text);
        rule(text, &format!("meta l4proto tcp redirect to :{outbound_port}"));
    });
    chain(&mut text, "stale", "filter hook output priority 0", |text| {
        rule(text, "tcp flags & (fin | syn | rst | ack) != syn return");
        let proxys = format!("meta skuid {proxy_uid} {and_group}");
        rule(text, &format!("{proxys}ct status dnat tcp dport {outbound_port} reject with tcp reset"));
        rule(text, "ct status dnat return");
        left_alone(text);
        rule(text, "meta l4proto tcp reject with tcp reset");
    });
    chain(&mut text, "inbound", "nat hook prerouting priority -100", |text| {
        rule(text, "iifname \"lo\" return");
        rule(text, FOR_OTHERS);
        rule(text, &format!("tcp dport {inbound_port} return"));
        rule(text, &format!("tcp dport {admin_port} return"));
        for ports in &options.skip_inbound_ports {
            rule(text, &format!("tcp dport {ports} return"));
        }
        rule(text, &format!("meta l4proto tcp redirect to :{inbound_port}"));
    });

    text.push_str("}\n");
    text
}

/// Removes our table, whether it is there or not.
pub fn remove() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

const GROWS: &str = "a String grows";

fn chain(text: &mut String, name: &str, place: &str, rules: impl FnOnce(&mut String)) {
    writeln!(text, "\tchain {name} {{").expect(GROWS);
    rule(text, &format!("type {place}; policy accept;"));
    rules(text);
    text.push_str("\t}\n");
}

fn rule(text: &mut String, rule: &str) {
    writeln!(text, "\t\t{rule}").expect(GROWS);
}

fn family(network: &IpNet) -> &'static str {
    match network {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}
