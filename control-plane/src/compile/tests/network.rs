//! `NetworkPolicy`: which workloads may connect to which, at both ends.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use selvedge_model::{
    ConnectionVerdict, Verdict,
    facts::{Connection, Source},
    policy::network::{NetworkVerdict, Party},
};

use super::*;
use crate::compile::{network::Network, workloads::Workloads};

/// A workload with a sidecar that gets redirected connections, in `namespace`, at this address.
pub(super) fn entry(namespace: &str, name: &str, labels: &str, address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{address: {address}, labels: {{{labels}, security.istio.io/tlsMode: istio}}, serviceAccount: {name}, \
         ports: {{http: 8080, db: 5432}}}}\n---\n"
    )
}

pub(super) fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {spec}\n---\n"
    )
}

/// The workload `name` with the members of all sets.
fn workload(mesh: &Mesh, name: &str) -> Workload {
    let workload = &mesh.workloads[&name.parse().unwrap()];
    workload.with_sets(|part| mesh.sets.get(part).cloned())
}

/// What keeps a connection to `port` of `to` from coming in, which comes from `address` and has proven to be `identity`;
/// `None`: nothing.
pub(super) fn refused_in(
    mesh: &Mesh,
    (address, identity): (IpAddr, Option<&SpiffeId>),
    to: &str,
    (port, redirected): (u16, bool),
) -> Option<String> {
    let to = workload(mesh, to);
    let arrived_at = redirected.then(|| IpAddr::from([10, 9, 9, 9]));
    let connection = Connection { arrived_at, ..Connection::new(Source::peer(address, identity), port) };
    match to.policy.authorize(&connection) {
        ConnectionVerdict::Final(Verdict::Deny { rule, why, .. }) => Some(format!("{rule}: {why}")),
        _ => None,
    }
}

/// What keeps `from` from calling an endpoint at `address` that must prove to be `identity`.
pub(super) fn refused_out(
    mesh: &Mesh,
    from: &str,
    address: SocketAddr,
    identity: Option<&SpiffeId>,
) -> Option<String> {
    let from = workload(mesh, from);
    match from.egress.as_ref()?.judge(&Party::endpoint(address, identity), |_| {}) {
        NetworkVerdict::Deny(rule, why) => Some(format!("{rule}: {why}")),
        NetworkVerdict::Allow(_) => None,
    }
}

/// Where `name` is; the tests' own workloads have one address.
fn address(mesh: &Mesh, name: &str) -> IpAddr {
    let name = name.parse().unwrap();
    let here = mesh.occupants.iter().find(|(_, occupant)| occupant.workload.name == name);
    here.map(|(address, _)| *address).unwrap()
}

/// What keeps `from` from `port` of `to`, at either end.
pub(super) fn refused(mesh: &Mesh, from: &str, to: &str, port: u16) -> Option<String> {
    let identity = |name: &str| mesh.workloads[&name.parse().unwrap()].identity.clone();
    let endpoint = SocketAddr::new(address(mesh, to), port);
    let out = refused_out(mesh, from, endpoint, Some(&identity(to)));
    let client = identity(from);
    out.or_else(|| refused_in(mesh, (address(mesh, from), Some(&client)), to, (port, true)))
}

pub(super) fn may(mesh: &Mesh, from: &str, to: &str, port: u16) -> bool {
    refused(mesh, from, to, port).is_none()
}

fn tiers() -> String {
    [("frontend", 1), ("backend", 2), ("database", 3), ("other", 4)]
        .map(|(tier, last)| entry("default", tier, &format!("tier: {tier}"), &format!("10.0.0.{last}")))
        .concat()
}

#[test]
fn exercise_3_lets_each_tier_call_the_next_and_nobody_else() {
    let policies = include_str!("../../../../tests/kubernetes/seeds/exercise3-networkpolicies.yaml");
    let (mesh, problems) = compiled(&format!("{}{policies}", tiers()));

    let tiers = ["default/frontend", "default/backend", "default/database", "default/other"];
    let mut pass = Vec::new();
    for from in tiers {
        for to in [tiers[1], tiers[2]] {
            for port in [8080, 5432, 9090] {
                if from != to && may(&mesh, from, to, port) {
                    pass.push((from, to, port));
                }
            }
        }
    }
    assert_eq!(
        pass,
        [("default/frontend", "default/backend", 8080), ("default/backend", "default/database", 5432)]
    );
    let why = refused(&mesh, "default/backend", "default/other", 80).unwrap();
    assert!(why.starts_with("NetworkPolicy default/backend-policy: it selects"), "{why}");
    assert!(may(&mesh, "default/frontend", "default/other", 80));
    assert!(errors(&problems).is_empty(), "{problems:?}");
    let udp: Vec<_> = problems.iter().filter(|problem| problem.message.contains("UDP")).collect();
    assert_eq!((udp.len(), &*udp[0].field), (1, "spec.egress[0].ports[0].protocol"));
}

