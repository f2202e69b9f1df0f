//! `proxyProtocol` and `tunnel` of a `DestinationRule`: what is said to whoever takes connections on the way.

use selvedge_model::{Host, HostPort, HttpTunnel, ProxyProtocol, TunnelMethod};
use serde::Deserialize;

use super::{document::wrong, typed::FieldError, values::port_number};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProxyProtocolYaml {
    version: VersionWord,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum VersionWord {
    /// Istio's default.
    #[default]
    V1,
    V2,
}

impl ProxyProtocolYaml {
    pub(super) fn read(self) -> ProxyProtocol {
        match self.version {
            VersionWord::V1 => ProxyProtocol::V1,
            VersionWord::V2 => ProxyProtocol::V2,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TunnelYaml {
    protocol: Option<String>,
    target_host: String,
    target_port: u32,
}

impl TunnelYaml {
    /// `field` is where the block stands. What cannot be kept is an error: connections would go to the proxy itself.
    pub(super) fn read(self, field: &str) -> Result<HttpTunnel, FieldError> {
        let method = match self.protocol.as_deref() {
            None | Some("CONNECT") => TunnelMethod::Connect,
            Some("POST") => TunnelMethod::Post,
            Some(other) => {
                let message = format!("{other:?} is not a way to ask for a tunnel; use CONNECT or POST");
                return Err(wrong(format!("{field}.protocol"), message));
            }
        };
        let host: Host = self.target_host.parse().map_err(|_| {
            let message =
                format!("{:?} is neither an IP address nor a DNS name; correct it", self.target_host);
            wrong(format!("{field}.targetHost"), message)
        })?;
        let port = port_number(self.target_port, &format!("{field}.targetPort"))?;
        Ok(HttpTunnel { target: HostPort::new(host, port), method })
    }
}
