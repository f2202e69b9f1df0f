//! `NetworkPolicy` through real sidecars that get no redirected connections: who reaches whom, who is told what, and
//! whose connections end when a policy changes.

use std::time::Instant;

use selvedge_demo::{
    call::{self, Answer},
    documents,
    workload::{AppKind, Spec},
};
use selvedge_tests::{
    Mesh, SOON,
    policies::recipes::{Asked, EXERCISE_3, KNOWN, Known, LESSON, NAMESPACES},
    poll,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    SELVEDGE,
    raw::{APP, Around, CALLERS, Raw, SERVER, within},
};

/// How soon a change that has arrived must have ended what it forbids; and how soon a change arrives.
const ENDS: std::time::Duration = std::time::Duration::from_secs(4);

/// A policy called `own`, in namespace `default`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: own, namespace: default}}\nspec: {spec}\n"
    )
}

fn tier(name: &str, port: u16) -> Spec {
    Spec::server(name, name, port).label("tier", name)
}

async fn called(mesh: &Mesh, from: &str, to: &str) -> Result<Answer, String> {
    mesh.workload(from).call(call::to(to, "/")).await.map_err(|error| error.to_string())
}

/// Waits until the answer to `from` is as `is_so` says.
async fn answered(mesh: &Mesh, from: &str, to: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
    poll(SOON, &format!("{from} calls {to}"), async || {
        let answer = called(mesh, from, to).await?;
        if is_so(&answer) { Ok(answer) } else { Err(answer.summary()) }
    })
    .await
}

fn is_denied(answer: &Answer) -> bool {
    answer.status == 403
}

/// Whether the sidecar answered that the policy `name` refuses this.
fn is_denied_by(answer: &Answer, name: &str) -> bool {
    let told = format!("policy: NetworkPolicy default/{name}");
    is_denied(answer) && answer.proxy_error().is_some_and(|error| error.starts_with(&told))
}

#[tokio::test]
async fn the_lessons_exercise_3_holds_from_a_directory() {
    let tiers = [tier("frontend", 8080), tier("backend", 8080), tier("database", 5432), tier("other", 8080)];
    let mesh = Mesh::of(SELVEDGE, tiers).await;
    answered(&mesh, "other", "backend:8080", |answer| answer.status == 200).await;
    answered(&mesh, "other", "database:5432", |answer| answer.status == 200).await;

    mesh.write("policies.yaml", EXERCISE_3).expect("a writable directory");

    answered(&mesh, "other", "database:5432", is_denied).await;
    for (from, to, denied_by) in [
        ("frontend", "backend:8080", None),
        ("backend", "database:5432", None),
        ("other", "backend:8080", Some("backend-policy")),
        ("database", "backend:8080", Some("backend-policy")),
        ("frontend", "database:5432", Some("database-policy")),
        ("other", "database:5432", Some("database-policy")),
        // Its own sidecar says so: it never gets there.
        ("backend", "other:8080", Some("backend-policy")),
        ("backend", "frontend:8080", Some("backend-policy")),
        ("frontend", "other:8080", None),
    ] {
        let answer = answered(&mesh, from, to, |answer| is_denied(answer) == denied_by.is_some()).await;
        match denied_by {
            Some(name) => assert!(is_denied_by(&answer, name), "{from} {to}: {}", answer.summary()),
            None => assert_eq!(answer.status, 200, "{from} {to}: {}", answer.summary()),
        }
    }
    mesh.remove("policies.yaml").expect("it is there");
    answered(&mesh, "other", "database:5432", |answer| answer.status == 200).await;
}