#[test]
fn an_empty_selector_is_everybody_and_no_rule_is_nobody() {
    let deny = policy("default", "deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let (mesh, _) = compiled(&format!("{}{deny}", tiers()));

    let why = refused(&mesh, "default/frontend", "default/other", 80).unwrap();
    assert!(why.starts_with("NetworkPolicy default/deny-all: "), "{why}");
    let stranger = (IpAddr::from([10, 0, 0, 77]), None);
    assert!(refused_in(&mesh, stranger, "default/other", (80, true)).is_some());
    assert!(refused_in(&mesh, stranger, "default/other", (80, false)).is_some());

    let (mesh, _) = compiled(&tiers());
    assert!(may(&mesh, "default/frontend", "default/other", 80));
}

#[test]
fn policies_add_up() {
    let from = |tier: &str| {
        format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{tier: {tier}}}}}}}]}}]}}"
        )
    };
    let both = [policy("default", "a", &from("frontend")), policy("default", "b", &from("backend"))].concat();
    let (mesh, _) = compiled(&format!("{}{both}", tiers()));

    assert!(may(&mesh, "default/frontend", "default/database", 80));
    assert!(may(&mesh, "default/backend", "default/database", 80));
    assert!(!may(&mesh, "default/other", "default/database", 80));
}

#[test]
fn selectors_of_namespaces_go_by_labels_and_by_name() {
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n---\n";
    let others =
        [entry("shop", "web", "app: web", "10.1.0.1"), entry("blog", "web", "app: web", "10.2.0.1")].concat();
    let named = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: blog}}}]}]}";
    let labelled = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}]}]}";
    let mesh = |spec| compiled(&format!("{namespaces}{others}{}{}", tiers(), policy("default", "a", spec))).0;

    for (spec, shop, blog) in [(named, false, true), (labelled, true, false)] {
        let mesh = mesh(spec);
        assert_eq!(may(&mesh, "shop/web", "default/other", 80), shop, "{spec}");
        assert_eq!(may(&mesh, "blog/web", "default/other", 80), blog, "{spec}");
        assert!(!may(&mesh, "default/frontend", "default/other", 80), "{spec}");
        assert!(may(&mesh, "default/frontend", "shop/web", 80), "a policy is for its own namespace");
    }
}

#[test]
fn a_port_by_name_is_the_one_of_the_workload_that_is_called() {
    let ingress = policy("default", "in", "{podSelector: {}, ingress: [{ports: [{port: http}]}]}");
    let egress =
        policy("default", "out", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: db}]}]}");
    for (policy, port) in [(ingress, 8080), (egress, 5432)] {
        let (mesh, _) = compiled(&format!("{}{policy}", tiers()));
        for tried in [8080, 5432, 80] {
            assert_eq!(
                may(&mesh, "default/frontend", "default/other", tried),
                tried == port,
                "{policy} {tried}"
            );
        }
    }
}

/// Two workloads that share an account, of which only the first has the label `tier: web`; and the server, whose sidecar
/// gets no redirected connections.
fn sharing(address: &str) -> String {
    let entry = |name: &str, label: &str, address: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, annotations: \
             {{config.selvedge.io/inbound: '{address}:4143'}}}}\nspec: {{address: {address}, serviceAccount: both, labels: \
             {{tier: {label}, security.istio.io/tlsMode: istio}}}}\n---\n"
        )
    };
    [entry("web", "web", "10.0.0.1"), entry("job", "job", address), entry("server", "server", "10.0.0.3")]
        .concat()
}

#[test]
fn an_account_shared_with_others_is_refused_where_addresses_do_not_tell_and_this_is_said() {
    let spec = "{podSelector: {matchLabels: {tier: server}}, ingress: [{from: [{podSelector: {matchLabels: {tier: web}}}]}]}";
    let (mesh, problems) = compiled(&format!("{}{}", sharing("10.0.0.2"), policy("default", "a", spec)));
    let identity = mesh.workloads[&"default/web".parse().unwrap()].identity.clone();
    let from = |last, redirected| {
        let peer = (IpAddr::from([10, 0, 0, last]), Some(&identity));
        refused_in(&mesh, peer, "default/server", (80, redirected))
    };

    assert_eq!(from(1, true), None);
    for refused in [from(2, true), from(1, false), from(2, false)] {
        assert!(refused.as_ref().unwrap().contains("account of its own"), "{refused:?}");
    }
    let told = problems.iter().find(|problem| problem.field == "spec.ingress[0].from[0]").unwrap();
    assert_eq!(told.severity, Severity::Warning);
    assert!(told.message.contains("share the service account default/both"), "{}", told.message);
    assert!(told.message.contains("give default/web a service account of its own"), "{}", told.message);
}

