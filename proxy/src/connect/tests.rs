//! Pools against real servers on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_certs::tls::Live;
use tokio::{net::TcpListener, task::LocalSet};

use super::*;
use crate::body::Local;

const LIMIT: Duration = Duration::from_secs(5);

fn pools() -> Pools {
    Pools::new(Settings {
        live: Live::new(),
        carrier: Carrier::Http1,
        source: "default/test".into(),
        metrics: Arc::new(Metrics::new(1)),
    })
}

fn target(dial: SocketAddr) -> Arc<Target> {
    Arc::new(Target {
        slot: Slot::Endpoint(3),
        dial,
        port: dial.port(),
        identity: None,
        tls: crate::bind::ClientTls::ByIdentity,
        in_flight: AtomicU32::new(0),
    })
}

fn request(path: &str) -> Box<http::Request<Body>> {
    Box::new(http::Request::builder().uri(path).header("host", "app").body(Body::default()).unwrap())
}

async fn text(response: Box<http::Response<Body>>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A server that answers each request with its path, and counts its connections.
async fn server(version: HttpVersion) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request: http::Request<Incoming>| async move {
                let path = request.uri().path().to_owned();
                Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(path))))
            });
            let io = TokioIo::new(socket);
            tokio::task::spawn_local(async move {
                match version {
                    HttpVersion::Http1 => http1::Builder::new().serve_connection(io, service).await,
                    HttpVersion::Http2 => {
                        let mut builder = http2::Builder::new(Local);
                        builder.timer(TokioTimer::new()).serve_connection(io, service).await
                    }
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_connection_is_used_again_when_its_answer_has_been_read() {
    LocalSet::new()
        .run_until(async {
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let (address, connections) = server(version).await;
                let (pools, target) = (pools(), target(address));

                for path in ["/a", "/b", "/c"] {
                    let response = pools.send(&target, version, request(path), LIMIT).await.unwrap();
                    assert_eq!(text(response).await, path);
                }

                assert_eq!(connections.load(Ordering::Relaxed), 1, "{version:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn http1_opens_one_connection_for_each_answer_under_way() {
    LocalSet::new()
        .run_until(async {
            let (address, connections) = server(HttpVersion::Http1).await;
            let (pools, target) = (pools(), target(address));

            let first = pools.send(&target, HttpVersion::Http1, request("/a"), LIMIT).await.unwrap();
            let second = pools.send(&target, HttpVersion::Http1, request("/b"), LIMIT).await.unwrap();

            assert_eq!(connections.load(Ordering::Relaxed), 2);
            assert_eq!((text(first).await, text(second).await), ("/a".into(), "/b".into()));
        })
        .await;
}

#[tokio::test]
async fn http2_requests_that_come_together_share_one_connection() {
    LocalSet::new()
        .run_until(async {
            let (address, connections) = server(HttpVersion::Http2).await;
            let (pools, target) = (pools(), target(address));
            let send = |path| pools.send(&target, HttpVersion::Http2, request(path), LIMIT);

            let (first, second, third) = tokio::join!(send("/a"), send("/b"), send("/c"));

            for (response, path) in [(first, "/a"), (second, "/b"), (third, "/c")] {
                assert_eq!(text(response.unwrap()).await, path);
            }
            assert_eq!(connections.load(Ordering::Relaxed), 1);
        })
        .await;
}

#[tokio::test]
async fn a_refused_connection_is_named_and_the_request_comes_back() {
    LocalSet::new()
        .run_until(async {
            let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let error = pools().send(&target(address), version, request("/"), LIMIT).await.unwrap_err();

                assert_eq!(error.failure.reason, Reason::ConnectFailure);
                assert!(error.failure.undelivered && error.request.is_some());
            }
        })
        .await;
}

#[tokio::test]
async fn a_target_that_no_table_names_is_forgotten() {
    LocalSet::new()
        .run_until(async {
            let (address, _) = server(HttpVersion::Http1).await;
            let (pools, target) = (pools(), target(address));
            let response = pools.send(&target, HttpVersion::Http1, request("/"), LIMIT).await.unwrap();
            text(response).await;

            pools.sweep(Instant::now());
            assert!(pools.endpoints.borrow()[3].is_some());
            drop(target);
            pools.sweep(Instant::now());

            assert!(pools.endpoints.borrow()[3].is_none());
        })
        .await;
}

/// A request's future is moved as it is built and boxed; what is seldom needed must not be in it.
#[tokio::test]
async fn the_future_of_a_request_stays_small() {
    let pools = pools();
    let target = target("127.0.0.1:1".parse().unwrap());

    let sending = pools.send(&target, HttpVersion::Http1, request("/"), LIMIT);

    assert!(size_of_val(&sending) <= 768, "{} bytes", size_of_val(&sending));
}
