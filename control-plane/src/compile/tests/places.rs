//! Where workloads and endpoints are, and what rules make of it.

use selvedge_model::{
    LocalityPolicy,
    locality::{Failover, LocalityOrder},
};
use serde_json::{Value, json};

use super::{
    cluster::{A, cluster, pod, ready, service_a, slice, with, workload},
    *,
};

fn node(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"nodeInfo": {}}
    })
}

fn node_of(name: &str, region: &str, zone: &str) -> Value {
    let labels = json!({
        "topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone,
        "topology.istio.io/subzone": "rack-1"
    });
    node(name, &labels)
}

fn on(mut pod: Value, node: &str) -> Value {
    pod["spec"]["nodeName"] = node.into();
    pod
}

/// Where something is: its locality, and its node.
fn whereabouts(place: Option<&Arc<selvedge_model::Place>>) -> (String, Option<String>) {
    place.map(|place| (place.locality.to_string(), place.node.clone())).unwrap_or_default()
}

#[test]
fn a_pod_is_where_its_node_or_its_own_label_says() {
    let old = json!({
        "failure-domain.beta.kubernetes.io/region": "eu", "failure-domain.beta.kubernetes.io/zone": "eu-c"
    });
    let labels = json!({"app": "a", "istio-locality": "us.us-z.rack-9"});
    let (mesh, problems) = cluster(&[
        node_of("n1", "us", "us-a"),
        node("n2", &old),
        on(pod("a-1", "10.0.0.1"), "n1"),
        on(pod("a-2", "10.0.0.2"), "n2"),
        on(with(pod("a-3", "10.0.0.3"), "/metadata/labels", labels), "n1"),
        on(pod("a-4", "10.0.0.4"), "n9"),
        pod("a-5", "10.0.0.5"),
        service_a(),
        slice(&[("10.0.0.1", ready()), ("10.0.0.2", ready())]),
    ]);

    assert_eq!(problems.iter().filter(|problem| problem.severity == Severity::Error).count(), 0);
    let of = |name: &str| whereabouts(workload(&mesh, name).unwrap().place.as_ref());
    assert_eq!(of("shop/a-1"), ("us/us-a/rack-1".to_owned(), Some("n1".to_owned())));
    assert_eq!(of("shop/a-2"), ("eu/eu-c".to_owned(), Some("n2".to_owned())));
    assert_eq!(of("shop/a-3"), ("us/us-z/rack-9".to_owned(), Some("n1".to_owned())));
    assert_eq!(of("shop/a-4"), (String::new(), Some("n9".to_owned())), "nobody knows that node");
    assert_eq!(of("shop/a-5"), (String::new(), None));
    let endpoints = &mesh.endpoints[&ServiceKey::new(A, 80)].list;
    let endpoints: Vec<_> = endpoints.iter().map(|one| whereabouts(one.place.as_ref()).0).collect();
    assert_eq!(endpoints, ["us/us-a/rack-1", "eu/eu-c"]);
}

#[test]
fn where_an_address_of_a_slice_is_its_node_or_its_zone_says() {
    let mut slice = slice(&[("192.0.2.1", ready()), ("192.0.2.2", ready()), ("192.0.2.3", ready())]);
    slice["endpoints"][0]["nodeName"] = "n1".into();
    slice["endpoints"][0]["zone"] = "elsewhere".into();
    slice["endpoints"][1]["zone"] = "us-b".into();
    slice["endpoints"][1]["hints"] = json!({"forZones": [{"name": "us-a"}], "forNodes": [{"name": "n7"}]});
    slice["endpoints"][2]["zone"] = "far".into();

    let (mesh, _) = cluster(&[node_of("n1", "us", "us-a"), node_of("n2", "us", "us-b"), service_a(), slice]);

    let endpoints = &mesh.endpoints[&ServiceKey::new(A, 80)].list;
    let places: Vec<_> = endpoints.iter().map(|one| whereabouts(one.place.as_ref())).collect();
    let place = |locality: &str, node: Option<&str>| (locality.to_owned(), node.map(str::to_owned));
    assert_eq!(places, [place("us/us-a/rack-1", Some("n1")), place("us/us-b", None), place("/far", None)]);
    let hinted = endpoints[1].place.as_ref().unwrap();
    assert_eq!((&*hinted.for_zones, &*hinted.for_nodes), (&["us-a".to_owned()][..], &["n7".to_owned()][..]));
}

