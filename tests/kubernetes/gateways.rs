//! The life of a Gateway: what is made for it, kept as it is wanted, and removed with it, by a control plane with the rights
//! of the chart.

use std::path::Path;

use rustix::process::Signal;
use selvedge_demo::processes::Processes;
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::{
    control_plane::{ControlPlane, processes, rights},
    kubelet::{items, text},
};

const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways";
const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const ACCOUNTS: &str = "/api/v1/namespaces/shop/serviceaccounts";
const BUDGETS: &str = "/apis/policy/v1beta1/namespaces/shop/poddisruptionbudgets";
/// Where what is made for a Gateway is.
const PLACES: [&str; 4] = [DEPLOYMENTS, SERVICES, ACCOUNTS, BUDGETS];

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: selvedge
  infrastructure:
    labels: {team: shop}
    annotations: {example.com/internal: 'true', config.selvedge.io/log-level: debug}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
";

#[tokio::test]
async fn a_gateway_is_made_kept_and_removed() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    for kinds in [kinds::CORE, kinds::GATEWAY] {
        server.serve(kinds).await;
    }
    server.namespace("shop", json!({})).await;
    let kubeconfig = rights(&server).await;
    let (processes, _exits) = processes(&server);
    let data = server.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    let control_plane = ControlPlane::start(&processes, "replica-1", &kubeconfig, &data).await;

    its_class_is_made(&server).await;
    everything_that_it_needs_is_made(&server).await;
    what_is_changed_by_hand_is_put_back(&server).await;
    its_status_says_how_it_runs(&server).await;
    a_policy_of_its_backend_is_told_of_it(&server).await;
    listeners_come_and_go(&server).await;
    listener_sets_add_to_it_and_are_told(&server).await;
    parameters_are_followed(&server).await;
    what_is_somebody_elses_is_left_alone(&server).await;
    another_replica_goes_on(&server, control_plane, &processes, &kubeconfig, &data).await;
}

/// Waits until an object is there, and such.
async fn becomes(server: &ApiServer, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    poll(SOON, what, async || {
        let found = server.api().get(path).await.map_err(|error| error.to_string())?;
        if is_so(&found) { Ok(found) } else { Err(found.to_string()) }
    })
    .await
}

async fn is_gone(server: &ApiServer, path: &str) {
    poll(SOON, &format!("{path} is gone"), async || match server.api().get(path).await {
        Ok(found) => Err(found["metadata"].to_string()),
        Err(_) => Ok(()),
    })
    .await;
}

async fn its_class_is_made(server: &ApiServer) {
    let path = format!("{CLASSES}/selvedge");
    let class = becomes(server, &path, "the class is there", |_| true).await;
    assert_eq!(class["spec"]["controllerName"], "selvedge.io/gateway");

    server.api().delete(&path).await.unwrap();
    becomes(server, &path, "the class is there again", |again| {
        again["metadata"]["uid"] != class["metadata"]["uid"]
    })
    .await;
}

async fn everything_that_it_needs_is_made(server: &ApiServer) {
    server.apply(EDGE).await;
    let gateway = server.api().get(&format!("{GATEWAYS}/edge")).await.unwrap();
    for place in PLACES {
        let path = format!("{place}/edge-selvedge");
        let object = becomes(server, &path, &format!("{path} is made"), |_| true).await;
        let metadata = &object["metadata"];
        let owners: Vec<&Value> = items(&metadata["ownerReferences"]).collect();
        assert_eq!(owners.len(), 1, "{metadata}");
        assert_eq!(
            (&owners[0]["uid"], &owners[0]["controller"]),
            (&gateway["metadata"]["uid"], &json!(true))
        );
        assert_eq!(metadata["labels"]["gateway.networking.k8s.io/gateway-name"], "edge");
        assert_eq!(metadata["labels"]["team"], "shop");
        assert_eq!(metadata["annotations"]["example.com/internal"], "true");
    }
    let service = server.api().get(&format!("{SERVICES}/edge-selvedge")).await.unwrap();
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    let deployment = server.api().get(&format!("{DEPLOYMENTS}/edge-selvedge")).await.unwrap();
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["config.selvedge.io/gateway"], "shop/edge");
    assert_eq!(template["metadata"]["annotations"]["config.selvedge.io/gateway-ports"], "80=8080,443=8443");
    let env = |name: &str| {
        items(&template["spec"]["containers"][0]["env"]).find(|one| one["name"] == name).cloned()
    };
    assert_eq!(env("SELVEDGE_LOG").unwrap()["value"], "debug");
}

