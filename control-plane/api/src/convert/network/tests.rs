use std::net::{IpAddr, SocketAddr};

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn set() -> impl Strategy<Value = SetRef> {
    ("[a-f0-9]{1,8}", 1..=MOST_PARTS).prop_map(|(id, parts)| {
        let name = SetName { id: id.into(), parts };
        SetRef { name, members: None }
    })
}

fn addresses() -> impl Strategy<Value = AddressSet> {
    vec(any::<IpAddr>().prop_map(|address| address.to_canonical().into()), 0..4).prop_map(AddressSet::new)
}

fn condition() -> impl Strategy<Value = NetworkCondition> {
    let peers = prop_oneof![
        set().prop_map(Peers::Set),
        (addresses(), addresses()).prop_map(|(within, except)| Peers::Block { within, except }),
    ];
    let ports = (vec((1..=u16::MAX, 1..=u16::MAX), 0..3), vec(set(), 0..3))
        .prop_map(|(ranges, named)| Ports { ranges, named });
    let asks = prop_oneof![
        vec(peers, 0..3).prop_map(NetworkAsks::Peer),
        ports.prop_map(NetworkAsks::Port),
        addresses().prop_map(NetworkAsks::OwnAddress),
        Just(NetworkAsks::Unknowable),
    ];
    (asks, any::<bool>()).prop_map(|(asks, negated)| NetworkCondition { asks, negated })
}

fn rule() -> impl Strategy<Value = NetworkRule> {
    let action = prop_oneof![
        Just(NetworkAction::Allow),
        Just(NetworkAction::Deny),
        Just(NetworkAction::Log),
        Just(NetworkAction::Pass),
    ];
    ("[a-z ]{1,9}", action, vec(condition(), 0..3)).prop_map(|(name, action, conditions)| NetworkRule {
        name: name.into(),
        action,
        conditions,
    })
}

/// It has a policy, as every tier that is sent.
fn tier() -> impl Strategy<Value = NetworkTier> {
    let otherwise = prop_oneof![Just(EndOfTier::Deny), Just(EndOfTier::Pass)];
    (vec(rule(), 0..4), vec("[a-z]{1,4}".prop_map(Arc::from), 1..3), otherwise)
        .prop_map(|(rules, policies, otherwise)| NetworkTier { rules, policies, otherwise })
}

fn identity() -> impl Strategy<Value = selvedge_model::SpiffeId> {
    "[a-z]{1,4}".prop_map(|name| format!("spiffe://td/ns/a/sa/{name}").parse().unwrap())
}

fn member() -> impl Strategy<Value = Member> {
    let addresses = || proptest::collection::btree_set(any::<IpAddr>(), 0..3);
    let sockets = proptest::collection::btree_set(any::<SocketAddr>().prop_map(plain), 0..3);
    (option::of(identity()), any::<bool>(), addresses(), addresses(), sockets, any::<bool>()).prop_map(
        |(identity, shares_identity, addresses, shared, sockets, is_named)| Member {
            identity,
            shares_identity,
            addresses,
            shared,
            sockets,
            is_named,
        },
    )
}

/// Without a flow and a scope, which no document can say.
fn plain(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip(), socket.port())
}

proptest! {
    #[test]
    fn rules_are_read_as_they_were_written(tiers in vec(tier(), 0..3), itself in option::of(identity())) {
        let rules = NetworkRules::new(tiers, itself);

        prop_assert_eq!(NetworkRules::try_from(wire::NetworkRules::from(&rules)).unwrap(), rules);
    }

    #[test]
    fn a_proxy_that_knows_of_no_tiers_refuses_everything_where_there_are_some(
        first in tier(), second in tier(),
    ) {
        let otherwise = EndOfTier::Pass;
        for tiers in [vec![first.clone(), second], vec![NetworkTier { otherwise, ..first }]] {
            let policies: usize = tiers.iter().map(|tier| tier.policies.len()).sum();
            let sent = wire::NetworkRules::from(&NetworkRules::new(tiers, None));

            prop_assert!(sent.rules.is_empty() && sent.policies.len() == policies);
        }
    }

    #[test]
    fn sets_are_read_as_they_were_written(members in vec(member(), 0..5), blocks in addresses()) {
        let part = SetPart::new(members, blocks.blocks());

        prop_assert_eq!(SetPart::try_from(wire::SetPart::from(&part)).unwrap(), part);
    }
}

#[test]
fn what_this_version_does_not_know_refuses_the_whole() {
    let with = |rule| NetworkRules::try_from(wire::NetworkRules { rules: vec![rule], ..Default::default() });
    let allow = wire::NetworkAction::Allow.into();
    let asks = |asks| wire::NetworkRule {
        action: allow,
        conditions: vec![wire::NetworkCondition { negated: true, asks }],
        ..Default::default()
    };
    let peer = Asks::Peers(wire::NetworkPeers { list: vec![wire::NetworkPeer { kind: None }] });

    assert!(with(wire::NetworkRule { action: allow, ..Default::default() }).is_ok());
    for odd in
        [wire::NetworkRule::default(), asks(None), asks(Some(peer)), asks(Some(Asks::Unknowable(false)))]
    {
        assert!(with(odd.clone()).is_err(), "{odd:?}");
    }
}
