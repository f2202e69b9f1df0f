//! Services, workloads and endpoints, alone.

use selvedge_model::{Host, Protocol};

use super::{
    super::{service::TargetPort, service_entry::EntryEndpoints, *},
    only, told, understood,
};
use crate::problem::Severity;

#[test]
fn a_service_reads_its_ports() {
    let decoded = only(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  type: LoadBalancer\n  clusterIP: None\n  ports:\n  - {name: http, port: 80, targetPort: web}\n  - {name: x, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c, nodePort: 30000}\n  - {name: dns, port: 53, protocol: UDP}\n  annotations: {cloud/lb: nlb}\n",
    );

    let Resource::Service(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let ports: Vec<_> =
        document.spec.ports.iter().map(|port| (port.port, port.target.clone(), port.protocol)).collect();
    assert_eq!(
        ports,
        [
            (80, TargetPort::Named("web".to_owned()), Protocol::Http),
            (81, TargetPort::Number(8081), Protocol::Http2)
        ]
    );
    assert_eq!(
        told(&decoded),
        [
            ("spec.type", 5, Severity::NotActedOn),
            ("spec.ports[1].nodePort", 9, Severity::NotActedOn),
            ("spec.ports[2].protocol", 10, Severity::NotActedOn),
            ("spec.annotations[cloud/lb]", 11, Severity::NotActedOn),
        ]
    );
}

#[test]
fn a_service_entry_at_which_nothing_can_be_called_is_told() {
    let entry = |spec: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  hosts: [a.test]\n{spec}"
        ))
    };
    let port = "  ports: [{number: 80, name: http}]\n";
    for (spec, expected) in [
        ("  resolution: DNS\n".to_owned(), &["spec.ports"][..]),
        (format!("{port}  resolution: STATIC\n"), &["spec.endpoints"]),
        (format!("{port}  resolution: STATIC\n  endpoints: []\n"), &["spec.endpoints"]),
        (format!("{port}  resolution: STATIC\n  endpoints: [{{address: 10.0.0.1}}]\n"), &[]),
        (format!("{port}  resolution: STATIC\n  workloadSelector: {{labels: {{app: a}}}}\n"), &[]),
        (format!("{port}  resolution: DNS\n"), &[]),
        (port.to_owned(), &[]),
    ] {
        let decoded = entry(&spec);
        let fields: Vec<_> =
            told(&decoded).into_iter().map(|(field, _, severity)| (field, severity)).collect();
        let expected: Vec<_> = expected.iter().map(|field| (*field, Severity::Warning)).collect();
        assert_eq!(fields, expected, "{spec}");
        assert!(matches!(understood(&decoded), Resource::ServiceEntry(_)), "{spec}");
    }
}

#[test]
fn a_workload_entry_reads_its_sidecar() {
    let decoded = only(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: a\n  labels: {app: old, tier: web}\n  annotations: {config.selvedge.io/inbound: '127.0.0.1:4143'}\nspec:\n  address: 127.0.0.1\n  labels: {app: a, security.istio.io/tlsMode: istio}\n  ports: {http: 9080}\n",
    );

    assert_eq!(told(&decoded), []);
    let Resource::WorkloadEntry(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let spec = &document.spec;
    assert_eq!(spec.address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((spec.labels["app"].as_str(), spec.labels["tier"].as_str()), ("a", "web"));
    assert!(spec.meshed);
    assert_eq!(spec.inbound, Some("127.0.0.1:4143".parse().unwrap()));
    assert_eq!(spec.service_account, "default");
}

#[test]
fn labels_and_places_that_all_callers_are_told_are_such_as_kubernetes_takes() {
    let entry = |metadata: &str, spec: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a{metadata}}}\nspec: {{address: 10.0.0.1{spec}}}\n"
        ))
    };
    let long = "x".repeat(64);
    for value in [&*long, "\"a\\e[31m\"", "a/b"] {
        let (metadata, spec) = (format!(", labels: {{a: {value}}}"), format!(", labels: {{a: {value}}}"));
        assert_eq!(told(&entry(&metadata, "")), [("metadata.labels", 3, Severity::Error)], "{value}");
        assert_eq!(told(&entry("", &spec)), [("spec.labels", 4, Severity::Error)], "{value}");
    }
    assert_eq!(told(&entry("", ", labels: {\"a\\e\": a}")), [("spec.labels", 4, Severity::Error)]);
    for place in ["\"a\\e[31m\"", &*"x".repeat(200)] {
        let decoded = entry("", &format!(", locality: {place}"));
        assert_eq!(told(&decoded), [("spec.locality", 4, Severity::Warning)]);
        let Resource::WorkloadEntry(document) = understood(&decoded) else { panic!("{decoded:?}") };
        assert_eq!(document.spec.locality, selvedge_model::Locality::of(""));
    }
}