async fn what_is_changed_by_hand_is_put_back(server: &ApiServer) {
    let deployment = format!("{DEPLOYMENTS}/edge-selvedge");
    let container =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]);
    server
        .kubectl(
            &[
                "patch",
                "--namespace=shop",
                "deployment",
                "edge-selvedge",
                "--type=json",
                "-p",
                &container.to_string(),
            ],
            "",
        )
        .await
        .unwrap();
    let image = |found: &Value| {
        text(&found["spec"]["template"]["spec"]["containers"][0]["image"]).starts_with("selvedge-proxy:")
    };
    becomes(server, &deployment, "its image is ours again", image).await;
    let labels = json!({"metadata": {"labels": {"team": "other", "theirs": "stays"}}});
    server.api().merge(&deployment, &labels).await.unwrap();
    let labels = becomes(server, &deployment, "its label is ours again", |found| {
        found["metadata"]["labels"]["team"] == "shop"
    });
    assert_eq!(labels.await["metadata"]["labels"]["theirs"], "stays");
    // Whoever scales it, does.
    server.api().merge(&deployment, &json!({"spec": {"replicas": 3}})).await.unwrap();

    let service = format!("{SERVICES}/edge-selvedge");
    server.api().merge(&service, &json!({"spec": {"selector": {"app": "other"}}})).await.unwrap();
    becomes(server, &service, "its selector is ours again", |found| {
        found["spec"]["selector"]["gateway.networking.k8s.io/gateway-name"] == "edge"
    })
    .await;
    for place in PLACES {
        let path = format!("{place}/edge-selvedge");
        let before = server.api().get(&path).await.unwrap();
        server.api().delete(&path).await.unwrap();
        becomes(server, &path, "it is made again", |again| {
            again["metadata"]["uid"] != before["metadata"]["uid"]
        })
        .await;
    }
}

/// Type, status and reason of each condition.
fn conditions(of: &Value) -> Vec<String> {
    items(&of["conditions"])
        .map(|one| ["type", "status", "reason"].map(|field| text(&one[field])).join(" "))
        .collect()
}

async fn its_status_says_how_it_runs(server: &ApiServer) {
    let class = format!("{CLASSES}/selvedge");
    let supported = |is: &str| ["Accepted True Accepted".to_owned(), format!("SupportedVersion {is}")];
    let definition =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gatewayclasses.gateway.networking.k8s.io";
    for (version, is) in [
        (json!("v0.0.0"), "False UnsupportedVersion"),
        (Value::Null, "False UnsupportedVersion"),
        (json!("v1.4.0"), "True SupportedVersion"),
    ] {
        let annotations = json!({"gateway.networking.k8s.io/bundle-version": version});
        server.api().merge(definition, &json!({"metadata": {"annotations": annotations}})).await.unwrap();
        let told = |found: &Value| conditions(&found["status"]) == supported(is);
        becomes(server, &class, &format!("the class says whether {version} is supported"), told).await;
    }
    let class = becomes(server, &class, "the class is accepted", |found| {
        conditions(&found["status"]) == supported("True SupportedVersion")
    });
    assert!(items(&class.await["status"]["supportedFeatures"]).any(|feature| feature["name"] == "HTTPRoute"));
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{name: edge}, {name: elsewhere}], rules: [{backendRefs: [{name: web, port: 80}]}]}
";
    server.apply(route).await;
    let edge = format!("{GATEWAYS}/edge");
    let found = becomes(server, &edge, "it is accepted, and has no address", |found| {
        conditions(&found["status"]) == ["Accepted True Accepted", "Programmed False AddressNotAssigned"]
            && found["status"]["listeners"][0]["attachedRoutes"] == 1
    })
    .await;
    assert_eq!(found["status"]["conditions"][0]["observedGeneration"], found["metadata"]["generation"]);

    // What a cluster's own controllers would write.
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    server.api().merge(&format!("{SERVICES}/edge-selvedge/status"), &address).await.unwrap();
    let pods = json!({"status": {"replicas": 1, "availableReplicas": 1, "readyReplicas": 1}});
    server.api().merge(&format!("{DEPLOYMENTS}/edge-selvedge/status"), &pods).await.unwrap();
    let found = becomes(server, &edge, "it is programmed", |found| {
        conditions(&found["status"]) == ["Accepted True Accepted", "Programmed True Programmed"]
    })
    .await;
    assert_eq!(found["status"]["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));
    let listener = &found["status"]["listeners"][0];
    assert_eq!(
        conditions(listener),
        [
            "Accepted True Accepted",
            "Conflicted False NoConflicts",
            "Programmed True Programmed",
            "ResolvedRefs True ResolvedRefs"
        ]
    );
    let route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web";
    let found =
        becomes(server, route, "its route is told", |found| items(&found["status"]["parents"]).count() == 1)
            .await;
    let parent = &found["status"]["parents"][0];
    assert_eq!(
        (&parent["controllerName"], &parent["parentRef"]["name"]),
        (&json!("selvedge.io/gateway"), &json!("edge"))
    );
    assert_eq!(conditions(parent)[0], "Accepted True Accepted");
}

/// From here on there is such a policy, and everything else is told its status all the same.
async fn a_policy_of_its_backend_is_told_of_it(server: &ApiServer) {
    let documents = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: https, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  validation: {hostname: web.example.com, wellKnownCACertificates: System}
";
    server.apply(documents).await;
    let policy = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/backendtlspolicies/web";
    let found = becomes(server, policy, "it is accepted at its gateway", |found| {
        conditions(&found["status"]["ancestors"][0])
            == ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]
    })
    .await;
    let reference = &found["status"]["ancestors"][0]["ancestorRef"];
    assert_eq!((&reference["kind"], &reference["name"]), (&json!("Gateway"), &json!("edge")));
}

