//! `DestinationRule`s that are for some clients of their namespace alone, whom they select by their labels.

use super::*;

/// Workloads without a sidecar or a port, each with its namespace and its labels.
fn clients(all: &[(&str, &str)]) -> String {
    let one = |(number, (namespace, labels)): (usize, &(&str, &str))| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: c{number}, namespace: {namespace}}}\n\
             spec: {{address: 127.0.1.{number}, labels: {{{labels}}}}}\n"
        )
    };
    all.iter().enumerate().map(one).collect()
}

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{host: reviews.default.svc.cluster.local, {spec}}}\n"
    )
}

/// A rule that lets as many connections be opened, for clients with these labels.
fn limit(namespace: &str, name: &str, connections: u32, labels: &str) -> String {
    rule(
        namespace,
        name,
        &format!(
            "workloadSelector: {{matchLabels: {{{labels}}}}}, \
             trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}"
        ),
    )
}

fn unselected(namespace: &str, connections: u32) -> String {
    let policy = format!("trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}");
    rule(namespace, "for-all", &policy)
}

/// Reviews as the workload `name` sees it.
fn seen<'m>(mesh: &'m Mesh, name: &str) -> &'m Service {
    let clients = mesh.clients(&name.parse().unwrap());
    mesh.services[&ServiceKey::new(REVIEWS, 9080)].for_clients(&clients)
}

/// How many connections to reviews each of the workloads `c0`, `c1` and so on may open.
fn limits(mesh: &Mesh, all: &[(&str, &str)]) -> Vec<Option<u32>> {
    let one = |(number, (namespace, _)): (usize, &(&str, &str))| {
        let service = seen(mesh, &format!("{namespace}/c{number}"));
        service.backends[0].policy.connections.max_connections
    };
    all.iter().enumerate().map(one).collect()
}

const ALL: [(&str, &str); 6] = [
    ("shop", "app: web"),
    ("shop", "app: web, tier: front"),
    ("shop", "app: db"),
    ("default", "app: web"),
    ("third", "app: web"),
    ("shop", "tier: front"),
];

#[test]
fn a_rule_with_a_selector_is_for_those_clients_of_its_namespace_and_goes_before_one_without() {
    let web = limit("shop", "a", 1, "app: web");
    let seen = |rules: &str| {
        let (mesh, problems) = compiled(&format!("{MESH}{}{rules}", clients(&ALL)));
        assert_eq!(errors(&problems), [""; 0]);
        limits(&mesh, &ALL)
    };
    let host = unselected("default", 9);

    assert_eq!(seen(&web), [Some(1), Some(1), None, None, None, None]);
    let for_others = [Some(9); 4];
    assert_eq!(seen(&(web.clone() + &host)), [&[Some(1), Some(1)][..], &for_others].concat());
    let own = unselected("shop", 5);
    let with_own = [Some(1), Some(1), Some(5), Some(9), Some(9), Some(5)];
    assert_eq!(seen(&format!("{own}{web}{host}")), with_own);
    assert_eq!(seen(&format!("{web}{own}{host}")), with_own);
    let closer = web.replace("host: reviews.default.svc.cluster.local", "host: '*.svc.cluster.local'");
    assert_eq!(seen(&format!("{own}{closer}")), [Some(5), Some(5), Some(5), None, None, Some(5)]);
    let front = limit("shop", "b", 2, "tier: front");
    let first = [Some(1), Some(1), None, None, None, Some(2)];
    assert_eq!(seen(&format!("{web}{front}")), first, "of several the first counts");
    assert_eq!(seen(&format!("{front}{web}")), [Some(1), Some(2), None, None, None, Some(2)]);
    let everybody = limit("shop", "c", 3, "");
    assert_eq!(seen(&format!("{everybody}{host}")), [Some(3), Some(3), Some(3), Some(9), Some(9), Some(3)]);
    let (hosts_own, root) = (limit("default", "d", 4, "app: web"), MeshSettings::default().root_namespace);
    assert_eq!(seen(&hosts_own), [None, None, None, Some(4), None, None], "it does not leave its namespace");
    assert_eq!(seen(&limit(&root, "e", 4, "app: web")), [None; 6]);
    let of_namespace = web.replace("spec: {", "spec: {exportTo: [shop], ");
    assert_eq!(seen(&of_namespace), seen(&web));
}

#[test]
fn pods_are_selected_as_workload_entries_are() {
    let pod = |name: &str, app: &str, ip: u8| {
        serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": app, "selvedge.io/sidecar": "injected"}},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{ip}"), "podIPs": [{"ip": format!("10.0.0.{ip}")}]}})
    };
    let (mut all, _) = resources(&format!("{MESH}{}", limit("shop", "a", 1, "app: web")));
    for document in [pod("c0", "web", 1), pod("c1", "db", 2)] {
        match crate::resources::decode_value(document, "default").outcome {
            DecodeOutcome::Understood(resource) => all.push(resource),
            other => panic!("{other:?}"),
        }
    }

    let (mesh, _) = compile(&all, &MeshSettings::default(), &Mesh::default());

    assert_eq!(limits(&mesh, &[("shop", ""), ("shop", "")]), [Some(1), None]);
}