#[test]
fn a_workload_is_at_an_address_or_a_dns_name() {
    let entry = |address: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a}}\nspec: {{address: '{address}'}}\n"
        ))
    };

    let by_name = entry("Web_1.local");
    assert_eq!(told(&by_name), []);
    let Resource::WorkloadEntry(document) = understood(&by_name) else { panic!("{by_name:?}") };
    assert_eq!(document.spec.address, Some(Host::Name("web_1.local".into())));
    assert_eq!(told(&entry("unix:///run/app.sock")), [("spec.address", 4, Severity::NotActedOn)]);
    assert_eq!(told(&entry("10.0.0.300")), [("spec.address", 4, Severity::Error)]);
}

fn service_entry(spec: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  \
         ports: [{{number: 443, name: tls, protocol: TLS, targetPort: 8443}}]\n{spec}"
    ))
}

#[test]
fn a_service_entry_says_where_its_endpoints_are_found() {
    use service_entry::Resolution;

    let entry = |spec: &str| {
        let decoded = service_entry(spec);
        assert_eq!(told(&decoded), [], "{spec}");
        let Resource::ServiceEntry(document) = understood(&decoded) else { panic!("{decoded:?}") };
        document.spec.clone()
    };

    let fixed = entry("  hosts: [A.example.com]\n  resolution: STATIC\n  endpoints: [{address: 10.0.0.1}]\n");
    assert_eq!(fixed.hosts, ["a.example.com"]);
    assert_eq!((fixed.ports[0].target, fixed.ports[0].protocol), (8443, Protocol::Tcp));
    assert!(matches!(&fixed.endpoints, EntryEndpoints::Inline(list) if list.len() == 1));
    let names = entry("  hosts: [a.example.com]\n  resolution: DNS\n  subjectAltNames: [b.example.com]\n");
    assert_eq!(
        (names.resolution, names.endpoints),
        (Resolution::Dns { one_address: false }, EntryEndpoints::Hosts)
    );
    assert_eq!(names.subject_alt_names, ["b.example.com"]);
    let one = entry(
        "  hosts: [a.example.com]\n  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: b.example.com}]\n",
    );
    assert_eq!(one.resolution, Resolution::Dns { one_address: true });
    for resolution in ["", "  resolution: NONE\n", "  resolution: DYNAMIC_DNS\n"] {
        assert_eq!(
            entry(&format!("  hosts: ['*.example.com']\n{resolution}")).resolution,
            Resolution::Requested
        );
    }
}

#[test]
fn endpoints_that_cannot_be_found_as_a_service_entry_says_are_an_error() {
    for (spec, field) in [
        (
            "  hosts: [a.b]\n  resolution: STATIC\n  endpoints: [{address: b.example.com}]\n",
            "spec.endpoints[0].address",
        ),
        ("  hosts: ['*.b']\n  resolution: DNS\n", "spec.hosts[0]"),
        ("  hosts: ['*']\n", "spec.hosts[0]"),
        ("  hosts: ['a.*.b']\n", "spec.hosts[0]"),
        ("  hosts: [a.b]\n  endpoints: [{address: 10.0.0.1}]\n", "spec.endpoints"),
        ("  hosts: [a.b]\n  workloadSelector: {labels: {a: b}}\n", "spec.workloadSelector"),
        (
            "  hosts: [a.b]\n  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: a}, {address: b}]\n",
            "spec.endpoints",
        ),
    ] {
        let decoded = service_entry(spec);
        let told = told(&decoded);
        let fields: Vec<_> = told.iter().map(|(field, _, severity)| (*field, *severity)).collect();
        assert_eq!(fields, [(field, Severity::Error)], "{spec}");
    }
}

