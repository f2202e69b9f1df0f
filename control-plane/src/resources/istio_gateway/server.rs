//! `servers`: one port for some hosts.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    hosts::{self, ServerHost},
    tls::{self, ServerTls},
};
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
    values::port_number,
};

/// One entry of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayServer {
    /// Its place in the document.
    pub index: usize,
    /// The port that clients call.
    pub port: u16,
    /// What the port is called.
    pub port_name: String,
    /// What is spoken there.
    pub protocol: ServerProtocol,
    /// At least one.
    pub hosts: Vec<ServerHost>,
    /// What happens to TLS; `None` = there is none.
    pub tls: Option<ServerTls>,
    /// Whether requests in plaintext are sent to HTTPS.
    pub https_redirect: bool,
}

/// What is spoken at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProtocol {
    /// `HTTP`, `HTTP2`, `GRPC`, `GRPC-WEB`: HTTP of any version, in plaintext.
    Http,
    /// `HTTPS`: HTTP in TLS.
    Https,
    /// `TLS`: anything in TLS.
    Tls,
    /// `TCP`, and the names of databases: anything.
    Tcp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    port: PortYaml,
    #[serde(default)]
    hosts: Vec<String>,
    tls: Option<tls::Yaml>,
    bind: Option<String>,
    default_endpoint: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortYaml {
    number: u32,
    #[serde(default)]
    name: String,
    #[serde(default)]
    protocol: String,
    target_port: Option<u32>,
}

impl Yaml {
    /// What it means; it stands at `index`.
    pub(super) fn read(self, index: usize, reading: &mut Reading<'_>) -> Result<GatewayServer, FieldError> {
        let field = format!("spec.servers[{index}]");
        let below = |name: &str| format!("{field}.{name}");
        let port = port_number(self.port.number, &below("port.number"))?;
        if self.port.name.is_empty() {
            return Err(wrong(below("port.name"), "is missing; name the port, such as http"));
        }
        let protocol = protocol(&self.port.protocol, &below("port.protocol"))?;
        if self.hosts.is_empty() {
            return Err(wrong(below("hosts"), "is empty; name at least one host, or *"));
        }
        let hosts = self.hosts.iter().enumerate();
        let hosts = hosts.map(|(place, host)| hosts::read(host, &format!("{field}.hosts[{place}]")));
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        self.report(&field, reading)?;
        let https_redirect = self.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        let tls = read_tls(self.tls, protocol, &below("tls"), reading)?;
        let https_redirect = https_redirect && protocol == ServerProtocol::Http;
        Ok(GatewayServer { index, port, port_name: self.port.name, protocol, hosts, tls, https_redirect })
    }

    /// Says what is read over.
    fn report(&self, field: &str, reading: &mut Reading<'_>) -> Result<(), FieldError> {
        if self.port.target_port.is_some_and(|port| port != 0) {
            let message = "has no meaning here: a gateway listens where its workload says; remove it";
            return Err(wrong(format!("{field}.port.targetPort"), message));
        }
        if self.default_endpoint.is_some() {
            let message = "is not acted on: a gateway has no app of its own; write a VirtualService";
            reading.not_acted_on(format!("{field}.defaultEndpoint"), message);
        }
        let Some(bind) = self.bind.as_deref().filter(|bind| !bind.is_empty()) else { return Ok(()) };
        let field = format!("{field}.bind");
        match bind.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => {}
            Err(_) if bind.strip_prefix("unix://").is_some() => {
                let message = "is a Unix socket, which has no port; remove it, or port.number";
                return Err(wrong(field, message));
            }
            Err(_) => {
                return Err(wrong(field, format!("{bind:?} is not an IP address; write one, or remove it")));
            }
            _ => {
                let message = "is not acted on: a gateway listens at the address of its workload; remove it";
                reading.not_acted_on(field, message);
            }
        }
        Ok(())
    }
}

fn protocol(text: &str, field: &str) -> Result<ServerProtocol, FieldError> {
    Ok(match text.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => ServerProtocol::Http,
        "HTTPS" => ServerProtocol::Https,
        "TLS" => ServerProtocol::Tls,
        "TCP" | "MONGO" | "MYSQL" | "REDIS" => ServerProtocol::Tcp,
        "" => return Err(wrong(field, "is missing; write HTTP, HTTPS, HTTP2, GRPC, TLS or TCP")),
        _ => {
            let message =
                format!("{text:?} is not a protocol of servers; use HTTP, HTTPS, HTTP2, GRPC, TLS or TCP");
            return Err(wrong(field, message));
        }
    })
}

/// What a server of `protocol` does with TLS; `field` is where that stands.
fn read_tls(
    yaml: Option<tls::Yaml>,
    protocol: ServerProtocol,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Option<ServerTls>, FieldError> {
    let needs_tls = matches!(protocol, ServerProtocol::Https | ServerProtocol::Tls);
    match yaml {
        None if needs_tls => Err(wrong(field, "is missing; a server of HTTPS or TLS needs it")),
        None => Ok(None),
        Some(yaml) => {
            if yaml.https_redirect && protocol != ServerProtocol::Http {
                let message = "has no effect: it is for servers of HTTP in plaintext; remove it";
                reading.warning(format!("{field}.httpsRedirect"), message);
            }
            if needs_tls {
                return yaml.read(field, reading).map(Some);
            }
            if yaml.is_for_tls() {
                let message =
                    "belongs to servers of HTTPS or TLS; change port.protocol, or keep httpsRedirect alone";
                return Err(wrong(field, message));
            }
            Ok(None)
        }
    }
}
