use proptest::prelude::*;

use super::*;
use crate::{MtlsMode, MtlsRule, TrustDomain};

fn workload(mode: MtlsMode) -> Arc<Workload> {
    let mut policy = InboundPolicy::default();
    policy.ports.insert(7000, MtlsRule { mode, name: "test".into() });
    Arc::new(Workload {
        name: "shop/db-0".parse().unwrap(),
        identity: SpiffeId::new(&TrustDomain::default(), "shop", "db").unwrap(),
        meshed: true,
        inbound: None,
        ports: vec![5432],
        policy,
        protocols: BTreeMap::new(),
        app_connections: BTreeMap::new(),
        egress: None,
        gateway: None,
        telemetry: None,
        place: None,
        services: BTreeMap::new(),
        labels: Arc::default(),
    })
}

fn mesh() -> Mesh {
    let db = Occupant { workload: workload(MtlsMode::Disable), skipped: vec![(9000, 9001)] };
    let own = "10.0.0.5:5432".parse().unwrap();
    Mesh {
        addresses: BTreeMap::from([(own, db.at(own))]).into(),
        occupants: BTreeMap::from([(own.ip(), db)]).into(),
        service_addresses: BTreeMap::from([(
            "10.96.0.1:80".parse().unwrap(),
            declared("shop", "db.shop.svc.cluster.local"),
        )])
        .into(),
        ..Mesh::default()
    }
}

fn declared(namespace: &str, host: &str) -> Declared {
    Declared { namespace: namespace.into(), key: ServiceKey::new(host, 80) }
}

fn endpoint(lookup: Lookup) -> Endpoint {
    match lookup {
        Lookup::Address(found) => found.endpoint.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_one_services_of_the_first_namespace_that_has_it_or_none() {
    let only = |services: &[(&str, &str)], has_it: &str| {
        let services = services.iter().map(|(namespace, host)| declared(namespace, host)).collect();
        let address = Address { services, ..Address::default() };
        address.only_service(|one| has_it.contains(&*one.key.host)).map(|one| one.key.host.to_string())
    };
    let two = [("shop", "a"), ("bank", "b")];

    assert_eq!(only(&two, "ab").as_deref(), Some("a"));
    assert_eq!(only(&two, "b").as_deref(), Some("b"));
    assert_eq!(only(&two, ""), None);
    assert_eq!(only(&[("shop", "a"), ("bank", "b"), ("shop", "c")], "abc"), None, "two of one namespace");
    assert_eq!(only(&[("shop", "a"), ("bank", "b"), ("shop", "c")], "ab").as_deref(), Some("a"));
}

#[test]
fn a_services_own_address_is_the_service_and_only_at_its_ports() {
    let mesh = mesh();

    let key = ServiceKey::new("db.shop.svc.cluster.local", 80);
    assert_eq!(mesh.lookup("shop", "10.96.0.1:80"), Lookup::Service(key.clone()));
    assert_eq!(mesh.lookup("shop", "10.96.0.1"), Lookup::Service(key));
    assert_eq!(mesh.lookup("shop", "10.96.0.1:81"), Lookup::None);
}

#[test]
fn a_workload_whose_sidecar_takes_all_is_expected_to_prove_itself_at_every_port() {
    let mesh = mesh();
    let at = |authority| endpoint(mesh.lookup("shop", authority));

    assert!(at("10.0.0.5:5432").identity.is_some());
    assert!(at("10.0.0.5:6000").identity.is_some());
    assert_eq!(at("10.0.0.5:6000").dial, "10.0.0.5:6000".parse().unwrap());
    assert_eq!(at("10.0.0.5:7000").identity, None, "its policy says DISABLE");
    assert_eq!(at("10.0.0.5:9001").identity, None, "its sidecar does not see that port");
    assert_eq!(mesh.lookup("shop", "10.0.0.6:5432"), Lookup::None);
}

proptest! {
    #[test]
    fn an_address_is_looked_up_as_it_is_written(ip: [u8; 16], port: u16) {
        let v6 = SocketAddr::new(std::net::IpAddr::from(ip).to_canonical(), port);
        let v4 = SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port));

        prop_assert_eq!(address(&v6.to_string()), Some(v6));
        prop_assert_eq!(address(&v4.to_string()), Some(v4));
        prop_assert_eq!(address(&format!("[::ffff:{}]:{port}", v4.ip())), Some(v4));
        prop_assert_eq!(address(&format!("[{}]", v6.ip())), Some(SocketAddr::new(v6.ip(), 80)));
        prop_assert_eq!(address(&format!("{}.svc:{port}", v4.ip())), None);
    }
}
