//! Which failures eject an endpoint, and when ejected ones are called all the same.

use selvedge_demo::{
    apps::reviews,
    call,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    SELVEDGE,
    raw::{Raw, within},
};

/// Two servers behind one service whose `outlierDetection` is `detection`, and their caller.
async fn mesh(detection: &str) -> Mesh {
    let server = |name| Spec::server(name, "reviews", 9080);
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), server("reviews-a"), server("reviews-b")]).await;
    let detection = format!("{detection}, baseEjectionTime: 300s, maxEjectionPercent: 100");
    in_force(&mesh, "", &detection).await;
    mesh
}

/// Writes a rule with these annotations and this `outlierDetection`, and waits until the caller follows it.
async fn in_force(mesh: &Mesh, annotations: &str, detection: &str) {
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, annotations: \
         {{{annotations}}}}}\nspec: {{host: reviews, trafficPolicy: {{outlierDetection: {{{detection}}}}}}}\n"
    );
    answering(mesh).await.unwrap();
    write_in_force(mesh, &rule).await;
}

/// Writes `rule`, and waits until the caller has it.
async fn write_in_force(mesh: &Mesh, rule: &str) {
    let version = async || {
        let config =
            mesh.workload("caller").admin_json("/config").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(config["versions"].to_string())
    };
    let before = version().await.unwrap();
    mesh.write("eject.yaml", rule).unwrap();
    poll(SOON, "the rule is in force", async || {
        let after = version().await?;
        if after != before { Ok(()) } else { Err(after) }
    })
    .await;
}

/// Who answers one request.
async fn answering(mesh: &Mesh) -> Result<String, String> {
    let answer = mesh
        .workload("caller")
        .call(call::to("reviews:9080", "/"))
        .await
        .map_err(|error| error.to_string())?;
    answer.json::<reviews::Answer>().map(|seen| seen.pod).map_err(|_| answer.summary())
}

async fn is_ejected(mesh: &Mesh, name: &str) -> bool {
    let address = mesh.workload(name).app.to_string();
    let all = mesh.workload("caller").admin_json("/endpoints").await.unwrap();
    let one = |endpoint: &&Value| endpoint["address"] == address;
    all.as_array().unwrap().iter().find(one).unwrap_or_else(|| panic!("{address}: {all}"))["ejected"] == true
}

