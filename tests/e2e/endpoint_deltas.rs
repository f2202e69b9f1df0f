//! Of a large list of endpoints a proxy is sent only what has changed.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use selvedge_demo::{call, load::Plan, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{net::TcpListener, task::JoinSet};

use crate::SELVEDGE;

/// Endpoints at which nobody answers.
const CROWD: usize = 500;

/// Answers every request with its name.
async fn serve(name: &'static str, address: SocketAddr) -> JoinSet<()> {
    serve_on(name, TcpListener::bind(address).await.unwrap())
}

/// The same.
fn serve_on(name: &'static str, listener: TcpListener) -> JoinSet<()> {
    let mut running = JoinSet::new();
    running.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let answer = service_fn(async move |_| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(name.as_bytes()))))
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    running
}

/// `shop.test`: the first `crowd` of those at which nobody answers, and a server that gets all requests because of its weight.
fn entry(crowd: usize, server: SocketAddr) -> String {
    entry_at(crowd, 9, server)
}

/// The same with the crowd at this port.
fn entry_at(crowd: usize, port: u16, server: SocketAddr) -> String {
    let of_crowd = |host: usize| {
        format!("{{address: 127.9.{}.{}, ports: {{http: {port}}}}}", host / 250, host % 250 + 1)
    };
    let server =
        format!("{{address: {}, ports: {{http: {}}}, weight: 100000000}}", server.ip(), server.port());
    let endpoints: Vec<_> = (0..crowd).map(of_crowd).chain([server]).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec: {{hosts: [shop.test], \
         resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{}]}}\n",
        endpoints.join(", ")
    )
}

/// Waits until requests are answered by `server`.
async fn answered_by(mesh: &Mesh, server: &str) {
    poll(SOON, "requests go there", async || {
        let answer = mesh.workload("caller").call(call::to("shop.test", "/")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 && answer.text() == server { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

/// How many bytes of lists were sent in this form.
async fn sent(mesh: &Mesh, form: &str) -> u64 {
    let metrics = mesh.control_plane_admin("/metrics").await.unwrap().text();
    let series = format!("selvedge_control_plane_endpoints_sent_bytes_total{{form=\"{form}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_changed_endpoint_of_five_hundred_is_sent_alone_and_traffic_follows() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let [one, two] = [201, 202].map(|host| mesh.ground().socket(host, 8090).unwrap());
    let _one = serve("one", one).await;
    let _two = serve("two", two).await;
    mesh.write("entry.yaml", &entry(CROWD, one)).unwrap();
    answered_by(&mesh, "one").await;
    let whole = sent(&mesh, "whole").await;
    assert!(whole > 10_000, "{whole} bytes");
    assert_eq!(sent(&mesh, "delta").await, 0);

    mesh.write("entry.yaml", &entry(CROWD, two)).unwrap();
    answered_by(&mesh, "two").await;

    let delta = sent(&mesh, "delta").await;
    assert!((1..500).contains(&delta), "{delta} bytes for one endpoint");
    assert_eq!(sent(&mesh, "whole").await, whole, "the list was not sent again");

    // Where most of it is different, the list is shorter.
    mesh.write("entry.yaml", &entry(CROWD / 10, one)).unwrap();
    answered_by(&mesh, "one").await;

    assert_eq!(sent(&mesh, "delta").await, delta);
    assert!(sent(&mesh, "whole").await > whole);
    let metrics = mesh.control_plane_admin("/metrics").await.unwrap().text();
    assert!(!metrics.contains("outcome=\"refused\""), "{metrics}");
}

#[tokio::test]
async fn half_of_the_endpoints_may_go_at_once_and_come_again_and_no_request_fails() {
    const MANY: usize = 4 * CROWD;
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let server = mesh.ground().socket(201, 8090).unwrap();
    let _server = serve("one", server).await;
    // At each address of the crowd.
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _crowd = serve_on("one", listener);
    mesh.write("entry.yaml", &entry_at(MANY, port, server)).unwrap();
    answered_by(&mesh, "one").await;
    let calls = Plan::new(mesh.workload("caller").outbound, "shop.test").requests(2_000).run();
    let all = async || sent(&mesh, "delta").await + sent(&mesh, "whole").await;
    let changes = async {
        for round in 1..=4 {
            let before = all().await;
            mesh.write("entry.yaml", &entry_at(MANY / (1 + round % 2), port, server)).unwrap();
            poll(SOON, "what has changed is sent", async || {
                let now = all().await;
                if now > before { Ok(()) } else { Err(now) }
            })
            .await;
        }
    };

    let (report, ()) = tokio::join!(calls, changes);

    assert_eq!(report.failed(), 0, "{}", report.summary());
    assert!(sent(&mesh, "delta").await > 0, "that they have gone is told without the others");
    answered_by(&mesh, "one").await;
}