async fn listeners_come_and_go(server: &ApiServer) {
    let ports = |found: &Value| -> Vec<(u64, Value)> {
        let ports = items(&found["spec"]["ports"]);
        ports.map(|port| (port["port"].as_u64().unwrap(), port["targetPort"].clone())).collect()
    };
    let (service, deployment) = (format!("{SERVICES}/edge-selvedge"), format!("{DEPLOYMENTS}/edge-selvedge"));
    let before = server.api().get(&deployment).await.unwrap();
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let listeners = |list: &[Value]| json!({"spec": {"listeners": list}});
    let more = listeners(&[listener("http", 80), listener("admin", 9000)]);
    server.api().merge(&format!("{GATEWAYS}/edge"), &more).await.unwrap();

    let expected = [(80, json!("port-80")), (9000, json!(9000))];
    becomes(server, &service, "the Service has both ports", |found| ports(found) == expected).await;
    becomes(server, &format!("{GATEWAYS}/edge"), "both listeners are told of", |found| {
        items(&found["status"]["listeners"]).count() == 2
            && found["status"]["conditions"][0]["observedGeneration"] == found["metadata"]["generation"]
    })
    .await;
    let after = server.api().get(&deployment).await.unwrap();
    assert_eq!(before["spec"]["template"], after["spec"]["template"], "no pod is replaced for it");

    server.api().merge(&format!("{GATEWAYS}/edge"), &listeners(&[listener("admin", 9000)])).await.unwrap();
    becomes(server, &service, "the Service has one port", |found| ports(found) == expected[1..]).await;
}

async fn listener_sets_add_to_it_and_are_told(server: &ApiServer) {
    let set = "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec:
  parentRef: {name: edge}
  listeners: [{name: more, port: 9100, protocol: HTTP}, {name: taken, port: 9000, protocol: TCP}]
";
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/listenersets/more";
    server.apply(set).await;
    let found = becomes(server, path, "it is not allowed", |found| {
        conditions(&found["status"]) == ["Accepted False NotAllowed", "Programmed False NotAllowed"]
    });
    assert_eq!(found.await["status"]["listeners"], json!([]));

    let edge = format!("{GATEWAYS}/edge");
    let allowing = json!({"spec": {"allowedListeners": {"namespaces": {"from": "Same"}}}});
    server.api().merge(&edge, &allowing).await.unwrap();
    let found = becomes(server, path, "it is accepted", |found| {
        conditions(&found["status"]) == ["Accepted True ListenersNotValid", "Programmed True Programmed"]
    })
    .await;
    let listeners: Vec<_> = items(&found["status"]["listeners"]).map(conditions).collect();
    assert_eq!(listeners[0][0], "Accepted True Accepted");
    assert_eq!(listeners[1][..2], ["Accepted False Invalid", "Conflicted True ProtocolConflict"]);
    becomes(server, &edge, "it counts it", |found| found["status"]["attachedListenerSets"] == 1).await;
    let has = |found: &Value, port: u16| items(&found["spec"]["ports"]).any(|one| one["port"] == port);
    let service = format!("{SERVICES}/edge-selvedge");
    becomes(server, &service, "its Service has the port", |found| has(found, 9100)).await;

    server.api().delete(path).await.unwrap();
    becomes(server, &service, "its Service has lost the port", |found| !has(found, 9100)).await;
    becomes(server, &edge, "it counts none", |found| found["status"]["attachedListenerSets"] == 0).await;
}

