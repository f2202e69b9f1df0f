use selvedge_api::{
    delta::{self, Fingerprints},
    wire,
};
use selvedge_model::{
    Endpoints,
    gateway::{Carries, Hostname, Listener, ListenerTls, PrivateKey, Termination, VirtualHost},
};

use super::*;
use crate::discovery::fixtures::{self, AUTHORITY};

fn draft(upserts: Vec<wire::Resource>, removals: &[&str]) -> Draft {
    let mut draft = Draft::default();
    let removals = removals.iter().map(ToString::to_string).collect();
    draft.add(wire::Transaction { nonce: 1, upserts, removals, more: false, taps: None, log_level: None });
    draft
}

fn take_in(held: &mut Resources, draft: Draft) -> Result<Change, Refusal> {
    held.take_in(draft, &fixtures::us(), |authority| authority == AUTHORITY)
}

fn complete() -> Vec<wire::Resource> {
    vec![fixtures::lookup("1"), fixtures::service("1", &[90, 10]), fixtures::endpoints("1", 3)]
}

#[test]
fn a_transaction_is_held_under_its_names_and_versions() {
    let mut held = Resources::default();

    let change = take_in(&mut held, draft(complete(), &[])).unwrap();

    assert_eq!(change, Change { upserts: 3, removals: 0, bundle: false });
    assert_eq!(held.versions()[&ResourceName::Lookup(AUTHORITY.into())], "1");
    assert!(held.service(&fixtures::key()).is_some());
    assert_eq!(held.endpoints(&fixtures::key()).unwrap().list().len(), 3);
}

#[test]
fn a_set_counts_when_all_its_parts_have_arrived() {
    let part = |part: u32, version: &str| wire::Resource {
        name: format!("set/a1/2/{part}"),
        version: version.to_owned(),
        body: Some(wire::resource::Body::SetPart(wire::SetPart::default())),
    };
    let set = wire::SetRef { id: "a1".into(), parts: 2 };
    let peer = wire::NetworkPeer { kind: Some(wire::network_peer::Kind::Set(set)) };
    let asks = wire::network_condition::Asks::Peers(wire::NetworkPeers { list: vec![peer] });
    let rule = wire::NetworkRule {
        name: "rule".into(),
        action: wire::NetworkAction::Allow.into(),
        conditions: vec![wire::NetworkCondition { negated: false, asks: Some(asks) }],
    };
    let mut own = fixtures::own("1", &fixtures::us().workload.to_string());
    if let Some(wire::resource::Body::Self_(workload)) = &mut own.body {
        workload.egress = Some(wire::NetworkRules { rules: vec![rule], ..Default::default() });
    }
    let mut held = Resources::default();
    let known = |held: &Resources| {
        let rules = held.own().unwrap().egress.clone().unwrap();
        format!("{:?}", rules.rules().next().unwrap()).contains("members: Some")
    };

    take_in(&mut held, draft(vec![own, part(0, "1")], &[])).unwrap();
    assert!(!known(&held));
    take_in(&mut held, draft(vec![part(1, "1")], &[])).unwrap();
    assert!(known(&held));
    let before = held.own().cloned().unwrap();
    take_in(&mut held, draft(vec![part(1, "1")], &[])).unwrap();
    assert!(Arc::ptr_eq(&before, held.own().unwrap()), "nothing has changed");
    take_in(&mut held, draft(Vec::new(), &["set/a1/2/0"])).unwrap();
    assert!(!known(&held));
}

#[test]
fn a_transaction_with_one_bad_part_changes_nothing() {
    let mut held = Resources::default();
    take_in(&mut held, draft(complete(), &[])).unwrap();
    let before = held.versions().clone();

    let refusal =
        take_in(&mut held, draft(vec![fixtures::endpoints("2", 5), fixtures::bad_service("2")], &["self"]))
            .unwrap_err();

    assert!(matches!(refusal, Refusal::Content { .. }), "{refusal}");
    assert!(refusal.to_string().contains("service/reviews"), "{refusal}");
    assert_eq!(*held.versions(), before);
    assert_eq!(held.endpoints(&fixtures::key()).unwrap().list().len(), 3);
}

#[test]
fn a_lookup_without_its_service_and_a_service_without_its_endpoints_are_refused() {
    let mut held = Resources::default();

    let lonely = take_in(&mut held, draft(vec![fixtures::lookup("1")], &[]));
    assert!(matches!(lonely, Err(Refusal::Dangling { missing: ResourceName::Service(_), .. })));

    let lonely = vec![fixtures::lookup("1"), fixtures::service("1", &[1])];
    let lonely = take_in(&mut held, draft(lonely, &[]));
    assert!(matches!(lonely, Err(Refusal::Dangling { missing: ResourceName::Endpoints(_), .. })));
    assert!(held.versions().is_empty());
}

