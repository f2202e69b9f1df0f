//! Policies for the workloads that are a gateway, by its name.

use selvedge_model::{policy::Action, token::Keys};

use super::*;

const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A policy that denies all, and a document that accepts tokens, in `namespace` for these targets.
fn policies(namespace: &str, targets: &str) -> String {
    let spec = |more: &str| format!("{{targetRefs: [{targets}], {more}}}");
    let document = |kind: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: at-the-door, namespace: {namespace}}}\n\
             spec: {spec}\n---\n"
        )
    };
    document("AuthorizationPolicy", &spec("action: DENY, rules: [{}]"))
        + &document("RequestAuthentication", &spec(&format!("jwtRules: [{{issuer: a, jwks: '{KEYS}'}}]")))
}

const TARGET: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}";

/// Which workloads have a policy, and which accept tokens.
fn with_policies(mesh: &Mesh) -> [Vec<String>; 2] {
    let names = |has: &dyn Fn(&Workload) -> bool| -> Vec<String> {
        let all = mesh.workloads.iter().filter(|(_, workload)| has(workload));
        all.map(|(name, _)| name.to_string()).collect()
    };
    [
        names(&|workload| workload.policy.authorization.is_some()),
        names(&|workload| workload.policy.authentication.is_some()),
    ]
}

#[test]
fn a_policy_for_a_gateway_is_for_its_workloads_at_all_ports_and_for_nobody_else() {
    let app = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: web-1, namespace: shop}\n\
               spec: {address: 127.0.0.2, labels: {app: web}}\n---\n";
    // The gateway runs in the control plane's namespace: its policies are where it is itself.
    for (edge, workload) in [(EDGE, "shop/edge-1"), (&away(), "selvedge/edge-1")] {
        let text = format!("{edge}{app}{}{}", gateway(HTTP), policies("shop", TARGET));
        let (mesh, problems) = compiled(&text);

        assert_eq!(errors(&problems), Vec::<String>::new());
        assert_eq!(with_policies(&mesh), [[workload.to_owned()], [workload.to_owned()]].map(Vec::from));
        let own = &mesh.workloads[&workload.parse().unwrap()].policy;
        assert_eq!(own.authorization.as_ref().unwrap().policies()[0].ports, None);
    }
}

#[test]
fn a_policy_names_gateways_of_its_own_namespace_and_one_that_is_not_there_is_told() {
    let text = format!("{EDGE}{}{}", gateway(HTTP), policies("other", TARGET));
    let (mesh, problems) = compiled(&text);

    assert_eq!(with_policies(&mesh), [Vec::<String>::new(), Vec::new()]);
    let told = errors(&problems).concat();
    assert!(told.contains("there is no Gateway edge in namespace other, so this selects nothing"), "{told}");
}

/// The gateway's workload, in another namespace than its Gateway.
fn away() -> String {
    EDGE.replace("  namespace: shop\n  annotations", "  namespace: selvedge\n  annotations")
}

/// An app in the Gateway's namespace, and one in the gateway's workload's.
const APPS: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: web-1, namespace: shop}\n\
                    spec: {address: 127.0.0.2, labels: {app: web}}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: other-1, namespace: selvedge}\n\
                    spec: {address: 127.0.0.3, labels: {app: other}}\n---\n";

/// The workloads that refuse everything, and those that refuse every token, if policies with these specs are in `shop`.
fn closed_by(authorization: &str, authentication: &str) -> [Vec<String>; 2] {
    let document = |kind: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: door, namespace: shop}}\nspec: {spec}\n---\n"
        )
    };
    let text = [
        away(),
        APPS.to_owned(),
        gateway(HTTP),
        document("AuthorizationPolicy", authorization),
        document("RequestAuthentication", authentication),
    ];
    let (mesh, problems) = compiled(&text.concat());
    assert_eq!(errors(&problems).len(), 2, "{problems:?}");
    let with = with_policies(&mesh);
    for name in &with[0] {
        let policy = &mesh.workloads[&name.parse().unwrap()].policy;
        let all = policy.authorization.as_ref().unwrap().policies();
        assert!(all.iter().any(|one| one.why.is_some() && one.action == Action::Deny), "{all:?}");
    }
    for name in &with[1] {
        let policy = &mesh.workloads[&name.parse().unwrap()].policy;
        let all = &policy.authentication.as_ref().unwrap().rules;
        assert!(all.iter().all(|rule| matches!(rule.keys, Keys::Missing(_))), "{all:?}");
    }
    with
}

#[test]
fn a_policy_that_cannot_be_used_closes_each_gateway_of_its_namespace_wherever_that_runs() {
    let everywhere = ["selvedge/edge-1", "shop/web-1"].map(str::to_owned).to_vec();
    for (authorization, authentication) in [
        ("TARGETS, action: DENY, rules: [{to: [{operation: {pathz: [/admin]}}]}]", "TARGETS, jwtRulez: []"),
        ("targetRefz: [TARGET], action: DENY, rules: [{}]", "targetRefz: [TARGET], jwtRules: []"),
        ("targets: [TARGET], action: DENY, rules: [{}]", "targets: [TARGET], jwtRules: []"),
        ("targetRefs: TARGET, action: DENY, rules: [{}]", "targetRefs: TARGET, jwtRules: []"),
        (
            "targetRefs: [TARGET, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}]",
            "targetRefs: [TARGET, {group: networking.istio.io, kind: ServiceEntry, name: a}]",
        ),
        (
            "targetRefs: [{kind: Gateway, name: edge}], action: DENY, rules: [{}]",
            "targetRef: {group: networking.istio.io, kind: Gateway, name: edge}",
        ),
    ] {
        let spec = |text: &str| {
            format!("{{{}}}", text.replace("TARGETS", "targetRefs: [TARGET]").replace("TARGET", TARGET))
        };
        let closed = closed_by(&spec(authorization), &spec(authentication));
        assert_eq!(closed, [everywhere.clone(), everywhere.clone()], "{authorization}");
    }
}