/// A cluster-wide object of Calico's.
fn calico(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

#[tokio::test]
async fn tiers_and_labels_of_service_accounts_decide_as_in_calico() {
    let clients = ["trusted", "banned", "other"].map(Spec::client);
    let mesh = Mesh::of(SELVEDGE, clients.into_iter().chain([tier("database", 5432)])).await;
    let account = |name: &str, team: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: default, labels: {{team: {team}}}}}\n---\n"
        )
    };
    let security = |action: &str| {
        format!(
            "{{tier: security, serviceAccountSelector: team == 'data', ingress: [{{action: Deny, source: {{serviceAccounts: \
             {{selector: team == 'banned'}}}}}}, {{action: {action}, source: {{serviceAccounts: {{selector: has(team)}}}}}}]}}"
        )
    };
    let documents = |action: &str| {
        [
            account("trusted", "web"),
            account("banned", "banned"),
            account("database", "data"),
            calico("Tier", "security", "{order: 10, defaultAction: Deny}"),
            calico("GlobalNetworkPolicy", "security.accounts", &security(action)),
            calico("GlobalNetworkPolicy", "nobody", "{selector: all(), types: [Ingress]}"),
        ]
        .concat()
    };
    mesh.write("policies.yaml", &documents("Allow")).expect("a writable directory");

    let told = |answer: &Answer| answer.proxy_error().map(str::to_owned).unwrap_or_default();
    for (from, denied_by) in [
        ("banned", Some("security.accounts ingress rule 1")),
        ("trusted", None),
        ("other", Some("security.accounts: it selects this workload, and no rule")),
    ] {
        let answer =
            answered(&mesh, from, "database:5432", |answer| is_denied(answer) == denied_by.is_some()).await;
        let (told, expected) = (told(&answer), denied_by.unwrap_or_default());
        assert!(told.contains(expected), "{from}: {told}");
    }

    mesh.write("policies.yaml", &documents("Pass")).expect("a writable directory");
    let denied = answered(&mesh, "trusted", "database:5432", is_denied).await;
    assert!(told(&denied).contains("GlobalNetworkPolicy nobody"), "the next tier decides: {}", told(&denied));
}

/// The one port of a workload of the lesson.
fn port_of(known: &Known) -> u16 {
    if known.name == "database" { 3306 } else { 8080 }
}

