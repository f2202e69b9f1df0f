//! Pools against real servers on loopback.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_certs::tls::Live;
use selvedge_model::{ConnectionLimits, ConnectionPool, TrafficPolicy};
use tokio::{net::TcpListener, task::LocalSet};

use super::*;
use crate::{
    balance::{Circuit, Counts, Flight, Limit},
    body::Local,
    budget::Budget,
    io::Liveness,
    step::{Outbound, Side},
    telemetry::Metrics,
};

const TERMS: Terms<'static> = Terms::unlimited(Duration::from_secs(5));

fn pools() -> Pools {
    Pools::new(PoolSettings {
        live: Live::new(),
        carrier: Carrier::Http1,
        preserve_header_case: false,
        source: "default/test".into(),
        budget: Arc::new(Budget::new(u64::MAX)),
        metrics: Arc::new(Metrics::new(1)),
        liveness: Liveness::OFF,
        own: Arc::new(crate::settings::listeners()),
        instance: Instance::random(),
        max_connection_age: None,
    })
}

fn target(dial: SocketAddr) -> Arc<Target> {
    Arc::new(Target {
        slot: Slot::Endpoint(3),
        dial,
        port: dial.port(),
        identity: None,
        workload: None,
        permit: None,
        tls: crate::bind::ClientTls::ByIdentity,
        proxy_protocol: None,
        flight: Flight::default(),
        others: crate::bind::Others::default(),
    })
}

/// A client's connection. Never closed, so that a test need not keep it.
fn conn(version: HttpVersion) -> &'static Conn {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let arrival = crate::arrival::Arrival { peer, via: None, original: None, upstream: None };
    Box::leak(Box::new(Conn::new(arrival, version, Side::Outbound(Outbound::default()))))
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
                    let response = pools.send(&target, conn(version), request(path), &TERMS).await.unwrap();
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

            let first = pools.send(&target, conn(HttpVersion::Http1), request("/a"), &TERMS).await.unwrap();
            let second = pools.send(&target, conn(HttpVersion::Http1), request("/b"), &TERMS).await.unwrap();

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
            let send = |path| pools.send(&target, conn(HttpVersion::Http2), request(path), &TERMS);

            let (first, second, third) = tokio::join!(send("/a"), send("/b"), send("/c"));

            for (response, path) in [(first, "/a"), (second, "/b"), (third, "/c")] {
                assert_eq!(text(response.unwrap()).await, path);
            }
            assert_eq!(connections.load(Ordering::Relaxed), 1);
        })
        .await;
}

/// A policy that allows one connection.
fn one_connection(connection_pool: ConnectionPool) -> TrafficPolicy {
    let connections = ConnectionLimits { max_connections: Some(1), ..ConnectionLimits::NONE };
    TrafficPolicy { connections, connection_pool, ..TrafficPolicy::default() }
}

fn limited<'a>(policy: &'a TrafficPolicy, circuit: &'a Option<Circuit>) -> Terms<'a> {
    Terms { limits: &policy.connections, pool: &policy.connection_pool, circuit: circuit.as_ref(), ..TERMS }
}

/// An answer on `pools` that has not been read.
async fn unread(
    pools: &Pools,
    target: &Arc<Target>,
    version: HttpVersion,
    terms: &Terms<'_>,
) -> Box<http::Response<Body>> {
    pools.send(target, conn(version), request("/unread"), terms).await.unwrap()
}

