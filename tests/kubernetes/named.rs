//! Secrets and ConfigMaps in a cluster: the control plane reads those that gateways name, by their names, and nothing else.

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, KeyPair};
use selvedge_tests::{SOON, kubernetes::ApiServer, poll};

use crate::control_plane::{ACCOUNT, ControlPlane, NAMESPACE, Prepared};

const HOST: &str = "shop.example.com";

/// A Gateway that ends TLS with these certificates.
fn gateway(references: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\n\
         spec: {{gatewayClassName: selvedge, listeners: [{{name: https, port: 443, protocol: HTTPS, hostname: {HOST}, \
         tls: {{certificateRefs: [{references}]}}}}]}}\n"
    )
}

/// A certificate for `host` that nobody signed but itself, and its key, in PEM form.
pub(crate) fn certificate(host: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

/// A Secret with that.
pub(crate) fn secret_of(namespace: &str, name: &str, certificate: &[String; 2]) -> String {
    let [chain, key] = certificate.each_ref().map(|pem| BASE64_STANDARD.encode(pem));
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
         data: {{tls.crt: {chain}, tls.key: {key}}}\n"
    )
}

fn secret(namespace: &str, name: &str, host: &str) -> String {
    secret_of(namespace, name, &certificate(host))
}

#[tokio::test]
async fn what_gateways_name_is_read_by_its_name_and_nothing_else() {
    let Some(prepared) = Prepared::new().await else { return };
    let server = &prepared.server;
    server.apply(&(secret("default", "nobodys", HOST) + "---\n" + &gateway("{name: first}"))).await;
    let control_plane = prepared.start("replica-1").await;

    let missing = |name: &str| format!("there is no Secret default/{name}");
    control_plane.problems("the Secret is missing", |told| told.contains(&missing("first"))).await;
    server.apply(&secret("default", "first", HOST)).await;
    control_plane.problems("the Secret is there", |told| !told.contains("default/first")).await;
    server.apply(&secret("default", "first", "other.example.com")).await;
    control_plane
        .problems("it is for another host", |told| told.contains("default/first is for other.example.com"))
        .await;
    server.apply(&secret("default", "first", HOST)).await;
    control_plane.problems("it is for the host again", |told| !told.contains("default/first")).await;
    server.api().delete("/api/v1/namespaces/default/secrets/first").await.unwrap();
    control_plane.problems("it is gone", |told| told.contains(&missing("first"))).await;

    // A change of what is named, and one of another namespace, which has to allow it.
    server.namespace("vault", serde_json::json!({})).await;
    server.apply(&(secret("vault", "theirs", HOST) + "---\n" + &secret("default", "second", HOST))).await;
    server.apply(&gateway("{name: second}, {name: theirs, namespace: vault}")).await;
    control_plane
        .problems("only the grant is missing", |told| {
            !told.contains("default/first")
                && !told.contains("default/second")
                && told.contains("ReferenceGrant")
        })
        .await;
    assert!(!asked(server).iter().any(|uri| uri.contains("theirs")), "{:?}", asked(server));
    server
        .apply(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: edge, namespace: vault}\n\
             spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}], to: [{group: '', kind: Secret}]}\n",
        )
        .await;
    control_plane
        .problems("the grant is enough", |told| {
            !told.contains("ReferenceGrant") && !told.contains("vault/theirs")
        })
        .await;

    keys_are_not_fetched_from_the_control_planes_own_host(server, &control_plane).await;

    // This API server writes a watch down when it is over.
    control_plane.lacked_no_right(server).await;
    drop(control_plane);
    poll(SOON, "every watch is over", async || {
        let asked = asked(server);
        let named = |name: &str| {
            asked
                .iter()
                .any(|uri| uri.contains(&format!("metadata.name%3D{name}&")) && uri.contains("watch=true"))
        };
        if ["first", "second", "theirs"].into_iter().all(named) { Ok(()) } else { Err(format!("{asked:#?}")) }
    })
    .await;
    for uri in asked(server) {
        let own = uri.starts_with(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"));
        assert!(own || uri.contains("metadata.name%3D"), "{uri}");
        assert!(!uri.contains("nobodys"), "{uri}");
    }
}