#[test]
fn what_is_not_enforced_and_what_selects_nothing_is_said() {
    let unmeshed = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: legacy}\nspec: {address: 10.0.0.8, labels: {tier: legacy}}\n---\n";
    let policies = [
        policy("default", "all", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {tier: nobody}}}], ports: [{port: grpc}]}]}"),
        policy("default", "none", "{podSelector: {matchLabels: {tier: nobody}}}"),
    ]
    .concat();
    let (_, problems) = compiled(&format!("{}{unmeshed}{policies}", tiers()));

    let said: Vec<_> = problems
        .iter()
        .filter(|problem| problem.document.as_ref().is_some_and(|name| &*name.kind == "NetworkPolicy"))
        .map(|problem| (&*problem.field, &*problem.message))
        .collect();
    let has =
        |field: &str, words: &str| said.iter().any(|(at, message)| *at == field && message.contains(words));
    assert!(has("spec.podSelector", "is not enforced at default/legacy: without a sidecar"), "{said:?}");
    assert!(has("spec.ingress[0].from[0]", "selects no workload, so it is about nobody"), "{said:?}");
    assert!(has("spec.ingress[0].ports", "has a port called grpc"), "{said:?}");
    assert!(has("spec.podSelector", "selects no workload, so nothing is enforced"), "{said:?}");
    assert_eq!(said.len(), 4, "{said:?}");
}

#[test]
fn a_policy_that_cannot_be_used_refuses_everything_in_both_directions() {
    let broken = policy("default", "broken", "{podSelector: {matchLabels: {tier: backend}}, ingres: []}");
    let (mesh, _) = compiled(&format!("{}{broken}", tiers()));

    let into = refused(&mesh, "default/frontend", "default/backend", 80).unwrap();
    assert!(into.contains("NetworkPolicy default/broken") && into.contains("cannot be used"), "{into}");
    assert!(!may(&mesh, "default/backend", "default/other", 80));
    assert!(may(&mesh, "default/frontend", "default/other", 80));
}

/// So many pods of one account, with a policy for which all of them are peers.
fn many(count: usize) -> String {
    let pod = |number: usize| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number}, labels: {{app: web, selvedge.io/sidecar: injected}}}}\n\
             spec: {{serviceAccountName: web, containers: [{{name: selvedge-proxy}}]}}\n\
             status: {{phase: Running, podIP: 10.1.{}.{}}}\n---\n",
            number / 250,
            number % 250 + 1
        )
    };
    let pods: String = (0..count).map(pod).collect();
    let spec = "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    format!("{pods}{}", policy("default", "web", spec))
}

#[test]
fn a_pod_that_comes_changes_one_part_of_one_set_and_no_other_workload() {
    let (before, _) = compiled(&many(200));
    let (resources, _) = resources(&many(201));
    let (after, _) = compile(&resources, &MeshSettings::default(), &before);

    assert_eq!(before.sets.len(), 4);
    let changed = after.sets.iter().filter(|(name, part)| !Arc::ptr_eq(part, &before.sets[*name]));
    assert_eq!(changed.count(), 1);
    let same = |name: &WorkloadName| Arc::ptr_eq(&after.workloads[name], &before.workloads[name]);
    assert!(before.workloads.keys().all(same));
}

#[test]
fn a_policy_that_names_more_workloads_than_there_is_room_for_refuses_everything_and_costs_no_other() {
    let from = |namespaces: &str| {
        format!("{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {namespaces}}}]}}]}}")
    };
    let no_label = from("{matchExpressions: [{key: gone, operator: DoesNotExist}]}");
    let documents = [
        entry("shop", "a", "app: a", "10.0.0.1"),
        entry("shop", "b", "app: b", "10.0.0.2"),
        entry("other", "c", "app: c", "10.0.0.3"),
        policy("shop", "one", &from("{}")),
        policy("shop", "same", &from("{}")),
        policy("shop", "two", &no_label),
        policy("other", "three", &no_label),
    ];
    let (resources, _) = resources(&documents.concat());
    let (settings, mut problems) = (MeshSettings::default(), Problems::default());
    let policies = crate::compile::inbound::Policies::new(&resources, &settings, &mut problems);
    let workloads = Workloads::new(&resources, &settings, &policies, &BTreeMap::new(), &mut problems);
    let told = |most: usize| {
        let network = Network::with_room(&resources, workloads.candidates(), &Mesh::default(), most);
        let lacks_room = "which names more workloads than there is room for";
        let refused: Vec<bool> =
            (0..3).map(|place| format!("{:?}", network.ingress(place, None)).contains(lacks_room)).collect();
        let mut problems = Problems::default();
        network.report(&mut problems);
        let all = problems.found.into_iter().filter(|problem| problem.severity == Severity::Error);
        (refused, all.map(|problem| problem.to_string()).collect::<Vec<_>>())
    };

    assert_eq!(told(6), (vec![false, false, false], vec![]));
    let (refused, errors) = told(5);
    assert_eq!(refused, [true, true, false]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("shop/two") && errors[0].contains("the namespace shop"), "{errors:?}");
}
