//! Which endpoint gets a request: every balancer, through real sidecars.

mod backend_traffic;
mod locality;
mod schedulers;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::{
    HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use selvedge_demo::{
    call::{self, Answer, Call},
    workload::{AppKind, Spec, Workload},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;

use crate::{
    SELVEDGE,
    retries::server::{answer, serve},
};

/// Two callers and so many servers of `reviews:9080`.
fn specs(servers: usize) -> Vec<Spec> {
    let servers = (1..=servers).map(|n| Spec::server(&format!("reviews-{n}"), "reviews", 9080));
    ["caller", "other"].map(Spec::client).into_iter().chain(servers).collect()
}

/// A rule for `reviews` with this `trafficPolicy`.
fn rule(policy: &str) -> String {
    annotated("", policy)
}

fn annotated(annotations: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, annotations: \
         {{{annotations}}}}}\nspec: {{host: reviews, trafficPolicy: {policy}}}\n"
    )
}

async fn ask(caller: &Workload, call: Call) -> Answer {
    let answer = caller.call(call).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
    answer
}

fn pod_of(answer: &Answer) -> String {
    answer.json::<serde_json::Value>().unwrap()["pod"].as_str().unwrap().to_owned()
}

/// The server that answers.
async fn pod(caller: &Workload, call: Call) -> String {
    pod_of(&ask(caller, call).await)
}

/// The servers that answer so many calls.
async fn pods(caller: &Workload, count: usize, call: impl Fn() -> Call) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts.entry(pod(caller, call()).await).or_default() += 1;
    }
    counts
}

/// Waits until equal calls go to one server.
async fn sticks(caller: &Workload, call: impl Fn() -> Call) -> String {
    poll(SOON, "equal requests go to one server", async || {
        let pods = pods(caller, 16, &call).await;
        if pods.len() == 1 { Ok(pods.into_keys().next().unwrap()) } else { Err(format!("{pods:?}")) }
    })
    .await
}

/// Waits until a table of this `size` is in force.
async fn is_followed(caller: &Workload, size: &str) {
    poll(SOON, "the rule is followed", async || {
        // Nothing is asked for that nobody calls.
        ask(caller, of_user(0)).await;
        let config = caller.admin("/config").await.map_err(|error| error.to_string())?.text();
        if config.contains(&format!(":{size}")) { Ok(()) } else { Err(config) }
    })
    .await;
}

fn of_user(user: usize) -> Call {
    call::to("reviews:9080", "/").header("x-user", &format!("user-{user}"))
}

/// The server of each user.
async fn users(caller: &Workload) -> Vec<String> {
    let mut servers = Vec::new();
    for user in 0..12 {
        servers.push(pod(caller, of_user(user)).await);
    }
    servers
}

#[tokio::test]
async fn a_key_has_the_same_endpoint_at_every_sidecar_and_after_a_restart() {
    let mut mesh = Mesh::of(SELVEDGE, specs(3)).await;
    for (table, size) in [
        ("maglev: {tableSize: 10007}", "10007"),
        ("ringHash: {minimumRingSize: 2048}", "2048"),
        ("minimumRingSize: 1536", "1536"),
    ] {
        let policy = format!("{{loadBalancer: {{consistentHash: {{httpHeaderName: X-User, {table}}}}}}}");
        mesh.write("rule.yaml", &rule(&policy)).unwrap();
        for caller in ["caller", "other"] {
            is_followed(mesh.workload(caller), size).await;
        }
        let before = users(mesh.workload("caller")).await;

        assert_eq!(before, users(mesh.workload("other")).await, "{table}");
        assert!(before.iter().collect::<BTreeSet<_>>().len() > 1, "{before:?}");
        mesh.restart_sidecar("caller", &[]).await.unwrap();
        mesh.sidecar_ready("caller").await.unwrap();

        assert_eq!(before, users(mesh.workload("caller")).await, "{table}, after a restart");
        let without = pods(mesh.workload("caller"), 40, || call::to("reviews:9080", "/")).await;
        assert!(without.len() > 1, "without the header, any endpoint: {without:?}");
    }
}

