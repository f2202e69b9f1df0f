//! The whole path: a Deployment, its pods with sidecars by the webhook, their containers run, and traffic through them.

use std::{collections::BTreeMap, io::Write as _};

use selvedge_demo::apps::reviews::Answer;
use selvedge_tests::{
    kubernetes::{assets, kinds},
    netns::rights::netns,
    policies::recipes::EXERCISE_3,
};
use serde_json::{Value, json};

use crate::{
    SELVEDGE,
    cluster::Cluster,
    control_plane::{NAMESPACE, manifests},
    kubelet::{items, text},
    named,
    node::images,
    operators, role,
};

/// Documents that were written for any cluster, unchanged.
const EXERCISE_2: &str = include_str!("seeds/exercise2-web.yaml");
const EXERCISE_5: &str = include_str!("seeds/exercise5-canary.yaml");

/// Who calls the others, from a shell.
const CLIENT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      serviceAccountName: client
      securityContext: {runAsUser: 1000, runAsNonRoot: true}
      containers: [{name: shell, image: selvedge, command: [sleep, infinity]}]
";

/// What exercise 5 splits: it has the routes, not the apps.
const MY_APP: &str = "
apiVersion: v1
kind: Service
metadata: {name: my-app}
spec: {selector: {app: my-app}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-app-v1}
spec:
  selector: {matchLabels: {app: my-app, version: v1}}
  template:
    metadata: {labels: {app: my-app, version: v1}}
    spec:
      containers:
      - name: app
        image: nginx
        readinessProbe: {httpGet: {path: /, port: 80}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-app-v2}
spec:
  selector: {matchLabels: {app: my-app, version: v2}}
  template:
    metadata: {labels: {app: my-app, version: v2}}
    spec:
      containers:
      - name: app
        image: nginx
        env: [{name: VERSION, value: v2}]
        readinessProbe: {tcpSocket: {port: 80}}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// The namespace of the apps.
const SHOP: &str = "shop";

#[test]
fn pods_are_meshed_by_the_webhook_and_traffic_flows() {
    netns(whole_path);
}

async fn whole_path() {
    let Some(assets) = assets() else { return };
    let mut cluster = Cluster::new(assets, images()).await;
    cluster.server.serve(kinds::GATEWAY).await;
    cluster.server.serve(kinds::ISTIO).await;
    installed(&mut cluster).await;
    cluster.server.namespace(SHOP, json!({"labels": {"selvedge.io/inject": "enabled"}})).await;
    apply(&cluster, STRICT).await;
    apply(&cluster, CLIENT).await;

    requests_are_spread_over_the_pods_of_exercise_2(&mut cluster).await;
    operators::see_what_is_so(&mut cluster).await;
    nobody_without_a_certificate_comes_in(&mut cluster).await;
    the_canary_of_exercise_5_gets_a_tenth(&mut cluster).await;
    a_gateway_serves_strangers_and_goes_without_a_trace(&mut cluster).await;
    an_ingress_is_served_by_the_gateway_of_all_of_them(&mut cluster).await;
    the_policies_of_exercise_3_hold(&mut cluster).await;
    what_follows_the_gateway_api_is_told_what_became_of_it(&mut cluster).await;
    a_job_with_a_native_sidecar_is_meshed_from_its_first_container_and_ends(&mut cluster).await;
    pods_wait_for_the_webhook_or_do_not(&mut cluster).await;
}

async fn apply(cluster: &Cluster, documents: &str) {
    cluster.server.kubectl(&["apply", "--namespace", SHOP, "-f", "-"], documents).await.unwrap();
}

