//! Which ports a service has, how its policy reaches the other side, and whose name it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use selvedge_model::{AppConnections, Lookup, ServiceKey};

use super::{super::*, MESH, REVIEWS, compiled, endpoint_addresses, errors, resources};

#[test]
fn target_ports_follow_the_workload_then_the_service() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: a, port: 1, targetPort: 81}
  - {name: b, port: 2, targetPort: named}
  - {name: c, port: 3, targetPort: missing}
---
apiVersion: v1
kind: Service
metadata: {name: admin}
spec:
  selector: {app: web}
  ports:
  - {name: a, port: 4, targetPort: named}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web}
spec: {address: 10.0.0.1, labels: {app: web}, ports: {a: 8081, named: 82}}
";
    let (mesh, problems) = compiled(text);

    let host = "web.default.svc.cluster.local";
    assert_eq!(endpoint_addresses(&mesh, host, 1), ["10.0.0.1:8081"]);
    assert_eq!(endpoint_addresses(&mesh, host, 2), ["10.0.0.1:82"]);
    assert_eq!(endpoint_addresses(&mesh, host, 3), [""; 0]);
    let admin = "admin.default.svc.cluster.local";
    assert_eq!(endpoint_addresses(&mesh, admin, 4), ["10.0.0.1:82"], "a named target goes by its name alone");
    let warned = "port 1 leads to port 8081 of WorkloadEntry default/web";
    assert!(problems.iter().any(|problem| problem.to_string().contains(warned)), "{problems:?}");
    assert!(errors(&problems)[0].contains("no port named \"missing\""), "{problems:?}");
}

#[test]
fn a_servers_sidecar_hears_how_its_app_is_connected_to_and_the_strictest_of_several_services_counts() {
    let rule = |name: &str, host: &str, policy: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
             spec: {{host: {host}, trafficPolicy: {{{policy}}}}}\n"
        )
    };
    let also = "---\napiVersion: v1\nkind: Service\nmetadata: {name: also}\n\
                spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 9001}]}\n";
    let workload = |rules: &str| {
        let (mesh, problems) = compiled(&format!("{MESH}{also}{rules}"));
        assert_eq!(errors(&problems), [""; 0]);
        Arc::clone(&mesh.workloads[&"default/reviews-v1".parse().unwrap()])
    };
    let wide = rule("wide", "\"*.default.svc.cluster.local\"", "connectionPool: {http: {idleTimeout: 9s}}");
    let own = rule(
        "own",
        "reviews",
        "connectionPool: {http: {idleTimeout: 5s, maxRequestsPerConnection: 7}, tcp: {connectTimeout: 1s}}",
    );
    let of_port = rule(
        "of-port",
        "also",
        "portLevelSettings: [{port: {number: 80}, connectionPool: {http: {idleTimeout: 1s}}}]",
    );

    assert!(workload("").app_connections.is_empty());
    let said = |connect: Option<u64>, idle: u64, max_requests: Option<u32>| {
        let connect_timeout = connect.map(Duration::from_secs);
        let said =
            AppConnections { connect_timeout, idle_timeout: Some(Duration::from_secs(idle)), max_requests };
        BTreeMap::from([(9001, said)])
    };
    assert_eq!(workload(&wide).app_connections, said(None, 9, None));
    assert_eq!(workload(&format!("{wide}{own}{of_port}")).app_connections, said(Some(1), 1, Some(7)));
}

