//! Names that lead outside the mesh: routes below wildcards, several entries of one host, and `ExternalName`.

use std::net::SocketAddr;

use selvedge_demo::{apps::reviews, call, workload::Spec};
use selvedge_tests::{
    Mesh, SOON,
    dns::{DnsServer, ips},
    poll,
};
use tokio::net::TcpListener;

use crate::{
    SELVEDGE,
    retries::server::{answer, serve},
};

/// A caller that asks `dns`, a server in the mesh, and one without a sidecar, which is called `outside.test`.
async fn mesh(dns: &DnsServer) -> Mesh {
    let caller = Spec::client("caller")
        .flag("--resolv-conf", &dns.resolv_conf().display().to_string())
        .flag("--hosts-file", "/dev/null");
    let outside = Spec::server("outside", "outside", 9080).without_sidecar();
    let mesh = Mesh::of(SELVEDGE, [caller, Spec::server("reviews-a", "reviews", 9080), outside]).await;
    let [ip] = ips([mesh.workload("outside").app]);
    for name in ["outside.test", "api.outside.test", "other.outside.test"] {
        dns.set(name, &[ip]);
    }
    mesh
}

fn outside(mesh: &Mesh) -> SocketAddr {
    mesh.workload("outside").app
}

/// Who answers, and whom it was told that the caller is.
async fn answers(mesh: &Mesh, authority: &str) -> Result<(String, Option<String>), String> {
    let answer = mesh.workload("caller").call(call::to(authority, "/")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let found: reviews::Answer = answer.json().map_err(|_| answer.summary())?;
    Ok((found.pod, found.client_identity))
}

async fn soon(mesh: &Mesh, authority: &str, pod: &str) {
    let found = poll(SOON, &format!("{pod} answers for {authority}"), async || {
        match answers(mesh, authority).await {
            Ok(found) if found.0 == pod => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        found.1.is_some(),
        pod == "reviews-a",
        "mutual TLS with the mesh, and with nobody else: {found:?}"
    );
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn route(name: &str, host: &str, to: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
         spec: {{hosts: ['{host}'], http: [{{route: [{{destination: {{host: '{to}'}}}}]}}]}}\n"
    )
}

#[tokio::test]
async fn a_route_for_a_name_below_a_wildcard_is_followed_and_others_go_where_they_say() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let port = outside(&mesh).port();
    let wildcard = entry(
        "wild",
        &format!("hosts: ['*.outside.test'], ports: [{{number: {port}, name: http}}], resolution: NONE"),
    );
    mesh.write("wild.yaml", &wildcard).unwrap();
    let at = |name: &str| format!("{name}:{port}");
    soon(&mesh, &at("api.outside.test"), "outside").await;

    mesh.write("route.yaml", &route("api", "API.outside.test.", "reviews")).unwrap();

    soon(&mesh, &at("api.outside.test"), "reviews-a").await;
    soon(&mesh, &at("Api.Outside.test."), "reviews-a").await;
    soon(&mesh, &at("other.outside.test"), "outside").await;
    mesh.write("route.yaml", &route("all", "*.outside.test", "reviews")).unwrap();
    soon(&mesh, &at("other.outside.test"), "reviews-a").await;
    // And the other way: a service of the mesh to a name below the wildcard.
    mesh.write("route.yaml", &route("out", "reviews", "other.outside.test")).unwrap();
    soon(&mesh, "reviews:9080", "outside").await;
}

#[tokio::test]
async fn entries_of_one_host_serve_all_their_ports() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let [inside] = ips([mesh.workload("reviews-a").app]);
    let (port, app) = (outside(&mesh).port(), mesh.workload("reviews-a").app.port());
    let first = format!(
        "hosts: [many.test], ports: [{{number: 81, name: http, targetPort: {port}}}], \
                         resolution: DNS, endpoints: [{{address: outside.test}}]"
    );
    let second = format!(
        "hosts: [many.test], ports: [{{number: 82, name: http, targetPort: {app}}}], \
                          location: MESH_INTERNAL, resolution: STATIC, endpoints: [{{address: {inside}}}]"
    );
    mesh.write("many.yaml", &(entry("first", &first) + &entry("second", &second))).unwrap();

    soon(&mesh, "many.test:81", "outside").await;
    soon(&mesh, "many.test:82", "reviews-a").await;
}

#[tokio::test]
async fn a_service_stands_for_a_name_outside_or_for_another_service() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let port = outside(&mesh).port();
    let external = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: ExternalName, {spec}}}\n"
        )
    };
    let ext = external(
        "ext",
        &format!("externalName: outside.test, ports: [{{name: http, port: 80, targetPort: {port}}}]"),
    );
    let alias = external("alias", "externalName: reviews.default.svc.cluster.local");
    mesh.write("external.yaml", &(ext + &alias)).unwrap();

    soon(&mesh, "ext", "outside").await;
    soon(&mesh, "ext.default.svc.cluster.local:80", "outside").await;
    soon(&mesh, "alias:9080", "reviews-a").await;
    mesh.write("route.yaml", &route("out", "reviews", "ext")).unwrap();
    soon(&mesh, "reviews:9080", "outside").await;
    // What stands for a service has that service's workloads, and not its routes.
    soon(&mesh, "alias:9080", "reviews-a").await;
}