#[tokio::test]
async fn each_of_the_lessons_documents_lets_through_what_it_says_from_a_directory() {
    let meshed: Vec<Known> = KNOWN.into_iter().filter(|known| known.is_meshed).collect();
    let specs = meshed.iter().map(|known| {
        let (key, value) = known.label;
        let server = Spec::server(known.name, known.name, port_of(known));
        server.label(key, value).namespace(known.namespace)
    });
    let mesh = Mesh::of(SELVEDGE, specs).await;
    mesh.write("namespaces.yaml", NAMESPACES).expect("a writable directory");
    for known in meshed.iter().filter(|known| known.namespace != "default") {
        let service = documents::service(known.name, known.namespace, port_of(known));
        mesh.write(&format!("service-{}.yaml", known.name), &service).expect("a writable directory");
    }
    for lesson in LESSON {
        let documents = lesson.documents.join("\n---\n");
        mesh.write("policies.yaml", &documents).expect("a writable directory");
        poll(SOON, &format!("{}\n{documents}", lesson.name), async || {
            let mut wrong = String::new();
            for (from, to) in meshed.iter().flat_map(|from| meshed.iter().map(move |to| (from, to))) {
                let asked = Asked { from: from.full, to: to.full, port: port_of(to) };
                let authority = format!("{}.{}:{}", to.name, to.namespace, asked.port);
                let status = called(&mesh, from.name, &authority).await.map(|answer| answer.status.as_u16());
                let expected = if lesson.lets(asked) { 200 } else { 403 };
                if from.full != to.full && status != Ok(expected) {
                    wrong += &format!("{asked:?}: {status:?} instead of {expected}\n");
                }
            }
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await;
    }
}

#[tokio::test]
async fn endpoints_that_a_policy_denies_get_no_request_and_if_all_are_denied_the_answer_says_so() {
    let version = |version: &str| {
        let mut server = Spec::server(&format!("app-{version}"), "app", 8080).label("version", version);
        server.app = AppKind::Reviews(version.to_owned());
        server.service_account = format!("app-{version}");
        server
    };
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), version("v1"), version("v2")]).await;
    let to = |version: &str| {
        policy(&format!(
            "{{podSelector: {{matchLabels: {{app: caller}}}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: \
             {{matchLabels: {{version: {version}}}}}}}]}}]}}"
        ))
    };

    mesh.write("policy.yaml", &to("v1")).expect("a writable directory");

    let is_v1 = |answer: &Answer| answer.status == 200 && answer.text().contains("v1");
    poll(SOON, "only one of two endpoints is called", async || {
        for _ in 0..12 {
            let answer = called(&mesh, "caller", "app:8080").await?;
            if !is_v1(&answer) {
                return Err(format!("{} {}", answer.summary(), answer.text()));
            }
        }
        Ok(())
    })
    .await;
    mesh.write("policy.yaml", &to("none")).expect("a writable directory");
    let answer = answered(&mesh, "caller", "app:8080", is_denied).await;
    assert!(is_denied_by(&answer, "own"), "{}", answer.summary());

    // The client's own sidecar counts each, and logs the first for each rule and target. What was under way when the rule came
    // has been ended, which is no decision.
    for _ in 0..6 {
        answered(&mesh, "caller", "app:8080", is_denied).await;
    }
    let series =
        "selvedge_outbound_policy_decisions_total{policy=\"NetworkPolicy default/own\",decision=\"deny\"}";
    let count = mesh.workload("caller").metric(series).await.expect("an answer");
    assert!(count >= Some(6.0), "{count:?}");
    let log = mesh.workload("caller").sidecar_process().expect("it runs").whole_log().expect("a log");
    let lines = log
        .lines()
        .filter(|line| line.contains("refused by policy") && line.contains("NetworkPolicy default/own"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[tokio::test]
async fn an_address_that_passes_through_is_judged_like_any_other() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("legacy", "legacy", 8080)]).await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let mut app = Raw::of(stream);
            app.head().await;
            app.answer("outside").await;
        }
    });
    let (by_address, by_name) = (address.to_string(), format!("localhost:{}", address.port()));
    answered(&mesh, "caller", &by_address, |answer| answer.status == 200).await;

    let except = "{podSelector: {matchLabels: {app: caller}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, \
                  except: [127.0.0.1/32]}}]}]}";
    mesh.write("policy.yaml", &policy(except)).expect("a writable directory");

    for authority in [&by_address, &by_name] {
        let answer = answered(&mesh, "caller", authority, is_denied).await;
        assert!(is_denied_by(&answer, "own"), "{authority}: {}", answer.summary());
    }
    answered(&mesh, "caller", "legacy:8080", |answer| answer.status == 200).await;
}