pub(crate) async fn installed(cluster: &mut Cluster) {
    let manifests = manifests(&[]);
    // Made here, so that it has what a cluster's controllers put into every namespace.
    cluster.server.apply(&manifests).await;
    cluster.server.furnish(NAMESPACE).await;
    cluster.ready(NAMESPACE, ("app.kubernetes.io/component", "control-plane"), 1).await;
    cluster
        .until("the API server knows the webhook's authority", async |cluster| {
            let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/selvedge-inject";
            let found = cluster.api().get(path).await.unwrap();
            let known =
                items(&found["webhooks"]).all(|webhook| webhook["clientConfig"]["caBundle"].is_string());
            if known { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
}

/// What a script says that runs in the client's pod.
async fn client(cluster: &mut Cluster, script: &str) -> String {
    let names = cluster.ready(SHOP, ("app", "client"), 1).await;
    let shell = cluster.pod(SHOP, &names[0]).container("shell");
    shell.exec(&["/bin/sh", "-c", script]).await.unwrap_or_else(|said| panic!("{script}: {said}"))
}

/// The answers to so many requests, one after the other.
async fn answers(cluster: &mut Cluster, count: usize, url: &str) -> Vec<Answer> {
    let script = format!("for i in $(seq {count}); do curl -sS -m 10 {url}; echo; done");
    let said = client(cluster, &script).await;
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

async fn requests_are_spread_over_the_pods_of_exercise_2(cluster: &mut Cluster) {
    apply(cluster, EXERCISE_2).await;
    let web = cluster.ready(SHOP, ("app", "web"), 3).await;
    for name in &web {
        let pod = cluster.api().get(&format!("/api/v1/namespaces/{SHOP}/pods/{name}")).await.unwrap();
        assert_eq!(pod["metadata"]["labels"]["selvedge.io/sidecar"], "injected");
        let containers: Vec<&str> = items(&pod["spec"]["containers"]).map(|one| text(&one["name"])).collect();
        assert_eq!(containers, ["selvedge-proxy", "nginx"]);
    }

    let answers = answers(cluster, 30, "http://web-service/").await;

    let mut pods = BTreeMap::<&str, usize>::new();
    for answer in &answers {
        assert_eq!(answer.client_identity.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/client"));
        *pods.entry(&answer.pod).or_default() += 1;
    }
    assert_eq!(pods.len(), 3, "{pods:?}");
}

/// From the node, where no sidecar is: neither to an app nor by way of a Service.
async fn nobody_without_a_certificate_comes_in(cluster: &mut Cluster) {
    let web = cluster.ready(SHOP, ("app", "web"), 3).await;
    let pod = cluster.api().get(&format!("/api/v1/namespaces/{SHOP}/pods/{}", web[0])).await.unwrap();
    let address = text(&pod["status"]["podIP"]).to_owned();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &format!("http://{address}/")]);

    let output = cluster.host.namespace.output(&mut curl);

    let code = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(code == "403" || code == "000", "{code}");
}

async fn the_canary_of_exercise_5_gets_a_tenth(cluster: &mut Cluster) {
    apply(cluster, MY_APP).await;
    apply(cluster, EXERCISE_5).await;
    cluster.ready(SHOP, ("app", "my-app"), 2).await;

    let count = |answers: &[Answer]| {
        assert!(answers.iter().all(|answer| answer.client_identity.is_some()));
        answers.iter().filter(|answer| answer.version == "v2").count()
    };
    // The route may arrive after the Service: from then on it is a tenth.
    cluster
        .until("the route is in effect", async |cluster| {
            let second = count(&answers(cluster, 20, "http://my-app/version").await);
            if second <= 8 { Ok(()) } else { Err(format!("{second} of 20 by v2")) }
        })
        .await;
    let second = count(&answers(cluster, 200, "http://my-app/version").await);
    // 20 are expected; a fair split would be outside of this once in a million times.
    assert!((2..=46).contains(&second), "{second} of 200");
}

/// Behind a Service with an address in the cluster alone: there is no load balancer here.
const EDGE: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: edge}
data: {serviceType: ClusterIP}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XListenerSet
metadata: {name: more}
spec:
  parentRef: {name: edge}
  listeners: [{name: more, port: 8081, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: selvedge
  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: edge}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - name: https
    port: 443
    protocol: HTTPS
    hostname: web.example.com
    tls: {certificateRefs: [{name: web-tls}]}
  - name: known-clients
    port: 8443
    protocol: HTTPS
    hostname: web.example.com
    tls:
      certificateRefs: [{name: web-tls}]
      frontendValidation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  hostnames: [web.example.com]
  rules: [{backendRefs: [{name: web-service, port: 80}]}]
";

/// The Secret comes after the Gateway that names it, and is then replaced. The address is that of the Gateway's Service.
async fn a_certificate_is_shown_as_its_secret_is_now(cluster: &mut Cluster, address: &str) {
    let first = named::certificate("web.example.com");
    let authorities = first[0].replace('\n', "\n    ");
    apply(
        cluster,
        &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients}}\ndata:\n  ca.crt: |\n    {authorities}\n"
        ),
    )
    .await;
    for certificate in [first, named::certificate("web.example.com")] {
        apply(cluster, &named::secret_of(SHOP, "web-tls", &certificate)).await;
        let trusted = cluster.server.directory().join("web.pem");
        std::fs::write(&trusted, &certificate[0]).unwrap();
        cluster
            .until("the certificate is shown", async |cluster| {
                let mut curl = std::process::Command::new("curl");
                curl.args([
                    "-sS",
                    "-m",
                    "5",
                    "--resolve",
                    &format!("web.example.com:443:{address}"),
                    "--cacert",
                ]);
                let output =
                    cluster.host.namespace.output(curl.arg(&trusted).arg("https://web.example.com/"));
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                serde_json::from_str::<Answer>(&said)
                    .map_err(|_| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
            })
            .await;
    }
    // Who has no certificate of those authorities is refused by TLS itself.
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sSk", "-m", "5", "--resolve", &format!("web.example.com:8443:{address}")]);
    let output = cluster.host.namespace.output(curl.arg("https://web.example.com:8443/"));
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

async fn a_gateway_serves_strangers_and_goes_without_a_trace(cluster: &mut Cluster) {
    apply(cluster, EDGE).await;
    let gateways = cluster.ready(SHOP, ("gateway.networking.k8s.io/gateway-name", "edge"), 1).await;
    let pod = cluster.api().get(&format!("/api/v1/namespaces/{SHOP}/pods/{}", gateways[0])).await.unwrap();
    let containers: Vec<&str> = items(&pod["spec"]["containers"]).map(|one| text(&one["name"])).collect();
    assert_eq!(containers, ["selvedge-proxy"]);
    assert!(pod["metadata"]["labels"]["selvedge.io/sidecar"].is_null(), "it is not injected: {pod}");

    // From the node, where no sidecar is.
    let service = format!("/api/v1/namespaces/{SHOP}/services/edge-selvedge");
    let service = cluster.api().get(&service).await.unwrap();
    let url = format!("http://{}/", text(&service["spec"]["clusterIP"]));
    let answer = cluster
        .until("a stranger is answered", async |cluster| {
            let mut curl = std::process::Command::new("curl");
            curl.args(["-sS", "-m", "5", "-H", "Host: web.example.com", &url]);
            let output = cluster.host.namespace.output(&mut curl);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            serde_json::from_str::<Answer>(&said)
                .map_err(|_| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
        })
        .await;
    let identity = "spiffe://cluster.local/ns/shop/sa/edge-selvedge";
    assert_eq!(answer.client_identity.as_deref(), Some(identity), "its own, over mutual TLS");
    a_certificate_is_shown_as_its_secret_is_now(cluster, text(&service["spec"]["clusterIP"])).await;

    cluster
        .api()
        .delete(&format!("/apis/gateway.networking.k8s.io/v1/namespaces/{SHOP}/gateways/edge"))
        .await
        .unwrap();
    cluster.ready(SHOP, ("gateway.networking.k8s.io/gateway-name", "edge"), 0).await;
    for (version, kind) in [
        ("apis/apps/v1", "deployments"),
        ("api/v1", "services"),
        ("api/v1", "serviceaccounts"),
        ("apis/policy/v1beta1", "poddisruptionbudgets"),
    ] {
        let path = format!("/{version}/namespaces/{SHOP}/{kind}/edge-selvedge");
        cluster
            .until(&format!("{path} is gone"), async |cluster| match cluster.api().get(&path).await {
                Ok(found) => Err(found["metadata"].to_string()),
                Err(_) => Ok(()),
            })
            .await;
    }
}

/// What a request gets through a Service from the node, where no sidecar is.
async fn a_strangers_answer(cluster: &mut Cluster, service: (&str, &str), host: &str) -> Answer {
    let service = format!("/api/v1/namespaces/{}/services/{}", service.0, service.1);
    let service = cluster.api().get(&service).await.unwrap();
    let url = format!("http://{}/", text(&service["spec"]["clusterIP"]));
    let host = format!("Host: {host}");
    cluster
        .until("a stranger is answered", async |cluster| {
            let mut curl = std::process::Command::new("curl");
            curl.args(["-sS", "-m", "5", "-H", &host, &url]);
            let output = cluster.host.namespace.output(&mut curl);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            serde_json::from_str::<Answer>(&said)
                .map_err(|_| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
        })
        .await
}

const INGRESS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: selvedge-ingress, namespace: selvedge}
data: {serviceType: ClusterIP}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: selvedge
  rules:
  - host: ingress.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web-service, port: {number: 80}}}}]}