async fn parameters_are_followed(server: &ApiServer) {
    let deployment = format!("{DEPLOYMENTS}/edge-selvedge");
    let map = |data: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "edge"}, "data": data});
    let good = map(&json!({
        "replicas": "2",
        "serviceType": "ClusterIP",
        "memoryLimit": "128Mi",
        "proxyProtocolFrom": "10.0.0.0/8",
        "drainTimeout": "2m",
    }));
    server.api().create("/api/v1/namespaces/shop/configmaps", &good).await.unwrap();
    let reference = json!({"group": "", "kind": "ConfigMap", "name": "edge"});
    let infrastructure = json!({"spec": {"infrastructure": {"parametersRef": reference}}});
    server.api().merge(&format!("{GATEWAYS}/edge"), &infrastructure).await.unwrap();

    let found =
        becomes(server, &deployment, "it has two replicas", |found| found["spec"]["replicas"] == 2).await;
    let pod = &found["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "128Mi");
    let named = json!({"name": "SELVEDGE_PROXY_PROTOCOL_FROM", "value": "10.0.0.0/8"});
    assert!(items(&pod["containers"][0]["env"]).any(|variable| *variable == named), "{pod}");
    assert_eq!(pod["terminationGracePeriodSeconds"], 135);
    becomes(server, &format!("{SERVICES}/edge-selvedge"), "it is inside the cluster", |found| {
        found["spec"]["type"] == "ClusterIP"
    })
    .await;
    // Nobody tells of a ConfigMap: it is looked at.
    let more = json!({"data": {"replicas": "4"}});
    server.api().merge("/api/v1/namespaces/shop/configmaps/edge", &more).await.unwrap();
    becomes(server, &deployment, "it has four replicas", |found| found["spec"]["replicas"] == 4).await;
    let unknown = json!({"data": {"replica": "4"}});
    server.api().merge("/api/v1/namespaces/shop/configmaps/edge", &unknown).await.unwrap();
    let edge = format!("{GATEWAYS}/edge");
    let refused = becomes(server, &edge, "its parameters are refused", |found| {
        conditions(&found["status"])[0] == "Accepted False InvalidParameters"
    });
    let refused = refused.await["status"]["conditions"][0]["message"].to_string();
    assert!(refused.contains("ConfigMap shop/edge: data.replica: is not a parameter"), "{refused}");
    let after = server.api().get(&deployment).await.unwrap();
    assert_eq!(after["spec"]["replicas"], 4, "it goes on as it was");
}

async fn what_is_somebody_elses_is_left_alone(server: &ApiServer) {
    let theirs = "
apiVersion: v1
kind: Service
metadata: {name: second-selvedge, namespace: shop, labels: {app: theirs}}
spec: {selector: {app: theirs}, ports: [{port: 7000}]}
";
    server.apply(theirs).await;
    let before = server.api().get(&format!("{SERVICES}/second-selvedge")).await.unwrap();
    server.apply(&EDGE.replace("name: edge,", "name: second,")).await;

    becomes(server, &format!("{DEPLOYMENTS}/second-selvedge"), "the others are made", |_| true).await;
    let after = server.api().get(&format!("{SERVICES}/second-selvedge")).await.unwrap();
    assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);

    let second = format!("{GATEWAYS}/second");
    let told = becomes(server, &second, "it says who is in the way", |found| {
        conditions(&found["status"]).get(1).is_some_and(|one| one == "Programmed False Invalid")
    });
    let told = told.await["status"]["conditions"][1]["message"].to_string();
    assert!(told.contains("Service shop/second-selvedge is there and is not this gateway's"), "{told}");

    // A class that is not ours: what was made for it goes, and what is theirs stays.
    server
        .api()
        .merge(&format!("{GATEWAYS}/second"), &json!({"spec": {"gatewayClassName": "other"}}))
        .await
        .unwrap();
    for place in [DEPLOYMENTS, ACCOUNTS, BUDGETS] {
        is_gone(server, &format!("{place}/second-selvedge")).await;
    }
    server.api().get(&format!("{SERVICES}/second-selvedge")).await.unwrap();
}

/// What is there already is not written again, and what has gone meanwhile is removed.
async fn another_replica_goes_on(
    server: &ApiServer,
    first: ControlPlane,
    processes: &Processes,
    kubeconfig: &Path,
    data: &Path,
) {
    first.lacked_no_right(server).await;
    // It gives up the Lease.
    first.process.signal(Signal::TERM).unwrap();
    first.process.wait(SOON).await.unwrap();
    server.api().delete(&format!("{GATEWAYS}/edge")).await.unwrap();
    let second = ControlPlane::start(processes, "replica-2", kubeconfig, data).await;

    for place in PLACES {
        is_gone(server, &format!("{place}/edge-selvedge")).await;
    }
    second.lacked_no_right(server).await;
}
