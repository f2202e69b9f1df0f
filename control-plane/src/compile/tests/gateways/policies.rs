//! Policies for the workloads that are a gateway, by its name.

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
    let away = EDGE.replace("  namespace: shop\n  annotations", "  namespace: selvedge\n  annotations");
    for (edge, workload) in [(EDGE, "shop/edge-1"), (&away, "selvedge/edge-1")] {
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
