//! WebSocket: a connection that stops being HTTP when a request on it is answered with 101 (RFC 6455).
//!
//! Such a request takes the usual path, with policy, routing and retries. At every hop it has an HTTP/1.1 connection of
//! its own, whatever carries other requests between sidecars. HTTP/2 would save one TLS handshake, and pay for it with
//! its framing of every byte; a WebSocket lives long enough for the handshake not to matter. A client that asks over
//! HTTP/2 (extended CONNECT, RFC 8441) is understood, and its request goes on as HTTP/1.1, which is what apps speak.
//!
//! Only `websocket` is accepted. A request for anything else, such as `h2c`, is served as the HTTP/1.1 that it also is:
//! RFC 9110, section 7.8, lets a server ignore `Upgrade`. HTTP/2 in plaintext is served to clients that begin with it.
//!
//! A tunnel that CONNECT has opened (`route::tunnel`) goes on from here in the same way, as opaque TCP.

use std::{pin::pin, rc::Rc, time::Instant};

use http::{
    HeaderValue, Method, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use http_body::Body as HttpBody;
use hyper::{
    body::Incoming,
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::{
    authenticate::check,
    authorize::{forbidden, refusal, refusal_of_request},
    bind::withdrawn,
    body::Body,
    edge,
    error::{Failure, Reason},
    fields::WebSocket,
    io::{Abort, Duplex},
    normalize::settle,
    opaque::{
        copy::{Meter, copy},
        session::over,
    },
    respond,
    step::{Conn, HttpVersion, Switched, Tunnel},
    telemetry::{Passed, TcpSeries},
    time::when_woken,
    trust::lost,
    worker::Worker,
};

/// A request for a WebSocket or a tunnel, until it is answered.
#[derive(Debug)]
pub struct UpgradeRequest {
    client: OnUpgrade,
    conn: Rc<Conn>,
    way: Way,
    /// On the way in, the request without its body, so that policies can be asked about it again.
    head: Option<Box<http::Request<()>>>,
}

/// How a client asks for what is HTTP no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// For a WebSocket, by `Upgrade`.
    Upgrade,
    /// For a WebSocket, by extended CONNECT.
    Extended,
    /// For a tunnel, by CONNECT.
    Connect,
}

impl UpgradeRequest {
    /// What `request` asks for; `None`: neither for a WebSocket nor for a tunnel.
    pub fn by(request: &mut http::Request<Incoming>, conn: &Rc<Conn>) -> Option<Box<Self>> {
        // hyper puts it there for an Upgrade header or CONNECT: nothing is looked up for usual requests.
        let client = request.extensions_mut().remove::<OnUpgrade>()?;
        let way = if extended(request) {
            Way::Extended
        } else if request.method() == Method::CONNECT {
            Way::Connect
        } else {
            Way::Upgrade
        };
        let asked = request.method() == Method::GET
            && request.body().is_end_stream()
            && WebSocket::is_named_in(request.headers());
        if !asked && way == Way::Upgrade {
            return None;
        }
        let head = conn.entry().map(|_| Box::new(head_of(request)));
        Some(Box::new(Self { client, conn: Rc::clone(conn), way, head }))
    }

    /// Whether it is a WebSocket that is asked for.
    pub fn is_for_web_socket(&self) -> bool {
        self.way != Way::Connect
    }

    /// If the answer is 101, or opens a tunnel, leaves that for the connection, or the stream, to go on as. Whether it
    /// is the connection.
    pub fn answered(self, response: &mut http::Response<Body>, worker: &Rc<Worker>) -> bool {
        let conn = Rc::clone(&self.conn);
        match self.way {
            Way::Connect => self.connected(response, worker),
            Way::Upgrade | Way::Extended => self.switched(response, worker),
        }
        conn.tunnel.borrow().is_some()
    }

    /// If a way to the endpoint was opened, goes on with that.
    fn connected(self, response: &mut http::Response<Body>, worker: &Rc<Worker>) {
        let end = response.body_mut().end();
        let Some(opened) = end.tunnel.take() else { return };
        // The request is over; what goes on is a connection, and counted as one. Its line waits until that is over.
        let mut record = end.record.take_if(|record| record.is_shown()).map(Box::new);
        if let Some(record) = &mut record {
            record.count(Instant::now());
        }
        end.finish(true);
        let tunnel = Box::new(Tunnel::Connect { client: self.client, opened, record });
        match self.conn.version {
            HttpVersion::Http1 => *self.conn.tunnel.borrow_mut() = Some(tunnel),
            HttpVersion::Http2 => go_on(tunnel, Rc::clone(worker)),
        }
    }

    fn switched(self, response: &mut http::Response<Body>, worker: &Rc<Worker>) {
        let extended = self.way == Way::Extended;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let server = hyper::upgrade::on(&mut *response);
            // The answer is over when the tunnel is: until then it counts as in flight.
            let end = response.body_mut().take_end();
            let head = self.head.and_then(|head| normal(head, &self.conn));
            let web_socket = Switched { client: self.client, server, end, conn: Rc::clone(&self.conn), head };
            let tunnel = Box::new(Tunnel::WebSocket(web_socket));
            if extended {
                *response.status_mut() = StatusCode::OK;
                for header in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
                    response.headers_mut().remove(header);
                }
                go_on(tunnel, Rc::clone(worker));
            } else {
                *self.conn.tunnel.borrow_mut() = Some(tunnel);
            }
        } else if extended && response.status().is_success() {
            // To HTTP/2 it would say that there is a tunnel.
            let what =
                format!("the app answered {} and did not accept the WebSocket", response.status().as_u16());
            *response = respond::answer(&Failure::new(Reason::Protocol, what), false);
        }
    }
}

