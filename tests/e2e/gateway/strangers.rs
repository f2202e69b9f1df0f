//! What a gateway tells its clients, who are strangers, of a failure: the reason. Who runs it finds the rest in its log, by the
//! request's id.

use http::Version;
use selvedge_demo::{
    call::{self, Answer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{SOON, poll};

use super::{Edge, HOST, route};

/// Whether `text` has an address, or the name of anything in the mesh.
fn tells_too_much(text: &str) -> bool {
    ["127.", "[::", "gone", "default", "HTTPRoute", "svc.cluster", "spiffe://", "os error", "certificate"]
        .iter()
        .any(|word| text.contains(word))
}

/// All that a client can read.
fn all_of(answer: &Answer) -> String {
    format!("{:?}\n{}", answer.headers, answer.text())
}

/// Waits until the log has a line with these words and the id that the answer has.
async fn is_in_the_log(edge: &Edge, answer: &Answer, words: &str) {
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    poll(SOON, words, async || {
        let log = edge.process.whole_log().map_err(|error| error.to_string())?;
        let line = log.lines().find(|line| line.contains(&id) && line.contains(words));
        line.map(drop).ok_or(format!("{id} is not beside {words:?} in: {log}"))
    })
    .await;
}

#[tokio::test]
async fn what_a_sidecar_behind_it_says_is_not_passed_on_and_is_in_its_log() {
    let mut gone = Spec::server("gone", "gone", 9080);
    gone.app = AppKind::None;
    let edge = Edge::of([gone], &route("HTTPRoute", "gone", 9080)).await;
    let first = poll(SOON, "the sidecar answers", async || {
        let answer = edge.call(call::to(HOST, "/")).await?;
        let is_the_sidecars = answer.proxy_error() == Some("app-unreachable");
        if is_the_sidecars { Ok(answer) } else { Err(answer.summary()) }
    })
    .await;
    is_in_the_log(&edge, &first, "app-unreachable: ").await;

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = edge.call(call::to(HOST, "/").version(version)).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().trim()), (503, "app-unreachable"));
        assert!(!tells_too_much(&all_of(&answer)), "{}", all_of(&answer));
    }
    let grpc = call::to(HOST, "/a/b").version(Version::HTTP_2).header("content-type", "application/grpc");
    let answer = edge.call(grpc).await.unwrap();
    assert_eq!(answer.headers["grpc-message"], "app-unreachable");
    assert!(!tells_too_much(&all_of(&answer)), "{}", all_of(&answer));
}

#[tokio::test]
async fn what_it_says_itself_names_no_document_and_no_address() {
    let documents = route("HTTPRoute", "gone", 9080)
        + "apiVersion: v1\nkind: Service\nmetadata: {name: gone}\nspec: {selector: {app: gone}, ports: [{port: 9080}]}\n---\n";
    let edge = Edge::of([Spec::reviews("reviews-1", "v1")], &documents).await;

    let answer = poll(SOON, "the route is known", async || {
        let answer = edge.call(call::to(HOST, "/")).await?;
        if answer.status == 503 { Ok(answer) } else { Err(answer.summary()) }
    })
    .await;

    assert_eq!(answer.proxy_error(), Some("no-endpoint"));
    assert!(!tells_too_much(&all_of(&answer)), "{}", all_of(&answer));
    is_in_the_log(&edge, &answer, "gone.default.svc.cluster.local").await;
}
