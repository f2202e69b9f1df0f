//! A workload's address is its own at every port: what another namespace writes of it takes no connection to it out of
//! mutual TLS.

use std::net::SocketAddr;

use selvedge_demo::call;
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    capture::Capture,
    dialogue::echo,
    mesh::{APP_PORT, Mesh, OTHER_PORT, client},
    network::Kind,
    rights::netns,
    scenarios::SECRET,
};

/// A port of which no document says anything.
const UNDECLARED: u16 = 7003;

/// What a port of `db`'s repeats to the client.
async fn repeated(mesh: &Mesh, port: u16) -> std::io::Result<String> {
    let address = SocketAddr::new(mesh.workload("db").place.address, port);
    let asking = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        // It looks like nothing that is looked into.
        stream.write_all(format!("\x01\x02{SECRET}").as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    };
    mesh.workload("client").namespace().run(asking).await
}

/// What `thief` says of `address`.
fn claims(address: &str) -> Vec<String> {
    let document = |kind: &str, spec: String| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: claim, namespace: thief}}\nspec: {{{spec}}}\n"
        )
    };
    let mut claims = vec![
        document("WorkloadEntry", format!("address: {address}")),
        document(
            "WorkloadEntry",
            format!("address: {address}, labels: {{security.istio.io/tlsMode: istio}}"),
        ),
        document("WorkloadEntry", format!("address: {address}, ports: {{unrelated: 9}}")),
    ];
    for port in [APP_PORT, UNDECLARED] {
        claims.push(document("WorkloadEntry", format!("address: {address}, ports: {{http: {port}}}")));
        for more in [
            format!("endpoints: [{{address: {address}}}]"),
            format!("addresses: ['{address}'], endpoints: [{{address: 192.0.2.1}}]"),
            "addresses: ['0.0.0.0/0'], endpoints: [{address: 192.0.2.1}]".to_owned(),
        ] {
            let ports = format!("ports: [{{number: {port}, name: tcp, protocol: TCP}}]");
            claims.push(document(
                "ServiceEntry",
                format!("hosts: [a.thief.test], resolution: STATIC, {ports}, {more}"),
            ));
        }
    }
    claims
}

async fn every_port() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client"), client("db"), client("marker").mode(crate::mesh::Mode::NoSidecar)]).await;
    let ports = [APP_PORT, OTHER_PORT, UNDECLARED];
    for port in ports {
        echo(mesh.workload("db"), port);
    }
    let captures = ["client", "db"].map(|name| Capture::of(mesh.workload(name).namespace(), SECRET));
    let address = mesh.workload("db").place.address.to_string();

    for (number, claim) in claims(&address).into_iter().enumerate() {
        // What comes in the same file has arrived with it.
        let marker = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: marker, namespace: thief}}\n\
             spec: {{hosts: [marker-{number}.test], resolution: STATIC, ports: [{{number: 80, name: http}}]}}\n"
        );
        mesh.write("zz-thief.yaml", &format!("{claim}{marker}"));
        poll(SOON, &format!("claim {number} has arrived"), async || {
            let host = format!("marker-{number}.test");
            let to = SocketAddr::new(mesh.workload("marker").place.address, 80);
            let answer = mesh.workload("client").call(to, call::to(&host, "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            // It has no endpoint; before, nothing was known by that name.
            match answer.summary() {
                said if said.contains(&host) => Ok(()),
                said => Err(said),
            }
        })
        .await;
        for port in ports {
            let answer = repeated(&mesh, port).await;
            assert_eq!(answer.unwrap(), format!("\x01\x02{SECRET}"), "port {port} with {claim}");
        }
    }
    let found = captures.iter().map(Capture::found).sum::<u64>();
    assert_eq!(found, 0, "packets could be read");
}

#[test]
fn no_claim_of_another_namespace_takes_a_port_of_a_workload_out_of_mutual_tls() {
    netns(every_port);
}