#[test]
fn an_address_that_means_something_else_in_each_network_is_no_endpoint() {
    for (address, what) in [
        ("169.254.169.254", Some("a link-local address")),
        ("fe80::1", Some("a link-local address")),
        ("::ffff:169.254.169.254", Some("a link-local address")),
        ("0.0.0.0", Some("the unspecified address")),
        ("224.0.0.1", Some("a multicast address")),
        ("127.0.0.7", None),
    ] {
        let decoded = only(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: a, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
             endpoints: [{{addresses: ['{address}']}}, {{addresses: [10.0.0.2]}}]\nports: [{{name: http, port: 80}}]\n"
        ));
        let Resource::EndpointSlice(document) = understood(&decoded) else { panic!("{decoded:?}") };
        assert_eq!(document.spec.addresses.len(), if what.is_some() { 1 } else { 2 }, "{address}");
        let told = decoded.problems.first().map(|problem| (&*problem.field, &*problem.message));
        assert_eq!(told.is_some(), what.is_some(), "{address}: {told:?}");
        if let (Some((field, told)), Some(what)) = (told, what) {
            assert!(field == "endpoints[0].addresses[0]" && told.contains(what), "{field}: {told}");
        }
    }
}

#[test]
fn a_slices_not_ready_endpoints_do_not_count() {
    let decoded = only(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints:\n- {addresses: [10.0.0.1]}\n- {addresses: [10.0.0.2], conditions: {ready: false}}\n- {addresses: [10.0.0.3], conditions: {ready: null, serving: true}}\nports: [{name: http, port: 80}]\n",
    );

    let Resource::EndpointSlice(document) = understood(&decoded) else { panic!("{decoded:?}") };
    assert_eq!(document.spec.service, "web");
    assert_eq!(document.spec.addresses.len(), 2);
    assert_eq!(told(&decoded), []);
}

#[test]
fn what_a_service_asks_for_and_does_not_get_is_reported() {
    for (field, value) in [
        ("sessionAffinityConfig", "{clientIP: {timeoutSeconds: 60}}\n  sessionAffinity: ClientIP"),
        ("publishNotReadyAddresses", "true"),
        ("type", "NodePort"),
        ("externalIPs", "[192.0.2.1]"),
        ("trafficDistribution", "PreferFarAway"),
    ] {
        let decoded = only(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  {field}: {value}\n  ports: [{{port: 80}}]\n"
        ));

        understood(&decoded);
        assert!(told(&decoded)[0].0.starts_with(&format!("spec.{field}")), "{field}: {:?}", decoded.problems);
    }
    let default = "spec: {type: ClusterIP, sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ports: [{port: 80}]}";
    let decoded = only(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{default}\n"));
    assert_eq!(told(&decoded), []);
}

#[test]
fn a_service_entry_has_no_more_endpoints_and_addresses_at_all_its_ports_than_it_may() {
    let problems = |hosts: usize, ports: usize, ranges: usize| -> String {
        let hosts = (0..hosts).map(|place| format!("h{place}.example.com")).collect::<Vec<_>>().join(", ");
        let ports = (1..=ports).map(|port| format!("{{number: {port}, name: http-{port}, protocol: HTTP}}"));
        let ports = ports.collect::<Vec<_>>().join(", ");
        let ranges = (0..ranges).map(|place| format!("10.0.{place}.0/24")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\n\
             spec: {{hosts: [{hosts}], resolution: STATIC, addresses: [{ranges}], ports: [{ports}]}}\n"
        );
        let problems = only(&text).problems.into_iter();
        problems.filter(|one| one.severity == Severity::Error).map(|one| one.message).collect()
    };

    assert_eq!(problems(100, 100, 99), "");
    assert!(
        problems(100, 100, 100).contains("which comes to 1010000, and 1000000 is the most"),
        "{}",
        problems(100, 100, 100)
    );
}
