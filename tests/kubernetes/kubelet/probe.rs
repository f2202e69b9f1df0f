//! Probes: asked from the node, as kubelets do, not from inside the pod.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use selvedge_demo::call;
use selvedge_tests::netns::namespace::Namespace;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{container::Container, items, text};

/// Asks a probe once.
pub(super) async fn ask(
    probe: &Value,
    container: &Container,
    address: IpAddr,
    host: &Namespace,
) -> Result<(), String> {
    let limit = Duration::from_secs(probe["timeoutSeconds"].as_u64().unwrap_or(1).max(1));
    let program: Vec<&str> = items(&probe["exec"]["command"]).map(text).collect();
    if !program.is_empty() {
        let ran = tokio::time::timeout(limit, container.exec(&program)).await;
        return ran.map_err(|_| format!("no end within {limit:?}"))?.map(drop);
    }
    for (kind, http) in [("httpGet", true), ("tcpSocket", false)] {
        let action = &probe[kind];
        if !action.is_object() {
            continue;
        }
        let address = SocketAddr::new(named_address(action, address), port(&action["port"], container)?);
        return if http {
            get(action, address, limit, host).await
        } else {
            connect(address, limit, host).await
        };
    }
    Err(format!("the probe {probe}, which this kubelet does not know"))
}

async fn get(action: &Value, address: SocketAddr, limit: Duration, host: &Namespace) -> Result<(), String> {
    if action["scheme"].as_str().is_some_and(|scheme| scheme != "HTTP") {
        // A probe over HTTPS verifies nothing: what is left of it is that somebody listens.
        return connect(address, limit, host).await;
    }
    let path = action["path"].as_str().unwrap_or("/").to_owned();
    let headers: Vec<(String, String)> = items(&action["httpHeaders"])
        .map(|header| (text(&header["name"]).to_lowercase(), text(&header["value"]).to_owned()))
        .collect();
    let authority = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
    let authority = authority.unwrap_or_else(|| address.to_string());
    let call = call::to(&authority, &path).header("user-agent", "kube-probe/1.20").timeout(limit);
    let answer = host.run(move || call::send(address, call)).await.map_err(|error| error.to_string())?;
    if (200..400).contains(&answer.status.as_u16()) {
        Ok(())
    } else {
        Err(format!("{}: {}", answer.summary(), answer.text().trim()))
    }
}

async fn connect(address: SocketAddr, limit: Duration, host: &Namespace) -> Result<(), String> {
    host.run(move || async move {
        match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no connection within {limit:?}")),
        }
    })
    .await
}

fn named_address(action: &Value, address: IpAddr) -> IpAddr {
    action["host"].as_str().and_then(|host| host.parse().ok()).unwrap_or(address)
}

fn port(port: &Value, container: &Container) -> Result<u16, String> {
    let number = match port.as_str() {
        None => port.as_u64(),
        Some(name) => items(&container.object["ports"])
            .find(|declared| declared["name"] == name)
            .and_then(|declared| declared["containerPort"].as_u64())
            .or_else(|| name.parse().ok()),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("no port {port}"))
}