";

async fn an_ingress_is_served_by_the_gateway_of_all_of_them(cluster: &mut Cluster) {
    const GATEWAY: (&str, &str) = ("gateway.networking.k8s.io/gateway-name", "ingress");
    cluster.server.apply(INGRESS).await;
    cluster.ready(NAMESPACE, GATEWAY, 1).await;

    let answer = a_strangers_answer(cluster, (NAMESPACE, "ingress"), "ingress.example.com").await;
    assert_eq!(answer.client_identity.as_deref(), Some("spiffe://cluster.local/ns/selvedge/sa/ingress"));
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web";
    cluster
        .until("the Ingress says where it is served", async |cluster| {
            let found = cluster.api().get(path).await.unwrap();
            let place = &found["status"]["loadBalancer"]["ingress"][0]["hostname"];
            if place == "ingress.selvedge.svc" { Ok(()) } else { Err(found["status"].to_string()) }
        })
        .await;

    cluster.api().delete(path).await.unwrap();
    cluster.ready(NAMESPACE, GATEWAY, 0).await;
}

/// A tier of exercise 3, which has the policies and not the apps: all of them have the same service account.
fn tier(name: &str, port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{tier: {name}}}, ports: [{{port: {port}}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{tier: {name}}}}}
  template:
    metadata: {{labels: {{tier: {name}}}}}
    spec:
      containers:
      - name: app
        image: nginx
        env: [{{name: PORT, value: '{port}'}}]
        readinessProbe: {{httpGet: {{path: /, port: {port}}}}}
