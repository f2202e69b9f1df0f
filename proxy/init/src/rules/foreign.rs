//! Other people's rules, as the tools list them.
//!
//! Only those matter that redirect connections to a port of this namespace, as another mesh's do. Docker's
//! resolver and kube-proxy translate to other addresses (`dnat`) and do no harm.

use super::{iptables, nft};

/// Those that we make with iptables.
const OUR_CHAINS: [&str; 3] = [iptables::OUTBOUND, iptables::INBOUND, iptables::STALE];

/// The first foreign rule in what `nft list ruleset` prints that redirects, with its table and chain.
pub fn in_nft(listing: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches('{').trim_end();
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches('{').trim_end();
        } else if table != nft::TABLE && !OUR_CHAINS.contains(&chain) && redirects(line) {
            return Some(format!("table {table}, chain {chain}: {line}"));
        }
    }
    None
}

/// The first foreign rule in what `iptables-save` prints that redirects.
pub fn in_iptables(saved: &str) -> Option<String> {
    let ours = |line: &str| OUR_CHAINS.iter().any(|chain| line.starts_with(&format!("-A {chain} ")));
    let found = saved.lines().find(|line| line.starts_with("-A ") && redirects(line) && !ours(line));
    found.map(str::to_owned)
}

/// Whether the chains that we make with iptables stand in what `nft list ruleset` prints.
pub fn has_our_chains(listing: &str) -> bool {
    listing.contains(&format!("chain {} {{", iptables::OUTBOUND))
}

/// Whether the table that we make with nft stands there.
pub fn has_our_table(listing: &str) -> bool {
    listing
        .lines()
        .any(|line| line.strip_prefix("table ").is_some_and(|name| name.trim_end_matches(" {") == nft::TABLE))
}

/// nft prints `redirect to :15001`, or `xt target "REDIRECT"` for what iptables set; iptables `-j REDIRECT`.
fn redirects(rule: &str) -> bool {
    rule.split([' ', '"']).any(|word| word.eq_ignore_ascii_case("redirect"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISTIO: &str = "*nat\n:OUTPUT ACCEPT [0:0]\n:ISTIO_REDIRECT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\n\
        -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n";
    const DOCKER: &str = "table ip nat {\n\tchain DOCKER_OUTPUT {\n\t\tip daddr 127.0.0.11 tcp dport 53 counter \
        packets 0 bytes 0 dnat to 127.0.0.11:4455\n\t}\n}\n";

    #[test]
    fn another_mesh_is_found_and_dockers_resolver_is_not() {
        let nft =
            "table ip nat {\n\tchain OUTPUT {\n\t\tmeta l4proto tcp counter redirect to :15001\n\t}\n}\n";

        assert_eq!(in_iptables(ISTIO).unwrap(), "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001");
        assert_eq!(
            in_nft(nft).unwrap(),
            "table ip nat, chain OUTPUT: meta l4proto tcp counter redirect to :15001"
        );
        assert_eq!(in_nft(DOCKER), None);
    }

    #[test]
    fn our_own_rules_are_not_foreign() {
        let options = crate::Options::default();

        assert_eq!(in_nft(&nft::set(&options)), None);
        assert_eq!(in_iptables(&iptables::set(&options, iptables::Family::V4, "")), None);
        assert!(has_our_chains("\tchain SELVEDGE_OUTBOUND {\n") && !has_our_chains(DOCKER));
        assert!(has_our_table("table inet selvedge {\n") && !has_our_table(DOCKER));
        // As nft lists what iptables has set.
        let listing = "table ip nat {\n\tchain SELVEDGE_OUTBOUND {\n\t\txt target \"REDIRECT\"\n\t}\n}\n";
        assert_eq!(in_nft(listing), None);
    }
}