/// Answers of the app to both callers that go on; the first is the one that the tests keep.
async fn watched(around: &Around) -> [(Raw, Raw); 2] {
    let mut watching = Vec::new();
    for caller in CALLERS {
        let (mut client, mut app) =
            around.asked(caller, format!("GET /watch HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n").await;
        client.until("tick").await;
        watching.push((client, app));
    }
    watching.try_into().ok().expect("two of them")
}

#[tokio::test]
async fn a_change_ends_at_either_end_what_it_forbids_and_nothing_else() {
    for keeps_first in [true, false] {
        let [kept, forbidden] = if keeps_first { CALLERS } else { [CALLERS[1], CALLERS[0]] };
        let from = format!(
            "{{podSelector: {{matchLabels: {{app: app}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {kept}}}}}}}]}}]}}"
        );
        let to = format!("{{podSelector: {{matchLabels: {{app: {forbidden}}}}}, policyTypes: [Egress]}}");
        for (spec, teller, way) in [(from, SERVER, "inbound"), (to, forbidden, "outbound")] {
            ends_what_it_forbids(&spec, keeps_first, teller, way).await;
        }
    }
}

/// The policy `spec` ends the answer to one caller, and its proxy's or the server's, the `teller`, counts why.
async fn ends_what_it_forbids(spec: &str, keeps_first: bool, teller: &str, way: &str) {
    let around = Around::new().await;
    let mut watching = watched(&around).await;
    if !keeps_first {
        watching.reverse();
    }
    let [(mut kept, mut its_app), (mut forbidden, _open)] = watching;

    let changed = Instant::now();
    around.mesh.write("policy.yaml", &policy(spec)).expect("a writable directory");

    within("the end of what is forbidden", forbidden.rest()).await;
    assert!(changed.elapsed() < ENDS, "{spec}: {:?}", changed.elapsed());
    its_app.send("4\r\ntock\r\n").await;
    kept.until("tock").await;
    let begins = format!("selvedge_{way}_requests_total{{");
    let labels = ["http_response_status_code=\"200\"", "error_type=\"policy\""];
    poll(SOON, &format!("{teller} counts what has ended the answer"), async || {
        let metrics = around.mesh.workload(teller).admin("/metrics").await;
        let metrics = metrics.map_err(|error| error.to_string())?.text();
        let is_counted =
            |line: &str| line.starts_with(&begins) && labels.iter().all(|one| line.contains(one));
        if metrics.lines().any(is_counted) { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test]
async fn a_plaintext_client_needs_an_address_and_is_told_no_name() {
    let around = Around::new().await;
    let only = |label: &str| {
        policy(&format!(
            "{{podSelector: {{matchLabels: {{app: app}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: {label}}}}}}}]}}]}}"
        ))
    };
    around.mesh.write("policy.yaml", &only(CALLERS[0])).expect("a writable directory");

    let asked = async || {
        let mut client = around.plain_client().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        tokio::select! {
            _ = around.accept() => None,
            head = client.head() => Some((head.status().to_owned(), head.header("selvedge-error").map(str::to_owned))),
        }
    };
    poll(SOON, "a stranger is refused", async || match asked().await {
        Some(answer) if answer == ("403".to_owned(), Some("policy".to_owned())) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let metrics = around.mesh.workload(SERVER).admin("/metrics").await.expect("an answer").text();
    let line =
        "selvedge_inbound_policy_decisions_total{policy=\"NetworkPolicy default/own\",decision=\"deny\"}";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn an_opaque_connection_of_the_app_ends_when_a_policy_forbids_it() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("an address");
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let upstream = format!("{}={address}", free.port());
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller").flag("--upstream", &upstream)]).await;
    let mut client = tokio::net::TcpStream::connect(free).await.expect("the sidecar listens");
    client.write_all(b"\x00\x01hello").await.expect("it is taken");
    let (mut app, _) = within("a connection", server.accept()).await.expect("a connection");
    let mut read = [0; 7];
    within("bytes", app.read_exact(&mut read)).await.expect("bytes");

    let deny = "{podSelector: {matchLabels: {app: caller}}, policyTypes: [Egress]}";
    mesh.write("policy.yaml", &policy(deny)).expect("a writable directory");

    let ended = within("the end", client.read(&mut read)).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let mut refused = tokio::net::TcpStream::connect(free).await.expect("the sidecar listens");
    let _ = refused.write_all(b"\x00\x01hello").await;
    let ended = within("the end", refused.read(&mut read)).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_request_that_a_policy_ends_before_its_answer_counts_for_that_and_not_as_a_reset() {
    let around = Around::new().await;
    let mut asked = Vec::new();
    for caller in CALLERS {
        let request = format!("POST / HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 0\r\n\r\n");
        asked.push((caller, around.asked(caller, request).await));
    }

    around.mesh.write("own.yaml", &policy("{podSelector: {}, policyTypes: [Egress], egress: []}")).unwrap();

    for (caller, (client, _app)) in &mut asked {
        let head = client.head().await;
        let reason = head.header("selvedge-error").unwrap_or_default();
        assert!(
            head.status() == "403" && reason.starts_with("policy"),
            "{caller}: {} {reason}",
            head.status()
        );
    }
}