---"
    )
}

/// The status that the app of the tier `from` gets from `to`.
async fn status(cluster: &mut Cluster, from: &str, to: &str) -> String {
    let names = cluster.ready(SHOP, ("tier", from), 1).await;
    let app = cluster.pod(SHOP, &names[0]).container("app");
    let script = format!("curl -sS -m 10 -o /dev/null -w '%{{http_code}}' http://{to}/ || true");
    app.exec(&["/bin/sh", "-c", &script]).await.unwrap_or_else(|said| said).trim().to_owned()
}

async fn the_policies_of_exercise_3_hold(cluster: &mut Cluster) {
    let tiers = [("frontend", 8080), ("backend", 8080), ("database", 5432), ("other", 8080)];
    apply(cluster, &tiers.map(|(name, port)| tier(name, port)).concat()).await;
    for (name, _) in tiers {
        cluster.ready(SHOP, ("tier", name), 1).await;
    }
    assert_eq!(status(cluster, "other", "database:5432").await, "200");

    apply(cluster, EXERCISE_3).await;

    // What comes to 5432 is opaque to a sidecar, and is reset without an answer.
    for (from, to, expected) in [
        ("other", "database:5432", "000"),
        ("frontend", "backend:8080", "200"),
        ("backend", "database:5432", "200"),
        ("frontend", "database:5432", "000"),
        ("other", "backend:8080", "403"),
        ("database", "backend:8080", "403"),
        ("backend", "other:8080", "403"),
        ("frontend", "other:8080", "200"),
    ] {
        cluster
            .until(&format!("{from} gets {expected} from {to}"), async |cluster| {
                let status = status(cluster, from, to).await;
                if status.ends_with(expected) { Ok(()) } else { Err(status) }
            })
            .await;
    }
    let events = format!("/apis/events.k8s.io/v1/namespaces/{SHOP}/events");
    cluster
        .until("an Event says what a sidecar does not enforce", async |cluster| {
            let events = cluster.api().get(&events).await.unwrap();
            let told = items(&events["items"]).any(|event| {
                event["regarding"]["kind"] == "NetworkPolicy" && text(&event["note"]).contains("UDP")
            });
            if told { Ok(()) } else { Err(events.to_string()) }
        })
        .await;
}

async fn what_follows_the_gateway_api_is_told_what_became_of_it(cluster: &mut Cluster) {
    let route = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{group: '', kind: Service, name: db, port: 5432}]
  rules: [{backendRefs: [{name: db, port: 5432}]}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: db}
spec:
  targetRefs: [{group: '', kind: Service, name: db}]
  retryConstraint: {budget: {percent: 20, interval: 10s}}