#[test]
fn what_nobody_asks_for_any_more_may_be_taken_away_in_any_order() {
    let mut held = Resources::default();
    take_in(&mut held, draft(complete(), &[])).unwrap();
    let service = format!("service/{}", fixtures::key());

    let change = held.take_in(draft(vec![], &[&service, "gadget/x"]), &fixtures::us(), |_| false).unwrap();

    assert_eq!(change.removals, 1);
    assert!(held.service(&fixtures::key()).is_none());
}

#[test]
fn an_equal_version_keeps_what_is_held() {
    let mut held = Resources::default();
    take_in(&mut held, draft(complete(), &[])).unwrap();
    let before = Arc::clone(held.service(&fixtures::key()).unwrap());

    take_in(&mut held, draft(complete(), &[])).unwrap();

    assert!(Arc::ptr_eq(&before, held.service(&fixtures::key()).unwrap()));
}

#[test]
fn resources_of_somebody_else_are_refused() {
    let mut held = Resources::default();

    let other = take_in(&mut held, draft(vec![fixtures::own("1", "shop/other")], &[]));
    assert!(matches!(other, Err(Refusal::Misnamed { .. })), "{other:?}");

    let mut renamed = fixtures::endpoints("1", 1);
    renamed.name = "endpoints/other:80".into();
    let other = take_in(&mut held, draft(vec![renamed], &[]));
    assert!(matches!(other, Err(Refusal::Misnamed { .. })), "{other:?}");

    let unknown = wire::Resource { name: "gadget/x".into(), ..fixtures::endpoints("1", 1) };
    assert!(matches!(take_in(&mut held, draft(vec![unknown], &[])), Err(Refusal::Unknown(_))));
}

#[test]
fn a_list_of_revocations_stays_until_it_is_replaced_or_taken_away() {
    let mut held = Resources::default();
    let entry = |identity: &str| wire::Revocation {
        revoked: Some(wire::revocation::Revoked::Identity(identity.into())),
        document: "Revocation selvedge/a".into(),
        ..wire::Revocation::default()
    };
    let list = |version: &str, identity| wire::Resource {
        name: "revocations".into(),
        version: version.into(),
        body: Some(wire::resource::Body::Revocations(wire::Revocations { list: vec![entry(identity)] })),
    };

    take_in(&mut held, draft(vec![list("1", "spiffe://cluster.local/ns/shop/sa/a")], &[])).unwrap();
    assert!(matches!(
        take_in(&mut held, draft(vec![list("2", "nobody")], &[])),
        Err(Refusal::Content { .. })
    ));
    assert_eq!(held.revocations().list().len(), 1);
    take_in(&mut held, draft(vec![], &["revocations"])).unwrap();
    assert!(held.revocations().is_empty());
}

#[test]
fn roots_that_verify_nobody_are_refused_and_never_removed() {
    let mut held = Resources::default();
    let bundle = wire::Resource {
        name: "bundle".into(),
        version: "1".into(),
        body: Some(wire::resource::Body::Bundle(wire::Bundle {
            trust_domain: "cluster.local".into(),
            roots: vec![],
            workload_roots: vec![],
        })),
    };

    assert!(matches!(take_in(&mut held, draft(vec![bundle], &[])), Err(Refusal::Bundle(_))));
    assert_eq!(take_in(&mut held, draft(vec![], &["bundle"])).unwrap().removals, 0);
}

#[test]
fn what_a_gateway_serves_is_held_whole_or_not_at_all() {
    let hostname: Hostname = "shop.example.com".parse().unwrap();
    let service = fixtures::key();
    let name = CertificateName::new("shop", "tls");
    let tls = Termination { certificates: vec![name.clone()], clients: None, tls12: true, http: true };
    let listener = Listener::new(
        "Gateway shop/edge https".into(),
        Hostname::Any,
        Some(ListenerTls::Terminate(tls)),
        vec![VirtualHost { hostname, service }],
    );
    let port = GatewayPort::new(443, Carries::Tls, vec![listener]);
    let resource =
        |name: &str, body| wire::Resource { name: name.into(), version: "1".into(), body: Some(body) };
    let port = resource("gateway/443", wire::resource::Body::GatewayPort((&port).into()));
    let certificate = ServerCertificate { name, chain: Vec::new(), key: PrivateKey::new(Vec::new()) };
    let certificate =
        resource("certificate/shop/tls", wire::resource::Body::Certificate((&certificate).into()));
    let mut held = Resources::default();

    let lonely = take_in(&mut held, draft(vec![port.clone(), certificate.clone()], &[]));
    assert!(matches!(lonely, Err(Refusal::Dangling { missing: ResourceName::Service(_), .. })));
    let mut parts = vec![port, fixtures::service("1", &[1]), fixtures::endpoints("1", 1)];
    let lonely = take_in(&mut held, draft(parts.clone(), &[]));
    assert!(matches!(lonely, Err(Refusal::Dangling { missing: ResourceName::Certificate(_), .. })));
    parts.push(certificate);
    take_in(&mut held, draft(parts, &[])).unwrap();
    assert_eq!(held.gateway_ports().len(), 1);

    take_in(&mut held, draft(Vec::new(), &["gateway/443", "certificate/shop/tls"])).unwrap();
    assert!(held.gateway_ports().is_empty());
}