fn head_of<B>(request: &http::Request<B>) -> http::Request<()> {
    let mut head = http::Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    head.headers_mut().clone_from(request.headers());
    head
}

/// `head` as policies saw it the first time.
fn normal(mut head: Box<http::Request<()>>, conn: &Conn) -> Option<Box<http::Request<()>>> {
    // It has been settled before, and nothing was wrong with it.
    settle(&mut head, conn.identity().is_some(), false).ok()?;
    edge::settle(&mut head, conn);
    Some(head)
}

/// Makes an extended CONNECT for a WebSocket the request of HTTP/1.1 that it stands for (RFC 8441,
/// section 5). Whether `request` is one.
fn extended(request: &mut http::Request<Incoming>) -> bool {
    let named =
        request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    if named {
        request.extensions_mut().remove::<Protocol>();
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_KEY, nonce());
        headers.entry(SEC_WEBSOCKET_VERSION).or_insert(const { HeaderValue::from_static("13") });
    }
    named
}

/// Sixteen random bytes in Base64 (RFC 6455, section 4.1). They only prove that a server understood.
fn nonce() -> HeaderValue {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; 24];
    for place in &mut text[..21] {
        *place = ALPHABET[fastrand::usize(..64)];
    }
    // Two bits are left for the last one.
    text[21] = ALPHABET[fastrand::usize(..4) * 16];
    HeaderValue::from_bytes(&text).expect("Base64 is visible ASCII")
}

/// Carries the tunnel of a stream. It ends with the stream, and that at the latest with its connection,
/// which knows when to end.
fn go_on(tunnel: Box<Tunnel>, worker: Rc<Worker>) {
    tokio::task::spawn_local(async move {
        let bytes_of = |upgraded| -> Box<dyn Duplex> { Box::new(TokioIo::new(upgraded)) };
        carry(tunnel, &worker, std::future::pending(), bytes_of).await;
    });
}

/// Carries `tunnel` to its end. A WebSocket also ends when `until` completes; opaque TCP knows by itself when it must.
/// `bytes_of` is what carries the client's end.
pub async fn carry(
    tunnel: Box<Tunnel>,
    worker: &Rc<Worker>,
    until: impl Future<Output = Failure>,
    bytes_of: impl FnOnce(Upgraded) -> Box<dyn Duplex>,
) {
    match *tunnel {
        Tunnel::WebSocket(switched) => carry_web_socket(switched, worker, until).await,
        Tunnel::Connect { client, opened, mut record } => {
            let passed = match client.await {
                Ok(client) => opened.carry(bytes_of(client), record.is_some()).await,
                Err(error) => {
                    tracing::debug!(%error, "the connection ended before it became a tunnel");
                    Some(Passed { reason: Some(Reason::Canceled), ..Passed::default() })
                }
            };
            if let (Some(record), Some(passed)) = (&mut record, passed) {
                record.passed(&passed);
            }
            if let Some(record) = record {
                record.finish(true, Instant::now());
            }
        }
    }
}

/// Takes note that `tunnel` is never carried: its connection was ended for this `reason` before its client had all of the answer.
pub fn given_up(tunnel: Tunnel, reason: Reason) {
    match tunnel {
        Tunnel::WebSocket(Switched { mut end, .. }) => {
            if let Some(record) = &mut end.record {
                record.broken_off(reason);
            }
            end.finish(false);
        }
        Tunnel::Connect { record, .. } => {
            if let Some(mut record) = record {
                record.passed(&Passed { reason: Some(reason), ..Passed::default() });
                record.finish(true, Instant::now());
            }
        }
    }
}

/// Does nothing: HTTP/2 cannot say that a stream broke off after it has become a tunnel. It just ends.
impl Abort for TokioIo<Upgraded> {
    fn abort(&self) {}
}

