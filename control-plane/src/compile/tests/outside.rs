//! `ServiceEntry`s by name, wildcards, and TLS to servers outside the mesh.

use selvedge_model::UpstreamTls;

use super::*;

fn entry(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 443}}]\n{spec}---\n"
    )
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec:\n  \
         host: '{host}'\n  trafficPolicy: {policy}\n---\n"
    )
}

fn named(mesh: &Mesh, host: &str) -> Vec<(String, bool)> {
    let endpoints = &mesh.endpoints[&ServiceKey::new(host, 80)];
    endpoints.named.iter().map(|one| (one.address.to_string(), one.one_address)).collect()
}

fn tls(mesh: &Mesh, host: &str) -> Option<UpstreamTls> {
    service(mesh, host, 80, "default").backends[0].policy.tls.clone()
}

#[test]
fn hosts_are_their_own_endpoints_where_dns_is_asked() {
    let (mesh, problems) = compiled(&entry("  hosts: [api.example.com, b.example.com]\n  resolution: DNS\n"));

    assert_eq!(problems, []);
    assert_eq!(named(&mesh, "api.example.com"), [("api.example.com:443".to_owned(), false)]);
    assert_eq!(named(&mesh, "b.example.com"), [("b.example.com:443".to_owned(), false)]);
}

#[test]
fn a_wildcard_is_found_by_the_names_under_it_and_goes_where_they_say() {
    let wide = entry("  hosts: ['*.example.com']\n  resolution: NONE\n");
    let narrow = entry("  hosts: ['*.eu.example.com']\n").replace("name: e}", "name: f}");
    let (mesh, problems) = compiled(&(wide + &narrow));

    assert_eq!(problems, []);
    let found = |authority: &str| match mesh.lookup("default", authority) {
        Lookup::Service(key) => key.host.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(found("api.example.com"), "*.example.com");
    assert_eq!(found("a.eu.example.com:80"), "*.eu.example.com", "the longest wildcard");
    assert_eq!(found("example.com"), "None");
    assert_eq!(found("api.example.com:81"), "None");
    assert!(mesh.endpoints[&ServiceKey::new("*.example.com", 80)].requested);
}

#[test]
fn tls_is_begun_with_the_hosts_name_unless_it_says_otherwise() {
    let hosts =
        entry("  hosts: [api.example.com]\n  resolution: DNS\n  subjectAltNames: [alt.example.com]\n");
    let (mesh, problems) = compiled(&(hosts.clone() + &rule("api.example.com", "{tls: {mode: SIMPLE}}")));

    assert_eq!(problems, []);
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, "api.example.com") else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("api.example.com"));
    assert_eq!(origination.subject_alt_names, ["alt.example.com"]);

    let by_port = "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: x.example}}]}";
    let (mesh, _) = compiled(&(hosts.clone() + &rule("*.example.com", by_port)));
    let Some(UpstreamTls::Originate(origination)) = tls(&mesh, "api.example.com") else { panic!() };
    assert_eq!(origination.sni.as_deref(), Some("x.example"));

    let other_port = "{tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}}]}";
    let (mesh, _) = compiled(&(hosts + &rule("api.example.com", other_port)));
    assert_eq!(tls(&mesh, "api.example.com"), None, "what is said for a port replaces all blocks");
}

#[test]
fn tls_that_does_not_fit_the_endpoints_is_reported() {
    let told = |mode: &str| {
        let (_, problems) =
            compiled(&format!("{MESH}{}", rule("reviews", &format!("{{tls: {{mode: {mode}}}}}"))));
        let told = problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message));
        told.collect::<Vec<_>>().join("\n")
    };

    let mutual = told("ISTIO_MUTUAL");
    assert!(mutual.contains("127.0.0.2:9080") && mutual.contains("503"), "{mutual}");
    for mode in ["DISABLE", "SIMPLE"] {
        let replaced = told(mode);
        assert!(replaced.contains("127.0.0.1:9001") && replaced.contains("STRICT"), "{mode}: {replaced}");
    }
}

#[test]
fn a_workload_by_name_keeps_its_identity_and_its_listener() {
    let by_name = MESH
        .replace("127.0.0.1\n", "reviews-v1.test\n")
        .replace("\"127.0.0.1:4143\"", "\"sidecar.test:4143\"");
    let (mesh, problems) = compiled(&by_name);

    assert_eq!(problems, []);
    let endpoints = &mesh.endpoints[&ServiceKey::new(REVIEWS, 9080)];
    assert_eq!((endpoints.list.len(), endpoints.named.len()), (1, 1));
    let named = &endpoints.named[0];
    assert_eq!(
        (named.address.to_string(), named.dial.to_string()),
        ("reviews-v1.test:9001".into(), "sidecar.test:4143".into())
    );
    assert!(named.identity.as_ref().unwrap().as_str().ends_with("/sa/reviews"));
}
