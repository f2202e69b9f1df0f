//! `AuthorizationPolicy` through real sidecars: who may do what, who is told what, and what does not get around it.

use selvedge_api::wire::Carrier;
use selvedge_demo::{
    call,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    SELVEDGE, mesh_client,
    raw::{APP, Around, CALLERS, Raw, SERVER, within},
    websocket::opened_raw,
};

/// A policy called `name` for the app of these tests, with the rest of its `spec`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: app}}}}, {spec}}}\n"
    )
}

/// Only the caller over HTTP/2 may ask, for what is below `/public` and with GET or POST.
fn allow() -> String {
    let account = CALLERS[0];
    policy(
        "allow",
        &format!(
            "rules: [{{from: [{{source: {{serviceAccounts: [{account}]}}}}], to: [{{operation: {{methods: [GET, POST], paths: \
             [/public, /public/*]}}}}]}}]"
        ),
    )
}

/// Nobody may ask for what is below `/admin`.
fn deny() -> String {
    policy("deny", "action: DENY, rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]")
}

/// What became of a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    /// The app got it.
    ToTheApp,
    /// The sidecar answered with this status and `selvedge-error`.
    Back(String, String),
    /// Its connection was ended while it was in progress, because a policy came into force.
    Ended,
}

/// Sends `request` on `client`; if it comes to the app, that answers it.
pub(crate) async fn came(around: &Around, client: &mut Raw, request: &str) -> Came {
    client.send(request).await;
    let served = async {
        let mut app = Raw::of(around.accept_unhurried().await);
        if app.try_head().await.is_ok() {
            app.answer("").await;
        }
    };
    let answered = client.try_head();
    tokio::pin!(served);
    let mut reached = false;
    let answer = {
        tokio::pin!(answered);
        loop {
            tokio::select! {
                () = &mut served, if !reached => reached = true,
                answer = &mut answered => break answer,
            }
        }
    };
    match answer {
        Err(_) => Came::Ended,
        Ok(_) if reached => Came::ToTheApp,
        Ok(head) => {
            Came::Back(head.status().to_owned(), head.header("selvedge-error").unwrap_or_default().to_owned())
        }
    }
}

pub(crate) async fn asked(around: &Around, caller: &str, request: &str) -> Came {
    came(around, &mut around.client(caller).await, request).await
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {APP}\r\n\r\n")
}

/// Writes `documents`, and waits until the caller's GET of `path` comes to what is expected.
async fn in_force(around: &Around, documents: &str, caller: &str, path: &str, reaches: bool) {
    around.mesh.write("policy.yaml", documents).expect("a writable directory");
    poll(SOON, &format!("{caller} {path} reaches the app: {reaches}"), async || {
        let came = asked(around, caller, &get(path)).await;
        if (came == Came::ToTheApp) == reaches { Ok(()) } else { Err(format!("{came:?}")) }
    })
    .await;
}

fn denied_by(came: &Came, rule: &str) -> bool {
    matches!(came, Came::Back(status, told) if status == "403" && told.starts_with(&format!("policy: {rule}")))
}

#[tokio::test]
async fn a_request_is_let_in_by_a_rule_or_answered_403_with_the_policy_that_refuses_it() {
    let around = Around::new().await;
    let [allowed, other] = CALLERS;
    let none = "AuthorizationPolicy default/allow: no rule";

    in_force(&around, &[allow(), deny()].concat(), other, "/public/a", false).await;

    assert_eq!(asked(&around, allowed, &get("/public/a")).await, Came::ToTheApp);
    for (caller, request) in [
        (other, get("/public/a")),
        (allowed, get("/private")),
        (allowed, get("/public/a").replace("GET", "DELETE")),
    ] {
        let came = asked(&around, caller, &request).await;
        assert!(denied_by(&came, none), "{caller} {request}: {came:?}");
    }
    let came = asked(&around, allowed, &get("/admin/x")).await;
    assert!(denied_by(&came, "AuthorizationPolicy default/deny rule 1: "), "{came:?}");

    // It is counted and logged with its rule and its peer.
    poll(SOON, "denials are counted by policy", async || {
        let metrics = around.mesh.workload(SERVER).admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let line = "selvedge_inbound_policy_decisions_total{policy=\"AuthorizationPolicy default/deny rule 1\",decision=\"deny\"} 1";
        if metrics.contains(line) { Ok(()) } else { Err(metrics) }
    })
    .await;
    let log = around.mesh.workload(SERVER).sidecar_process().expect("it runs").whole_log().expect("a log");
    let told = |line: &&str| {
        line.contains("refused by policy")
            && line.contains("default/deny rule 1")
            && line.contains("sa/over-http2")
    };
    assert!(log.lines().any(|line| told(&line)), "{log}");
}