";
    apply(cluster, route).await;
    let route = format!("/apis/gateway.networking.k8s.io/v1alpha2/namespaces/{SHOP}/tcproutes/db");
    let policy =
        format!("/apis/gateway.networking.x-k8s.io/v1alpha1/namespaces/{SHOP}/xbackendtrafficpolicies/db");
    for (path, parents) in [(route, "parents"), (policy, "ancestors")] {
        cluster
            .until("it has a status", async |cluster| {
                let found = cluster.api().get(&path).await.unwrap();
                let parent = &found["status"][parents][0];
                let ours = parent["controllerName"] == "selvedge.io/control-plane";
                if ours && parent["conditions"].is_array() {
                    Ok(())
                } else {
                    Err(found["status"].to_string())
                }
            })
            .await;
    }
}

/// Whoever is called there lets only sidecars in.
const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: report}
spec:
  template:
    metadata: {labels: {app: report}}
    spec:
      restartPolicy: Never
      initContainers:
      - {name: first, image: selvedge, command: [curl, -sSf, -m, '10', 'http://web-service.shop/']}
      containers:
      - {name: report, image: selvedge, command: [curl, -sSf, -m, '10', 'http://web-service.shop/']}
";

async fn a_job_with_a_native_sidecar_is_meshed_from_its_first_container_and_ends(cluster: &mut Cluster) {
    cluster.server.namespace("batch", json!({})).await;
    let roots = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/selvedge-trust-roots");
    let roots = cluster.api().get(&roots).await.unwrap();
    let injected = inject(JOB, text(&roots["data"]["root-sha256"]));
    let shown = async |documents: &str| -> Value {
        let show = ["create", "--dry-run=client", "--validate=false", "--output=json", "-f", "-"];
        serde_json::from_str(&cluster.server.kubectl(&show, documents).await.unwrap()).unwrap()
    };
    let (injected, mut plain) = (shown(&injected).await, shown(JOB).await);
    let template = &injected["spec"]["template"];
    let first = &template["spec"]["initContainers"][1];
    assert_eq!((&first["name"], &first["restartPolicy"]), (&json!("selvedge-proxy"), &json!("Always")));
    plain["spec"]["template"]["metadata"] = template["metadata"].clone();
    plain["metadata"]["namespace"] = "batch".into();

    cluster.kubelet.run_instead("batch", "report", &template["spec"]);
    cluster.api().create("/apis/batch/v1/namespaces/batch/jobs", &plain).await.unwrap();

    cluster
        .until("the Job is done", async |cluster| {
            let job = cluster.api().get("/apis/batch/v1/namespaces/batch/jobs/report").await.unwrap();
            let pods = cluster.api().get("/api/v1/namespaces/batch/pods").await.unwrap();
            let status = &pods["items"][0]["status"];
            if job["status"]["succeeded"] == 1 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
}

/// With no control plane, a namespace that asks by its label waits; a pod that asks by annotation runs without.
async fn pods_wait_for_the_webhook_or_do_not(cluster: &mut Cluster) {
    let scale = |replicas: usize| json!({"spec": {"replicas": replicas}});
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/selvedge-control-plane");
    cluster.api().merge(&deployment, &scale(0)).await.unwrap();
    cluster.ready(NAMESPACE, ("app.kubernetes.io/component", "control-plane"), 0).await;
    role::has_what_was_asked_for_and_no_more(cluster).await;
    let pod = |name: &str| -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "annotations": {"selvedge.io/inject": "enabled"}},
            "spec": {"containers": [{"name": "app", "image": "nginx"}]},
        })
    };

    let refused =
        cluster.api().create(&format!("/api/v1/namespaces/{SHOP}/pods"), &pod("one")).await.unwrap_err();
    assert!(refused.message.contains("inject.selvedge.io"), "{refused}");
    let taken = cluster.api().create("/api/v1/namespaces/default/pods", &pod("one")).await.unwrap();
    assert_eq!(items(&taken["spec"]["containers"]).count(), 1);

    // What runs goes on meanwhile.
    answers(cluster, 3, "http://web-service/").await;
    cluster.api().merge(&deployment, &scale(1)).await.unwrap();
    cluster.ready(NAMESPACE, ("app.kubernetes.io/component", "control-plane"), 1).await;
    let injected =
        cluster.api().create(&format!("/api/v1/namespaces/{SHOP}/pods"), &pod("one")).await.unwrap();
    assert_eq!(items(&injected["spec"]["containers"]).count(), 2);
}

/// `selvedge inject` on a document.
fn inject(document: &str, roots: &str) -> String {
    let mut command = std::process::Command::new(SELVEDGE);
    command.args(["inject", "--trust-roots", roots, "-f", "-"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "selvedge inject: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
