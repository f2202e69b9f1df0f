//! Endpoints by DNS name, which each sidecar resolves in its own network.

use std::{net::IpAddr, time::Duration};

use selvedge_demo::{apps::reviews, call, cluster::entry_file, workload::Spec};
use selvedge_tests::{
    Mesh, SOON,
    dns::{DnsServer, ips},
    poll,
};
use serde_json::Value;

use crate::SELVEDGE;

/// A sidecar that asks `dns`, and no hosts file.
fn asks(spec: Spec, dns: &DnsServer) -> Spec {
    spec.flag("--resolv-conf", &dns.resolv_conf().display().to_string()).flag("--hosts-file", "/dev/null")
}

/// The mesh of a caller and two servers of `reviews`, all by address still.
async fn mesh(dns: &DnsServer) -> Mesh {
    let specs = [
        asks(Spec::client("caller"), dns),
        Spec::server("reviews-a", "reviews", 9080),
        Spec::server("reviews-b", "reviews", 9080),
    ];
    Mesh::of(SELVEDGE, specs).await
}

/// Writes a workload's entry anew, with names in place of its addresses.
fn name_it(mesh: &Mesh, workload: &str, name: &str) {
    let ip = mesh.workload(workload).app.ip().to_string();
    mesh.edit(&entry_file(workload), |text| text.replace(&ip, name)).unwrap();
}

/// The endpoints that `caller` has of `reviews`.
async fn endpoints(mesh: &Mesh) -> Vec<Value> {
    let all = mesh.workload("caller").admin_json("/endpoints").await.unwrap();
    all.as_array().unwrap().clone()
}

/// Asks until the endpoints of the caller are as `wanted` says.
async fn until_endpoints(mesh: &Mesh, what: &str, wanted: impl Fn(&[Value]) -> bool) {
    poll(SOON, what, async || {
        // Nothing is resolved that nobody asks for.
        let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await;
        let summary = answer.map_or_else(|error| error.to_string(), |answer| answer.summary());
        let all = endpoints(mesh).await;
        if wanted(&all) { Ok(()) } else { Err(format!("{all:?}, {summary}")) }
    })
    .await;
}

fn has_name(endpoint: &Value, name: &str) -> bool {
    endpoint["name"] == name
}