#[tokio::test]
async fn refusals_of_one_peer_by_one_rule_are_all_counted_and_logged_once_in_a_while() {
    let around = Around::new().await;
    let [one, other] = CALLERS;
    in_force(&around, &deny(), one, "/admin/a", false).await;
    for _ in 0..50 {
        asked(&around, one, &get("/admin/a")).await;
    }
    asked(&around, other, &get("/admin/a")).await;

    let server = around.mesh.workload(SERVER);
    let metrics = server.admin("/metrics").await.expect("metrics").text();
    let counted =
        "policy_decisions_total{policy=\"AuthorizationPolicy default/deny rule 1\",decision=\"deny\"} ";
    let line = metrics.lines().find_map(|line| line.split_once(counted)).expect("a count");
    assert!(line.1.parse::<f64>().expect("a number") >= 52.0, "{metrics}");
    let log = server.sidecar_process().expect("it runs").whole_log().expect("a log");
    let of = |caller: &str| {
        log.lines()
            .filter(|line| line.contains("refused by policy") && line.contains(&format!("sa/{caller} ")))
            .count()
    };
    // On a slow machine one or two pauses are over meanwhile.
    assert!((1..=3).contains(&of(one)), "{log}");
    assert_eq!(of(other), 1, "{log}");
}

#[tokio::test]
async fn a_stranger_is_told_that_a_policy_refuses_it_and_no_name() {
    let around = Around::new().await;
    in_force(&around, &allow(), CALLERS[1], "/public", false).await;

    let came = came(&around, &mut around.plain_client().await, &get("/public")).await;

    assert_eq!(came, Came::Back("403".to_owned(), "policy".to_owned()));
    let answer =
        call::send(around.mesh.workload(SERVER).inbound, call::to(APP, "/public")).await.expect("an answer");
    assert!(!answer.text().contains("AuthorizationPolicy"), "{}", answer.summary());
}

#[tokio::test]
async fn without_rules_nothing_is_allowed_and_a_dry_run_or_an_audit_decides_nothing() {
    let around = Around::new().await;
    let dry = |text: String| {
        text.replace("namespace: default}", "namespace: default, annotations: {istio.io/dry-run: \"true\"}}")
    };
    let audit = policy("audit", "action: AUDIT, rules: [{to: [{operation: {paths: [/seen]}}]}]");

    in_force(&around, &policy("nothing", "action: ALLOW"), CALLERS[0], "/", false).await;
    in_force(&around, &policy("all", "rules: [{}]"), CALLERS[0], "/", true).await;
    let documents = [dry(policy("nothing", "action: ALLOW")), dry(deny()), audit].concat();
    in_force(&around, &documents, CALLERS[0], "/", true).await;

    poll(SOON, "audits and dry runs are counted", async || {
        for path in ["/seen", "/admin"] {
            assert_eq!(asked(&around, CALLERS[0], &get(path)).await, Came::ToTheApp, "{path}");
        }
        let metrics = around.mesh.workload(SERVER).admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let counted = |policy: &str, decision: &str| {
            let start = format!("selvedge_inbound_policy_decisions_total{{policy=\"AuthorizationPolicy default/{policy}\",decision=\"{decision}\"}}");
            metrics.lines().any(|line| line.starts_with(&start))
        };
        let all = counted("audit rule 1", "audit") && counted("deny rule 1", "would-deny") && counted("nothing", "would-deny");
        if all { Ok(()) } else { Err(metrics) }
    })
    .await;
}

/// Ways to ask for what is below `/admin` that do not look like it.
const DETOURS: [&str; 14] = [
    "/admin",
    "/admin/",
    "/ADMIN/x",
    "//admin/x",
    "/./admin/x",
    "/x/../admin/x",
    "/%61dmin/x",
    "/admin%2Fx",
    "/x%2F..%2Fadmin%2Fx",
    "/admin;a=b/x",
    "/;/admin/x",
    "/x/..;/admin/x",
    "/%2e%2e/admin/x",
    "\\admin\\x",
];

/// The same through a permission for `/public`.
const THROUGH_PUBLIC: [&str; 7] = [
    "/public/../admin",
    "/public/%2e%2e/admin",
    "/public/..%2Fadmin",
    "/public%2F..%2Fadmin",
    "/public/..;/admin",
    "/public/..%5Cadmin",
    "/PUBLIC",
];

#[tokio::test]
async fn no_other_spelling_of_a_path_gets_around_a_policy() {
    let around = Around::new().await;
    for caller in CALLERS {
        in_force(&around, &deny(), caller, "/admin", false).await;
        for path in DETOURS {
            let came = asked(&around, caller, &get(path)).await;
            assert_ne!(came, Came::ToTheApp, "{caller} {path}");
        }
    }
    in_force(&around, &allow(), CALLERS[0], "/public", true).await;
    in_force(&around, &allow(), CALLERS[0], "/other", false).await;
    for path in THROUGH_PUBLIC {
        let came = asked(&around, CALLERS[0], &get(path)).await;
        assert_ne!(came, Came::ToTheApp, "{path}");
    }
    assert_eq!(asked(&around, CALLERS[0], &get("/public/a%2Fb")).await, Came::ToTheApp);
}

