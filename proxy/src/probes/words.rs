//! The settings that the injector writes: the app's probes and metrics as in the pod's YAML, in JSON.

use std::{collections::BTreeMap, str::FromStr, sync::Arc, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::{Asks, Probe, http::HttpGet};

/// What a probe may take if its YAML does not say (Kubernetes `Probe.timeoutSeconds`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Where hooks are asked for. They may take their time: the kubelet ends them with the pod.
const HOOKS: &str = "/app-lifecycle/";

/// Why a setting is not probes or metrics.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// It is no JSON, or not such.
    #[error("not as the injector writes it: {0}")]
    Json(#[from] serde_json::Error),
    /// A probe that nobody could make.
    #[error("{path}: {problem}")]
    Probe {
        /// Which.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The app's probes and hooks, by the path at which each is asked for.
#[derive(Debug, Clone, Default)]
pub struct AppProbes(Arc<BTreeMap<String, Probe>>);

impl AppProbes {
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn find(&self, path: &str) -> Option<&Probe> {
        self.0.get(path)
    }
}

impl FromStr for AppProbes {
    type Err = WordsError;

    fn from_str(json: &str) -> Result<Self, WordsError> {
        let words: BTreeMap<String, ProbeWords> = serde_json::from_str(json)?;
        let read = |(path, words): (String, ProbeWords)| match words.read(&path) {
            Ok(probe) => Ok((path, probe)),
            Err(problem) => Err(WordsError::Probe { path, problem }),
        };
        Ok(Self(Arc::new(words.into_iter().map(read).collect::<Result<_, _>>()?)))
    }
}

/// Where the app's metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppMetrics {
    pub(super) port: u16,
    pub(super) get: HttpGet,
}

impl FromStr for AppMetrics {
    type Err = WordsError;

    fn from_str(json: &str) -> Result<Self, WordsError> {
        let words: MetricsWords = serde_json::from_str(json)?;
        let wrong =
            |problem: &str| WordsError::Probe { path: "metrics".to_owned(), problem: problem.to_owned() };
        let port = match (&words.port, words.port_number) {
            (Some(port), _) => port.parse().ok(),
            (None, number) => number,
        };
        let path = words.path.as_deref().unwrap_or("/metrics");
        let get = HttpWords {
            path: Some(path.to_owned()),
            port: Port::Name(String::new()),
            scheme: words.scheme.map(|scheme| scheme.to_ascii_uppercase()),
            http_headers: Vec::new(),
        };
        Ok(Self {
            port: port.ok_or_else(|| wrong("no port"))?,
            get: get.read().map_err(|problem| wrong(&problem))?,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricsWords {
    port: Option<String>,
    port_number: Option<u16>,
    path: Option<String>,
    scheme: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProbeWords {
    http_get: Option<HttpWords>,
    tcp_socket: Option<TcpWords>,
    grpc: Option<GrpcWords>,
    /// Of a port that has a name.
    port_number: Option<u16>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpWords {
    path: Option<String>,
    port: Port,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<HeaderWords>,
}

#[derive(Debug, Deserialize)]
struct HeaderWords {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct TcpWords {
    port: Port,
}

#[derive(Debug, Deserialize)]
struct GrpcWords {
    port: Port,
    service: Option<String>,
}

/// Kubernetes' `IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Name(String),
}

impl ProbeWords {
    fn read(self, path: &str) -> Result<Probe, String> {
        let (asks, port) = match (self.http_get, self.tcp_socket, self.grpc) {
            (Some(get), None, None) => (Asks::Http(get.read()?), get.port),
            (None, Some(tcp), None) => (Asks::Tcp, tcp.port),
            (None, None, Some(grpc)) => (Asks::Grpc(grpc.service.unwrap_or_default()), grpc.port),
            _ => return Err("needs exactly one of httpGet, tcpSocket and grpc".to_owned()),
        };
        let port = match (port, self.port_number) {
            (Port::Number(number), _) | (Port::Name(_), Some(number)) => number,
            (Port::Name(name), None) => {
                name.parse().map_err(|_| format!("portNumber is missing for the port {name:?}"))?
            }
        };
        let timeout = match self.timeout_seconds {
            Some(seconds) => Some(Duration::from_secs(seconds.max(1))),
            None => (!path.starts_with(HOOKS)).then_some(DEFAULT_TIMEOUT),
        };
        Ok(Probe { asks, port, timeout })
    }
}

impl HttpWords {
    fn read(&self) -> Result<HttpGet, String> {
        let path = self.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        path.parse::<Uri>().map_err(|_| format!("{path:?} is not a path"))?;
        let tls = match self.scheme.as_deref() {
            None | Some("" | "HTTP") => false,
            Some("HTTPS") => true,
            Some(other) => return Err(format!("the scheme {other:?} is neither HTTP nor HTTPS")),
        };
        let header = |HeaderWords { name, value }: &HeaderWords| {
            let wrong = || format!("{name}: {value:?} is not a header field");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            Ok((name, HeaderValue::from_str(value).map_err(|_| wrong())?))
        };
        let headers = self.http_headers.iter().map(header).collect::<Result<_, String>>()?;
        Ok(HttpGet { path, tls, headers })
    }
}