#[tokio::test]
async fn a_client_without_the_cookie_is_given_one_that_leads_back() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let caller = mesh.workload("caller");
    let cookie =
        "{name: user, ttl: 60s, path: /, attributes: [{name: SameSite, value: Lax}, {name: HttpOnly}]}";
    mesh.write(
        "rule.yaml",
        &rule(&format!("{{loadBalancer: {{consistentHash: {{httpCookie: {cookie}}}}}}}")),
    )
    .unwrap();
    let given = async || {
        let answer = ask(caller, call::to("reviews:9080", "/")).await;
        let cookie = answer.headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        (pod_of(&answer), cookie)
    };
    poll(SOON, "a cookie is given", async || given().await.1.map(drop).ok_or("none")).await;

    let mut servers = BTreeSet::new();
    for _ in 0..12 {
        let (server, cookie) = given().await;
        let cookie = cookie.unwrap();
        let (value, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=60; Path=/; SameSite=Lax; HttpOnly");
        for caller in ["caller", "other"] {
            let again = || call::to("reviews:9080", "/").header("cookie", &format!("a=1; {value}"));
            sticks(mesh.workload(caller), again).await;
            let answer = ask(mesh.workload(caller), again()).await;
            assert_eq!((pod_of(&answer), answer.headers.get(SET_COOKIE)), (server.clone(), None));
        }
        servers.insert(server);
    }
    assert!(servers.len() > 1, "{servers:?}");
}

#[tokio::test]
async fn a_cookie_that_a_client_makes_up_aims_at_nothing_and_a_given_one_outlives_restarts() {
    let mut mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let cookie = "{name: user, ttl: 60s, path: /}";
    mesh.write(
        "rule.yaml",
        &rule(&format!("{{loadBalancer: {{consistentHash: {{httpCookie: {cookie}}}}}}}")),
    )
    .unwrap();
    let with = |value: &str| call::to("reviews:9080", "/").header("cookie", &format!("user={value}"));
    let given = |answer: &Answer| {
        let cookie = answer.headers.get(SET_COOKIE)?.to_str().unwrap().strip_prefix("user=")?;
        Some(cookie.split_once(';')?.0.to_owned())
    };
    let (first, value) = poll(SOON, "a cookie is given", async || {
        let answer = ask(mesh.workload("caller"), call::to("reviews:9080", "/")).await;
        given(&answer).map(|value| (pod_of(&answer), value)).ok_or("none")
    })
    .await;

    // Where another one leads, nobody knows before he tries: values that differ in a letter are spread.
    let mut servers = BTreeSet::new();
    for number in 0..40 {
        let made_up = format!("{}{number:02}", &value[..value.len() - 2]);
        let answer = ask(mesh.workload("caller"), with(&made_up)).await;
        assert!(made_up == value || given(&answer).is_none(), "it may be the app's own");
        servers.insert(pod_of(&answer));
    }
    assert!(servers.len() > 1, "{servers:?}");
    let nothing = ask(mesh.workload("caller"), with("")).await;
    assert!(given(&nothing).is_some(), "an empty one is none");
    // One that is given is found among those of other paths.
    let among = || call::to("reviews:9080", "/").header("cookie", &format!("user=1; user={value}"));
    let answer = ask(mesh.workload("caller"), among()).await;
    assert_eq!((pod_of(&answer), given(&answer)), (first.clone(), None));

    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.restart_sidecar("caller", &[]).await.unwrap();
    mesh.sidecar_ready("caller").await.unwrap();
    for caller in ["caller", "other"] {
        sticks(mesh.workload(caller), || with(&value)).await;
        let answer = ask(mesh.workload(caller), with(&value)).await;
        assert_eq!((pod_of(&answer), given(&answer)), (first.clone(), None), "{caller}");
    }
}

