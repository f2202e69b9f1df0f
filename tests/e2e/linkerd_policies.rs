//! Linkerd's policies through real sidecars: servers, who may call them, and their routes.

use selvedge_api::wire::Carrier;
use selvedge_demo::{
    apps::grpc::wire::{EchoRequest, echo_client::EchoClient},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, transport::Channel};

use crate::{
    SELVEDGE,
    authorization::{Came, asked, came, get},
    mesh_client,
    raw::{Around, CALLERS, SERVER, within},
};

/// A document of Linkerd's called `name`.
fn document(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: policy.linkerd.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

/// The port of the workloads of `app` as a server, with more of its `spec`.
fn server(app: &str, more: &str) -> String {
    document(
        "v1beta3",
        "Server",
        app,
        &format!("{{podSelector: {{matchLabels: {{app: {app}}}}}, port: http{more}}}"),
    )
}

/// Lets `account` call what `target` says.
fn allow(name: &str, target: &str, account: &str) -> String {
    let spec = format!(
        "{{targetRef: {{{target}}}, requiredAuthenticationRefs: [{{kind: ServiceAccount, name: {account}}}]}}"
    );
    document("v1alpha1", "AuthorizationPolicy", name, &spec)
}

const TO_SERVER: &str = "group: policy.linkerd.io, kind: Server, name: app";

/// Writes `documents`, and waits until `caller`'s GET of `path` comes to what is expected.
async fn in_force(around: &Around, documents: &str, caller: &str, path: &str, expected: &Came) {
    around.mesh.write("policy.yaml", documents).expect("a writable directory");
    poll(SOON, &format!("{caller} {path}: {expected:?}"), async || {
        let came = asked(around, caller, &get(path)).await;
        if came == *expected { Ok(()) } else { Err(format!("{came:?}")) }
    })
    .await;
}

fn refused() -> Came {
    let why = "policy: Server default/app: no rule of the policies that allow something allows this";
    Came::Back("403".to_owned(), why.to_owned())
}

#[tokio::test]
async fn a_server_lets_in_only_what_a_policy_allows_over_either_version_of_http() {
    let around = Around::new().await;
    let [allowed, other] = CALLERS;

    in_force(&around, &server("app", ""), allowed, "/", &refused()).await;
    let documents = [server("app", ""), allow("only", TO_SERVER, allowed)].concat();
    in_force(&around, &documents, allowed, "/", &Came::ToTheApp).await;
    assert_eq!(asked(&around, other, &get("/")).await, refused());
    let stranger = came(&around, &mut around.plain_client().await, &get("/")).await;
    assert_eq!(stranger, Came::Back("403".to_owned(), "policy".to_owned()));

    let identities = "{identities: ['*.default.serviceaccount.identity.linkerd.cluster.local']}";
    let client =
        "{server: {name: app}, client: {meshTLS: {identities: ['*']}, networks: [{cidr: 127.0.0.0/8}]}}";
    let by_authentication = [
        document("v1alpha1", "MeshTLSAuthentication", "ours", identities),
        document(
            "v1alpha1",
            "AuthorizationPolicy",
            "all",
            "{targetRef: {kind: Namespace, name: default}, requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: \
             MeshTLSAuthentication, name: ours}]}",
        ),
    ];
    let older = document("v1beta1", "ServerAuthorization", "older", client);
    for documents in [by_authentication.concat(), older] {
        in_force(&around, &server("app", ""), other, "/", &refused()).await;
        in_force(&around, &[server("app", ""), documents].concat(), other, "/", &Came::ToTheApp).await;
    }
}

#[tokio::test]
async fn a_route_of_a_server_has_clients_of_its_own_and_what_matches_none_is_404() {
    let around = Around::new().await;
    let [admin, other] = CALLERS;
    let route = |name: &str, path: &str| {
        let parent = "parentRefs: [{group: policy.linkerd.io, kind: Server, name: app}]";
        document(
            "v1beta3",
            "HTTPRoute",
            name,
            &format!("{{{parent}, rules: [{{matches: [{{path: {{value: {path}}}}}]}}]}}"),
        )
    };
    let to = |name: &str| format!("group: policy.linkerd.io, kind: HTTPRoute, name: {name}");
    let documents = [
        server("app", ""),
        route("public", "/public"),
        route("admin", "/public/admin").replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1"),
        allow("everybody", &to("public"), other),
        allow("admins", &to("admin").replace("policy.linkerd.io", "gateway.networking.k8s.io"), admin),
    ];

    let no_route = "no-route: Server default/app: it has routes, and none of them matches the request";
    let no_route = Came::Back("404".to_owned(), no_route.to_owned());
    in_force(&around, &documents.concat(), other, "/x", &no_route).await;
    assert_eq!(asked(&around, other, &get("/public/a")).await, Came::ToTheApp);
    assert_eq!(asked(&around, admin, &get("/public/admin")).await, Came::ToTheApp);
    for path in
        ["/public/admin", "/public//admin", "/public/ADMIN/x", "/public/x/..%2Fadmin", "/public/admin;a"]
    {
        assert_ne!(asked(&around, other, &get(path)).await, Came::ToTheApp, "{path}");
    }
    assert_eq!(asked(&around, other, &get("/public/admin")).await, refused());
    let stranger = came(&around, &mut around.plain_client().await, &get("/x")).await;
    assert_eq!(stranger, Came::Back("404".to_owned(), "no-route".to_owned()));
}

#[tokio::test]
async fn a_server_may_carry_what_is_no_http_and_asks_for_the_client_alone() {
    let around = Around::new().await;
    around.mesh.undeclare("app", 8080, SERVER).await;
    let documents = [server("app", ", proxyProtocol: opaque"), allow("only", TO_SERVER, CALLERS[0])];
    around.mesh.write("policy.yaml", &documents.concat()).expect("a writable directory");
    poll(SOON, "the sidecar has the policy, and a port that is opaque", async || {
        let config =
            around.mesh.workload(SERVER).admin("/config").await.map_err(|error| error.to_string())?;
        let text = config.text();
        let is_in_force =
            text.contains("policy.linkerd.io default/only") && !text.contains("\"protocols\":{}");
        if is_in_force { Ok(()) } else { Err(text) }
    })
    .await;
    for (caller, may) in [(CALLERS[0], true), (CALLERS[1], false)] {
        let configuration = mesh_client::configuration(around.mesh.credentials(caller));
        let server = around.mesh.workload(SERVER);
        let mut peer = mesh_client::connect_for(Carrier::Tcp, &configuration, server).await;
        peer.write_all(&mesh_client::frame(b"GET / HTTP/1.1")).await.expect("it is taken");
        if may {
            let mut app = within("a connection", around.accept_unhurried()).await;
            let mut said = [0; 14];
            within("all of it", app.read_exact(&mut said)).await.expect("so many bytes");
            assert_eq!(&said, b"GET / HTTP/1.1");
        } else {
            let mut said = Vec::new();
            let _ = within("an end", peer.read_to_end(&mut said)).await;
            assert!(String::from_utf8_lossy(&said).contains("policy: Server default/app"), "{said:?}");
            assert!(around.nobody_connects().await);
        }
    }
}

#[tokio::test]
async fn calls_of_grpc_have_routes_of_a_server_too() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::grpc("echo-1")]).await;
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: unary}\n\
                 spec: {parentRefs: [{group: policy.linkerd.io, kind: Server, name: echo}], rules: [{matches: [{method: \
                 {method: Unary}}]}]}\n";
    let target = "group: gateway.networking.k8s.io, kind: GRPCRoute, name: unary";
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap();
    let client = EchoClient::new(channel);
    let called = async |account: &str, expected: [Option<Code>; 2]| {
        let documents =
            [server("echo", ", proxyProtocol: gRPC"), route.to_owned(), allow("a", target, account)];
        mesh.write("policy.yaml", &documents.concat()).unwrap();
        poll(SOON, &format!("{account} may call: {expected:?}"), async || {
            let asked = || EchoRequest { text: "hello".to_owned(), ..EchoRequest::default() };
            let unary = client.clone().unary(asked()).await.err().map(|status| status.code());
            let stream = client.clone().server_stream(asked()).await.err().map(|status| status.code());
            if [unary, stream] == expected { Ok(()) } else { Err(format!("{unary:?} {stream:?}")) }
        })
        .await;
    };

    called("caller", [None, Some(Code::Unimplemented)]).await;
    called("another", [Some(Code::PermissionDenied), Some(Code::Unimplemented)]).await;
}

#[tokio::test]
async fn the_default_of_a_namespace_is_for_ports_without_a_server() {
    let around = Around::new().await;
    let namespace = |word: &str| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: {{config.linkerd.io/default-inbound-policy: {word}}}}}\n"
        )
    };
    let refused = Came::Back(
        "403".to_owned(),
        "policy: Namespace default default-inbound-policy deny: no rule of the policies that allow something allows this"
            .to_owned(),
    );

    in_force(&around, &namespace("deny"), CALLERS[0], "/", &refused).await;
    in_force(&around, &namespace("all-authenticated"), CALLERS[0], "/", &Came::ToTheApp).await;
    let stranger = came(&around, &mut around.plain_client().await, &get("/")).await;
    assert_eq!(stranger, Came::Back("403".to_owned(), "policy".to_owned()));
    in_force(&around, &namespace("deny"), CALLERS[0], "/", &refused).await;
    let open = server("app", ", accessPolicy: all-unauthenticated");
    in_force(&around, &[namespace("deny"), open].concat(), CALLERS[0], "/", &Came::ToTheApp).await;
    assert_eq!(came(&around, &mut around.plain_client().await, &get("/")).await, Came::ToTheApp);
}
