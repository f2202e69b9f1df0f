//! Linkerd's policies: which ports are servers, and who may call them.

use selvedge_model::Protocol;

use super::{authorization::asked, *};

const WEB: &str = "cluster.local/ns/default/sa/web";
const OTHER: &str = "cluster.local/ns/shop/sa/other";
/// Port 9080 of `reviews`.
const SERVER: &str = "{podSelector: {matchLabels: {app: reviews}}, port: 9080}";

fn document(version: &str, kind: &str, name: &str, spec: &str) -> String {
    let group = if version == "v1" { "gateway.networking.k8s.io" } else { "policy.linkerd.io" };
    format!(
        "apiVersion: {group}/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default, labels: {{of: {name}}}}}\n\
         spec: {spec}\n---\n"
    )
}

fn server(spec: &str) -> String {
    document("v1beta3", "Server", "reviews", spec)
}

fn policy(name: &str, target: &str, required: &str) -> String {
    let spec = format!("{{targetRef: {{{target}}}, requiredAuthenticationRefs: [{required}]}}");
    document("v1alpha1", "AuthorizationPolicy", name, &spec)
}

const TO_SERVER: &str = "group: policy.linkerd.io, kind: Server, name: reviews";
const IS_WEB: &str = "{kind: ServiceAccount, name: web}";

fn inbound(documents: &str) -> selvedge_model::InboundPolicy {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    assert_eq!(errors(&problems), Vec::<String>::new());
    mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy.clone()
}

fn may(policy: &selvedge_model::InboundPolicy, peer: &str, port: u16) -> bool {
    asked(policy, peer, port, "/").starts_with("allow")
}

#[test]
fn a_server_without_authorization_lets_nobody_in_and_other_ports_are_as_before() {
    let closed = inbound(&server(SERVER));

    assert!(asked(&closed, WEB, 9080, "/").starts_with("deny: Server default/reviews: "));
    assert!(!may(&closed, "", 9080) && may(&closed, "", 9090));
}

#[test]
fn a_policy_lets_in_those_who_are_all_that_it_requires() {
    let network = document(
        "v1alpha1",
        "NetworkAuthentication",
        "near",
        "{networks: [{cidr: 10.0.0.0/8, except: [10.0.0.9]}]}",
    );
    let far = document(
        "v1alpha1",
        "NetworkAuthentication",
        "far",
        "{networks: [{cidr: 10.0.0.0/8, except: [10.0.0.1]}]}",
    );
    let identities = "{identities: ['*.default.serviceaccount.identity.linkerd.cluster.local'], identityRefs: [{kind: Namespace, name: none}]}";
    let mesh_tls = document("v1alpha1", "MeshTLSAuthentication", "ours", identities);
    let reference =
        |kind: &str, name: &str| format!("{{group: policy.linkerd.io, kind: {kind}, name: {name}}}");
    let near = reference("NetworkAuthentication", "near");
    let both = format!("{}, {near}", reference("MeshTLSAuthentication", "ours"));
    let neither = format!("{IS_WEB}, {}", reference("NetworkAuthentication", "far"));

    let one = inbound(&[server(SERVER), policy("a", TO_SERVER, IS_WEB)].concat());
    assert_eq!(asked(&one, WEB, 9080, "/"), "allow: AuthorizationPolicy.policy.linkerd.io default/a");
    assert!(!may(&one, OTHER, 9080) && !may(&one, "", 9080));
    let all = inbound(&[server(SERVER), network.clone(), mesh_tls, policy("a", TO_SERVER, &both)].concat());
    assert!(may(&all, WEB, 9080) && !may(&all, OTHER, 9080) && !may(&all, "", 9080));
    let elsewhere = inbound(&[server(SERVER), far, policy("a", TO_SERVER, &neither)].concat());
    assert!(!may(&elsewhere, WEB, 9080));
    let anyone =
        inbound(&[server(SERVER), network, policy("a", "kind: Namespace, name: default", &near)].concat());
    assert!(may(&anyone, "", 9080));
}

#[test]
fn an_older_authorization_names_servers_or_selects_them() {
    let of = |server_ref: &str, client: &str| {
        let spec = format!("{{server: {server_ref}, client: {client}}}");
        inbound(&[server(SERVER), document("v1beta1", "ServerAuthorization", "a", &spec)].concat())
    };
    let named = of("{name: reviews}", "{meshTLS: {serviceAccounts: [{name: other, namespace: shop}]}}");
    assert!(may(&named, OTHER, 9080) && !may(&named, WEB, 9080));
    let selected = of("{selector: {matchLabels: {of: reviews}}}", "{meshTLS: {unauthenticatedTLS: true}}");
    assert!(may(&selected, OTHER, 9080) && !may(&selected, "", 9080));
    let networks = "{unauthenticated: true, networks: [{cidr: 10.0.0.0/8}]}";
    assert!(may(&of("{name: reviews}", networks), "", 9080));
}