#[test]
fn a_slices_address_is_the_workload_that_has_it() {
    let text = format!(
        "{MESH}apiVersion: v1\nkind: Service\nmetadata: {{name: hand}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hand-1, labels: {{kubernetes.io/service-name: hand}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [127.0.0.1]}}, {{addresses: [10.9.9.9]}}]\nports: [{{name: http, port: 9001}}]\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    let list = &mesh.endpoints[&ServiceKey::new("hand.default.svc.cluster.local", 80)].list;
    assert_eq!(list[0].address, "10.9.9.9:9001".parse().unwrap());
    assert_eq!((&list[0].identity, &list[0].workload), (&None, &None));
    assert_eq!(list[1].dial, "127.0.0.1:4143".parse().unwrap());
    assert!(list[1].identity.is_some());
}

#[test]
fn a_slice_of_no_service_is_reported() {
    let (_, problems) = compiled(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: lost}}\naddressType: IPv4\n",
    );

    assert!(errors(&problems)[0].contains("default/lost"), "{problems:?}");
}

#[test]
fn a_service_entry_inside_the_mesh_is_meshed_and_one_outside_is_not() {
    let entry = |location: &str| {
        format!(
            "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  hosts: [ratings.example.com]\n  location: {location}\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints:\n  - {{address: 10.0.0.1, serviceAccount: ratings, labels: {{security.istio.io/tlsMode: istio}}}}\n"
        )
    };
    let identity = |mesh: &Mesh| {
        mesh.endpoints[&ServiceKey::new("ratings.example.com", 80)].list[0]
            .identity
            .as_ref()
            .map(ToString::to_string)
    };

    let (inside, _) = compiled(&entry("MESH_INTERNAL"));
    let (outside, _) = compiled(&entry("MESH_EXTERNAL"));

    assert_eq!(identity(&inside).unwrap(), "spiffe://cluster.local/ns/default/sa/ratings");
    assert_eq!(identity(&outside), None);
    assert!(matches!(inside.lookup("anywhere", "ratings.example.com"), Lookup::Service(_)));
}

#[test]
fn a_service_entry_selects_workloads() {
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  hosts: [r.internal]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 9080}}]\n  workloadSelector: {{labels: {{app: reviews}}}}\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    assert_eq!(endpoint_addresses(&mesh, "r.internal", 80), ["127.0.0.1:9001", "127.0.0.2:9080"]);
}

#[test]
fn one_host_in_two_documents_is_reported() {
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec: {{hosts: [{REVIEWS}], resolution: STATIC, ports: [{{number: 9080, name: http}}]}}\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(endpoint_addresses(&mesh, REVIEWS, 9080).len(), 2);
    assert!(errors(&problems)[0].contains("already defined by Service default/reviews"), "{problems:?}");
}

#[test]
fn two_workloads_at_one_address_are_reported() {
    let twin = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: twin}\nspec: {address: 127.0.0.1, ports: {http: 9001}}\n";
    let (_, problems) = compiled(&format!("{MESH}{twin}"));

    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("WorkloadEntry default/reviews-v1"), "{problems:?}");
}

#[test]
fn the_hosts_of_a_namespaces_entries_have_so_many_ports_and_no_more() {
    let ports = |count: usize| {
        let ports = (1..=count).map(|port| format!("{{number: {port}, name: http-{port}, protocol: HTTP}}"));
        ports.collect::<Vec<_>>().join(", ")
    };
    let entry = |namespace: &str, hosts: &str, count: usize| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec: {{hosts: [{hosts}], resolution: STATIC, ports: [{}], endpoints: [{{address: 192.0.2.1}}]}}\n",
            ports(count)
        )
    };
    let hosts = (0..20).map(|place| format!("h{place}.example.com")).collect::<Vec<_>>().join(", ");
    let (resources, _) = resources(&(entry("greedy", &hosts, 6_000) + &entry("other", "a.example.org", 2)));
    let mut problems = Problems::default();
    let catalog =
        services::Catalog::new(&resources, &MeshSettings::default(), &Default::default(), &mut problems);

    assert_eq!(catalog.hosts().count(), 17, "16 of the one, and that of the other");
    assert!(problems.crowded.iter().map(|one| &**one).eq(["greedy"]), "the other is not");
    let mut found: Vec<_> = problems.found.into_iter().collect();
    sort(&mut found);
    let told: Vec<String> = found.into_iter().map(|problem| problem.message).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].contains("may have 100000 ports together") && told[0].contains("have 96000"), "{told:?}");
}