/// Every request of the control plane's about Secrets.
fn asked(server: &ApiServer) -> Vec<String> {
    let account = format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    let asked = server.asked_by(&account).into_iter().filter(|one| one.is("", "secrets"));
    asked.map(|one| one.uri).collect()
}

async fn keys_are_not_fetched_from_the_control_planes_own_host(
    server: &ApiServer,
    control_plane: &ControlPlane,
) {
    let url = format!("http://{}/keys", control_plane.admin);
    server
        .apply(&format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: default}}\n\
             spec: {{jwtRules: [{{issuer: 'https://issuer.example', jwksUri: '{url}'}}]}}\n"
        ))
        .await;
    let refused = format!(
        "the keys of {url} cannot be fetched: its host has the address 127.0.0.1, and nothing is fetched from the control plane's own host"
    );
    control_plane.problems("its own host is not asked", |told| told.contains(&refused)).await;
}

#[tokio::test]
async fn what_istios_gateways_name_is_read_in_the_namespace_of_their_workload() {
    let Some(prepared) = Prepared::new().await else { return };
    let server = &prepared.server;
    server.namespace("infra", serde_json::json!({})).await;
    let documents = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: edge\n  namespace: default\n  \
         annotations: {{config.selvedge.io/gateway: default/edge}}\n\
         spec: {{address: 10.1.2.3, serviceAccount: edge, labels: {{istio: ingressgateway}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: infra}}\n\
         spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [{HOST}], \
         tls: {{mode: MUTUAL, credentialName: shop-tls}}}}]}}\n"
    );
    server.apply(&documents).await;
    let control_plane = prepared.start("replica-1").await;

    control_plane
        .problems("the Secret is missing", |told| told.contains("there is no Secret default/shop-tls"))
        .await;
    server.apply(&secret("default", "shop-tls", HOST)).await;
    control_plane
        .problems("the authorities are missing", |told| {
            !told.contains("there is no Secret default/shop-tls;")
                && told.contains("default/shop-tls has no certificates of authorities")
        })
        .await;
    let beside = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop-tls-cacert, namespace: default}}\ndata: {{ca.crt: {}}}\n",
        BASE64_STANDARD.encode(&certificate("clients.example.com")[0])
    );
    server.apply(&beside).await;
    control_plane.problems("everything is there", |told| !told.contains("shop-tls")).await;
    control_plane.lacked_no_right(server).await;
}

#[tokio::test]
async fn a_namespace_may_name_more_objects_than_are_watched() {
    let Some(prepared) = Prepared::new().await else { return };
    let server = &prepared.server;
    let host = |index: usize| format!("h{index:03}.example.com");
    let tls = |index| format!("{{hosts: [{}], secretName: s{index:03}}}", host(index));
    // Several, because not more than 50 problems of one kind are told of each.
    let ingress = |first: usize| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: many-{first}, namespace: default}}\n\
             spec: {{ingressClassName: selvedge, rules: [{{host: {}, http: {{paths: [{{path: /, pathType: Prefix, \
             backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}], tls: [{}]}}\n",
            host(first),
            (first..first + 26).map(tls).collect::<Vec<_>>().join(", ")
        )
    };
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: selvedge}\nspec: {controller: selvedge.io/ingress}\n";
    let documents = class.to_owned() + &(0..130).step_by(26).map(ingress).collect::<String>();
    server.apply(&documents).await;
    let control_plane = prepared.start("replica-1").await;

    let missing = |index: usize| format!("there is no Secret default/s{index:03}");
    control_plane
        .problems("all are missing", |told| told.contains(&missing(5)) && told.contains(&missing(120)))
        .await;
    server.apply(&secret("default", "s120", &host(120))).await;
    control_plane
        .problems("one is there", |told| !told.contains(&missing(120)) && told.contains(&missing(121)))
        .await;
    server.api().delete("/api/v1/namespaces/default/secrets/s120").await.unwrap();
    control_plane.problems("it is gone", |told| told.contains(&missing(120))).await;
    control_plane.lacked_no_right(server).await;
}
