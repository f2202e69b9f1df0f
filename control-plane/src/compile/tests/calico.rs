//! Calico's policies: order, actions, and whom their selectors select.

use super::{
    network::{entry, may, policy, refused, refused_in, refused_out},
    *,
};

fn calico(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

fn global(name: &str, spec: &str) -> String {
    calico("GlobalNetworkPolicy", name, spec)
}

/// Four workloads in two namespaces.
fn workloads() -> String {
    [
        entry("default", "web", "app: web", "10.0.0.1"),
        entry("default", "db", "app: db", "10.0.0.2"),
        entry("shop", "web", "app: web", "10.1.0.1"),
        entry("shop", "job", "app: job", "10.1.0.2"),
    ]
    .concat()
}

fn mesh(documents: &str) -> Mesh {
    let (mesh, problems) = compiled(&format!("{}{documents}", workloads()));
    assert!(errors(&problems).is_empty(), "{problems:?}");
    mesh
}

#[test]
fn the_lessons_policy_denies_the_metadata_server_and_nothing_else() {
    let mesh = mesh(include_str!("../../../../examples/policies/calico-deny-metadata.yaml"));
    let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);

    for from in ["default/web", "shop/job"] {
        let why = refused_out(&mesh, from, address("169.254.169.254"), None).unwrap();
        assert!(why.starts_with("GlobalNetworkPolicy deny-egress-to-metadata-server egress rule 1"), "{why}");
        assert_eq!(refused_out(&mesh, from, address("169.254.169.253"), None), None);
        assert!(may(&mesh, from, "default/db", 8080));
    }
}

#[test]
fn policies_are_asked_in_their_order_and_those_of_kubernetes_at_1000() {
    let deny = |order: &str| {
        global(
            "deny",
            &format!(
                "{{order: {order}, selector: app == 'db', ingress: [{{action: Deny, source: {{selector: app == 'web'}}}}]}}"
            ),
        )
    };
    let kubernetes = policy("default", "all", "{podSelector: {}, ingress: [{}]}");

    let first = mesh(&format!("{}{kubernetes}", deny("10")));
    assert!(!may(&first, "default/web", "default/db", 80));
    assert!(!may(&first, "shop/web", "default/db", 80), "a global policy selects everywhere");
    assert!(may(&first, "shop/job", "default/db", 80));
    let last = mesh(&format!("{}{kubernetes}", deny("1001")));
    assert!(may(&last, "default/web", "default/db", 80));
}

#[test]
fn pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied() {
    let pass = global(
        "pass",
        "{order: 1, selector: app == 'db', ingress: [{action: Pass, source: {selector: app == 'web'}}, {action: Log}]}",
    );
    let mesh = mesh(&format!("{pass}{}", global("deny", "{order: 2, selector: all(), types: [Ingress]}")));

    assert!(may(&mesh, "default/web", "default/db", 80));
    let why = refused(&mesh, "shop/job", "default/db", 80).unwrap();
    assert!(why.starts_with("GlobalNetworkPolicy pass: it selects"), "{why}");
}

#[test]
fn a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces() {
    let namespaced = |source: &str| {
        calico(
            "NetworkPolicy",
            "a",
            &format!("{{selector: app == 'db', ingress: [{{action: Allow, source: {{{source}}}}}]}}"),
        )
    };
    for (source, own, shop, job) in [
        ("selector: app == 'web'", true, false, false),
        ("selector: app == 'web', namespaceSelector: all()", true, true, false),
        ("namespaceSelector: projectcalico.org/name == 'shop'", false, true, true),
        (
            "namespaceSelector: kubernetes.io/metadata.name == 'shop' && has(kubernetes.io/metadata.name)",
            false,
            false,
            false,
        ),
        ("notSelector: app == 'job'", true, false, false),
        ("serviceAccounts: {names: [web]}", true, false, false),
        (
            "serviceAccounts: {selector: projectcalico.org/name == 'job'}, namespaceSelector: all()",
            false,
            false,
            true,
        ),
        ("nets: [10.1.0.0/24]", false, true, true),
        ("nets: [10.0.0.0/8], notNets: [10.1.0.2/32]", true, true, false),
        ("", true, true, true),
    ] {
        let mesh = mesh(&namespaced(source));
        let found = ["default/web", "shop/web", "shop/job"].map(|from| may(&mesh, from, "default/db", 80));
        assert_eq!(found, [own, shop, job], "{source}");
    }
}

