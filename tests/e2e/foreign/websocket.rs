//! The library `websockets` at both ends.

use super::{APP, WAYS, Ways, passes, script};

#[tokio::test]
async fn its_client_and_its_server_understand_each_other() {
    let Some((ways, _server)) = Ways::to_script("websocket_server.py").await else { return };
    for (way, at) in ways.each() {
        let (flags, cases) = if way == WAYS[2] { (&[][..], 7) } else { (&["--by-name"][..], 8) };
        passes(&mut script("websocket_client.py").expect("as above"), way, at, APP, flags, cases).await;
    }
}