#[tokio::test]
async fn a_cookie_of_the_apps_own_is_not_replaced_and_keeps_requests_together() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("shop", 9080);
    mesh.start_control_plane().await.unwrap();
    let servers =
        (1..=3).map(|n| Spec { app: AppKind::None, ..Spec::server(&format!("shop-{n}"), "shop", 9080) });
    mesh.add(["caller", "other"].map(Spec::client).into_iter().chain(servers)).await.unwrap();
    for n in 1..=3 {
        // As apps do that keep a session: who has none is given one.
        let listener = TcpListener::bind(mesh.workload(&format!("shop-{n}")).app).await.unwrap();
        serve(listener, move |_, request| {
            let has_one = request.headers().get_all(COOKIE).iter().any(|cookie| cookie == "user=of-the-app");
            let mut answer = answer(200, n.to_string());
            if !has_one {
                answer.headers_mut().insert(SET_COOKIE, HeaderValue::from_static("user=of-the-app; Path=/"));
            }
            async move { answer }
        });
    }
    let policy = "{loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}}";
    mesh.write("rule.yaml", &rule(policy).replace("reviews", "shop")).unwrap();
    let set = |answer: &Answer| -> Vec<String> {
        let all = answer.headers.get_all(SET_COOKIE).iter();
        all.map(|cookie| cookie.to_str().unwrap().to_owned()).collect()
    };
    let with_it = || call::to("shop:9080", "/").header("cookie", "user=of-the-app");
    let server = poll(SOON, "equal requests go to one server", async || {
        let mut servers = BTreeSet::new();
        for caller in ["caller", "other"] {
            for _ in 0..16 {
                let answer = ask(mesh.workload(caller), with_it()).await;
                if !set(&answer).is_empty() {
                    return Err(format!("it is given another: {}", answer.summary()));
                }
                servers.insert(answer.text());
            }
        }
        if servers.len() == 1 { Ok(servers) } else { Err(format!("{servers:?}")) }
    })
    .await;

    for _ in 0..8 {
        let answer = ask(mesh.workload("caller"), call::to("shop:9080", "/")).await;
        assert_eq!(set(&answer), ["user=of-the-app; Path=/"], "the app's alone");
    }
    let again = ask(mesh.workload("caller"), with_it()).await;
    assert!(server.contains(&again.text()));
}

#[tokio::test]
async fn a_cookie_without_a_ttl_is_the_apps_own_and_one_of_zero_lasts_until_the_browser_is_closed() {
    let mesh = Mesh::of(SELVEDGE, specs(2)).await;
    let caller = mesh.workload("caller");
    let with =
        |cookie: &str| rule(&format!("{{loadBalancer: {{consistentHash: {{httpCookie: {cookie}}}}}}}"));

    mesh.write("rule.yaml", &with("{name: user, ttl: 0s}")).unwrap();
    let cookie = poll(SOON, "a cookie is given", async || {
        let answer = ask(caller, call::to("reviews:9080", "/")).await;
        answer.headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned()).ok_or("none")
    })
    .await;
    assert!(!cookie.contains(';'), "{cookie}");

    mesh.write("rule.yaml", &with("{name: user}")).unwrap();
    poll(SOON, "none is given", async || {
        let answer = ask(caller, call::to("reviews:9080", "/")).await;
        answer.headers.get(SET_COOKIE).map_or(Ok(()), |_| Err("one is"))
    })
    .await;
    sticks(caller, || call::to("reviews:9080", "/").header("cookie", "user=jason")).await;
}

#[tokio::test]
async fn requests_are_kept_together_by_a_query_parameter_or_by_their_client() {
    let mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let caller = mesh.workload("caller");
    let with = |key: &str| rule(&format!("{{loadBalancer: {{consistentHash: {{{key}}}}}}}"));

    mesh.write("rule.yaml", &with("httpQueryParameterName: q")).unwrap();
    let mut servers = BTreeSet::new();
    for value in 0..12 {
        let call = || call::to("reviews:9080", &format!("/?a=1&q={value}"));
        servers.insert(sticks(caller, call).await);
    }
    assert!(servers.len() > 1, "{servers:?}");

    mesh.write("rule.yaml", &with("useSourceIp: true")).unwrap();
    let n = std::cell::Cell::new(0);
    sticks(caller, || {
        n.set(n.get() + 1);
        call::to("reviews:9080", &format!("/?q={}", n.get()))
    })
    .await;
}