#[test]
fn the_hosts_of_a_namespaces_entries_have_so_many_endpoints_and_no_more() {
    let port = |number| format!("{{number: {number}, name: http-{number}, protocol: HTTP}}");
    let ports: Vec<String> = (1..=100_u16).map(port).collect();
    let endpoints: Vec<String> =
        (0..125).map(|place| format!("{{address: 10.0.{}.{}}}", place / 250, place % 250 + 1)).collect();
    let entry = |name: &str| {
        let hosts: Vec<String> = (0..9).map(|place| format!("{name}{place}.example.com")).collect();
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: greedy}}\n\
             spec: {{hosts: [{}], resolution: STATIC, ports: [{}], endpoints: [{}]}}\n",
            hosts.join(", "),
            ports.join(", "),
            endpoints.join(", ")
        )
    };
    let (resources, _) = resources(&(entry("a") + &entry("b") + &entry("c")));
    let mut problems = Problems::default();
    let catalog =
        services::Catalog::new(&resources, &MeshSettings::default(), &Default::default(), &mut problems);

    assert_eq!(catalog.hosts().count(), 20, "each has 12,500");
    assert!(!problems.crowded.is_empty() && problems.found.len() == 7);
    assert!(
        problems.found.iter().all(|problem| problem.message.contains("may have 250000 endpoints")),
        "{:?}",
        problems.found
    );
}

/// A `Service` of `namespace` with as many ports, which selects as many workloads.
fn behind(namespace: &str, name: &str, ports: usize, workloads: usize) -> String {
    let ports: Vec<String> = (1..=ports).map(|port| format!("{{name: p{port}, port: {port}}}")).collect();
    let metadata = format!("metadata: {{name: {name}, namespace: {namespace}}}");
    let service = format!(
        "apiVersion: v1\nkind: Service\n{metadata}\nspec: {{selector: {{app: {name}}}, ports: [{}]}}\n---\n",
        ports.join(", ")
    );
    let entries = (0..workloads).map(|place| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}-{place}, namespace: {namespace}}}\n\
             spec: {{address: 10.{}.0.{place}, labels: {{app: {name}}}}}\n---\n",
            name.len()
        )
    });
    service + &entries.collect::<String>()
}

#[test]
fn the_services_of_a_namespace_have_so_many_endpoints_and_no_more() {
    let selected = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: z, namespace: greedy}\n\
                    spec: {hosts: [z.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, \
                    location: MESH_INTERNAL, workloadSelector: {labels: {app: aa}}}\n---\n";
    let text = behind("greedy", "aa", 100, 100) + selected + &behind("other", "b", 2, 3);
    let (resources, _) = resources(&text);
    let mut compiler = Compiler::default();

    let Compiled { mesh, problems, .. } =
        compiler.compile(&resources, &MeshSettings::default(), &Mesh::default());

    let of = |suffix: &str| -> usize {
        let here = mesh.endpoints.iter().filter(|(key, _)| key.host.ends_with(suffix));
        here.map(|(_, endpoints)| endpoints.list.len()).sum()
    };
    assert_eq!(of(".greedy.svc.cluster.local"), candidates::MOST_BEHIND, "of 100 ports, half have 100 each");
    assert_eq!((of("z.example.com"), of(".other.svc.cluster.local")), (0, 6));
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|one| one.contains("the namespace greedy may have")), "{told:?}");
    assert!(told[0].contains("Service greedy/aa") && told[1].contains("ServiceEntry greedy/z"), "{told:?}");
}