#[tokio::test]
async fn no_odd_request_gets_around_a_policy() {
    let around = Around::new().await;
    let headers = policy(
        "headers",
        "action: DENY, rules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}, {to: [{operation: {methods: \
         [DELETE]}}]}, {to: [{operation: {hosts: [secret.example]}}]}]",
    );
    in_force(&around, &[deny(), headers].concat(), CALLERS[0], "/admin", false).await;

    let with = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nhost: {APP}\r\n{fields}\r\n");
    let forged = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n";
    for request in [
        with(&format!("GET http://{APP}/admin"), ""),
        with("GET /", "x-role: admin\r\n"),
        with("GET /", "X-Role: admin\r\n"),
        with("GET /", "x-role: user\r\nx-role: admin\r\n"),
        with("GET /", "x_role: admin\r\n"),
        with("DELETE /", ""),
        with("POST /", "content-length: 0\r\nx-http-method-override: DELETE\r\n"),
        with("POST /", "content-length: 0\r\nX-Method-Override: delete\r\n"),
        with("POST /", "content-length: 0\r\nX_HTTP_Method: DELETE\r\n"),
        with("delete /", ""),
        with(
            "GET /admin",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        with("GET /admin", "connection: upgrade\r\nupgrade: h2c\r\n"),
        with("GET /admin", forged),
        with("GET /admin?x=/public", ""),
        "CONNECT secret.example:80 HTTP/1.1\r\nhost: secret.example:80\r\n\r\n".to_owned(),
        format!("GET /admin HTTP/1.1\r\nhost: {APP}\r\nhost: public.example\r\n\r\n"),
    ] {
        for mut client in [around.plain_client().await, around.client(CALLERS[1]).await] {
            let came = came(&around, &mut client, &request).await;
            assert_ne!(came, Came::ToTheApp, "{request}");
        }
    }
    // The destination is whatever the authority says, once: with its port, in any case, with a dot.
    for host in ["secret.example", "SECRET.example", "secret.example:8080", "secret.example."] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let came = came(&around, &mut around.plain_client().await, &request).await;
        assert_ne!(came, Came::ToTheApp, "{host}");
    }
    // What a trailer says is said too late to decide anything, and takes nothing back.
    let trailer = "POST /admin HTTP/1.1\r\nhost: app:8080\r\ntransfer-encoding: chunked\r\ntrailer: x-role\r\n\r\n0\r\nx-role: user\r\n\r\n";
    assert_ne!(asked(&around, CALLERS[0], trailer).await, Came::ToTheApp);
    assert_eq!(asked(&around, CALLERS[0], &with("GET /", "x-role: user\r\n")).await, Came::ToTheApp);
}

#[tokio::test]
async fn an_identity_is_what_a_certificate_proves_and_nothing_that_a_client_writes() {
    let around = Around::new().await;
    in_force(&around, &allow(), CALLERS[1], "/public", false).await;
    let forged = format!(
        "GET /public HTTP/1.1\r\nhost: {APP}\r\nx-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/{}\r\n\r\n",
        CALLERS[0]
    );

    assert_ne!(asked(&around, CALLERS[1], &forged).await, Came::ToTheApp);
    assert_ne!(came(&around, &mut around.plain_client().await, &forged).await, Came::ToTheApp);
    assert_eq!(asked(&around, CALLERS[0], &forged).await, Came::ToTheApp);
    // HTTP to the same port as an opaque connection: a rule that asks for a path allows none.
    let configuration = mesh_client::configuration(around.mesh.credentials(CALLERS[0]));
    let mut opaque =
        mesh_client::connect_for(Carrier::Tcp, &configuration, around.mesh.workload(SERVER)).await;
    opaque.write_all(&mesh_client::frame(get("/public").as_bytes())).await.expect("it is taken");
    let mut said = Vec::new();
    let _ = within("an end", opaque.read_to_end(&mut said)).await;
    assert!(String::from_utf8_lossy(&said).contains("policy"), "{said:?}");
    assert!(around.nobody_connects().await);
}

