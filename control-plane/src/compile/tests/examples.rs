//! What files of `examples/policies` mean, with services and workloads to act on. What each does is shown end to end, in
//! `tests/e2e/examples.rs`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::*;
use crate::sources::directory;

/// Every file's name and text.
fn policies() -> BTreeMap<String, String> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let files = fs::read_dir(&directory).expect("examples/policies is part of the repository");
    files
        .map(|file| file.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a readable file"))
        })
        .collect()
}

/// The file `name`, together with `reviews` and its versions.
fn with_reviews(name: &str, more: &str) -> (Mesh, Vec<Problem>) {
    compiled(&format!("{MESH}{more}---\n{}", policies()[name]))
}

fn subset_policy(mesh: &Mesh, subset: &str) -> TrafficPolicy {
    let found = reviews(mesh).backends.iter().find(|backend| backend.name.subset.as_deref() == Some(subset));
    found.expect("a backend of this subset").policy.clone()
}

#[test]
fn allow_by_service_account() {
    let policy = policies()["allow-by-service-account.yaml"].replace("app: vault", "app: reviews");
    let (mesh, problems) = compiled(&format!("{MESH}---\n{policy}"));

    assert_eq!(errors(&problems), [""; 0]);
    let policy = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy;
    let asked = |peer: &str, path: &str| super::authorization::asked(policy, peer, 9080, path);
    let web = "cluster.local/ns/default/sa/web";
    assert_eq!(asked(web, "/"), "allow: AuthorizationPolicy default/vault-allow-web rule 1");
    assert!(asked("cluster.local/ns/default/sa/other", "/").starts_with("deny: "));
    let denied = "deny: AuthorizationPolicy default/vault-deny-admin rule 1: it denies this";
    assert_eq!(asked(web, "/admin/x"), denied);
    assert_eq!(asked(web, "//ADMIN;a=b"), denied);
}

#[test]
fn canary_with_header() {
    let (mesh, problems) = with_reviews("canary-with-header.yaml", SUBSETS);

    assert_eq!(problems, []);
    let service = reviews(&mesh);
    assert_eq!(backends(service, "/", &[("end-user", "jason")]), Some(vec![("v2".to_owned(), 1)]));
    let weighted = Some(vec![("v1".to_owned(), 90), ("v2".to_owned(), 10)]);
    assert_eq!(backends(service, "/", &[("end-user", "jane")]), weighted);
    assert_eq!(backends(service, "/", &[]), weighted);
    assert!(service.backends.iter().all(|backend| backend.broken.is_none()));
}

#[test]
fn least_request_and_ejection() {
    let routes = policies().remove("canary-with-header.yaml").unwrap();
    let (mesh, problems) = with_reviews("least-request-and-ejection.yaml", &format!("---\n{routes}"));

    let policy = subset_policy(&mesh, "v1");
    assert_eq!(policy.load_balancer, LoadBalancer::LeastRequest);
    let outlier = policy.outlier_detection.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_errors), (Some(5), Some(5)));
    assert_eq!(outlier.interval, Duration::from_secs(30));
    assert_eq!(outlier.base_ejection_time, Duration::from_secs(30));
    assert_eq!(errors(&problems), [""; 0]);
    let told: Vec<_> = problems.iter().map(|problem| problem.field.rsplit('.').next().unwrap()).collect();
    assert_eq!(told, ["consecutiveErrors"]);
    assert_eq!(policy.connections.max_connections, Some(100));
    assert_eq!(policy.connection_pool.max_pending_requests, Some(50));
    assert_eq!(policy.connection_pool.max_requests_per_connection, Some(2));
}

#[test]
fn strict_mtls() {
    let (mesh, problems) = with_reviews("strict-mtls.yaml", "");

    assert_eq!(problems, []);
    for workload in mesh.workloads.values() {
        let rule = workload.policy.rule(9080);
        assert_eq!((rule.mode, &*rule.name), (MtlsMode::Strict, "PeerAuthentication default/default"));
    }
}

#[test]
fn canary_90_10() {
    let my_app = MESH.replace("reviews", "my-app");
    let (mesh, problems) = compiled(&format!("{my_app}---\n{}", policies()["canary-90-10.yaml"]));

    assert_eq!(problems, []);
    let service = service(&mesh, "my-app.default.svc.cluster.local", 9080, "default");
    assert_eq!(backends(service, "/version", &[]), Some(vec![("v1".to_owned(), 90), ("v2".to_owned(), 10)]));
    let labels: Vec<_> = service.backends.iter().map(|backend| backend.labels["version"].as_str()).collect();
    assert_eq!(labels, ["v1", "v2"]);
}

