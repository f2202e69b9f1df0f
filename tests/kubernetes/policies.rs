//! Policies that were written for any cluster, unchanged, and Linkerd's: whom pods with sidecars let in.

use selvedge_tests::{
    kubernetes::{assets, kinds},
    netns::rights::netns,
    policies::recipes::{Asked, KNOWN, LESSON, Recipe},
};
use serde_json::json;

use crate::{cluster::Cluster, mesh::installed, node::images};

/// Pods of these names, each with a port of its own and its own service account.
const PODS: [(&str, &str, u16); 4] = [
    ("default", "frontend", 8080),
    ("default", "backend", 8080),
    ("default", "database", 3306),
    ("production", "web", 8080),
];

fn pod((namespace, name, port): (&str, &str, u16)) -> String {
    let known = KNOWN.iter().find(|known| known.name == name);
    let (key, value) = known.map(|known| known.label).unwrap_or_default();
    format!(
        "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, {key}: {value}}}}}
    spec:
      serviceAccountName: {name}
      containers:
      - name: app
        image: nginx
        env: [{{name: PORT, value: '{port}'}}]
        ports: [{{name: http, containerPort: {port}}}]
        readinessProbe: {{httpGet: {{path: /, port: {port}}}}}
"
    )
}

/// The status that the app of a pod gets from another at `path`; 0: none.
async fn status(cluster: &mut Cluster, from: (&str, &str), to: (&str, &str, u16), path: &str) -> u16 {
    let names = cluster.ready(from.0, ("app", from.1), 1).await;
    let app = cluster.pod(from.0, &names[0]).container("app");
    let url = format!("http://{}.{}:{}{path}", to.1, to.0, to.2);
    let script = format!("curl -sS -m 10 -o /dev/null -w '%{{http_code}}' {url} 2>/dev/null || true");
    let said = app.exec(&["/bin/sh", "-c", &script]).await.unwrap_or_else(|said| said);
    said.trim().parse().unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Waits until `from` is answered so by `to`.
async fn until_status(
    cluster: &mut Cluster,
    from: (&str, &str),
    to: (&str, &str, u16),
    (path, expected): (&str, u16),
    what: &str,
) {
    let what = format!("{what}: {from:?} gets {expected} from {to:?} at {path}");
    cluster
        .until(&what, async |cluster| {
            let status = status(cluster, from, to, path).await;
            if status == expected { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
}

async fn policies() {
    let Some(assets) = assets() else { return };
    let mut cluster = Cluster::new(assets, images()).await;
    for kinds in [kinds::GATEWAY, kinds::ISTIO, kinds::LINKERD, kinds::CALICO] {
        cluster.server.serve(kinds).await;
    }
    installed(&mut cluster).await;
    let injected = json!({"labels": {"selvedge.io/inject": "enabled"}});
    cluster.server.namespace("production", injected.clone()).await;
    cluster.api().merge("/api/v1/namespaces/default", &json!({"metadata": injected})).await.unwrap();
    cluster.server.apply(&PODS.map(pod).concat()).await;
    for (namespace, name, _) in PODS {
        cluster.ready(namespace, ("app", name), 1).await;
    }
    for lesson in LESSON.iter().filter(|lesson| lesson.name != "exercise 3") {
        the_lesson_holds(&mut cluster, lesson).await;
    }
    labels_of_accounts_hold(&mut cluster).await;
    linkerds_policies_hold(&mut cluster).await;
    the_default_of_a_pod_holds(&mut cluster).await;
}

/// Every pair of pods is tried. (`mesh.rs` has exercise 3, whose tiers have one account.)
async fn the_lesson_holds(cluster: &mut Cluster, lesson: &Recipe) {
    let full = |namespace: &str, name: &str| {
        KNOWN.iter().find(|known| (known.namespace, known.name) == (namespace, name)).unwrap().full
    };
    let documents = lesson.documents.join("\n---\n");
    cluster.server.kubectl(&["apply", "-f", "-"], &documents).await.unwrap();
    // Twice: what is refused shows that the policy has arrived, and what is let in is asked after that.
    for lets in [false, true] {
        for (from_namespace, from, _) in PODS {
            for to in PODS.into_iter().filter(|to| (to.0, to.1) != (from_namespace, from)) {
                let asked = Asked { from: full(from_namespace, from), to: full(to.0, to.1), port: to.2 };
                if lesson.lets(asked) != lets {
                    continue;
                }
                // What comes to 3306 is opaque, and is reset without an answer.
                let refused = if to.2 == 8080 { 403 } else { 0 };
                let expected = if lets { 200 } else { refused };
                until_status(cluster, (from_namespace, from), to, ("/", expected), lesson.name).await;
            }
        }
    }
    cluster.server.kubectl(&["delete", "-f", "-"], &documents).await.unwrap();
}

/// Calico's policies select accounts by the labels of their ServiceAccounts, which come and go.
async fn labels_of_accounts_hold(cluster: &mut Cluster) {
    let (frontend, web, backend) =
        (("default", "frontend"), ("production", "web"), ("default", "backend", 8080));
    let label = |role: Option<&str>| json!({"metadata": {"labels": {"role": role}}});
    let account = "/api/v1/namespaces/default/serviceaccounts/frontend";
    let callers = "{selector: \"app == 'backend'\", types: [Ingress], ingress: [{action: Allow, source: {serviceAccounts: \
                   {selector: \"role == 'caller'\"}}}]}";
    cluster.api().merge(account, &label(Some("caller"))).await.unwrap();
    let policy = format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: callers}}\nspec: {callers}\n"
    );
    cluster.server.apply(&policy).await;
    for (from, expected) in [(web, 403), (frontend, 200)] {
        until_status(cluster, from, backend, ("/", expected), "by an account's label").await;
    }

    cluster.api().merge(account, &label(None)).await.unwrap();
    until_status(cluster, frontend, backend, ("/", 403), "without the label").await;
    cluster.api().delete("/apis/projectcalico.org/v3/globalnetworkpolicies/callers").await.unwrap();
    until_status(cluster, web, backend, ("/", 200), "without the policy").await;
}

fn of_linkerd(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.linkerd.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

/// By identity, by network, and by route.
async fn linkerds_policies_hold(cluster: &mut Cluster) {
    let (frontend, database, web) = (("default", "frontend"), ("default", "database"), ("production", "web"));
    let backend = ("default", "backend", 8080);
    let server = of_linkerd(
        "v1beta3",
        "Server",
        "backend",
        "{podSelector: {matchLabels: {app: backend}}, port: http}",
    );
    let allow = |name: &str, target: &str, required: &str| {
        let spec = format!(
            "{{targetRef: {{group: policy.linkerd.io, {target}}}, requiredAuthenticationRefs: [{required}]}}"
        );
        of_linkerd("v1alpha1", "AuthorizationPolicy", name, &spec)
    };
    let to_server = "kind: Server, name: backend";
    let by_identity = [
        of_linkerd(
            "v1alpha1",
            "MeshTLSAuthentication",
            "frontend",
            "{identityRefs: [{kind: ServiceAccount, name: frontend}]}",
        ),
        allow(
            "frontend",
            to_server,
            "{group: policy.linkerd.io, kind: MeshTLSAuthentication, name: frontend}",
        ),
    ]
    .concat();
    cluster.server.apply(&(server + &by_identity)).await;
    for (from, expected) in [(database, 403), (web, 403), (frontend, 200)] {
        until_status(cluster, from, backend, ("/", expected), "by identity").await;
    }

    let names = cluster.ready(web.0, ("app", web.1), 1).await;
    let pod = cluster.api().get(&format!("/api/v1/namespaces/{}/pods/{}", web.0, names[0])).await.unwrap();
    let address = pod["status"]["podIP"].as_str().unwrap().to_owned();
    let by_network = [
        of_linkerd(
            "v1alpha1",
            "NetworkAuthentication",
            "web",
            &format!("{{networks: [{{cidr: {address}/32}}]}}"),
        ),
        allow("web", to_server, "{group: policy.linkerd.io, kind: NetworkAuthentication, name: web}"),
    ]
    .concat();
    cluster.server.apply(&by_network).await;
    for (from, expected) in [(web, 200), (database, 403), (frontend, 200)] {
        until_status(cluster, from, backend, ("/", expected), "by network").await;
    }

    let route = "{parentRefs: [{group: policy.linkerd.io, kind: Server, name: backend}], rules: [{matches: [{path: {value: /public}}]}]}";
    let by_route = [
        of_linkerd("v1beta3", "HTTPRoute", "public", route),
        allow("public", "kind: HTTPRoute, name: public", "{kind: ServiceAccount, name: database}"),
    ]
    .concat();
    cluster.server.apply(&by_route).await;
    for (from, path, expected) in
        [(database, "/public", 200), (database, "/", 404), (frontend, "/", 404), (frontend, "/public", 200)]
    {
        until_status(cluster, from, backend, (path, expected), "by route").await;
    }
    for (version, plural, name) in [
        ("v1beta3", "servers", "backend"),
        ("v1beta3", "httproutes", "public"),
        ("v1alpha1", "authorizationpolicies", "frontend"),
        ("v1alpha1", "authorizationpolicies", "web"),
        ("v1alpha1", "authorizationpolicies", "public"),
    ] {
        let path = format!("/apis/policy.linkerd.io/{version}/namespaces/default/{plural}/{name}");
        cluster.api().delete(&path).await.unwrap();
    }
    until_status(cluster, database, backend, ("/", 200), "without a server").await;
}

/// The annotation of a pod is for its ports that have no server; that of its namespace is for the others.
async fn the_default_of_a_pod_holds(cluster: &mut Cluster) {
    let (frontend, backend) = (("default", "frontend"), ("default", "backend", 8080));
    let annotation = |word: &str| json!({"annotations": {"config.linkerd.io/default-inbound-policy": word}});
    let names = cluster.ready("default", ("app", "backend"), 1).await;
    let pod = format!("/api/v1/namespaces/default/pods/{}", names[0]);
    cluster.api().merge(&pod, &json!({"metadata": annotation("deny")})).await.unwrap();
    until_status(cluster, frontend, backend, ("/", 403), "a pod that denies").await;
    until_status(cluster, frontend, ("production", "web", 8080), ("/", 200), "another pod").await;

    let namespace = json!({"metadata": annotation("deny")});
    cluster.api().merge("/api/v1/namespaces/production", &namespace).await.unwrap();
    until_status(cluster, frontend, ("production", "web", 8080), ("/", 403), "a namespace that denies").await;
    cluster.api().merge(&pod, &json!({"metadata": annotation("all-authenticated")})).await.unwrap();
    until_status(cluster, frontend, backend, ("/", 200), "whoever has an identity").await;
}

#[test]
fn policies_hold_between_pods() {
    netns(policies);
}
