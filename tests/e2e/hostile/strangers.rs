//! What a caller without a certificate of the mesh is told: the reason of a failure, or fixed words. Never the app's address,
//! a name, or what a library says.

use http::Version;
use selvedge_demo::{
    call,
    workload::{AppKind, Spec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Mesh, SOON};
use crate::SELVEDGE;

/// Whether `told` has an address of loopback, or words of hyper or the system.
fn tells_too_much(told: &str) -> bool {
    ["127.", "[::", "hyper", "user's body", "os error", "error from", "spiffe://"]
        .iter()
        .any(|word| told.contains(word))
}

/// The answer to `sent` on a connection of its own, whose end is closed after it.
async fn answer(mesh: &Mesh, sent: &str) -> String {
    let mut stream = TcpStream::connect(mesh.target().inbound).await.expect("the listener is there");
    stream.write_all(sent.as_bytes()).await.expect("it listens");
    stream.shutdown().await.expect("a socket");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    read.expect("it ends soon").ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_without_the_apps_address_or_a_librarys_words() {
    let mesh = Mesh::start(&[]).await;
    let chunked = |body: &str| {
        format!("POST /x HTTP/1.1\r\nHost: target:9080\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let mut answered = 0;
    for sent in [
        chunked("3\r\nabc\r\nZZ\r\n"),
        chunked("3\r\nabcd\r\n"),
        chunked("3\r\nabc\r\n"),
        chunked("0\r\nno trailer\r\n\r\n"),
        chunked("0\r\nx y: z\r\n\r\n"),
        "POST /x HTTP/1.1\r\nHost: target:9080\r\nContent-Length: 10\r\n\r\nabc".to_owned(),
        "GET /x HTTP/1.1\r\nHost: target:1\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nHost: target:4191\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let told = answer(&mesh, &sent).await;
        assert!(!tells_too_much(&told), "{sent:?}: {told}");
        answered += usize::from(told.contains("selvedge-error: "));
    }
    assert!(answered >= 4, "{answered} of them are answered at all");
}

#[tokio::test]
async fn that_the_app_cannot_be_reached_is_told_without_its_address() {
    let mut gone = Spec::server("gone", "gone", 9080);
    gone.app = AppKind::None;
    let mesh = selvedge_tests::Mesh::of(SELVEDGE, [Spec::client("client"), gone]).await;
    let inbound = mesh.workload("gone").inbound;

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer =
            call::send(inbound, call::to("gone:9080", "/").version(version).timeout(SOON)).await.unwrap();
        assert_eq!(answer.proxy_error(), Some("app-unreachable"), "{}", answer.summary());
        assert!(!tells_too_much(&answer.text()), "{}", answer.text());
    }
    let grpc =
        call::to("gone:9080", "/a/b").version(Version::HTTP_2).header("content-type", "application/grpc");
    let answer = call::send(inbound, grpc.timeout(SOON)).await.unwrap();
    assert_eq!(answer.headers["grpc-message"], "app-unreachable");
    // A workload of the mesh is told where it failed.
    let answer = mesh.workload("client").call(call::to("gone:9080", "/")).await.unwrap();
    assert!(
        answer.proxy_error().is_some_and(|told| told.len() > "app-unreachable: ".len()),
        "{}",
        answer.summary()
    );
}