#[tokio::test]
async fn a_workload_by_name_follows_its_name_and_keeps_its_identity() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let [a, b] = ips([mesh.workload("reviews-a").app, mesh.workload("reviews-b").app]);
    mesh.remove(&entry_file("reviews-b")).unwrap();
    dns.set("reviews-a.test", &[a]);
    name_it(&mesh, "reviews-a", "reviews-a.test");
    until_endpoints(&mesh, "reviews-a by name", |all| all.len() == 1 && has_name(&all[0], "reviews-a.test"))
        .await;
    let caller = mesh.workload("caller");
    let answer = caller.call(call::to("reviews:9080", "/")).await.unwrap();
    let answer: reviews::Answer = answer.json().unwrap();
    assert_eq!(answer.pod, "reviews-a");
    assert!(answer.client_identity.is_some_and(|identity| identity.contains("/sa/caller")));

    // It stops resolving: its last address stays, and that is told.
    dns.remove("reviews-a.test");
    until_endpoints(&mesh, "the failure is told", |all| {
        all.len() == 1 && all[0]["name_failing"].as_str().is_some_and(|why| why.contains("NXDOMAIN"))
    })
    .await;
    assert_eq!(caller.call(call::to("reviews:9080", "/")).await.unwrap().status, 200);
    assert_eq!(caller.metric("selvedge_dns_names_failing").await.unwrap(), Some(1.0));

    // It moves to another host, which has the same identity.
    dns.set("reviews-a.test", &[b]);
    until_endpoints(&mesh, "it has moved", |all| {
        all.len() == 1 && all[0]["address"] == format!("{b}:9080") && all[0]["name_failing"].is_null()
    })
    .await;
    let answer = caller.call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().pod, "reviews-b", "who is at that address");
    assert_eq!(caller.metric("selvedge_dns_names_failing").await.unwrap(), Some(0.0));

    // It moves to where somebody else is: refused.
    dns.set("reviews-a.test", &[caller.inbound.ip()]);
    poll(SOON, "somebody else's address is refused", async || {
        let answer = caller.call(call::to("reviews:9080", "/")).await.map_err(|error| error.to_string())?;
        let refused = answer.proxy_error().is_some_and(|reason| reason.starts_with("identity"));
        if refused { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

#[tokio::test]
async fn a_name_whose_endpoint_does_not_answer_is_looked_up_again_before_its_ttl_is_over() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    let [a] = ips([mesh.workload("reviews-a").app]);
    mesh.remove(&entry_file("reviews-b")).unwrap();
    let nobody = mesh.ground().address(200).into();
    dns.set_with_ttl("reviews-a.test", &[nobody], 3600);
    name_it(&mesh, "reviews-a", "reviews-a.test");
    until_endpoints(&mesh, "an address at which nobody is", |all| {
        all.len() == 1 && all[0]["address"] == format!("{nobody}:9080")
    })
    .await;
    dns.set_with_ttl("reviews-a.test", &[a], 3600);
    let caller = mesh.workload("caller");

    poll(SOON, "it is found where it is now", async || {
        let answer = caller.call(call::to("reviews:9080", "/")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint_and_ejections_stay_with_theirs() {
    let dns = DnsServer::start().await;
    let mut mesh = mesh(&dns).await;
    let [a, b] = ips([mesh.workload("reviews-a").app, mesh.workload("reviews-b").app]);
    let eject = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\nspec:\n  \
                 host: reviews\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 1, \
                 baseEjectionTime: 300s, maxEjectionPercent: 100}\n";
    mesh.write("eject.yaml", eject).unwrap();
    mesh.remove(&entry_file("reviews-b")).unwrap();
    dns.set_with_ttl("reviews.test", &[a, b], 1);
    name_it(&mesh, "reviews-a", "reviews.test");
    until_endpoints(&mesh, "two addresses", |all| {
        all.len() == 2 && all.iter().all(|one| has_name(one, "reviews.test"))
    })
    .await;

    mesh.kill_app("reviews-b").await.unwrap();
    let is_out = |all: &[Value], ip| {
        all.iter().any(|one| one["address"] == format!("{ip}:9080") && one["ejected"] == true)
    };
    until_endpoints(&mesh, "the dead one is ejected", |all| is_out(all, b)).await;
    dns.set_with_ttl("reviews.test", &[b, a, mesh.ground().address(200).into()], 1);
    until_endpoints(&mesh, "a third address", |all| all.len() == 3).await;

    assert!(is_out(&endpoints(&mesh).await, b), "its ejection survives");
}

#[tokio::test]
async fn a_name_may_have_more_addresses_than_fit_into_one_packet() {
    let dns = DnsServer::start_with_tcp().await;
    let mesh = mesh(&dns).await;
    let [a] = ips([mesh.workload("reviews-a").app]);
    mesh.remove(&entry_file("reviews-b")).unwrap();
    // Nobody is at the others.
    let others = (50..=250).map(|host| mesh.ground().address(host).into());
    let all: Vec<IpAddr> = others.chain([a]).collect();
    dns.set_with_ttl("reviews.test", &all, 300);
    name_it(&mesh, "reviews-a", "reviews.test");

    until_endpoints(&mesh, "all addresses are endpoints", |found| found.len() == all.len()).await;
}

#[tokio::test]
async fn a_name_that_never_resolved_is_named_and_holds_up_nobody_else() {
    let dns = DnsServer::start().await;
    let mesh = mesh(&dns).await;
    mesh.remove(&entry_file("reviews-b")).unwrap();
    name_it(&mesh, "reviews-a", "nobody.test");
    let caller = mesh.workload("caller");

    let refused_for = async |words: &str| {
        poll(SOON, words, async || {
            let answer = caller.call(call::to("reviews:9080", "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let told = answer.proxy_error().is_some_and(|reason| {
                reason.starts_with("no-endpoint") && reason.contains("nobody.test") && reason.contains(words)
            });
            if told && answer.status == 503 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    };
    refused_for("NXDOMAIN").await;
    dns.silence("nobody.test");
    refused_for("no answer from DNS").await;

    // An address that may be that workload's is not called in plaintext; so it is nobody's from here on.
    mesh.remove(&entry_file("reviews-a")).unwrap();

    // Who is silent about one name is not waited for by others.
    dns.silence("silent.test");
    let silent = caller.call(call::to("silent.test:9085", "/").timeout(Duration::from_secs(15)));
    let [a] = ips([mesh.workload("reviews-a").app]);
    let others = poll(SOON, "another name is found meanwhile", async || {
        dns.set("reviews-a.test", &[a]);
        let answer = caller.call(call::to("reviews-a.test:9080", "/")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    });
    let (silent, ()) = tokio::join!(silent, others);
    let silent = silent.unwrap();
    assert_eq!(silent.status, 503);
    let reason = silent.proxy_error().unwrap();
    assert!(reason.starts_with("connect-failure") && reason.contains("silent.test"), "{reason}");
}

#[tokio::test]
async fn a_sidecar_finds_its_control_plane_by_name() {
    let dns = DnsServer::start().await;
    let mut mesh = mesh(&dns).await;
    let control_plane = mesh.control_plane_address();
    dns.set("control-plane.test", &[control_plane.ip()]);

    let address = format!("control-plane.test:{}", control_plane.port());
    let resolv_conf = dns.resolv_conf().display().to_string();
    let flags = [("--control-plane", address.as_str()), ("--resolv-conf", &resolv_conf)];
    mesh.restart_sidecar("caller", &flags).await.unwrap();

    let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());

    // DNS that answers nothing is named, and what to look at.
    dns.silence("silent.test");
    let token = mesh.token("caller", "1h").await.unwrap();
    let (token, resolv_conf) = (format!("--token={token}"), format!("--resolv-conf={resolv_conf}"));
    let arguments = ["--workload=default/caller", "--control-plane=silent.test:8086", "--app=127.0.0.1:1"];
    let ports = ["--outbound=127.0.0.1:0", "--inbound=127.0.0.1:0", "--admin=127.0.0.1:0"];
    let arguments = ["proxy", "--exit-on-stdin-close", &token, &resolv_conf].into_iter().chain(arguments);
    let lost = mesh.processes().start("lost sidecar", arguments.chain(ports)).unwrap();
    poll(SOON, "the silence is told", async || {
        let log = lost.whole_log().map_err(|error| error.to_string())?;
        let told = ["\"silent.test\" gets no answer from DNS", "check --control-plane and DNS"];
        if told.iter().all(|words| log.contains(words)) { Ok(()) } else { Err(log) }
    })
    .await;
}