#[test]
fn sets_of_addresses_are_selected_by_their_labels() {
    let sets = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: partners, labels: {role: partner}}\nspec: {nets: [192.0.2.0/24]}\n---\n\
                apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: office, labels: {role: office}}\nspec: {nets: [198.51.100.7]}\n---\n";
    let from = |mesh: &Mesh, ip: &str| {
        refused_in(mesh, (ip.parse().unwrap(), None), "default/db", (80, true)).is_none()
    };
    let allow = |source: &str| {
        let spec = format!("{{selector: app == 'db', ingress: [{{action: Allow, source: {{{source}}}}}]}}");
        mesh(&format!("{sets}{}", calico("NetworkPolicy", "a", &spec)))
    };

    let global = allow("selector: role == 'partner', namespaceSelector: global()");
    assert!(from(&global, "192.0.2.9") && !from(&global, "198.51.100.7"));
    let own = allow("selector: has(role)");
    assert!(from(&own, "198.51.100.7") && !from(&own, "192.0.2.9"));
    assert!(!from(&allow("selector: role == 'other'"), "192.0.2.9"));
}

#[test]
fn a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy() {
    let spec = "{selector: all(), ingress: [{action: Allow, protocol: TCP, destination: {selector: app == 'db', ports: [5432]}}, \
                {action: Allow, protocol: TCP, destination: {selector: app == 'web', ports: [http], notPorts: ['1:10']}}, \
                {action: Allow, protocol: UDP}]}";
    let mesh = mesh(&global("a", spec));

    assert!(may(&mesh, "shop/job", "default/db", 5432) && !may(&mesh, "shop/job", "default/db", 8080));
    assert!(may(&mesh, "shop/job", "default/web", 8080) && !may(&mesh, "shop/job", "default/web", 5432));
    assert!(!may(&mesh, "default/web", "shop/job", 8080));
}

#[test]
fn a_policy_that_cannot_be_used_denies_everything_to_those_that_it_selects() {
    let (mesh, _) = compiled(&format!(
        "{}{}",
        workloads(),
        global("a", "{selector: app == 'db', ingress: [{action: Alow}]}")
    ));

    let why = refused(&mesh, "default/web", "default/db", 80).unwrap();
    assert!(why.contains("cannot be used"), "{why}");
    assert!(!may(&mesh, "default/db", "default/web", 80) && may(&mesh, "default/web", "shop/web", 80));
}

fn tier(name: &str, spec: &str) -> String {
    calico("Tier", name, spec)
}

#[test]
fn tiers_are_asked_by_their_order_and_pass_leads_to_the_next() {
    let policies = [
        tier("first", "{order: 1}"),
        tier("last", "{}"),
        global("kubernetes-comes-between", "{tier: last, order: 1, selector: app == 'db', ingress: [{action: Deny, source: \
                {selector: app == 'job'}}, {action: Allow}]}"),
        global("first.db", "{tier: first, order: 9999, selector: app == 'db', ingress: [{action: Pass, source: {namespaceSelector: \
                projectcalico.org/name == 'shop'}}, {action: Allow, source: {selector: app == 'web'}}]}"),
        policy("default", "db", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}, podSelector: \
                {matchLabels: {app: web}}}]}]}"),
    ]
    .concat();
    let mesh = mesh(&policies);

    assert!(may(&mesh, "default/web", "default/db", 80), "the first tier allows it");
    assert!(
        may(&mesh, "shop/web", "default/db", 80),
        "the first tier passes it, and Kubernetes' policy allows it"
    );
    let why = refused(&mesh, "shop/job", "default/db", 80).unwrap();
    assert!(why.starts_with("NetworkPolicy default/db: it selects"), "{why}");
    assert!(may(&mesh, "shop/job", "default/web", 80), "no policy is for it");
}