/// Copies bytes both ways until both have ended, or `until` completes, or a policy forbids its client, or
/// it has been silent for too long. An end of one direction is passed on, and the other goes on.
async fn carry_web_socket(switched: Switched, worker: &Worker, until: impl Future<Output = Failure>) {
    let Switched { client, server, mut end, conn, head } = switched;
    let (began, standing, permit) = (Instant::now(), end.standing.take(), end.permit.take());
    let series = end.record.as_ref().map(|record| record.websockets(&worker.metrics));
    if let Some(record) = &mut end.record {
        record.lasts();
    }
    let until = async {
        tokio::select! {
            failure = until => failure,
            failure = disallowed(worker, &conn, head.as_deref()) => failure,
            failure = lost(standing.as_deref()) => failure,
            failure = withdrawn(permit.as_deref()) => failure,
        }
    };
    let (carried, bytes) = carried(worker, client, server, series.as_deref(), until).await;
    let (peer, identity, age) = (conn.peer, conn.identity(), began.elapsed());
    let identity = identity.map(tracing::field::display);
    match &carried {
        Ok(()) => {}
        Err(Ended { by_us: true, failure }) => {
            worker.metrics.connection_cut(conn.direction(), failure.reason);
            tracing::info!(%peer, identity, ?age, %failure, "ended a WebSocket in progress");
        }
        Err(Ended { failure, .. }) => tracing::debug!(%peer, identity, %failure, "WebSocket ended"),
    }
    if let Some(record) = &mut end.record {
        let reason = carried.as_ref().err().map(|ended| ended.failure.reason);
        let [received, sent] = bytes;
        record.passed(&Passed { reason, received, sent, ..Passed::default() });
    }
    end.finish(carried.is_ok());
}

/// Completes when a policy no longer lets its client, or what it asked for, in. Our own app may always go out.
async fn disallowed(worker: &Worker, conn: &Conn, head: Option<&http::Request<()>>) -> Failure {
    match conn.guarded() {
        Some(_) => {
            let refused = |worker: &Worker| match head {
                Some(head) => {
                    let mut head = head.clone();
                    let token = check(worker, conn, &mut head).err();
                    token.or_else(|| refusal_of_request(worker, &conn.incoming(), &head))
                }
                None => refusal(worker, &conn.incoming()),
            };
            forbidden(worker, refused).await
        }
        None => std::future::pending().await,
    }
}

/// How a WebSocket ended that did not come to its own end.
struct Ended {
    /// Whether it was this proxy that ended it.
    by_us: bool,
    failure: Failure,
}

async fn carried(
    worker: &Worker,
    client: OnUpgrade,
    server: OnUpgrade,
    series: Option<&TcpSeries>,
    until: impl Future<Output = Failure>,
) -> (Result<(), Ended>, [u64; 2]) {
    let mut until = pin!(until);
    let broken = |what: String| Ended { by_us: false, failure: Failure::new(Reason::Reset, what) };
    let cut = |failure| Ended { by_us: true, failure };
    let switched = async { tokio::try_join!(client, server) };
    let (client, server) = tokio::select! {
        switched = switched => match switched {
            Ok(switched) => switched,
            Err(error) => {
                let what = format!("the connection ended before it became a WebSocket: {error}");
                return (Err(broken(what)), [0; 2]);
            }
        },
        failure = until.as_mut() => return (Err(cut(failure)), [0; 2]),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    let index = worker.index;
    let (received, sent) = (
        Meter::new(series.and_then(|series| series.received(index))),
        Meter::new(series.and_then(|series| series.sent(index))),
    );
    if let Some(series) = series {
        series.opened(index);
    }
    let ended = tokio::select! {
        biased;
        ended = copy(&mut client, &mut server, &received, &sent) => ended.map_err(|end| {
            let what = format!("the {} broke off: {}", end.side, end.error);
            Ended { by_us: false, failure: Failure::new(end.side.leaving(), what) }
        }),
        failure = when_woken(over(worker.settings.websocket, [&received, &sent], until)) => Err(cut(failure)),
    };
    if let Some(series) = series {
        series.closed(index, ended.as_ref().err().map(|ended| ended.failure.reason));
    }
    (ended, [&received, &sent].map(Meter::total))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        arrival::Arrival,
        step::{Outbound, Side},
    };

    #[test]
    fn what_is_never_carried_does_not_keep_its_connection() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
        let arrival = Arrival { peer, via: None, original: None, upstream: None };
        let conn = Rc::new(Conn::new(arrival, HttpVersion::Http1, Side::Outbound(Outbound::default())));
        let [client, server] = [(); 2].map(|()| hyper::upgrade::on(http::Request::new(())));
        let switched = Switched { client, server, end: Box::default(), conn: Rc::clone(&conn), head: None };
        *conn.tunnel.borrow_mut() = Some(Box::new(Tunnel::WebSocket(switched)));

        given_up(*conn.tunnel.take().expect("it has one"), Reason::Draining);

        assert_eq!(Rc::strong_count(&conn), 1);
    }

    #[test]
    fn a_nonce_is_sixteen_bytes_in_base64() {
        let (first, second) = (nonce(), nonce());

        assert_ne!(first, second);
        let text = first.to_str().unwrap();
        assert_eq!((text.len(), &text[22..]), (24, "=="));
        assert!("AQgw".contains(&text[21..22]), "the bits after the last byte are 0: {text}");
    }
}