#[test]
fn path_method_and_query() {
    let details = format!("{MESH}{SUBSETS}").replace("reviews", "details");
    let (mesh, problems) = compiled(&format!("{details}---\n{}", policies()["path-method-and-query.yaml"]));

    assert_eq!(problems, []);
    let service = service(&mesh, "details.default.svc.cluster.local", 9080, "default");
    let v1 = Some(vec![("v1".to_owned(), 1)]);
    assert_eq!(backends(service, "/details", &[]), v1);
    assert_eq!(backends(service, "/details/12", &[]), v1);
    assert_eq!(backends(service, "/details/12", &[("x-internal", "yes")]), None);
    assert_eq!(backends(service, "/details/twelve", &[]), None);
    let names: Vec<_> = service.routes.rules().iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(
        names,
        ["VirtualService default/details http[0] writes", "VirtualService default/details http[1] reads"]
    );
}

#[test]
fn retries_and_timeout() {
    let policies = policies();
    let files = ["service-of-two-hosts.yaml", "retries-and-timeout.yaml"].map(|name| policies[name].as_str());
    let (mesh, problems) = compiled(&files.join("---\n"));

    assert_eq!(problems, []);
    let ratings = service(&mesh, "ratings.default.svc.cluster.local", 80, "default");
    let rule = &ratings.routes.rules()[0];
    assert_eq!(rule.timeout, Some(Duration::from_secs(2)));
    assert_eq!((rule.retry.attempts, rule.retry.per_try_timeout), (3, Some(Duration::from_millis(500))));
    assert!(rule.retry.on.reset && rule.retry.on.connect_failure && rule.retry.on.refused_stream);
    assert_eq!(rule.retry.on.status_codes, [503]);
}

#[test]
fn service_of_two_hosts() {
    let (mesh, problems) = compiled(&policies()["service-of-two-hosts.yaml"]);

    assert_eq!(problems, []);
    let list = &mesh.endpoints[&ServiceKey::new("ratings.default.svc.cluster.local", 80)].list;
    let facts: Vec<_> = list.iter().map(|one| (one.address.to_string(), one.dial.to_string())).collect();
    assert_eq!(
        facts,
        [
            ("10.0.0.11:8080".to_owned(), "10.0.0.11:4143".to_owned()),
            ("10.0.0.12:8080".to_owned(), "10.0.0.12:4143".to_owned())
        ]
    );
    let expected = "spiffe://cluster.local/ns/default/sa/ratings";
    assert!(
        list.iter().all(|one| one.identity.as_ref().is_some_and(|identity| identity.as_str() == expected))
    );
}

#[test]
fn service_outside_the_mesh() {
    let (mesh, problems) = compiled(&policies()["service-outside-the-mesh.yaml"]);

    assert_eq!(problems, []);
    assert_eq!(
        endpoint_addresses(&mesh, "catalogue.example.com", 80),
        ["192.0.2.10:8080", "192.0.2.11:8081"]
    );
    let list = &mesh.endpoints[&ServiceKey::new("catalogue.example.com", 80)].list;
    assert!(list.iter().all(|endpoint| endpoint.identity.is_none()));
}

#[test]
fn strict_except_one_port() {
    let (mesh, problems) = with_reviews("strict-except-one-port.yaml", "");

    assert_eq!(errors(&problems), [""; 0]);
    let policy = &mesh.workloads[&"default/reviews-v1".parse().unwrap()].policy;
    assert_eq!((policy.rule(9080).mode, policy.rule(9090).mode), (MtlsMode::Strict, MtlsMode::Permissive));
}

#[test]
fn all_together_are_a_directory_without_errors() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let loaded = directory::load(&directory, directory::Options::default()).unwrap();
    let (_, between) = compile(&loaded.resources, &MeshSettings::default(), &Mesh::default());

    assert_eq!(errors(&loaded.problems), [""; 0]);
    assert_eq!(errors(&between), [""; 0]);
}

#[test]
fn the_canarys_configuration_has_no_problem() {
    let files = [
        include_str!("../../../../examples/canary/config/service.yaml"),
        include_str!("../../../../examples/canary/config/virtualservice.yaml"),
        include_str!("../../../../examples/canary/config/destinationrule.yaml"),
        include_str!("../../../../examples/canary/config/peerauthentication.yaml"),
    ];
    let (mesh, problems) = compiled(&files.join("---\n"));

    assert_eq!(problems, []);
    let outlier = subset_policy(&mesh, "v1").outlier_detection.unwrap();
    assert_eq!(outlier.interval, Duration::from_secs(1));
    assert_eq!(outlier.base_ejection_time, Duration::from_secs(2));
}