#[test]
fn an_endpoint_is_where_its_service_entry_says() {
    let (mesh, problems) = compiled(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a, annotations: \
         {networking.istio.io/traffic-distribution: PreferSameNode}}\nspec:\n  hosts: [a.example]\n  location: MESH_EXTERNAL\n  \
         resolution: DNS\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints:\n  - {address: 192.0.2.1, locality: \
         us/b/1}\n  - {address: b.example, locality: eu/a}\n",
    );

    assert_eq!(problems, []);
    let endpoints = &mesh.endpoints[&ServiceKey::new("a.example", 80)];
    assert_eq!(whereabouts(endpoints.list[0].place.as_ref()).0, "us/b/1");
    assert_eq!(whereabouts(endpoints.named[0].place.as_ref()).0, "eu/a");
    let locality = &service(&mesh, "a.example", 80, "default").backends[0].policy.locality;
    assert_eq!(locality.order, LocalityOrder::Failover(Failover::same_node()));
}

/// What the service `reviews` with this `spec` and a rule with this `trafficPolicy` come to; and what is said of it.
fn policy(spec: &str, traffic_policy: Option<&str>) -> (LocalityPolicy, Vec<Problem>) {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews}}\nspec: {{selector: {{app: reviews}}, ports: [{{name: http, \
         port: 9080}}]{spec}}}\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w}}\nspec: \
         {{address: 192.0.2.1, labels: {{app: reviews}}}}\n"
    );
    let rule = traffic_policy.map(|policy| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: reviews, \
             trafficPolicy: {policy}}}\n"
        )
    });
    let (mesh, problems) = compiled(&format!("{service}{}", rule.unwrap_or_default()));
    (reviews(&mesh).backends[0].policy.locality.clone(), problems)
}

#[test]
fn a_rule_goes_before_the_service_and_outlier_detection_alone_prefers_the_nearest() {
    let order = |spec: &str, rule: Option<&str>| policy(spec, rule).0.order;
    let nearest = LocalityOrder::Failover(Failover::nearest());
    let zone = ", trafficDistribution: PreferClose";
    let distribute = "{loadBalancer: {localityLbSetting: {distribute: [{from: us/*, to: {us: 100}}]}}}";

    assert_eq!(order("", None), LocalityOrder::Alike);
    assert_eq!(order("", Some("{loadBalancer: {simple: RANDOM}}")), LocalityOrder::Alike);
    assert_eq!(order("", Some("{outlierDetection: {}}")), nearest);
    assert_eq!(order("", Some("{loadBalancer: {localityLbSetting: {enabled: true}}}")), LocalityOrder::Alike);
    let both = "{loadBalancer: {localityLbSetting: {enabled: true}}, outlierDetection: {}}";
    assert_eq!(order(zone, Some(both)), nearest, "what a rule says of places goes before the service");
    assert_eq!(order(zone, None), LocalityOrder::Failover(Failover::same_zone()));
    assert_eq!(order(zone, Some("{outlierDetection: {}}")), LocalityOrder::Failover(Failover::same_zone()));
    assert!(matches!(order(zone, Some(distribute)), LocalityOrder::Distribute(_)));
    let off = "{loadBalancer: {localityLbSetting: {enabled: false}}, outlierDetection: {}}";
    assert_eq!(order(zone, Some(off)), LocalityOrder::Alike);

    let hints = |spec: &str, rule| policy(spec, rule).0.hints;
    assert!(hints("", None) && hints("", Some("{outlierDetection: {}}")));
    assert!(!hints(zone, None) && !hints("", Some(off)));
    assert!(!hints(", internalTrafficPolicy: Local", None));
    assert!(policy(", internalTrafficPolicy: Local", None).0.own_node);
}

#[test]
fn what_nobody_knows_is_reported() {
    let told = |spec: &str, rule: Option<&str>| -> Vec<String> {
        let (_, problems) = policy(spec, rule);
        problems.into_iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    };
    let begins = |told: Vec<String>, words: &str| {
        assert!(told.len() == 1 && told[0].starts_with(words), "{told:?}");
    };

    assert_eq!(told("", Some("{outlierDetection: {}}")), [""; 0]);
    begins(told(", trafficDistribution: PreferSameZone", None), "spec.trafficDistribution: has no effect");
    begins(
        told(", internalTrafficPolicy: Local", None),
        "spec.internalTrafficPolicy: is Local, and the node",
    );
    let setting = "spec.trafficPolicy.loadBalancer.localityLbSetting";
    let both = "{loadBalancer: {localityLbSetting: {enabled: true}}, outlierDetection: {}}";
    begins(told("", Some(both)), &format!("{setting}: has no effect on reviews.default.svc.cluster.local"));
    let alone = told("", Some("{loadBalancer: {localityLbSetting: {enabled: true}}}"));
    assert!(
        alone.iter().any(|one| one.starts_with(&format!("{setting}: is not acted on without"))),
        "{alone:?}"
    );
}
