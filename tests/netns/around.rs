//! Where connections are redirected, no odd request gets around a policy either: of a member of the mesh, who dials the
//! app's own address, and of a stranger who does.

use std::net::SocketAddr;

use selvedge_tests::{SOON, poll};

use crate::{
    matrix::tried::{Done, requested, serve},
    mesh::{APP_PORT, Mesh, Mode, client},
    network,
    rights::netns,
};

/// Nobody may ask for `/admin`, for another host, as an admin, or delete anything.
const DENY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: default}
spec:
  selector: {matchLabels: {app: app}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin, /admin/*]}}]
  - to: [{operation: {hosts: [secret.example]}}]
  - to: [{operation: {methods: [DELETE]}}]
  - when: [{key: 'request.headers[x-role]', values: [admin]}]
";

/// Only the account `friend` may come in.
const FRIENDS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends, namespace: default}
spec:
  selector: {matchLabels: {app: app}}
  rules: [{from: [{source: {serviceAccounts: [friend]}}]}]
";

/// Paths that an app may take for `/admin`.
const PATHS: [&str; 13] = [
    "/admin",
    "/admin/x?y=/public",
    "/ADMIN/x",
    "//admin/x",
    "/./admin/x",
    "/x/../admin/x",
    "/%61dmin/x",
    "/admin%2Fx",
    "/x%2F..%2Fadmin%2Fx",
    "/admin;a=b/x",
    "/x/..;/admin/x",
    "/%2e%2e/admin/x",
    "\\admin\\x",
];

/// Fields that make of a request to `/` what is denied.
const FIELDS: [&str; 7] = [
    "x-role: admin\r\n",
    "X-Role: admin\r\n",
    "x_role: admin\r\n",
    "x-role: user\r\nx-role: admin\r\n",
    "x-http-method-override: DELETE\r\n",
    "X_HTTP_Method: delete\r\n",
    "host: public.example\r\n",
];

const UPGRADES: [&str; 2] = [
    "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "connection: upgrade\r\nupgrade: h2c\r\n",
];

fn request(line: &str, host: &str, fields: &str) -> String {
    let close = if fields.contains("connection:") { "" } else { "connection: close\r\n" };
    format!("{line} HTTP/1.1\r\nhost: {host}\r\n{close}{fields}\r\n")
}

/// Requests that are denied, however they are written.
fn denied(host: &str) -> Vec<String> {
    let mut all: Vec<String> = PATHS.iter().map(|path| request(&format!("GET {path}"), host, "")).collect();
    all.extend(FIELDS.iter().map(|fields| request("GET /", host, fields)));
    all.extend(UPGRADES.iter().map(|fields| request("GET /admin", host, fields)));
    all.extend([
        request(&format!("GET http://{host}/admin"), host, ""),
        request("GET http://secret.example/", host, ""),
        request("GET /", "secret.example", ""),
        request("GET /", "SECRET.example.", ""),
        request("GET /", &format!("secret.example:{APP_PORT}"), ""),
        request("DELETE /", host, ""),
        request("delete /", host, ""),
        request("CONNECT secret.example:80", "secret.example:80", ""),
        // What a trailer says takes nothing back.
        request("POST /admin", host, "transfer-encoding: chunked\r\ntrailer: x-role\r\n")
            + "0\r\nx-role: user\r\n\r\n",
    ]);
    all
}

/// Who may not come in, in words that only the sidecar of somebody else could say.
fn forged(host: &str) -> Vec<String> {
    let identity = "spiffe://cluster.local/ns/default/sa/friend";
    let fields = [
        format!("x-forwarded-client-cert: URI={identity}\r\n"),
        format!("X_Forwarded_Client_Cert: URI={identity}\r\n"),
        "l5d-client-id: friend.default.serviceaccount.identity.linkerd.cluster.local\r\n".to_owned(),
        "x-forwarded-for: 127.0.0.1\r\n".to_owned(),
        format!("authorization: {identity}\r\n"),
    ];
    fields.iter().map(|fields| request("GET /", host, fields)).collect()
}

async fn nothing_gets_around() {
    let mut mesh = Mesh::on(network::Kind::Bridge).await;
    mesh.write("peerauthentication.yaml", "# everybody may come in\n");
    mesh.add([client("app"), client("friend"), client("member"), client("stranger").mode(Mode::NoSidecar)])
        .await;
    serve(mesh.workload("app").namespace(), APP_PORT);
    let to = SocketAddr::new(mesh.workload("app").place.address, APP_PORT);
    let host = to.to_string();
    let plain = [request("GET /", &host, "")];
    let asked = async |from: &str, requests: &[String]| {
        requested(mesh.workload(from).namespace(), to, requests).await
    };

    for (policy, lets_in, forbidden, requests) in [
        (DENY, &["friend", "member", "stranger"][..], request("GET /admin", &host, ""), denied(&host)),
        (FRIENDS, &["friend"][..], plain[0].clone(), forged(&host)),
    ] {
        mesh.write("policy.yaml", policy);
        for from in ["member", "stranger"] {
            poll(SOON, &format!("{from} is refused\n{policy}"), async || {
                let done = asked(from, std::slice::from_ref(&forbidden)).await;
                if done == [Done::Status(403)] { Ok(()) } else { Err(format!("{done:?}")) }
            })
            .await;
            for (request, done) in requests.iter().zip(asked(from, &requests).await) {
                assert_ne!(done, Done::Served, "{from}: {request}");
            }
        }
        for &from in lets_in {
            assert_eq!(asked(from, &plain).await, [Done::Served], "{from}\n{policy}");
        }
    }
}

#[test]
fn no_odd_request_gets_around_a_policy_where_connections_are_redirected() {
    netns(nothing_gets_around);
}
