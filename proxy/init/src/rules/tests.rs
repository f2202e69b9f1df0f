//! The text itself, byte for byte. That the tools take it, whatever the options, is tested in tests/netns.

use std::num::NonZeroU16;

use super::*;
use iptables::Family;

fn busy() -> Options {
    Options {
        proxy_uid: 1500,
        proxy_gid: Some(31234),
        outbound_port: NonZeroU16::new(5000).unwrap(),
        skip_outbound_ports: vec!["25".parse().unwrap(), "8000-8010".parse().unwrap()],
        skip_outbound_networks: vec!["10.1.2.3/8".parse().unwrap(), "fd00::1/64".parse().unwrap()],
        skip_inbound_ports: vec!["22".parse().unwrap(), "9000-9001".parse().unwrap()],
        ..Options::default()
    }
}

#[test]
fn the_rules_are_these() {
    assert_eq!(text(&Options::default(), Tool::Nft), include_str!("expected/default.nft"));
    assert_eq!(text(&Options::default(), Tool::Iptables), include_str!("expected/default.iptables"));
    assert_eq!(text(&busy(), Tool::Nft), include_str!("expected/skipping.nft"));
    assert_eq!(text(&busy(), Tool::Iptables), include_str!("expected/skipping.iptables"));
}

#[test]
fn iptables_jumps_are_written_once_and_removed_if_they_are_there() {
    let there = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -j SELVEDGE_OUTBOUND\n\
                 -A PREROUTING -p tcp -j SELVEDGE_INBOUND\nCOMMIT\n*filter\n\
                 -A OUTPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j SELVEDGE_STALE\nCOMMIT\n";

    let again = iptables::set(&Options::default(), Family::V4, there);
    assert!(
        !again.contains("-A OUTPUT") && !again.contains("-I OUTPUT") && !again.contains("-A PREROUTING"),
        "{again}"
    );
    let remove = iptables::remove(there);
    assert!(remove.contains("-D OUTPUT -p tcp -j SELVEDGE_OUTBOUND\n-X SELVEDGE_OUTBOUND\n"), "{remove}");
    assert!(!iptables::remove("").contains("-D "));
}
