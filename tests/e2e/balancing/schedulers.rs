//! The schedulers of IPVS, and what does the same here: each line of the table in the guide.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use selvedge_demo::{call, load::Plan, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{annotated, pods, rule, specs, sticks};
use crate::SELVEDGE;

/// Waits until of `count` requests the servers get about these shares.
async fn shares(mesh: &Mesh, count: usize, expected: &[(&str, std::ops::RangeInclusive<usize>)]) {
    poll(SOON, "the shares are as expected", async || {
        let pods = pods(mesh.workload("caller"), count, || call::to("reviews:9080", "/")).await;
        let got = |server: &str| pods.get(server).copied().unwrap_or(0);
        match expected.iter().all(|(server, range)| range.contains(&got(server))) {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    })
    .await;
}

/// Gives a workload this weight.
fn weigh(mesh: &Mesh, workload: &str, weight: u32) {
    let file = selvedge_demo::cluster::entry_file(workload);
    mesh.edit(&file, |text| {
        let weighed = text.replacen("spec:\n", &format!("spec:\n  weight: {weight}\n"), 1);
        assert_ne!(weighed, text);
        weighed
    })
    .unwrap();
}

#[tokio::test]
async fn rr_is_round_robin_and_wrr_the_same_with_weights() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    mesh.write("rule.yaml", &rule("{loadBalancer: {simple: ROUND_ROBIN}}")).unwrap();
    shares(&mesh, 30, &[("reviews-1", 10..=10), ("reviews-2", 10..=10), ("reviews-3", 10..=10)]).await;

    weigh(&mesh, "reviews-1", 6);
    weigh(&mesh, "reviews-2", 3);

    shares(&mesh, 50, &[("reviews-1", 30..=30), ("reviews-2", 15..=15), ("reviews-3", 5..=5)]).await;
}

#[tokio::test]
async fn lc_is_least_request_and_wlc_the_same_with_weights() {
    let mesh = Mesh::of(SELVEDGE, specs(2)).await;
    mesh.write("rule.yaml", &rule("{loadBalancer: {simple: LEAST_CONN}}")).unwrap();
    let caller = mesh.workload("caller");
    // One that is busy for long gets nothing.
    let busy =
        tokio::spawn(call::send(caller.outbound, call::to("reviews:9080", "/?delay=4s").timeout(SOON)));
    let free = sticks(caller, || call::to("reviews:9080", "/")).await;
    let answer = busy.await.unwrap().unwrap();
    let busy: serde_json::Value = answer.json().unwrap();
    assert_ne!(busy["pod"], free);

    weigh(&mesh, "reviews-1", 9);
    shares(&mesh, 200, &[("reviews-1", 160..=195), ("reviews-2", 5..=40)]).await;
}

#[tokio::test]
async fn sh_is_the_hash_of_the_source_and_mh_the_same_with_maglev() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    for table in ["ringHash: {minimumRingSize: 1024}", "maglev: {tableSize: 65537}"] {
        let policy = format!("{{loadBalancer: {{consistentHash: {{useSourceIp: true, {table}}}}}}}");
        mesh.write("rule.yaml", &rule(&policy)).unwrap();
        for caller in ["caller", "other"] {
            sticks(mesh.workload(caller), || call::to("reviews:9080", "/")).await;
        }
    }
}

#[tokio::test]
async fn dh_is_the_hash_of_what_is_asked_for() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let policy = "{loadBalancer: {consistentHash: {httpHeaderName: ':path'}}}";
    mesh.write("rule.yaml", &rule(policy)).unwrap();
    let mut servers = std::collections::BTreeSet::new();
    for path in 0..12 {
        servers
            .insert(sticks(mesh.workload("caller"), || call::to("reviews:9080", &format!("/?{path}"))).await);
    }
    assert!(servers.len() > 1, "{servers:?}");
}

