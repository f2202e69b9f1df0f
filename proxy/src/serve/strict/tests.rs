use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::clients::Patience;

impl Abort for tokio::io::DuplexStream {
    fn abort(&self) {}
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(u64::MAX))
}

const LIMITS: HeadLimits = HeadLimits { bytes: 1000, count: 10 };
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const BOTH: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

/// What hyper sees of `sent`, which comes in pieces of `piece` bytes, and whether the rest was refused.
async fn seen(sent: &str, piece: usize) -> (String, bool) {
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    let (mut client, server) = duplex(64 * 1024);
    let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
    let mut seen = Vec::new();
    for piece in sent.as_bytes().chunks(piece) {
        client.write_all(piece).await.unwrap();
        // What is there now: a Strict that has nothing to hand on is pending.
        while let Some(Ok(1..)) = strict.read_buf(&mut seen).now_or_never() {}
    }
    let refused = matches!(strict.requests.stage, Stage::Refused);
    (String::from_utf8(seen).unwrap(), refused)
}

fn stand_in_after(served: &str) -> String {
    format!("{served}{}", String::from_utf8_lossy(STAND_IN))
}

#[tokio::test]
async fn what_is_beyond_doubt_passes_unchanged() {
    let sent = [GET, POST, CHUNKED, GET].concat();

    for piece in [1, 2, 3, 7, 50, 1000] {
        assert_eq!(seen(&sent, piece).await, (sent.clone(), false), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn nothing_passes_after_a_request_that_is_refused() {
    let sent = [POST, BOTH, GET].concat();

    for piece in [1, 7, 1000] {
        assert_eq!(seen(&sent, piece).await, (stand_in_after(POST), true), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn a_head_is_seen_whole_or_not_at_all() {
    assert_eq!(seen(&GET[..GET.len() - 1], 1).await, (String::new(), false));
}

#[tokio::test]
async fn after_an_upgrade_anything_passes() {
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    let (mut client, server) = duplex(1024);
    let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
    watch.become_tunnel();
    client.write_all(b"\x81\x05hello").await.unwrap();

    let mut seen = Vec::new();
    strict.read_buf(&mut seen).await.unwrap();

    assert_eq!(seen, b"\x81\x05hello");
}

#[tokio::test]
async fn what_was_refused_too_early_breaks_the_tunnel() {
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    let (mut client, server) = duplex(1024);
    let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
    client.write_all(format!("{GET}\x01\x05hell\n").as_bytes()).await.unwrap();
    let mut seen = Vec::with_capacity(1024);
    strict.read_buf(&mut seen).await.unwrap();
    assert_eq!(seen, GET.as_bytes());

    watch.become_tunnel();

    assert!(strict.read_buf(&mut seen).await.is_err());
    assert_eq!(seen, GET.as_bytes());
}

#[tokio::test]
async fn a_slow_head_is_refused_and_a_silent_client_is_gone() {
    let patience = Patience::new(Duration::from_secs(1), Duration::from_secs(2));
    for (sent, expected) in [("GET / HTTP/1.1\r\n", stand_in_after("")), ("", String::new())] {
        let watch = patience.watch();
        let (mut client, server) = duplex(1024);
        let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut seen = Vec::with_capacity(1024);
        assert!(strict.read_buf(&mut seen).now_or_never().is_none());

        (0..100).for_each(|_| patience.advance());

        strict.read_buf(&mut seen).now_or_never().unwrap().unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_chunk_without_its_end_breaks_the_connection() {
    let (mut client, server) = duplex(1024);
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    let mut strict = Strict::new(server, LIMITS, watch, &budget());
    client.write_all(CHUNKED.replace("abc\r\n0", "abcd\r\n0").as_bytes()).await.unwrap();

    let mut seen = Vec::new();
    let error = strict.read_to_end(&mut seen).await.unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(seen.ends_with(b"\r\n\r\n"), "the head, and nothing of the read that went wrong");
}

#[tokio::test]
async fn a_client_that_closes_while_it_waits_for_its_answer_has_left() {
    for asked in [GET, POST, CHUNKED] {
        let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
        let (mut client, server) = duplex(1024);
        let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
        client.write_all(asked.as_bytes()).await.unwrap();
        let mut seen = Vec::with_capacity(1024);
        strict.read_buf(&mut seen).await.unwrap();
        watch.awaited.begin(true);
        strict.flush().await.unwrap();

        client.shutdown().await.unwrap();

        let error = strict.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{asked}");
    }
}

#[tokio::test]
async fn a_client_that_closes_when_it_has_its_answer_has_only_closed() {
    let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
    let (mut client, server) = duplex(1024);
    let mut strict = Strict::new(server, LIMITS, Arc::clone(&watch), &budget());
    client.write_all(GET.as_bytes()).await.unwrap();
    let mut seen = Vec::with_capacity(1024);
    strict.read_buf(&mut seen).await.unwrap();
    watch.awaited.begin(true);
    watch.awaited.end();

    client.shutdown().await.unwrap();

    strict.flush().await.unwrap();
    assert_eq!(strict.read_buf(&mut seen).await.unwrap(), 0);
}

proptest! {
    #[test]
    fn it_does_not_matter_how_a_stream_is_cut(
        order in prop::collection::vec(prop::sample::select(vec![GET, POST, CHUNKED, BOTH]), 1..5),
        piece in 1usize..200,
    ) {
        let sent = order.concat();
        let served: String = order.iter().take_while(|&&request| request != BOTH).copied().collect();
        let refused = order.contains(&BOTH);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expected = if refused { stand_in_after(&served) } else { served };
        prop_assert_eq!(runtime.block_on(seen(&sent, piece)), (expected, refused));
    }
}