#[tokio::test]
async fn a_change_of_policy_ends_the_clients_that_it_forbids_and_no_others() {
    let around = Around::new().await;
    let mut watching = Vec::new();
    for caller in CALLERS {
        let (mut client, mut app) = around.asked(caller, get("/watch")).await;
        app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n").await;
        client.until("tick").await;
        watching.push((client, app));
    }
    let [(mut kept, mut its_app), (mut forbidden, _open)]: [(Raw, Raw); 2] =
        watching.try_into().ok().expect("two of them");

    let only = format!("rules: [{{from: [{{source: {{serviceAccounts: [{}]}}}}]}}]", CALLERS[0]);
    around.mesh.write("policy.yaml", &policy("only", &only)).expect("a writable directory");

    within("the end of what is forbidden", forbidden.rest()).await;
    its_app.send("4\r\ntock\r\n").await;
    kept.until("tock").await;
    let came = asked(&around, CALLERS[1], &get("/")).await;
    assert!(denied_by(&came, "AuthorizationPolicy default/only: "), "{came:?}");
}

#[tokio::test]
async fn a_change_of_policy_ends_a_websocket_whose_request_it_forbids() {
    let around = Around::new().await;
    let (mut client, mut app) = opened_raw(&around, CALLERS[1]).await;
    client.send("hello").await;
    assert_eq!(app.exactly(5).await, "hello");

    let deny = "action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]";
    around.mesh.write("policy.yaml", &policy("deny", deny)).expect("a writable directory");

    within("the end of what is forbidden", async { (client.rest().await, app.rest().await) }).await;
}

#[tokio::test]
async fn grpc_is_answered_permission_denied() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    mesh.service("echo", 9090);
    let mut echo = Spec::grpc("echo-1");
    echo.app = AppKind::None;
    mesh.add([echo]).await.expect("a workload");
    let documents =
        policy("deny", "action: DENY, rules: [{to: [{operation: {paths: [/selvedge.demo.Secret/*]}}]}]")
            .replace("app: app", "app: echo");
    mesh.write("policy.yaml", &documents).expect("a writable directory");

    for version in [http::Version::HTTP_2] {
        poll(SOON, "the call is denied", async || {
            let request = call::to("echo:9090", "/selvedge.demo.Secret/Read")
                .version(version)
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let answer = mesh.workload("caller").call(request).await.map_err(|error| error.to_string())?;
            let status =
                answer.headers.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or_default();
            if (answer.status.as_u16(), status) == (200, "7") { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    }
}

#[tokio::test]
async fn an_opaque_connection_is_reset_when_a_policy_refuses_it_or_comes_to_refuse_it() {
    let mut server = Spec::server("app-1", "app", 8080);
    server.app = AppKind::None;
    let mesh = Mesh::of(SELVEDGE, [server]).await;
    mesh.undeclare("app", 8080, "app-1").await;
    let app = TcpListener::bind(mesh.workload("app-1").app).await.expect("the app's address is ours");
    let configuration = ["one", "two"].map(|account| mesh_client::configuration(mesh.credentials(account)));
    let connect = async |place: usize| {
        let mut peer =
            mesh_client::connect_for(Carrier::Tcp, &configuration[place], mesh.workload("app-1")).await;
        peer.write_all(&mesh_client::frame(b"hello")).await.expect("it is taken");
        peer
    };
    let mut one = connect(0).await;
    let (mut ones, _) = within("a connection", app.accept()).await.expect("a connection");
    let mut two = connect(1).await;
    let (mut twos, _) = within("a connection", app.accept()).await.expect("a connection");
    let mut hello = [0; 5];
    for app in [&mut ones, &mut twos] {
        within("hello", app.read_exact(&mut hello)).await.expect("hello");
    }

    let rule = "action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/two]}}]}]";
    mesh.write("policy.yaml", &policy("deny", rule)).expect("a writable directory");

    let broken = within("the end", twos.read(&mut hello)).await;
    assert!(matches!(broken, Ok(0) | Err(_)), "{broken:?}");
    one.write_all(&mesh_client::frame(b"again")).await.expect("it goes on");
    within("again", ones.read_exact(&mut hello)).await.expect("it goes on");
    drop(two.shutdown().await);
    let mut refused = connect(1).await;
    let mut said = Vec::new();
    let _ = within("an end", refused.read_to_end(&mut said)).await;
    assert!(String::from_utf8_lossy(&said).contains("AuthorizationPolicy default/deny rule 1"), "{said:?}");
    // A stranger's is reset without a word.
    mesh.write(
        "policy.yaml",
        &policy("deny", "action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}]"),
    )
    .expect("a writable directory");
    poll(SOON, "a stranger is refused", async || {
        let mut stranger =
            TcpStream::connect(mesh.workload("app-1").inbound).await.map_err(|error| error.to_string())?;
        stranger.write_all(b"\x00\x01opaque").await.map_err(|error| error.to_string())?;
        let accepted = async { app.accept().await.map(drop) };
        tokio::select! {
            _ = accepted => Err("it came to the app".to_owned()),
            read = stranger.read(&mut hello) => match read {
                Ok(read) if read > 0 => Err(format!("it was told {read} bytes")),
                _ => Ok(()),
            },
        }
    })
    .await;
}