#[tokio::test]
async fn a_bound_is_lblcr_and_ovf() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let policy = "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}";
    mesh.write("rule.yaml", &annotated("config.selvedge.io/hash-load-bound: '120'", policy)).unwrap();
    let caller = mesh.workload("caller");
    sticks(caller, || super::of_user(1)).await;

    // All of one user at the same time are too much for one endpoint.
    let calls = (0..30).map(|_| {
        let call = call::to("reviews:9080", "/?delay=1s").header("x-user", "user-1").timeout(SOON);
        tokio::spawn(call::send(caller.outbound, call))
    });
    let mut counts = std::collections::BTreeMap::new();
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
        *counts.entry(super::pod_of(&answer)).or_insert(0) += 1;
    }

    assert!(counts.len() == 3 && counts.values().all(|count| *count <= 13), "{counts:?}");
}

#[tokio::test]
async fn random_is_any() {
    let mesh = Mesh::of(SELVEDGE, specs(2)).await;
    mesh.write("rule.yaml", &rule("{loadBalancer: {simple: RANDOM}}")).unwrap();
    // That exactly half of 40 goes to each ten times in a row would be turns.
    shares(&mesh, 400, &[("reviews-1", 130..=270), ("reviews-2", 130..=270)]).await;
}

#[tokio::test]
async fn sed_is_peak_ewma_which_prefers_who_answers_sooner() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [quick, slow] = [205, 206].map(|host| mesh.ground().socket(host, 9003).unwrap());
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  hosts: \
         [shop.test]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, targetPort: 9003}}]\n  endpoints: \
         [{{address: {}}}, {{address: {}}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: \
         {{name: shop, annotations: {{config.selvedge.io/load-balancer: PEAK_EWMA}}}}\nspec: {{host: shop.test}}\n",
        quick.ip(),
        slow.ip()
    );
    mesh.write("shop.yaml", &entry).unwrap();
    serve(TcpListener::bind(quick).await.unwrap(), "quick", Duration::ZERO);
    serve(TcpListener::bind(slow).await.unwrap(), "slow", Duration::from_millis(60));
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    let report =
        Plan::new(mesh.workload("caller").outbound, "shop.test").keys(&["pod"]).requests(300).run().await;

    assert_eq!(report.failed(), 0, "{}", report.summary());
    assert!(report.count("pod", "quick") > 250, "{}", report.summary());
}

#[tokio::test]
async fn peak_ewma_leaves_alone_who_does_not_answer() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [well, hangs] = [207, 208].map(|host| mesh.ground().socket(host, 9003).unwrap());
    let documents = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  hosts: \
         [shop.test]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, targetPort: 9003}}]\n  endpoints: \
         [{{address: {}}}, {{address: {}}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: \
         {{name: shop, annotations: {{config.selvedge.io/load-balancer: PEAK_EWMA}}}}\nspec: {{host: shop.test}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop}}\nspec:\n  hosts: [shop.test]\n  \
         http: [{{timeout: 1s, retries: {{attempts: 0}}, route: [{{destination: {{host: shop.test}}}}]}}]\n",
        well.ip(),
        hangs.ip()
    );
    mesh.write("shop.yaml", &documents).unwrap();
    // Longer than what is expected of one that nothing is known of, and much shorter than the route's timeout.
    serve(TcpListener::bind(well).await.unwrap(), "well", Duration::from_millis(60));
    serve(TcpListener::bind(hangs).await.unwrap(), "hangs", Duration::from_secs(3600));
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();
    let status = async || {
        let answer = mesh.workload("caller").call(call::to("shop.test", "/").timeout(SOON)).await;
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    };
    poll(SOON, "one answers", async || match status().await? {
        StatusCode::OK => Ok(()),
        other => Err(other.to_string()),
    })
    .await;

    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(status().await != Ok(StatusCode::OK));
    }

    assert!(failed <= 2, "{failed} of 20 went to the one that hangs");
}

/// Answers every request on `listener` after this `delay`.
fn serve(listener: TcpListener, pod: &'static str, delay: Duration) {
    let body = format!("{{\"pod\":\"{pod}\"}}");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
    let answer: Arc<str> = format!("{head} {}\r\n\r\n{body}", body.len()).into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    tokio::time::sleep(delay).await;
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}