#[tokio::test]
async fn a_service_with_client_affinity_keeps_each_client_at_one_endpoint() {
    let mesh = Mesh::of(SELVEDGE, specs(4)).await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec:\n  selector: {app: reviews}\n  \
                   sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}\n  ports: \
                   [{name: http, port: 9080}]\n";
    mesh.write("service-reviews.yaml", service).unwrap();
    for caller in ["caller", "other"] {
        sticks(mesh.workload(caller), || call::to("reviews:9080", "/")).await;
    }

    // A rule that says something else goes before it.
    mesh.write("rule.yaml", &rule("{loadBalancer: {simple: ROUND_ROBIN}}")).unwrap();

    poll(SOON, "each in turn", async || {
        let pods = pods(mesh.workload("caller"), 8, || call::to("reviews:9080", "/")).await;
        if pods.len() == 4 { Ok(()) } else { Err(format!("{pods:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_an_app_that_fails_go_elsewhere_and_come_home() {
    let mut mesh = Mesh::of(SELVEDGE, specs(3)).await;
    let policy = "{loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 65537}}}, outlierDetection: \
                  {consecutive5xxErrors: 1, baseEjectionTime: 2s, maxEjectionPercent: 100}}";
    mesh.write("rule.yaml", &rule(policy)).unwrap();
    for user in 0..4 {
        sticks(mesh.workload("caller"), || of_user(user)).await;
    }
    let before = users(mesh.workload("caller")).await;
    let failing = before[0].clone();

    mesh.kill_app(&failing).await.unwrap();
    let during = users(mesh.workload("caller")).await;
    for (before, during) in before.iter().zip(&during) {
        assert!(*during != failing && (before == during || *before == failing), "{before} and then {during}");
    }
    mesh.start_app(&failing).unwrap();
    mesh.app_listens(&failing).await.unwrap();

    poll(Duration::from_secs(30), "they have come home", async || {
        let after = users(mesh.workload("caller")).await;
        if after == before { Ok(()) } else { Err(format!("{after:?}, not {before:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_new_endpoint_gets_little_while_it_warms_up() {
    let mut mesh = Mesh::of(SELVEDGE, specs(2)).await;
    let warmup = "warmup: {duration: 1h, minimumPercent: 1, aggression: 1}";
    for simple in ["LEAST_REQUEST", "ROUND_ROBIN"] {
        mesh.write("rule.yaml", &rule(&format!("{{loadBalancer: {{simple: {simple}, {warmup}}}}}"))).unwrap();
        poll(SOON, "the rule is in force", async || {
            // Only what is called is told.
            ask(mesh.workload("caller"), call::to("reviews:9080", "/")).await;
            let config = mesh.workload("caller").admin("/config").await.unwrap().text();
            let simple = if simple == "ROUND_ROBIN" { "RoundRobin" } else { "LeastRequest" };
            if config.contains("3600") && config.contains(simple) { Ok(()) } else { Err(config) }
        })
        .await;
        if simple == "LEAST_REQUEST" {
            mesh.add([Spec::server("reviews-new", "reviews", 9080)]).await.unwrap();
            poll(SOON, "the new one is known", async || {
                let endpoints = mesh.workload("caller").admin("/endpoints").await.unwrap().text();
                if endpoints.contains("reviews-new") { Ok(()) } else { Err(endpoints) }
            })
            .await;
        }

        let pods = pods(mesh.workload("caller"), 300, || call::to("reviews:9080", "/")).await;

        // About 1 % of a share beside two whole ones: 1.5 of 300.
        assert!(pods.get("reviews-new").copied().unwrap_or(0) <= 12, "{simple}: {pods:?}");
        assert!(pods["reviews-1"] > 75 && pods["reviews-2"] > 75, "{simple}: {pods:?}");
    }
}
