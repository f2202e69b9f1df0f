//! Where the collector is.

use std::{fmt, str::FromStr};

use http::Uri;

/// How the collector is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP, in protobuf.
    Http,
}

impl Protocol {
    /// The port of a collector whose address has none.
    fn usual_port(self) -> u16 {
        match self {
            Self::Grpc => 4317,
            Self::Http => 4318,
        }
    }
}

/// The address of a collector: `http://HOST[:PORT][/PATH]`, or `https://`, which speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    is_tls: bool,
    host: String,
    port: Option<u16>,
    path: String,
}

/// A text is no address of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the address of a collector: {why}; write http://HOST:PORT or https://HOST:PORT, such as http://collector.observability:4317"
)]
pub struct CollectorError {
    text: String,
    why: &'static str,
}

impl Collector {
    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Its name, or its address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Its port, if it speaks `protocol`.
    pub(super) fn port(&self, protocol: Protocol) -> u16 {
        self.port.unwrap_or(protocol.usual_port())
    }

    /// What every path of it begins with: nothing, or `/PATH`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// How its URLs begin.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// As an authority has it.
    pub(super) fn authority(&self, protocol: Protocol) -> String {
        let port = self.port(protocol);
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        let wrong = |why| CollectorError { text: text.to_owned(), why };
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it does not begin with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("it has a query, or a user"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1/traces").unwrap_or(path).to_owned();
        Ok(Self { is_tls, host, port: uri.port_u16(), path })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = &self.host;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{host}{close}{port}{}", self.scheme(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_url_with_or_without_tls() {
        for (text, shown, authority, path) in [
            ("http://collector.observability:4317", "", "collector.observability:4317", ""),
            ("http://collector/", "http://collector", "collector:4317", ""),
            ("http://[::1]:9/otlp/v1/traces", "http://[::1]:9/otlp", "[::1]:9", "/otlp"),
            ("https://collector:4317", "", "collector:4317", ""),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(collector.authority(Protocol::Grpc), authority);
            assert_eq!(collector.path(), path);
            assert_eq!(collector.to_string(), if shown.is_empty() { text } else { shown });
            assert_eq!(collector.is_tls(), text.starts_with("https"));
        }
        for (text, why) in [
            ("collector:4317", "http://"),
            ("grpc://collector:4317", "https://"),
            ("https://a:b@collector:4317", "user"),
            ("http://collector:4317/?a=b", "query"),
            ("", "no URL"),
        ] {
            let error = text.parse::<Collector>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let http: Collector = "http://collector".parse().unwrap();
        assert_eq!(http.port(Protocol::Http), 4318);
    }
}
