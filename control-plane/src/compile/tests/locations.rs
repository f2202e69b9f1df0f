//! Where rules and their matches are written.

use super::*;

const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: first
    match:
    - gateways: [edge]
    - port: 1
    - uri: {prefix: /a}
    route: [{destination: {host: reviews}}]
  - delegate: {name: part}
    match:
    - uri: {prefix: /b}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part}
spec:
  http:
  - match:
    - uri: {prefix: /b/c}
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - backendRefs: [{name: web, port: 80}]
  - matches:
    - method: GET
    - path: {value: /x}
    backendRefs: [{name: web, port: 80}]
";

fn line(written: Option<Written>) -> Option<String> {
    written.map(|written| format!("{written} {} {}", written.document, written.field))
}

#[test]
fn a_rule_and_a_match_are_found_in_their_document() {
    let (resources, _) = resources(ROUTES);
    let locations = RuleLocations::new(&resources);
    let (reviews, web) = ("VirtualService default/reviews", "HTTPRoute default/web");

    let first = format!("{reviews} http[0] first");
    assert_eq!(line(locations.rule(&first)), Some(format!("mesh.yaml:7 {reviews} spec.http[0]")));
    let matched = |port, index| line(locations.matched(&first, port, index));
    assert_eq!(matched(9080, 0), Some(format!("mesh.yaml:11 {reviews} spec.http[0].match[2]")));
    assert_eq!(matched(1, 0), Some(format!("mesh.yaml:10 {reviews} spec.http[0].match[1]")));
    assert_eq!(matched(9080, 1), None);

    let second = format!("{web} rules[1]");
    assert_eq!(line(locations.rule(&second)), Some(format!("mesh.yaml:34 {web} spec.rules[1]")));
    assert_eq!(
        line(locations.matched(&second, 80, 1)),
        Some(format!("mesh.yaml:36 {web} spec.rules[1].matches[1]"))
    );
    assert_eq!(line(locations.rule("default")), None);
}

#[test]
fn a_delegates_rule_stands_there_and_its_match_wherever_it_is_written() {
    let (resources, _) = resources(ROUTES);
    let locations = RuleLocations::new(&resources);
    let (root, part) = ("VirtualService default/reviews", "VirtualService default/part");

    let own = format!("{root} http[1] > {part} http[0]");
    assert_eq!(line(locations.rule(&own)), Some(format!("mesh.yaml:22 {part} spec.http[0]")));
    assert_eq!(
        line(locations.matched(&own, 9080, 0)),
        Some(format!("mesh.yaml:23 {part} spec.http[0].match[0]"))
    );
    let inherited = format!("{root} http[1] > {part} http[1]");
    assert_eq!(
        line(locations.matched(&inherited, 9080, 0)),
        Some(format!("mesh.yaml:15 {root} spec.http[1].match[0]"))
    );
}

#[test]
fn every_rule_that_a_document_can_become_is_found() {
    let (resources, _) = resources(&[super::MESH, "---\n", ROUTES].concat());
    let (mesh, _) = compile(&resources, &MeshSettings::default(), &Mesh::default());
    let locations = RuleLocations::new(&resources);
    let mut written = 0;

    for (key, views) in &mesh.services {
        for rule in views.default.routes.rules().iter().filter(|rule| rule.name != "default") {
            assert!(locations.rule(&rule.name).is_some(), "{}", rule.name);
            let found = (0..rule.matches.len()).map(|at| locations.matched(&rule.name, key.port, at));
            assert!(found.into_iter().all(|one| one.is_some()), "{}", rule.name);
            written += 1;
        }
    }
    assert_eq!(written, 3);
}