#[test]
fn a_policy_that_cannot_be_used_closes_no_gateway_that_it_is_not_for() {
    // One for workloads by their labels is for no Gateway, and one for a class is for nothing else.
    let labelled = "{selector: {matchLabels: {app: web}}, rulez: []}";
    let class = "{targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: any}]}";
    let [app, edge] = ["shop/web-1", "selvedge/edge-1"].map(|name| vec![name.to_owned()]);
    assert_eq!(closed_by(labelled, labelled), [app.clone(), app]);
    assert_eq!(closed_by(class, class), [edge.clone(), edge.clone()]);
    // What is called by a name that nobody knows may have said that it is for others, too.
    for misspelt in ["selectr: {matchLabels: {app: web}}", "targetRefz: [{kind: Service, name: web}]"] {
        let spec = class.replace("}]}", &format!("}}], {misspelt}}}"));
        let [authorization, _] = closed_by(&spec, &spec);
        assert!(authorization.contains(&"shop/web-1".to_owned()), "{misspelt}: {authorization:?}");
    }
}

#[test]
fn the_gateway_of_all_ingresses_needs_no_document_to_be_named() {
    let edge = away()
        .replace("config.selvedge.io/gateway: shop/edge,", "config.selvedge.io/gateway: selvedge/ingress,");
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, namespace: shop}\n\
                   spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}\n---\n";
    let target = TARGET.replace("name: edge", "name: ingress");
    let limit = format!(
        "apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: a, namespace: selvedge}}\n\
         spec: {{targetRefs: [{target}], limits: [{{requests: 10}}]}}\n---\n"
    );
    let named = policies("selvedge", &target) + &limit;

    let (mesh, problems) = compiled(&format!("{edge}{ingress}{named}"));
    assert_eq!(
        with_policies(&mesh),
        [["selvedge/edge-1".to_owned()], ["selvedge/edge-1".to_owned()]].map(Vec::from)
    );
    let missing = |problems: &[Problem]| {
        errors(problems).iter().filter(|told| told.contains("there is no Gateway")).count()
    };
    assert_eq!(missing(&problems), 0, "{problems:?}");

    let (_, problems) = compiled(&format!("{edge}{named}"));
    assert_eq!(missing(&problems), 3, "without an Ingress there is no such gateway: {problems:?}");
}

#[test]
fn a_gateways_access_log_is_its_own_namespaces_and_the_roots_to_change() {
    let off = |text: String| {
        text.replacen("metadata: {", "metadata: {annotations: {config.selvedge.io/access-log: 'off'}, ", 1)
    };
    let web = "{backendRefs: [{name: web, namespace: shop, port: 80}]}";
    let grant = "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: NS}], to: [{group: '', kind: Service}]}";
    for (namespace, is_off) in [("shop", true), ("istio-system", true), ("other", false)] {
        let text = gateway(HTTP)
            + &off(route(namespace, "r", "a.example", web))
            + &document("ReferenceGrant", "shop", "grant", &grant.replace("NS", namespace));
        let (mesh, problems) = compiled(&format!("{EDGE}{text}"));

        let (_, rule) = rule(&mesh, 80, "a.example", "/").unwrap();
        assert_eq!(rule.access_log.as_ref().map(|log| log.is_off()), is_off.then_some(true), "{namespace}");
        let told: Vec<_> = problems.iter().map(|problem| (problem.severity, &*problem.field)).collect();
        let expected = [(crate::problem::Severity::NotActedOn, "metadata.annotations")];
        assert_eq!(told, if is_off { &[][..] } else { &expected[..] }, "{namespace}: {problems:?}");
    }
}

#[test]
fn a_destination_rule_selects_the_workloads_of_a_gateway_one_by_one() {
    let more = |name: &str, address: &str, labels: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop, annotations: \
             {{config.selvedge.io/gateway: shop/edge, config.selvedge.io/gateway-ports: '80=8080'}}}}\n\
             spec: {{address: {address}, serviceAccount: edge, labels: {{{labels}}}}}\n---\n"
        )
    };
    let workloads = more("edge-2", "127.0.0.2", "tier: front") + &more("edge-3", "127.0.0.3", "tier: back");
    let rule = |namespace: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: front, namespace: {namespace}}}\n\
             spec: {{host: web.shop.svc.cluster.local, workloadSelector: {{matchLabels: {{tier: front}}}}, \
             trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}\n---\n"
        )
    };
    let balancers = |rule: &str| {
        let text = format!("{EDGE}{workloads}{}{}{rule}", gateway(HTTP), route("shop", "r", "", &to("web")));
        let (mesh, problems) = compiled(&text);
        assert_eq!(errors(&problems), [""; 0]);
        let hosts = ["shop/edge-1", "shop/edge-2", "shop/edge-3"].map(|name| {
            let gateway = Arc::clone(&mesh.gateways[&name.parse().unwrap()]);
            let host = gateway.virtual_hosts.values().next().unwrap();
            host.backends[0].policy.load_balancer == LoadBalancer::Random
        });
        (hosts, Arc::ptr_eq(edge(&mesh), &mesh.gateways[&"shop/edge-3".parse().unwrap()]))
    };

    assert_eq!(balancers(&rule("shop")), ([false, true, false], true), "the others share theirs");
    assert_eq!(balancers(&rule("other")), ([false; 3], true));
}
