//! `AuthorizationPolicy`: which workloads it is for, and what it comes to together with others.

use selvedge_model::{
    InboundPolicy, SpiffeId, TrustDomain, Verdict,
    facts::{Connection, Request, Source},
};

use super::*;

/// Documents in the given order: namespace, name, spec.
fn policies(list: &[(&str, &str, &str)]) -> String {
    let one = |(namespace, name, spec): &(&str, &str, &str)| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    };
    list.iter().map(one).collect()
}

fn inbound(documents: &str) -> InboundPolicy {
    let (mesh, _) = compiled(&format!("{MESH}{documents}"));
    mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy.clone()
}

/// Whether a GET of `path` on `port` by a peer is let in, and by which rule.
pub(super) fn asked(policy: &InboundPolicy, peer: &str, port: u16, path: &str) -> String {
    let identity: Option<SpiffeId> = (!peer.is_empty()).then(|| format!("spiffe://{peer}").parse().unwrap());
    let connection = Connection::new(Source::peer([10, 0, 0, 1].into(), identity.as_ref()), port);
    let (method, headers) = (&Method::GET, &HeaderMap::new());
    let request = Request {
        connection: &connection,
        method,
        scheme: "http",
        authority: "a",
        path,
        query: "",
        headers,
        token: None,
    };
    match policy.authorize_request(&request) {
        Verdict::Allow { rule } => format!("allow: {rule}"),
        Verdict::Deny { rule, why, .. } => format!("deny: {rule}: {why}"),
    }
}

const WEB: &str = "cluster.local/ns/default/sa/web";
const OTHER: &str = "cluster.local/ns/shop/sa/other";
const ALLOW_WEB: (&str, &str, &str) = (
    "default",
    "allow-web",
    "{selector: {matchLabels: {app: reviews}}, rules: [{from: [{source: {namespaces: [none]}}]}, {from: [{source: {serviceAccounts: [web]}}]}]}",
);

#[test]
fn a_verdict_names_the_document_and_its_rule() {
    let policy = inbound(&policies(&[ALLOW_WEB]));

    assert_eq!(asked(&policy, WEB, 9080, "/"), "allow: AuthorizationPolicy default/allow-web rule 2");
    assert!(
        asked(&policy, OTHER, 9080, "/").starts_with("deny: AuthorizationPolicy default/allow-web: no rule")
    );
    assert!(asked(&policy, "", 9080, "/").starts_with("deny: "));
    assert_eq!(asked(&inbound(""), OTHER, 9080, "/"), "allow: mesh default");
}

#[test]
fn a_policy_without_rules_allows_nothing_and_an_empty_rule_allows_everything() {
    let nothing = inbound(&policies(&[("default", "nothing", "{}")]));
    let everything = inbound(&policies(&[("default", "nothing", "{}"), ("default", "all", "{rules: [{}]}")]));

    assert!(asked(&nothing, WEB, 9080, "/").starts_with("deny: AuthorizationPolicy default/nothing"));
    assert_eq!(asked(&everything, WEB, 9080, "/"), "allow: AuthorizationPolicy default/all rule 1");
}

#[test]
fn what_denies_beats_what_allows_and_what_is_custom_refuses_before_both() {
    let allow = ("default", "all", "{rules: [{}]}");
    let deny = ("default", "deny", "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}");
    let custom = (
        "default",
        "custom",
        "{action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {paths: [/x]}}]}]}",
    );

    let both = inbound(&policies(&[allow, deny]));
    let all = inbound(&policies(&[allow, deny, custom]));

    assert_eq!(
        asked(&both, WEB, 9080, "/admin"),
        "deny: AuthorizationPolicy default/deny rule 1: it denies this"
    );
    assert_eq!(asked(&both, WEB, 9080, "/"), "allow: AuthorizationPolicy default/all rule 1");
    for path in ["/", "/admin", "/x"] {
        assert!(
            asked(&all, WEB, 9080, path).starts_with("deny: AuthorizationPolicy default/custom: it asks"),
            "{path}"
        );
    }
}

#[test]
fn policies_of_the_root_namespace_are_for_the_whole_mesh_and_others_for_their_own() {
    let selecting = "{action: DENY, selector: {matchLabels: {app: reviews}}, rules: [{}]}";
    let root = inbound(&policies(&[("istio-system", "root", selecting)]));
    let elsewhere = inbound(&policies(&[("shop", "own", selecting)]));
    let others = inbound(&policies(&[(
        "istio-system",
        "root",
        "{action: DENY, selector: {matchLabels: {app: x}}, rules: [{}]}",
    )]));

    assert!(asked(&root, WEB, 9080, "/").starts_with("deny: AuthorizationPolicy istio-system/root rule 1"));
    assert!(elsewhere.authorization.is_none() && others.authorization.is_none());
}

#[test]
fn an_allow_of_the_root_namespace_and_one_of_the_workloads_own_each_allow() {
    let by = |account: &str| {
        format!("{{rules: [{{from: [{{source: {{principals: [cluster.local/ns/{account}]}}}}]}}]}}")
    };
    let policy = inbound(&policies(&[
        ("istio-system", "root", &by("shop/sa/other")),
        ("default", "own", &by("default/sa/web")),
    ]));

    assert_eq!(asked(&policy, OTHER, 9080, "/"), "allow: AuthorizationPolicy istio-system/root rule 1");
    assert_eq!(asked(&policy, WEB, 9080, "/"), "allow: AuthorizationPolicy default/own rule 1");
    assert!(asked(&policy, "cluster.local/ns/x/sa/y", 9080, "/").starts_with("deny: "));
}