#[tokio::test]
async fn whoever_finds_all_connections_in_use_waits_for_one_and_too_many_are_refused() {
    LocalSet::new()
        .run_until(async {
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let (address, connections) = server(version).await;
                let (pools, target) = (pools(), target(address));
                let pool = ConnectionPool {
                    max_pending_requests: Some(1),
                    max_concurrent_streams: Some(1),
                    ..ConnectionPool::UNLIMITED
                };
                let policy = one_connection(pool);
                let circuit = Circuit::new(&policy, &Arc::default());
                let terms = limited(&policy, &circuit);
                let first = unread(&pools, &target, version, &terms).await;

                let mut second = pin!(pools.send(&target, conn(version), request("/b"), &terms));
                assert!(second.as_mut().now_or_never().is_none());
                let third = pools.send(&target, conn(version), request("/c"), &terms).await.unwrap_err();

                assert_eq!(third.failure.reason, Reason::Overflow, "{version:?}");
                assert!(third.request.is_some() && !third.failure.undelivered);
                assert_eq!(text(first).await, "/unread");
                assert_eq!(text(second.await.unwrap()).await, "/b");
                assert_eq!(connections.load(Ordering::Relaxed), 1, "{version:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn who_gives_up_waiting_does_not_take_the_turn_of_the_next() {
    LocalSet::new()
        .run_until(async {
            let (address, _) = server(HttpVersion::Http1).await;
            let (pools, target) = (pools(), target(address));
            let policy = one_connection(ConnectionPool::UNLIMITED);
            let circuit = Circuit::new(&policy, &Arc::default());
            let terms = limited(&policy, &circuit);
            let version = HttpVersion::Http1;
            let first = unread(&pools, &target, version, &terms).await;
            let mut second = Box::pin(pools.send(&target, conn(version), request("/b"), &terms));
            let mut third = Box::pin(pools.send(&target, conn(version), request("/c"), &terms));
            assert!(second.as_mut().now_or_never().is_none());
            assert!(third.as_mut().now_or_never().is_none());

            // It is the second's turn now.
            drop(first);
            drop(second);

            assert_eq!(text(third.await.unwrap()).await, "/c");
        })
        .await;
}

#[tokio::test]
async fn a_connection_takes_no_more_requests_than_its_policy_says() {
    LocalSet::new()
        .run_until(async {
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let (address, connections) = server(version).await;
                let (pools, target) = (pools(), target(address));
                let pool =
                    ConnectionPool { max_requests_per_connection: Some(2), ..ConnectionPool::UNLIMITED };
                let terms = Terms { pool: &pool, ..TERMS };

                for _ in 0..6 {
                    text(unread(&pools, &target, version, &terms).await).await;
                }

                assert_eq!(connections.load(Ordering::Relaxed), 3, "{version:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn connections_that_a_new_limit_does_not_allow_are_closed_when_they_come_back() {
    LocalSet::new()
        .run_until(async {
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let (address, connections) = server(version).await;
                let (pools, target, counts) = (pools(), target(address), Arc::<Counts>::default());
                let pool = ConnectionPool { max_concurrent_streams: Some(1), ..ConnectionPool::UNLIMITED };
                let before = Terms { pool: &pool, counts: Some(&counts), ..TERMS };
                let mut answers = Vec::new();
                for _ in 0..4 {
                    answers.push(unread(&pools, &target, version, &before).await);
                }
                assert_eq!(counts.of(Limit::Connections), 4, "{version:?}: they count without a limit");

                let connection_limits =
                    ConnectionLimits { max_connections: Some(2), ..ConnectionLimits::NONE };
                let policy = TrafficPolicy {
                    connections: connection_limits,
                    connection_pool: pool.clone(),
                    ..TrafficPolicy::default()
                };
                let circuit = Circuit::new(&policy, &counts);
                let terms = Terms { counts: Some(&counts), ..limited(&policy, &circuit) };
                for answer in answers {
                    text(answer).await;
                }
                let ask = async || text(unread(&pools, &target, version, &terms).await).await;
                tokio::join!(ask(), ask(), ask(), ask());

                assert_eq!(counts.of(Limit::Connections), 2, "{version:?}");
                assert_eq!(connections.load(Ordering::Relaxed), 4, "{version:?}: two of them are used on");
            }
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_was_opened_on_other_terms_is_kept_on_those_of_the_request_that_comes() {
    LocalSet::new()
        .run_until(async {
            let one_request =
                ConnectionPool { max_requests_per_connection: Some(1), ..ConnectionPool::UNLIMITED };
            let never_idle =
                ConnectionPool { idle_timeout: Some(Duration::ZERO), ..ConnectionPool::UNLIMITED };
            let short =
                ConnectionLimits { max_duration: Some(Duration::from_millis(20)), ..ConnectionLimits::NONE };
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                for (what, terms) in [
                    ("requests", Terms { pool: &one_request, ..TERMS }),
                    ("idle", Terms { pool: &never_idle, ..TERMS }),
                    ("duration", Terms { limits: &short, ..TERMS }),
                ] {
                    if (what, version) == ("idle", HttpVersion::Http2) {
                        // Its idle connections wait for a sweep.
                        continue;
                    }
                    let (address, connections) = server(version).await;
                    let (pools, target) = (pools(), target(address));
                    for _ in 0..3 {
                        text(unread(&pools, &target, version, &TERMS).await).await;
                    }
                    assert_eq!(connections.load(Ordering::Relaxed), 1, "{version:?} {what}");

                    let until = Instant::now() + Duration::from_secs(10);
                    loop {
                        text(unread(&pools, &target, version, &terms).await).await;
                        // It may not be old enough yet.
                        let waits = what == "duration" && Instant::now() < until;
                        if !waits || connections.load(Ordering::Relaxed) > 1 {
                            break;
                        }
                    }

                    assert!(connections.load(Ordering::Relaxed) > 1, "{version:?} {what}");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_has_been_idle_for_too_long_is_closed() {
    LocalSet::new()
        .run_until(async {
            let idle = ConnectionPool { idle_timeout: Some(Duration::ZERO), ..ConnectionPool::UNLIMITED };
            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let (pools, target) = (pools(), target(listener.local_addr().unwrap()));
                let ended = tokio::task::spawn_local(async move {
                    let io = TokioIo::new(listener.accept().await.unwrap().0);
                    let service = service_fn(|_| async {
                        Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from("/unread"))))
                    });
                    drop(match version {
                        HttpVersion::Http1 => http1::Builder::new().serve_connection(io, service).await,
                        HttpVersion::Http2 => http2::Builder::new(Local).serve_connection(io, service).await,
                    });
                });
                let terms = Terms { pool: &idle, ..TERMS };
                assert_eq!(text(unread(&pools, &target, version, &terms).await).await, "/unread");

                pools.sweep(Instant::now());

                let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
                ended.unwrap_or_else(|_| panic!("{version:?}")).unwrap();
            }
        })
        .await;
}

#[tokio::test]
async fn http2_opens_another_connection_when_the_server_allows_no_more_requests_on_one() {
    LocalSet::new()
        .run_until(async {
            let (address, connections) = server(HttpVersion::Http2).await;
            let (pools, target) = (pools(), target(address));
            let pool = ConnectionPool { max_concurrent_streams: Some(2), ..ConnectionPool::UNLIMITED };
            let terms = Terms { pool: &pool, ..TERMS };

            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.push(unread(&pools, &target, HttpVersion::Http2, &terms).await);
            }
            assert_eq!(connections.load(Ordering::Relaxed), 3);

            for answer in answers {
                text(answer).await;
            }
            text(unread(&pools, &target, HttpVersion::Http2, &terms).await).await;
            assert_eq!(connections.load(Ordering::Relaxed), 3, "there is room again");
        })
        .await;
}

#[tokio::test]
async fn http11_travels_as_http2_if_the_policy_says_so() {
    LocalSet::new()
        .run_until(async {
            let (address, _) = server(HttpVersion::Http2).await;
            let (pools, target) = (pools(), target(address));
            let pool = ConnectionPool { http2_upgrade: Http2Upgrade::Always, ..ConnectionPool::UNLIMITED };
            let terms = Terms { pool: &pool, ..TERMS };

            let answer = unread(&pools, &target, HttpVersion::Http1, &terms).await;

            assert_eq!(text(answer).await, "/unread");
        })
        .await;
}

#[tokio::test]
async fn a_refused_connection_is_named_and_the_request_comes_back() {
    LocalSet::new()
        .run_until(async {
            let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

            for version in [HttpVersion::Http1, HttpVersion::Http2] {
                let error =
                    pools().send(&target(address), conn(version), request("/"), &TERMS).await.unwrap_err();

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
            let response = pools.send(&target, conn(HttpVersion::Http1), request("/"), &TERMS).await.unwrap();
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

    let sending = pools.send(&target, conn(HttpVersion::Http1), request("/"), &TERMS);

    assert!(size_of_val(&sending) <= 768, "{} bytes", size_of_val(&sending));
}
