//! How a message says that it is about a WebSocket (RFC 6455, section 1.3).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, UPGRADE},
};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// How a message says that it is about a WebSocket. On its way through the proxy a request for one is known by its
/// body ([`web_socket`](crate::body::Body::web_socket)).
#[derive(Debug, Clone, Copy)]
pub struct WebSocket;

impl WebSocket {
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
