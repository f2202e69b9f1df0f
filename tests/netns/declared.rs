//! Ports that are declared to carry no HTTP: nothing that passes there is looked into, even if it looks like HTTP.

use std::net::SocketAddr;

use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    dialogue::echo,
    mesh::{Mesh, client},
    network::Kind,
    rights::netns,
};

/// A port of which documents say this or that.
const PORT: u16 = 7000;

/// MySQL's, which speaks first.
const WELL_KNOWN: u16 = 3306;

/// One of `--opaque-ports`.
const BY_FLAG: u16 = 7002;

/// One of which nobody says anything.
const UNDECLARED: u16 = 7003;

/// To whom it may look like HTTP: what comes back is none.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nhost: db.example\r\n\r\n";

/// Ways to say that a port is opaque: annotations, and the rest of the port.
const WAYS: [(&str, &str); 4] = [
    ("", "name: tcp-data"),
    ("", "name: data, appProtocol: redis"),
    ("config.selvedge.io/opaque-ports: 6999-7001", "name: data"),
    ("", "name: mysql"),
];

fn service(annotations: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: default, annotations: {{{annotations}}}}}\n\
         spec: {{selector: {{app: db}}, ports: [{{{port}, port: {PORT}}}, {{name: more, port: {WELL_KNOWN}}}]}}\n"
    )
}

/// What a port of `db`'s says to the client.
async fn answer(mesh: &Mesh, port: u16) -> std::io::Result<Vec<u8>> {
    let address = SocketAddr::new(mesh.workload("db").place.address, port);
    let asking = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(QUESTION).await?;
        // As long as what was asked. Who closes does not wait for an answer of HTTP.
        let mut answer = vec![0; QUESTION.len()];
        timeout(SOON, stream.read_exact(&mut answer)).await??;
        Ok(answer)
    };
    mesh.workload("client").namespace().run(asking).await
}

/// Waits until what passes at a port is looked into, or not.
async fn soon(mesh: &Mesh, port: u16, is_opaque: bool, what: &str) {
    poll(SOON, what, async || {
        let answer = answer(mesh, port).await.map_err(|error| error.to_string())?;
        let as_expected = match is_opaque {
            true => answer == QUESTION,
            false => answer.starts_with(b"HTTP/1.1 502"),
        };
        if as_expected { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
    })
    .await;
}

async fn ways() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("db.yaml", &service("", "name: data"));
    mesh.add([client("client").flags(&["--opaque-ports", "7002"]), client("db")]).await;
    for port in [PORT, WELL_KNOWN, BY_FLAG, UNDECLARED] {
        echo(mesh.workload("db"), port);
    }

    soon(&mesh, WELL_KNOWN, true, "a well-known port").await;
    soon(&mesh, BY_FLAG, true, "a port of --opaque-ports").await;
    soon(&mesh, UNDECLARED, false, "a port of which nothing is said").await;
    for (annotations, port) in WAYS {
        soon(&mesh, PORT, false, "nothing is declared").await;
        mesh.write("db.yaml", &service(annotations, port));
        soon(&mesh, PORT, true, &format!("{annotations} {port}")).await;
        mesh.write("db.yaml", &service("", "name: data"));
    }
}

#[test]
fn what_passes_at_a_port_that_is_declared_opaque_is_not_looked_into() {
    netns(ways);
}