#[test]
fn a_change_that_leaves_no_room_for_endpoints_is_compiled_with_all_else() {
    let settings = MeshSettings::default();
    let one = behind("greedy", "a", 50, 99);
    let [before, after, again] =
        [&one, &(one.clone() + &behind("greedy", "bbb", 10, 11)), &one].map(|text| resources(text).0);
    let mut compiler = Compiler::default();
    let mut mesh = Mesh::default();
    for (resources, is_part) in [(&before, false), (&after, false), (&again, false)] {
        let compiled = compiler.compile(resources, &settings, &mesh);
        let (whole, problems) = compile(resources, &settings, &mesh);
        assert_eq!(compiled.is_part, is_part);
        assert_eq!(compiled.problems, problems);
        let counts =
            |mesh: &Mesh| mesh.endpoints.values().map(|endpoints| endpoints.list.len()).collect::<Vec<_>>();
        assert_eq!(counts(&compiled.mesh), counts(&whole));
        mesh = compiled.mesh;
    }
}

#[test]
fn what_is_wrong_between_many_ports_and_many_workloads_is_told_once_of_each_document() {
    let entries = |ports: &str| -> String {
        let entry = |place: usize| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w{place}, namespace: a}}\n\
                 spec: {{address: 10.0.0.{place}, labels: {{app: a}}, ports: {{{ports}}}}}\n---\n"
            )
        };
        (0..3).map(entry).collect()
    };
    let service = |target: &str| {
        let ports: Vec<String> = (1..=4)
            .map(|port| format!("{{name: p{port}, port: {port}, targetPort: {target}{port}}}"))
            .collect();
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: a}}\nspec: {{selector: {{app: a}}, ports: [{}]}}\n---\n",
            ports.join(", ")
        )
    };

    let (_, problems) = compiled(&(service("x") + &entries("")));
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|one| one.message.contains("has no port named \"x1\"")), "{problems:?}");
    assert!(
        problems.iter().all(|one| one.message.ends_with("(and so with 3 other ports that services ask for)"))
    );

    let (_, problems) = compiled(&(service("100") + &entries("p1: 7001, p2: 7002, p3: 7003, p4: 7004")));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("port 1 leads to port 7001 of WorkloadEntry a/w0"), "{problems:?}");
    assert!(problems[0].message.ends_with("(and 11 times more, at other ports or entries)"), "{problems:?}");
}

#[test]
fn what_is_wrong_with_one_document_very_often_is_not_all_kept() {
    let (resources, _) = resources(&behind("a", "a", 1, 1));
    let document = &resources.services[0];
    let mut problems = Problems::default();
    for place in 0..10_000 {
        problems.warning(document, "spec", format!("is wrong in the way {place}"));
        problems.warning(document, "spec", "is wrong");
    }

    assert_eq!(problems.found.len(), MOST_KEPT);
    assert!(problems.is_cut_short());
}

#[test]
fn who_speaks_of_very_many_names_below_a_wildcard_leaves_others_their_names() {
    let ports: Vec<String> =
        (1..=1000).map(|port| format!("{{number: {port}, name: http-{port}}}")).collect();
    let entry = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: wide, namespace: own}}\n\
         spec: {{hosts: ['*.example.com'], resolution: NONE, ports: [{}]}}\n",
        ports.join(", ")
    );
    let rule = |namespace: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: {namespace}}}\n\
             spec: {{host: {host}.example.com, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}}}\n"
        )
    };
    let rules: String = (0..130).map(|place| rule("greedy", &format!("a{place}"))).collect();
    let (resources, _) = resources(&(entry + &rules + &rule("own", "z")));
    let mut problems = Problems::default();
    let catalog =
        services::Catalog::new(&resources, &MeshSettings::default(), &Default::default(), &mut problems);

    assert_eq!(catalog.hosts().count(), 102, "the wildcard, 100 names of the one, and that of the other");
    assert!(catalog.find("z.example.com").is_some());
    let told: Vec<&str> = problems.found.iter().map(|problem| &*problem.message).collect();
    assert!(!problems.crowded.is_empty() && told.len() == 1, "{told:?}");
    assert!(told[0].starts_with("routes and rules of the namespace greedy speak of more names"), "{told:?}");
}
