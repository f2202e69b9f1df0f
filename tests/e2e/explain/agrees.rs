//! What `explain` says of a request is what a pair of sidecars does with it: random requests over random routes.

use std::{collections::BTreeMap, env, process::Command, thread};

use fastrand::Rng;
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use super::random::{self, Asked};
use crate::SELVEDGE;

/// How many requests.
const REQUESTS: usize = 200;

/// How many of them are explained at once.
pub(super) const AT_ONCE: usize = 8;

/// Names the seed of what is drawn, so that a failure can be had again.
pub(super) const SEED_VARIABLE: &str = "SELVEDGE_TEST_EXPLAIN_SEED";

/// The seed that is asked for, or any.
pub(super) fn seed() -> u64 {
    env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

#[tokio::test]
async fn explain_says_what_a_pair_of_sidecars_does() {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let documents: String = (0..random::SERVICES).map(|place| random::service(&mut rng, place)).collect();
    let mesh = mesh(&documents).await;

    let all: Vec<Asked> =
        (0..REQUESTS).map(|number| random::request(&mut rng, number % random::SERVICES)).collect();
    let mut ruled = 0;
    for some in all.chunks(AT_ONCE) {
        for (asked, said) in some.iter().zip(explain_all(&mesh, some)) {
            let done = send(&mesh, asked).await;
            ruled += usize::from(said["rule"]["written"].is_object());
            if let Err(why) = agree(&said, &done, &random::HEADERS) {
                panic!(
                    "{why}; {SEED_VARIABLE}={seed}\n{asked:?}\nsaid: {said:#}\ndone: {done:?}\n{documents}"
                );
            }
        }
    }
    assert!(ruled > REQUESTS / 3, "too few requests follow a route: {ruled}; {SEED_VARIABLE}={seed}");
}

async fn mesh(documents: &str) -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("common.yaml", random::COMMON).unwrap();
    mesh.write("routes.yaml", documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller"), Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")])
        .await
        .unwrap();
    for host in ["v1", "v2"] {
        poll(SOON, "each version answers", async || {
            let answer = mesh.workload("caller").call(call::to(host, "/")).await;
            answer.and_then(|answer| answer.json::<reviews::Answer>()).map(drop)
        })
        .await;
    }
    mesh
}

/// What `explain` says of each of `asked`.
fn explain_all(mesh: &Mesh, asked: &[Asked]) -> Vec<Value> {
    thread::scope(|scope| {
        let threads: Vec<_> = asked.iter().map(|asked| scope.spawn(|| explain(mesh, asked))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it has explained")).collect()
    })
}

/// What `explain` says of `asked`.
fn explain(mesh: &Mesh, asked: &Asked) -> Value {
    let mut command = Command::new(SELVEDGE);
    command.args(["explain", "request", "-o", "json", "--from", "default/caller", "--config-dir"]);
    command.arg(mesh.config_dir());
    match asked.grpc {
        Some(call) => command.args(["--to", &format!("http://{}", asked.host), "--grpc", call]),
        None => {
            let to = format!("http://{}{}", asked.host, asked.path);
            command.args(["--to", &to, "-X", asked.method.as_str()])
        }
    };
    for (name, value) in &asked.headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    let output = command.output().expect("the command runs");
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {asked:?}: {output:?}"));
    let status = if said["sent"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(status), "{said:#}");
    said
}

async fn send(mesh: &Mesh, asked: &Asked) -> Answer {
    let mut call = call::to(&asked.host, &asked.path).method(asked.method.clone()).version(asked.version);
    for (name, value) in &asked.headers {
        call = call.header(name, value);
    }
    if asked.grpc.is_some() {
        call = call.header("content-type", "application/grpc");
    }
    mesh.workload("caller").call(call).await.unwrap_or_else(|error| panic!("{error}: {asked:?}"))
}

/// Whether what is `done` is one of those things that are `said`; the app has seen these `headers` as it is said.
pub(super) fn agree(said: &Value, done: &Answer, headers: &[&str]) -> Result<(), String> {
    let mut outcomes = Vec::new();
    let backends = said["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    if backends.is_empty() {
        outcomes.push(answered(&said["answer"], done));
    }
    for backend in backends {
        if backend["endpoints"].as_array().is_none_or(Vec::is_empty) {
            outcomes.push(answered(&backend["answer"], done));
        }
        for endpoint in backend["endpoints"].as_array().into_iter().flatten() {
            outcomes.push(match endpoint.get("refused") {
                Some(refused) => answered(refused, done),
                None => served(backend, endpoint, done, headers),
            });
        }
    }
    if outcomes.iter().any(Result::is_ok) {
        return Ok(());
    }
    let all: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    Err(format!("none of {} outcomes: {}", all.len(), all.join(" | ")))
}

/// Whether a sidecar has answered what is `said`.
fn answered(said: &Value, done: &Answer) -> Result<(), String> {
    let header = |name: &str| done.headers.get(name).and_then(|value| value.to_str().ok());
    let is_grpc = done.status == 200 && header("grpc-status").is_some();
    let expected = if is_grpc { 200 } else { said["status"].as_u64().unwrap_or_default() };
    same("status", expected, u64::from(done.status.as_u16()))?;
    if is_grpc {
        let status = header("grpc-status").and_then(|status| status.parse().ok());
        same("grpc-status", said["grpc_status"].as_u64(), status)?;
    }
    let word = done.proxy_error().map(|text| text.split(':').next().unwrap_or_default());
    same("selvedge-error", said["error"].as_str(), word)?;
    same("location", said["location"].as_str(), header("location"))
}

/// Whether the app at `endpoint` has seen the request as it is said of its `backend`.
fn served(backend: &Value, endpoint: &Value, done: &Answer, headers: &[&str]) -> Result<(), String> {
    same("status", 200, done.status.as_u16())?;
    let seen: reviews::Answer = done.json().map_err(|error| format!("the app did not answer: {error}"))?;
    let request = &backend["request"];
    same("workload", endpoint["workload"].as_str(), Some(&*format!("default/{}", seen.pod)))?;
    same("method", request["method"].as_str(), Some(&*seen.method))?;
    same("path", request["path"].as_str(), Some(&*seen.path))?;
    if let Some(host) = seen.headers.get("host") {
        same("host", request["authority"].as_str(), Some(host))?;
    }
    let pairs = request["headers"].as_array().into_iter().flatten();
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    for pair in pairs {
        let (name, value) = (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default());
        let all = said.entry(name).or_default();
        *all = if all.is_empty() { value.to_owned() } else { format!("{all},{value}") };
    }
    for name in headers.iter().copied() {
        same(name, said.get(name).map(String::as_str), seen.headers.get(name).map(String::as_str))?;
    }
    Ok(())
}

fn same<T: Copy + PartialEq + std::fmt::Debug>(what: &str, said: T, done: T) -> Result<(), String> {
    if said == done { Ok(()) } else { Err(format!("{what}: said {said:?}, done {done:?}")) }
}