#[test]
fn rules_with_the_same_selector_are_merged_and_with_no_others() {
    let subset = |name: &str| format!("subsets: [{{name: {name}, labels: {{version: {name}}}}}]");
    let select = "workloadSelector: {matchLabels: {app: web}}";
    let route = virtual_service(
        "r",
        "{hosts: [reviews.default.svc.cluster.local], http: [{route: [\
         {destination: {host: reviews, subset: v1}, weight: 50}, \
         {destination: {host: reviews, subset: v2}, weight: 50}]}]}",
    );
    let seen = |rules: &str| {
        let text = format!("{MESH}{}{route}---\n{rules}", clients(&ALL));
        let (mesh, problems) = compiled(&text);
        let found = ["shop/c0", "shop/c2"].map(|name| {
            let backends = &seen(&mesh, name).backends;
            backends.iter().map(|one| one.broken.is_none()).collect::<Vec<_>>()
        });
        (found, errors(&problems))
    };
    let [one, two] = ["v1", "v2"].map(|name| rule("shop", name, &format!("{select}, {}", subset(name))));
    let both = rule(
        "default",
        "all",
        "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]",
    );

    assert_eq!(seen(&format!("{one}{two}{both}")), ([vec![true, true], vec![true, true]], vec![]));
    let (found, told) = seen(&format!("{one}{both}"));
    assert_eq!(found, [vec![true, false], vec![true, true]], "it is not completed by one without");
    assert!(told[0].contains("add it, or use one of v1"), "{told:?}");
    let (found, told) = seen(&format!("{one}{two}"));
    assert_eq!(found, [vec![true, true], vec![false, false]]);
    assert!(
        told[0].contains("only clients in namespace shop with app=web follow, so for others"),
        "{told:?}"
    );
}

#[test]
fn what_servers_and_their_sidecars_do_no_selector_says() {
    let timeout = "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 7s}}}";
    let connections = |spec: &str| {
        let (mesh, _) = compiled(&format!("{MESH}{}", rule("default", "a", spec)));
        mesh.workloads[&"default/reviews-v1".parse().unwrap()].app_connections.len()
    };

    assert_eq!(connections(timeout), 1);
    assert_eq!(connections(&format!("{timeout}, workloadSelector: {{matchLabels: {{app: reviews}}}}")), 0);
    assert_eq!(connections(&format!("{timeout}, workloadSelector: {{}}")), 0);
}

#[test]
fn a_rule_about_tls_that_cannot_be_used_refuses_those_whom_it_selects() {
    let bad = |more: &str| rule("shop", "bad", &format!("{more}, trafficPolicy: {{tls: {{mode: SIMPLY}}}}"));
    let refused = |text: &str| -> Vec<bool> {
        let (mesh, _) = compiled(&format!("{MESH}{}{text}", clients(&ALL)));
        let one = |(number, (namespace, _)): (usize, &(&str, &str))| {
            seen(&mesh, &format!("{namespace}/c{number}")).backends[0].broken.is_some()
        };
        ALL.iter().enumerate().map(one).collect()
    };

    let selected = bad("workloadSelector: {matchLabels: {app: web}}");
    assert_eq!(refused(&selected), [true, true, false, false, false, false]);
    assert_eq!(
        refused(&bad("workloadSelector: {matchLabels: {app: '*'}}")),
        [true, true, true, false, false, true]
    );
    let exported =
        bad("workloadSelector: {matchLabels: {app: web}}, exportTo: ['*']").replace("SIMPLY", "SIMPLE");
    assert_eq!(refused(&exported), [true, true, false, false, false, false]);
}

#[test]
fn a_rule_that_selects_nobody_is_told_and_one_that_selects_everybody() {
    let told = |text: &str| {
        let (_, problems) = compiled(&format!("{MESH}{}{text}", clients(&ALL)));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };

    assert_eq!(told(&limit("shop", "a", 1, "app: web")), [""; 0]);
    for labels in ["app: wbe", "app: db, tier: front"] {
        let told = told(&limit("shop", "a", 1, labels));
        assert!(told[0].contains("spec.workloadSelector.matchLabels"), "{told:?}");
        assert!(told[0].contains("selects no workload of namespace shop"), "{told:?}");
        assert_eq!(told.len(), 1, "{told:?}");
    }
    let told = told(&limit("shop", "a", 1, ""));
    assert!(told[0].contains("selects all clients in the document's own namespace"), "{told:?}");
}

#[test]
fn other_clients_share_what_they_see_and_what_is_not_changed_is_the_same() {
    let text = |connections: u32| {
        let host = unselected("default", 9);
        format!("{MESH}{}{}{host}", clients(&ALL), limit("shop", "a", connections, "app: web"))
    };
    let settings = MeshSettings::default();
    let (before, _) = compile(&resources(&text(1)).0, &settings, &Mesh::default());
    let (after, _) = compile(&resources(&text(2)).0, &settings, &before);

    let is_same = ["shop/c0", "shop/c1", "shop/c2", "default/c3", "third/c4"].map(|name| {
        let names = [&before, &after].map(|mesh| {
            let clients = mesh.clients(&name.parse().unwrap());
            Arc::as_ptr(mesh.services[&ServiceKey::new(REVIEWS, 9080)].for_clients(&clients))
        });
        names[0] == names[1]
    });
    assert_eq!(is_same, [false, false, true, true, true]);
    let views = &after.services[&ServiceKey::new(REVIEWS, 9080)];
    assert_eq!((views.by_namespace.len(), views.each_selected().count()), (0, 1));
    assert!(after.selected.contains_key(&"shop/c1".parse().unwrap()));
    assert_eq!(after.selected.len(), 2);
}