#[test]
fn what_a_tier_does_not_decide_it_denies_or_passes_as_its_default_action_says() {
    let documents = |action: &str| {
        let tier = tier("first", &format!("{{order: 1, defaultAction: {action}}}"));
        let own = global(
            "own",
            "{tier: first, selector: app == 'db', ingress: [{action: Deny, source: {selector: app == 'job'}}]}",
        );
        format!("{tier}{own}{}", global("all", "{selector: all(), ingress: [{action: Allow}]}"))
    };
    let denies = mesh(&documents("Deny"));
    let why = refused(&denies, "default/web", "default/db", 80).unwrap();
    assert!(why.starts_with("GlobalNetworkPolicy own: it selects"), "{why}");
    assert!(may(&denies, "default/db", "default/web", 80), "its policies are not for web");

    let passes = mesh(&documents("Pass"));
    assert!(may(&passes, "default/web", "default/db", 80));
    assert!(!may(&passes, "shop/job", "default/db", 80));
    let alone = mesh(
        &[
            tier("first", "{defaultAction: Pass}"),
            global("own", "{tier: first, selector: all(), types: [Ingress, Egress]}"),
        ]
        .concat(),
    );
    assert!(may(&alone, "default/web", "default/db", 80), "what passes the last tier may pass");
}

#[test]
fn a_policy_whose_tier_does_not_exist_denies_everything_in_its_directions_and_this_is_an_error() {
    let lost = global("a", "{tier: other, selector: app == 'db', ingress: [{action: Allow}]}");
    let (mesh, problems) = compiled(&format!("{}{lost}", workloads()));

    let why = refused(&mesh, "default/web", "default/db", 80).unwrap();
    assert!(why.starts_with("GlobalNetworkPolicy a, whose tier does not exist: "), "{why}");
    assert!(may(&mesh, "default/db", "default/web", 80));
    assert!(errors(&problems)[0].starts_with("spec.tier: there is no Tier other"), "{problems:?}");
}

#[test]
fn service_accounts_are_selected_by_their_labels() {
    let accounts = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop, labels: {team: a}}\n\
                    secrets: [{name: s}]\n---\n\
                    apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: db, namespace: default, labels: {team: b}}\n---\n";
    for (spec, own, shop) in [
        (
            "{serviceAccountSelector: team == 'b', ingress: [{action: Allow, source: {serviceAccounts: {selector: team == 'a'}}}]}",
            false,
            true,
        ),
        (
            "{selector: pcsa.team == 'b', ingress: [{action: Allow, source: {selector: pcsa.team == 'a'}}]}",
            false,
            true,
        ),
        (
            "{serviceAccountSelector: projectcalico.org/name == 'db' && has(team), ingress: [{action: Deny, source: \
          {serviceAccounts: {selector: '!has(team)'}}}, {action: Allow}]}",
            false,
            true,
        ),
        (
            "{serviceAccountSelector: team == 'b', ingress: [{action: Allow, source: {serviceAccounts: {names: [web]}}}]}",
            true,
            true,
        ),
        ("{serviceAccountSelector: team == 'c', ingress: [{action: Deny}]}", true, true),
    ] {
        let mesh = mesh(&format!("{accounts}{}", global("a", spec)));

        let found = ["default/web", "shop/web"].map(|from| may(&mesh, from, "default/db", 80));
        assert_eq!(found, [own, shop], "{spec}");
        assert!(may(&mesh, "shop/web", "shop/job", 80), "{spec}");
    }
}
