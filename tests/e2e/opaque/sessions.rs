//! Sessions on one connection of the mesh's wire.

use rustix::process::Signal;
use selvedge_api::preamble;
use selvedge_tests::SOON;
use tokio::io::AsyncWriteExt;

use super::{Around, SERVER, accepted, exactly, rest};
use crate::mesh_client::{END, OPEN, frame};

#[tokio::test]
async fn a_connection_takes_one_session_after_another() {
    let around = Around::new(&[]).await;
    let (mut peer, mut app) = around.in_use().await;
    for _ in 0..3 {
        peer.write_all(&END).await.unwrap();
        assert_eq!(rest(&mut app).await, (Vec::new(), true));
        drop(app);
        assert_eq!(exactly(&mut peer, 4).await, END);

        peer.write_all(&[OPEN.to_vec(), frame(b"once more")].concat()).await.unwrap();
        app = around.accept().await;
        assert_eq!(exactly(&mut app, 9).await, b"once more");
        app.write_all(b"welcome").await.unwrap();
        let answer = accepted(b"welcome");
        assert_eq!(exactly(&mut peer, answer.len()).await, answer);
    }
    around.counts("selvedge_inbound_tcp_connections_opened_total", 4.0).await;
    around.counts("selvedge_inbound_connections_total", 1.0).await;
}

#[tokio::test]
async fn an_idle_connection_hears_that_the_sidecar_drains_and_a_session_begun_before_is_served() {
    let around = Around::new(&[]).await;
    let (mut peer, mut app) = around.in_use().await;
    peer.write_all(&END).await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(exactly(&mut peer, 4).await, END);
    let sidecar = around.mesh.workload(SERVER).sidecar_process().unwrap();

    sidecar.signal(Signal::TERM).unwrap();
    assert_eq!(exactly(&mut peer, 4).await, [0xff, 0xff, 0xff, 0xfe], "no more sessions");
    // As if it had been under way.
    peer.write_all(&[OPEN.to_vec(), frame(b"just now"), END.to_vec()].concat()).await.unwrap();
    let mut app = around.accept().await;
    assert_eq!(rest(&mut app).await, (b"just now".to_vec(), true));
    drop(app);

    let answer = [frame(&preamble::ACCEPTED), END.to_vec()].concat();
    assert_eq!(exactly(&mut peer, answer.len()).await, answer);
    assert!(sidecar.wait(SOON).await.unwrap().success());
}
