//! Connections that are cut off: the peer is revoked.

use tokio::io::AsyncWriteExt as _;

use super::{App, connect, end, exactly, is_reset, mesh};
use crate::{mesh::client, rights::netns};

const REVOKED: &str = "
apiVersion: selvedge.io/v1alpha1
kind: Revocation
metadata: {name: stolen, namespace: selvedge}
spec: {identities: [{namespace: default, serviceAccount: db}]}
";

async fn a_revoked_server() {
    let mut mesh = mesh().await;
    mesh.add([client("other")]).await;
    let from = mesh.workload("client");
    let mut revoked = App::of(mesh.workload("db"));
    let mut other = App::of(mesh.workload("other"));
    let (mut client, mut server) = revoked.pair(from).await;
    let (mut honest, mut answers) = other.pair(from).await;
    // One that is kept between the sidecars for the next.
    let (kept, served) = revoked.pair(from).await;
    drop((kept, served));

    mesh.write("revocation.yaml", REVOKED);

    is_reset("client", &mut client).await;
    let _ = end(&mut server).await; // as an end, or as a reset
    let mut again = connect(from, revoked.address).await.unwrap();
    let _ = again.write_all(b"\0hello").await; // it may be cut off already
    is_reset("next client", &mut again).await;
    assert!(revoked.accepted.try_recv().is_err(), "nobody has come to it");
    honest.write_all(b"still").await.unwrap();
    assert_eq!(exactly(&mut answers, 5).await, b"still");
}

#[test]
fn opaque_connections_to_whoever_is_revoked_are_cut_off_and_there_are_no_more() {
    netns(a_revoked_server);
}