#[tokio::test]
async fn a_workload_keeps_its_mutual_tls_by_whatever_name_it_is_called() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let [ip] = ips([mesh.workload("reviews-a").app]);
    dns.set("alias.test", &[ip]);
    let at = |name: &str, server: &str| format!("{name}:{}", mesh.workload(server).app.port());

    soon(&mesh, &at("alias.test", "reviews-a"), "reviews-a").await;

    // What is no workload's goes out by any name.
    soon(&mesh, &at("outside.test", "outside"), "outside").await;
}

#[tokio::test]
async fn a_workload_keeps_its_mutual_tls_whatever_a_document_says_of_a_name_that_leads_to_it() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let [ip] = ips([mesh.workload("reviews-a").app]);
    let port = mesh.workload("reviews-a").app.port();
    for name in ["declared.test", "a.wild.test", "external.test", "moves.test"] {
        dns.set_with_ttl(name, &[ip], 1);
    }
    let ports = format!("ports: [{{number: 81, name: http, protocol: HTTP, targetPort: {port}}}]");
    let declared =
        entry("declared", &format!("hosts: [declared.test, moves.test], {ports}, resolution: DNS"));
    let wild = format!("hosts: ['*.wild.test'], ports: [{{number: {port}, name: http}}], resolution: NONE");
    let external = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: ext}}\nspec: {{type: ExternalName, \
         externalName: external.test, ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n"
    );
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    mesh.write("names.yaml", &(declared + &entry("wild", &wild) + &external + strict)).unwrap();

    for authority in ["declared.test:81", &format!("a.wild.test:{port}"), "ext", "moves.test:81"] {
        soon(&mesh, authority, "reviews-a").await;
    }
    // A name that leads away from the workload is what it was declared to be, and back again.
    let [outside] = ips([mesh.workload("outside").app]);
    assert_eq!(mesh.workload("outside").app.port(), port);
    dns.set_with_ttl("moves.test", &[outside], 1);
    soon(&mesh, "moves.test:81", "outside").await;
    dns.set_with_ttl("moves.test", &[ip], 1);
    soon(&mesh, "moves.test:81", "reviews-a").await;
}

/// A server outside of the mesh, which answers everything with `text`.
async fn answering(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, move |_, _| async move { answer(200, text) });
    address
}

#[tokio::test]
async fn each_namespace_has_the_host_that_it_exports_to_nobody_else() {
    let specs = [
        Spec::client("one").namespace("a"),
        Spec::client("two").namespace("b"),
        Spec::client("three").namespace("c"),
    ];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let of = |namespace: &str, export_to: &str, server: SocketAddr| {
        let spec = format!(
            "hosts: [api.own.test], exportTo: {export_to}, resolution: STATIC, ports: [{{number: 80, name: http, protocol: HTTP}}], \
             endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]",
            server.port()
        );
        entry("api", &spec).replace("{name: api}", &format!("{{name: api, namespace: {namespace}}}"))
    };
    let [first, second, third] =
        [answering("first").await, answering("second").await, answering("third").await];
    let answers = async |client: &str, expected: &str| {
        poll(SOON, &format!("{client} is answered by {expected}"), async || {
            let answered = mesh.workload(client).call(call::to("api.own.test", "/")).await;
            let text = answered.map_err(|error| error.to_string())?.text();
            if text == expected { Ok(()) } else { Err(text) }
        })
        .await;
    };

    mesh.write("a.yaml", &of("a", "[.]", first)).unwrap();
    answers("one", "first").await;
    // Whoever comes later takes nothing from it, and has his own; so has who is for all others.
    mesh.write("b.yaml", &of("b", "[.]", second)).unwrap();
    answers("two", "second").await;
    answers("one", "first").await;
    for client in ["one", "two", "three"] {
        let asked = mesh.workload(client).call(call::to("api.own.test", "/")).await;
        let answered = asked.map(|answer| answer.text()).unwrap_or_default();
        assert_ne!(answered, if client == "one" { "second" } else { "first" }, "{client}");
    }
    mesh.write("open.yaml", &of("open", "['*']", third)).unwrap();
    answers("three", "third").await;
    answers("one", "first").await;
    answers("two", "second").await;

    // Without its own, it follows the one that is for everybody.
    mesh.remove("b.yaml").unwrap();
    answers("two", "third").await;
    answers("one", "first").await;
}