#[test]
fn a_policy_for_a_service_is_for_the_ports_that_it_sends_to() {
    let target = ("default", "own", "{targetRefs: [{kind: Service, name: reviews}]}");
    let missing = ("default", "own", "{targetRef: {kind: Service, name: nobody}}");

    let policy = inbound(&policies(&[target]));
    let (mesh, problems) = compiled(&format!("{MESH}{}", policies(&[missing])));

    let ports = policy.authorization.as_ref().unwrap().policies()[0].ports.clone().unwrap();
    let port = *ports.first().unwrap();
    assert!(asked(&policy, WEB, port, "/").starts_with("deny: "));
    assert_eq!(asked(&policy, WEB, 1, "/"), "allow: mesh default");
    assert!(mesh.workloads.values().all(|workload| workload.policy.authorization.is_none()));
    assert!(
        errors(&problems).iter().any(|error| error.contains("there is no Service nobody")),
        "{problems:?}"
    );
}

#[test]
fn cluster_local_stands_for_the_meshs_own_trust_domain() {
    let spec =
        "{rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/web, cluster.local/x]}}]}]}";
    let (resources, _) = resources(&format!("{MESH}{}", policies(&[("default", "own", spec)])));
    let trust_domain: TrustDomain = "td.example".parse().unwrap();
    let settings = MeshSettings { trust_domain, ..MeshSettings::default() };

    let (mesh, _) = compile(&resources, &settings, &Mesh::default());

    let policy = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy;
    assert!(asked(policy, "td.example/ns/default/sa/web", 9080, "/").starts_with("allow: "));
    assert!(asked(policy, WEB, 9080, "/").starts_with("deny: "));
}

#[test]
fn a_policy_that_cannot_be_used_denies_everything_where_it_may_be_meant() {
    let broken = "{selector: {matchLabels: {app: reviews}}, rules: [{form: []}]}";
    let elsewhere = "{selector: {matchLabels: {app: x}}, rules: [{form: []}]}";
    let audit = "{action: AUDIT, rules: [{form: []}]}";

    let denied = inbound(&policies(&[("default", "all", "{rules: [{}]}"), ("default", "broken", broken)]));

    let told = asked(&denied, WEB, 9080, "/");
    assert!(told.starts_with("deny: AuthorizationPolicy default/broken (mesh.yaml:"), "{told}");
    assert!(inbound(&policies(&[("default", "broken", elsewhere)])).authorization.is_none());
    assert!(inbound(&policies(&[("default", "broken", audit)])).authorization.is_none());
    let misspelt =
        policies(&[("default", "a", "{}")]).replace("AuthorizationPolicy", "AuthorizationPolicies");
    assert!(asked(&inbound(&misspelt), WEB, 9080, "/").starts_with("deny: AuthorizationPolicy default/a"));
}

#[test]
fn a_policy_that_selects_nothing_says_so() {
    let nothing = ("default", "typo", "{selector: {matchLabels: {app: reveiws}}, rules: [{}]}");

    let (_, problems) = compiled(&format!("{MESH}{}", policies(&[nothing, ALLOW_WEB])));

    let told: Vec<_> =
        problems.iter().filter(|problem| problem.message.contains("selects no workload")).collect();
    assert_eq!(told.len(), 1, "{problems:?}");
    assert_eq!((told[0].severity, told[0].field.as_str()), (Severity::Warning, "spec.selector.matchLabels"));
}

#[test]
fn workloads_that_the_same_policies_select_share_them_and_keep_them() {
    let documents = format!("{MESH}{}", policies(&[("default", "all", "{rules: [{}]}")]));
    let (resources, _) = resources(&documents);

    let (mesh, _) = compile(&resources, &MeshSettings::default(), &Mesh::default());
    let (again, _) = compile(&resources, &MeshSettings::default(), &mesh);

    let own: Vec<_> =
        mesh.workloads.values().map(|workload| workload.policy.authorization.clone().unwrap()).collect();
    assert!(own.len() > 1 && own.iter().all(|one| Arc::ptr_eq(one, &own[0])));
    for (name, workload) in &again.workloads {
        assert!(Arc::ptr_eq(workload, &mesh.workloads[name]), "{name}");
    }
}

#[test]
fn a_workload_whose_labels_cannot_be_read_lets_nothing_in_where_a_policy_may_select_it() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: odd}\nspec: {address: 127.0.0.9, labels: {app: 1}, serviceAccount: a}\n---\n";
    let policy_of = |documents: &str| {
        let (mesh, _) = compiled(&format!("{MESH}{entry}{documents}"));
        mesh.workloads[&"default/odd".parse().unwrap()].policy.clone()
    };

    let open = policy_of("");
    let may_be_selected = policy_of(&policies(&[ALLOW_WEB]));

    assert!(open.authorization.is_none());
    assert!(
        asked(&may_be_selected, WEB, 1, "/")
            .starts_with("deny: AuthorizationPolicy default/allow-web: nobody knows")
    );
}