#[test]
fn the_default_is_for_ports_without_a_server_and_a_servers_own_access_is_beside_its_policies() {
    let namespace = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: {{config.linkerd.io/default-inbound-policy: {word}}}}}\n---\n"
        )
    };
    let open = server("{podSelector: {}, port: 9080, accessPolicy: all-unauthenticated}");
    for (word, plain, meshed) in [
        ("all-unauthenticated", true, true),
        ("all-authenticated", false, true),
        ("cluster-unauthenticated", true, true),
        ("cluster-authenticated", false, true),
        ("deny", false, false),
        ("audit", true, true),
    ] {
        let policy = inbound(&[namespace(word), open.clone()].concat());
        assert_eq!((may(&policy, "", 9090), may(&policy, OTHER, 9090)), (plain, meshed), "{word}");
        assert!(may(&policy, "", 9080), "{word}");
        let server = server(&format!("{{podSelector: {{}}, port: 9080, accessPolicy: {word}}}"));
        let policy = inbound(&server);
        assert_eq!((may(&policy, "", 9080), may(&policy, OTHER, 9080)), (plain, meshed), "{word}");
        assert_eq!(policy.has_notes(), word == "audit", "{word}");
    }
    let (mesh, problems) = compiled(&format!("{MESH}{}", namespace("denny")));
    assert!(errors(&problems)[0].contains("did you mean deny?"), "{problems:?}");
    assert!(!may(&mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy, WEB, 9090));
}

#[test]
fn a_route_has_policies_of_its_own_and_what_matches_none_is_not_found() {
    let parent = "parentRefs: [{group: policy.linkerd.io, kind: Server, name: reviews}]";
    let route = |version, name, path: &str| {
        let spec = format!("{{{parent}, rules: [{{matches: [{{path: {{value: {path}}}}}]}}]}}");
        document(version, "HTTPRoute", name, &spec)
    };
    let to = |group: &str, name: &str| format!("group: {group}, kind: HTTPRoute, name: {name}");
    let policy = inbound(
        &[
            server(SERVER),
            route("v1beta3", "public", "/public"),
            route("v1", "private", "/public/private"),
            policy("all", &to("policy.linkerd.io", "public"), ""),
            policy("web", &to("gateway.networking.k8s.io", "private"), IS_WEB),
        ]
        .concat(),
    );

    assert_eq!(
        asked(&policy, OTHER, 9080, "/public/a"),
        "allow: AuthorizationPolicy.policy.linkerd.io default/all"
    );
    assert!(asked(&policy, OTHER, 9080, "/public/private").starts_with("deny: Server default/reviews"));
    assert!(asked(&policy, WEB, 9080, "/public/private").starts_with("allow"));
    for peer in [WEB, OTHER, ""] {
        assert!(asked(&policy, peer, 9080, "/other").contains("none of them matches"), "{peer}");
    }
}

#[test]
fn what_names_nothing_or_has_another_servers_port_is_told_and_lets_nobody_in() {
    let second = document(
        "v1beta3",
        "Server",
        "second",
        "{podSelector: {}, port: 9080, accessPolicy: all-unauthenticated}",
    );
    let missing = "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: none}";
    let documents = [
        server(SERVER),
        second,
        policy("a", TO_SERVER, missing),
        policy("b", "group: policy.linkerd.io, kind: Server, name: none", IS_WEB),
    ];
    let (mesh, problems) = compiled(&format!("{MESH}{}", documents.concat()));

    assert!(!may(&mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy, WEB, 9080));
    let errors = errors(&problems);
    for field in ["spec.port: ", "spec.requiredAuthenticationRefs[0]: ", "spec.targetRef: "] {
        assert_eq!(errors.iter().filter(|error| error.starts_with(field)).count(), 1, "{field} {errors:#?}");
    }
}

#[test]
fn a_port_that_is_opaque_by_its_server_is_so_for_the_workload() {
    let opaque = "{podSelector: {}, port: 9080, proxyProtocol: opaque}";
    let (mesh, _) = compiled(&format!("{MESH}{}", server(opaque)));
    let protocols = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].protocols;
    assert_eq!(protocols.get(&9080), Some(&Protocol::Tcp));
}

#[test]
fn a_server_that_cannot_be_read_closes_the_workloads_that_it_selects() {
    let broken = server("{podSelector: {matchLabels: {app: reviews}}, port: 9080, accessPolicy: nobody}");
    let (mesh, _) = compiled(&format!("{MESH}{broken}"));
    let policy = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy;
    assert!(asked(policy, WEB, 9090, "/").contains("until it is repaired"));
}

#[test]
fn a_route_that_cannot_be_read_opens_nothing_of_its_server() {
    let route = |parents: &str, kind: &str| {
        let spec = format!(
            "{{parentRefs: {parents}, rules: [{{matches: [{{path: {{type: {kind}, value: '/public('}}}}]}}]}}"
        );
        document("v1", "HTTPRoute", "public", &spec)
    };
    let parent = "[{group: policy.linkerd.io, kind: Server, name: reviews}]";
    let open = policy("web", TO_SERVER, IS_WEB);
    for (parents, kind) in [
        (parent, "RegularExpression"),
        (parent, "Unknown"),
        ("[{group: policy.linkerd.io, kind: Server}]", "Exact"),
        ("{group: policy.linkerd.io, kind: Server, name: reviews}", "Exact"),
    ] {
        let (mesh, problems) = compiled(&format!("{MESH}{}{open}{}", server(SERVER), route(parents, kind)));
        let policy = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy;
        assert!(asked(policy, WEB, 9080, "/other").starts_with("deny"), "{parents} {kind}: {problems:?}");
    }

    let elsewhere = route("[{group: '', kind: Service, name: reviews}]", "Unknown");
    let (mesh, _) = compiled(&format!("{MESH}{}{open}{elsewhere}", server(SERVER)));
    assert!(may(&mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy, WEB, 9080));
}
