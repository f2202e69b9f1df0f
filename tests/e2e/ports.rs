//! One workload with several ports: a request goes to the one that was meant, or nowhere.

use std::net::SocketAddr;

use selvedge_demo::{
    call::{self, Answer},
    cluster::entry_file,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::SELVEDGE;

/// What is behind both services: one workload, two ports. The second service names its target.
const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: site}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: admin}
spec: {selector: {app: site}, ports: [{name: http, port: 80, targetPort: admin}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: site}, ports: [{name: tcp, port: 5432, targetPort: 9082}]}
";

/// An app that answers every connection with its name, whatever it is sent.
async fn app(name: &'static str, at: SocketAddr) {
    let listener = TcpListener::bind(at).await.expect("the app's address is ours");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while let Ok(1..) = client.read(&mut head).await {
                    let length = name.len();
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
                    if client.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Two callers, one for each carrier, and `site-1`, whose sidecar is told of `apps`: (the workload's port, the app's).
async fn site(apps: &[(Option<u16>, u16)]) -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", SERVICES).unwrap();
    mesh.start_control_plane().await.unwrap();
    let mut site = Spec::server("site-1", "site", 9080);
    site.app = AppKind::None;
    let callers = ["http1", "http2"].map(|carrier| Spec::client(carrier).flag("--carrier", carrier));
    for caller in callers {
        mesh.place(caller.flag("--upstream", "0=db:5432")).unwrap();
    }
    mesh.place(site).unwrap();
    let ip = mesh.workload("site-1").app.ip();
    // The entry that was written has one port.
    mesh.edit(&entry_file("site-1"), |text| {
        text.replace("    http: 9080\n", "    http: 9080\n    admin: 9081\n    db: 9082\n")
    })
    .unwrap();
    let flags: Vec<_> = apps
        .iter()
        .map(|(port, app)| match port {
            Some(port) => ("--app", format!("{port}={ip}:{app}")),
            None => ("--app", format!("{ip}:{app}")),
        })
        .collect();
    let flags: Vec<_> = flags.iter().map(|(flag, value)| (*flag, value.as_str())).collect();
    mesh.restart_sidecar("site-1", &flags).await.unwrap();
    for caller in ["http1", "http2"] {
        mesh.start_sidecar(caller).await.unwrap();
        mesh.sidecar_ready(caller).await.unwrap();
    }
    mesh
}

async fn ask(mesh: &Mesh, caller: &str, service: &str) -> Answer {
    mesh.workload(caller).call(call::to(service, "/")).await.unwrap()
}

/// What comes back of a few bytes that are sent to `db` as they are.
async fn ask_opaque(mesh: &Mesh, caller: &str) -> String {
    let process = mesh.workload(caller).sidecar_process().unwrap();
    let listener = process.listener("upstream db:5432", SOON).await.unwrap();
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(b"\0\0\0\x08").await.unwrap();
    let mut answer = vec![0; 100];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn each_port_is_answered_by_its_own_app() {
    let mesh = site(&[(Some(9080), 19080), (Some(9081), 19081), (Some(9082), 19082)]).await;
    let ip = mesh.workload("site-1").app.ip();
    for (name, port) in [("web", 19080), ("admin", 19081), ("db", 19082)] {
        app(name, SocketAddr::new(ip, port)).await;
    }

    for caller in ["http1", "http2"] {
        assert_eq!(ask(&mesh, caller, "web:9080").await.text(), "web", "{caller}");
        assert_eq!(ask(&mesh, caller, "admin").await.text(), "admin", "{caller}");
        let answer = ask_opaque(&mesh, caller).await;
        assert!(answer.ends_with("db"), "{caller}: {answer}");
    }

    // Who comes without mutual TLS cannot say which one it means.
    let plain = call::send(mesh.workload("site-1").inbound, call::to("web:9080", "/")).await.unwrap();
    assert_eq!(plain.status, 403);
    assert!(plain.proxy_error().unwrap().contains("which of this workload's ports"), "{}", plain.summary());
}

#[tokio::test]
async fn a_port_without_an_app_is_refused_and_never_answered_by_anothers() {
    let mesh = site(&[(None, 9080)]).await;
    app("web", SocketAddr::new(mesh.workload("site-1").app.ip(), 9080)).await;

    for caller in ["http1", "http2"] {
        assert_eq!(ask(&mesh, caller, "web:9080").await.text(), "web", "{caller}");
        let refused = ask(&mesh, caller, "admin").await;
        assert_eq!(refused.status, 503, "{caller}");
        let why = refused.proxy_error().unwrap();
        assert!(why.starts_with("app-unreachable: ") && why.contains("--app 9081="), "{caller}: {why}");
        assert_eq!(ask_opaque(&mesh, caller).await, "", "{caller}");
    }

    let log = mesh.workload("site-1").sidecar_process().unwrap().whole_log().unwrap();
    for port in ["9081", "9082"] {
        assert!(log.contains(&format!("add --app {port}=")), "it is said before anybody asks:\n{log}");
    }
}

#[tokio::test]
async fn an_address_alone_serves_the_port_that_is_left() {
    let mesh = site(&[(None, 19080), (Some(9081), 19081), (Some(9082), 19082)]).await;
    let ip = mesh.workload("site-1").app.ip();
    app("web", SocketAddr::new(ip, 19080)).await;
    app("admin", SocketAddr::new(ip, 19081)).await;

    poll(SOON, "the app answers", async || {
        let answer = ask(&mesh, "http2", "web:9080").await;
        if answer.text() == "web" { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    assert_eq!(ask(&mesh, "http2", "admin").await.text(), "admin");
}