async fn until_ejected(mesh: &Mesh, name: &str) {
    poll(SOON, "it is ejected", async || {
        answering(mesh).await?;
        if is_ejected(mesh, name).await { Ok(()) } else { Err("not ejected".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn what_counts_against_an_endpoint_may_be_split_by_whether_it_answered() {
    let detection =
        "consecutive5xxErrors: 0, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2";
    let mut mesh = mesh(detection).await;

    // Its sidecar answers for it: that is an answer.
    mesh.kill_app("reviews-a").await.unwrap();
    for _ in 0..40 {
        answering(&mesh).await.unwrap();
    }
    assert!(!is_ejected(&mesh, "reviews-a").await);

    mesh.kill_sidecar("reviews-a").await.unwrap();
    until_ejected(&mesh, "reviews-a").await;
    assert!(!is_ejected(&mesh, "reviews-b").await);
}

#[tokio::test]
async fn with_too_few_healthy_endpoints_the_ejected_are_called_too() {
    let mut mesh = mesh("consecutive5xxErrors: 1, minHealthPercent: 60").await;
    mesh.kill_app("reviews-a").await.unwrap();
    until_ejected(&mesh, "reviews-a").await;

    mesh.start_app("reviews-a").unwrap();
    poll(SOON, "the ejected one answers", async || match answering(&mesh).await? {
        pod if pod == "reviews-a" => Ok(()),
        pod => Err(pod),
    })
    .await;
    assert!(is_ejected(&mesh, "reviews-a").await);
}

/// A client's connection to the sidecar of `caller`, which is kept.
async fn kept(mesh: &Mesh) -> Raw {
    Raw::of(TcpStream::connect(mesh.workload("caller").outbound).await.unwrap())
}

/// The status of the answer to one request for `path`.
async fn status(client: &mut Raw, path: &str) -> String {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: reviews:9080\r\n\r\n")).await;
    let head = client.head().await;
    let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    client.exactly(length).await;
    head.status().to_owned()
}

#[tokio::test]
async fn what_one_worker_sees_counts_for_all() {
    let caller = Spec::client("caller").flag("--workers", "2");
    let mesh = Mesh::of(SELVEDGE, [caller, Spec::server("reviews-a", "reviews", 9080)]).await;
    in_force(&mesh, "", "consecutive5xxErrors: 6, baseEjectionTime: 300s").await;
    // The acceptor gives each connection to the worker that has fewer.
    let mut clients = [kept(&mesh).await, kept(&mesh).await];

    for n in 0..6 {
        assert_eq!(status(&mut clients[n % 2], "/?status=500").await, "500", "failure {}", n + 1);
    }

    for client in &mut clients {
        assert_eq!(status(client, "/").await, "503", "three failures of each worker are six");
    }
    assert!(is_ejected(&mesh, "reviews-a").await);
    let ejections = mesh.workload("caller").metric("selvedge_outbound_endpoint_ejections_total").await;
    assert_eq!(ejections.unwrap(), Some(1.0));
}

#[tokio::test]
async fn an_endpoint_that_fails_more_often_than_the_others_is_ejected() {
    let server = |name| Spec::server(name, "reviews", 9080);
    let servers = ["reviews-a", "reviews-b", "reviews-c"].map(server);
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller")].into_iter().chain(servers)).await;
    let annotated = |what: &[(&str, &str)]| {
        let line = |(name, value): &(&str, &str)| format!("config.selvedge.io/{name}: '{value}'");
        what.iter().map(line).collect::<Vec<_>>().join(", ")
    };
    let detection = "consecutive5xxErrors: 0, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 100";
    let rate = annotated(&[
        ("success-rate-minimum-hosts", "3"),
        ("success-rate-request-volume", "3"),
        ("success-rate-stdev-factor", "1000"),
    ]);
    in_force(&mesh, &rate, detection).await;
    mesh.kill_app("reviews-b").await.unwrap();

    assert_eq!(reason_of_ejection(&mesh, "reviews-b").await, "success-rate");
    for other in ["reviews-a", "reviews-c"] {
        assert!(!is_ejected(&mesh, other).await);
    }

    let percentage = annotated(&[
        ("failure-percentage-threshold", "90"),
        ("failure-percentage-minimum-hosts", "3"),
        ("failure-percentage-request-volume", "3"),
        ("max-ejection-time", "250s"),
        ("max-ejection-time-jitter", "10ms"),
    ]);
    in_force(&mesh, &percentage, detection).await;
    poll(SOON, "it is ejected for its share of failures", async || {
        match reason_of_ejection(&mesh, "reviews-b").await {
            reason if reason == "failure-percentage" => Ok(()),
            reason => Err(reason),
        }
    })
    .await;
}

/// Why `name` is ejected, once it is; the service is busy meanwhile.
async fn reason_of_ejection(mesh: &Mesh, name: &str) -> String {
    let address = mesh.workload(name).app.to_string();
    poll(SOON, "it is ejected", async || {
        for _ in 0..40 {
            answering(mesh).await?;
        }
        let all = mesh.workload("caller").admin_json("/endpoints").await.unwrap();
        let one = all.as_array().unwrap().iter().find(|one| one["address"] == address);
        let reason = one.and_then(|one| one["ejection"]["reason"].as_str()).map(str::to_owned);
        reason.ok_or_else(|| all.to_string())
    })
    .await
}

/// Answers each connection's first request with the beginning of an answer, and breaks off.
async fn break_off(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // Who has gone is told nothing.
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(BEGINNING.0.as_bytes()).await;
    }
}

#[tokio::test]
async fn answers_that_break_off_count_as_attempts_without_an_answer() {
    let broken = Spec { app: AppKind::None, ..Spec::server("reviews-a", "reviews", 9080) };
    let whole = Spec::server("reviews-b", "reviews", 9080);
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), broken, whole]).await;
    let listener = TcpListener::bind(mesh.workload("reviews-a").app).await.unwrap();
    tokio::spawn(break_off(listener));
    let all = "baseEjectionTime: 300s, maxEjectionPercent: 100";
    // An answer's head is an answer: what counts apart is not counted here.
    let apart =
        "consecutive5xxErrors: 1, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures";
    poll(SOON, "the whole one answers", async || answering(&mesh).await.map(drop)).await;
    in_force_once_called(&mesh, &format!("{apart}: 0, {all}")).await;
    let mut broken_off = 0;
    poll(SOON, "eight answers have broken off", async || {
        broken_off += usize::from(answering(&mesh).await.is_err());
        if broken_off == 8 { Ok(()) } else { Err(broken_off) }
    })
    .await;
    assert!(!is_ejected(&mesh, "reviews-a").await);

    for detection in [format!("{apart}: 1, {all}"), format!("consecutiveGatewayErrors: 1, {all}")] {
        in_force_once_called(&mesh, "").await;
        in_force_once_called(&mesh, &detection).await;
        poll(SOON, "it is ejected", async || {
            let _ = answering(&mesh).await;
            if is_ejected(&mesh, "reviews-a").await { Ok(()) } else { Err(detection.clone()) }
        })
        .await;
        assert!(!is_ejected(&mesh, "reviews-b").await);
        for _ in 0..8 {
            assert_eq!(answering(&mesh).await.as_deref(), Ok("reviews-b"));
        }
    }
}

/// The beginning of an answer, and how many bytes of its body that has.
const BEGINNING: (&str, usize) = ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nthe beginning", 13);

/// What the client's sidecar ejects for: one attempt that breaks off. An answer's head counts for nothing.
const BROKEN_OFF: &str = "consecutive5xxErrors: 0, splitExternalLocalOriginErrors: true, \
                          consecutiveLocalOriginFailures: 1, baseEjectionTime: 300s";

/// A client whose requests travel as this `carrier` has them, the only server, and its app's listening socket.
async fn before_an_app(carrier: &str) -> (Mesh, TcpListener) {
    let caller = Spec::client("caller").flag("--carrier", carrier);
    let server = Spec { app: AppKind::None, ..Spec::server("reviews-a", "reviews", 9080) };
    let mesh = Mesh::of(SELVEDGE, [caller, server]).await;
    let app = TcpListener::bind(mesh.workload("reviews-a").app).await.unwrap();
    // Then its sidecar asks for what is said of the service.
    let mut client = kept(&mesh).await;
    client.send("GET / HTTP/1.1\r\nhost: reviews:9080\r\n\r\n").await;
    let mut called = Raw::of(within("a connection to the app", app.accept()).await.unwrap().0);
    called.head().await;
    called.answer("whole").await;
    assert_eq!(client.head().await.status(), "200");
    in_force_once_called(&mesh, BROKEN_OFF).await;
    (mesh, app)
}

/// A request with a body whose length is said, or not, as far as the app, which has answered its head with the beginning of
/// an answer. The client has that.
async fn answered_early(mesh: &Mesh, app: &TcpListener, framing: &str) -> (Raw, Raw) {
    let mut client = kept(mesh).await;
    client.send(format!("POST / HTTP/1.1\r\nhost: reviews:9080\r\n{framing}\r\n\r\n")).await;
    let mut app = Raw::of(within("a connection to the app", app.accept()).await.unwrap().0);
    app.head().await;
    let (beginning, length) = BEGINNING;
    app.send(beginning).await;
    assert_eq!(client.head().await.status(), "200");
    client.exactly(length).await;
    (client, app)
}

const LENGTH: &str = "content-length: 10";
const CHUNKS: &str = "transfer-encoding: chunked";

#[tokio::test]
async fn a_client_that_breaks_its_own_body_ejects_nobody_and_an_app_that_breaks_its_answer_to_a_body_is_ejected()
 {
    for carrier in ["http2", "http1"] {
        let (mesh, listener) = before_an_app(carrier).await;

        for (framing, sends) in [(LENGTH, Some("some")), (CHUNKS, Some("4\r\nsome\r\n")), (CHUNKS, None)] {
            let (mut client, mut app) = answered_early(&mesh, &listener, framing).await;
            match sends {
                // It leaves in the middle of its body.
                Some(some) => {
                    client.send(some).await;
                    drop(client);
                }
                // This is no chunk.
                None => {
                    client.send("zz\r\n").await;
                    client.rest().await;
                }
            }
            app.rest().await;
            assert!(!is_ejected(&mesh, "reviews-a").await, "{carrier}, {framing}, {sends:?}");
        }

        let (mut client, mut app) = answered_early(&mesh, &listener, LENGTH).await;
        client.send("the whole.").await;
        app.exactly("the whole.".len()).await;
        drop(app);
        client.rest().await;
        poll(
            SOON,
            "it is ejected",
            async || {
                if is_ejected(&mesh, "reviews-a").await { Ok(()) } else { Err(carrier) }
            },
        )
        .await;
    }
}

/// Has the caller follow this `outlierDetection`, or none, whoever answers meanwhile.
async fn in_force_once_called(mesh: &Mesh, detection: &str) {
    let policy = match detection {
        "" => "connectionPool: {tcp: {maxConnections: 100}}".to_owned(),
        detection => format!("outlierDetection: {{{detection}}}"),
    };
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec: {{host: reviews, \
         trafficPolicy: {{{policy}}}}}\n"
    );
    write_in_force(mesh, &rule).await;
}