/// The list of so many endpoints, with its version.
fn list(endpoints: &Endpoints) -> (wire::Resource, Fingerprints) {
    let mut body = wire::Endpoints::from(endpoints);
    let fingerprints = Fingerprints::of(&mut body);
    let name = ResourceName::Endpoints(endpoints.key.clone());
    let version = fingerprints.version(&name);
    let body = Some(wire::resource::Body::Endpoints(body));
    (wire::Resource { name: name.to_string(), version, body }, fingerprints)
}

/// What makes `now` of `before`.
fn delta(before: &Endpoints, now: &Endpoints) -> (wire::Resource, wire::EndpointsDelta) {
    let ((old, old_fingerprints), (new, fingerprints)) = (list(before), list(now));
    let delta = delta::between(&old.version, &old_fingerprints, &fingerprints, now).unwrap();
    (wire::Resource { body: Some(wire::resource::Body::EndpointsDelta(delta.clone())), ..new }, delta)
}

#[test]
fn of_a_list_that_is_held_what_has_changed_is_enough() {
    let (before, mut now) = (fixtures::model_endpoints(100), fixtures::model_endpoints(101));
    now.list[7].weight = 3;
    now.list.remove(50);
    let mut held = Resources::default();
    let known = vec![fixtures::lookup("1"), fixtures::service("1", &[90, 10]), list(&before).0];
    take_in(&mut held, draft(known, &[])).unwrap();
    let kept = Arc::clone(&held.endpoints(&fixtures::key()).unwrap().list()[99]);

    let (resource, _) = delta(&before, &now);
    take_in(&mut held, draft(vec![resource.clone()], &[])).unwrap();

    let listed = held.endpoints(&fixtures::key()).unwrap();
    assert!(listed.list().iter().map(|one| &**one).eq(&now.list));
    assert!(Arc::ptr_eq(&kept, &listed.list()[98]), "what has not changed is shared");
    assert_eq!(held.versions()[&resource.name.parse().unwrap()], resource.version);
    // And so on, from there.
    let (resource, _) = delta(&now, &before);
    take_in(&mut held, draft(vec![resource], &[])).unwrap();
    assert!(held.endpoints(&fixtures::key()).unwrap().list().iter().map(|one| &**one).eq(&before.list));
}

#[test]
fn changes_of_what_is_not_held_or_that_come_to_something_else_are_refused() {
    let (before, now) = (fixtures::model_endpoints(100), fixtures::model_endpoints(101));
    let (resource, changes) = delta(&before, &now);
    let with = |changes: wire::EndpointsDelta| wire::Resource {
        body: Some(wire::resource::Body::EndpointsDelta(changes)),
        ..resource.clone()
    };
    let complete = || vec![fixtures::lookup("1"), fixtures::service("1", &[90, 10]), list(&before).0];
    let mut held = Resources::default();
    let refused = |held: &mut Resources, resource: wire::Resource| {
        let versions = held.versions().clone();
        let refusal = take_in(held, draft(vec![resource], &[])).unwrap_err();
        assert_eq!(held.versions(), &versions, "nothing has changed");
        refusal
    };

    assert!(matches!(refused(&mut held, resource.clone()), Refusal::OtherBase { .. }), "nothing is held");
    take_in(&mut held, draft(complete(), &[])).unwrap();
    let base = wire::EndpointsDelta { base: "0".into(), ..changes.clone() };
    assert!(matches!(refused(&mut held, with(base)), Refusal::OtherBase { .. }));
    let mut other = changes.clone();
    other.added[0].weight = 9;
    assert!(matches!(refused(&mut held, with(other)), Refusal::OtherResult { .. }));
    let removed = wire::EndpointsDelta { removed: vec![5], ..changes.clone() };
    assert!(matches!(
        refused(&mut held, with(removed)),
        Refusal::Misfit { .. } | Refusal::OtherResult { .. }
    ));
    let beyond = wire::EndpointsDelta { removed: vec![500], ..changes.clone() };
    assert!(matches!(refused(&mut held, with(beyond)), Refusal::Misfit { .. }));
    let elsewhere = wire::Resource { name: "lookup/a".into(), ..resource.clone() };
    assert!(matches!(refused(&mut held, elsewhere), Refusal::Misnamed { .. }));

    take_in(&mut held, draft(vec![resource], &[])).unwrap();
    assert_eq!(held.endpoints(&fixtures::key()).unwrap().list().len(), 101);
}
