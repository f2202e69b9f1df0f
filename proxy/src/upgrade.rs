//! WebSocket: a connection that stops being HTTP when a request on it is answered with 101 (RFC 6455).
//!
//! Such a request takes the usual path, with policy, routing and retries, but at every hop on an HTTP/1.1
//! connection that is then its own, whatever carries other requests between sidecars. Extended CONNECT
//! (RFC 8441) would save one TLS handshake, and pay for it with HTTP/2's framing of every byte and with a
//! second way to do everything; a WebSocket lives long enough for the handshake not to matter.
//!
//! Only `websocket` is taken up. A request that asks for anything else, `h2c` above all, is served as the
//! HTTP/1.1 that it also is: RFC 9110, section 7.8, lets a server ignore `Upgrade`, and a client must
//! expect that. HTTP/2 in plaintext is served to clients that begin with it.

use std::rc::Rc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use http_body::Body as HttpBody;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::{
    body::{Body, End},
    step::Conn,
};

/// Bytes that each direction of a tunnel may have on their way.
const BUFFER: usize = 16 << 10;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The mark, among a request's extensions, of one that asks for a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct WebSocket;

impl WebSocket {
    /// Whether `request` asks for a WebSocket. Costs nothing where there are no extensions, as usual.
    pub fn is_asked_by<B>(request: &http::Request<B>) -> bool {
        request.extensions().get::<Self>().is_some()
    }

    /// Says in a message's headers what the connection is to become, or has become.
    pub fn announce(headers: &mut HeaderMap) {
        headers.insert(CONNECTION, const { HeaderValue::from_static("Upgrade") });
        headers.insert(UPGRADE, WEBSOCKET);
    }

    /// Whether a message with these headers is about a WebSocket.
    pub fn is_named_in(headers: &HeaderMap) -> bool {
        lists(headers, CONNECTION, "upgrade") && lists(headers, UPGRADE, "websocket")
    }
}

/// Whether one of the comma-separated values of `header` is `token`.
fn lists(headers: &HeaderMap, header: HeaderName, token: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

/// A request for a WebSocket, until it is answered.
#[derive(Debug)]
pub struct Asked {
    near: OnUpgrade,
    conn: Rc<Conn>,
}

impl Asked {
    /// Marks `request` if it asks for a WebSocket.
    pub fn by(request: &mut http::Request<Incoming>, conn: &Rc<Conn>) -> Option<Box<Self>> {
        // hyper puts it there if there is an Upgrade header: nothing is looked up for usual requests.
        let near = request.extensions_mut().remove::<OnUpgrade>()?;
        let asked = request.method() == Method::GET
            && request.body().is_end_stream()
            && WebSocket::is_named_in(request.headers());
        asked.then(|| {
            request.extensions_mut().insert(WebSocket);
            Box::new(Self { near, conn: Rc::clone(conn) })
        })
    }

    /// If the answer is 101, leaves a tunnel for the connection to go on as.
    pub fn answered(self, response: &mut http::Response<Body>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let far = hyper::upgrade::on(&mut *response);
            // The answer is over when the tunnel is: until then it counts as in flight.
            let end = std::mem::take(response.body_mut().end());
            *self.conn.tunnel.borrow_mut() = Some(Box::new(Tunnel { near: self.near, far, end }));
        }
    }
}

/// Two connections that have become one stream of bytes each way.
#[derive(Debug)]
pub struct Tunnel {
    near: OnUpgrade,
    far: OnUpgrade,
    end: End,
}

impl Tunnel {
    /// Copies bytes both ways until both have ended, or until `cut`. An end of one direction is passed on,
    /// and the other goes on.
    pub async fn carry(self: Box<Self>, cut: impl Future<Output = ()>) -> Result<(), TunnelError> {
        let Self { near, far, mut end } = *self;
        let carried = async {
            let (near, far) = tokio::try_join!(near, far).map_err(TunnelError::NotSwitched)?;
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER)
                .await
                .map_err(TunnelError::Broken)
        };
        let ended = tokio::select! {
            ended = carried => ended.map(drop),
            () = cut => Err(TunnelError::Cut),
        };
        end.finish(ended.is_ok());
        ended
    }
}

/// Why a WebSocket did not come to its own end.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// One of the two ended before the 101 was through.
    #[error("the connection ended before it became a WebSocket: {0}")]
    NotSwitched(#[source] hyper::Error),
    /// One end went away without closing.
    #[error("the WebSocket broke: {0}")]
    Broken(#[source] std::io::Error),
    /// The proxy shut down, or the mesh connection's certificates ended.
    #[error("the WebSocket was still open at the end of the drain timeout, or of a certificate")]
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_one_token_of_each_header() {
        for (connection, upgrade, named) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, Upgrade", "WebSocket", true),
            ("upgrade", "h2c, websocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade", "h2c", false),
            ("upgrade", "websockets", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));

            assert_eq!(WebSocket::is_named_in(&headers), named, "{connection} / {upgrade}");
        }
    }
}
