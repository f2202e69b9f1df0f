//! What a match or a policy may look at, all of it in one place.
//!
//! A connection's facts are known before its first byte is passed on. A request's facts include those of its
//! connection, so whatever a rule for connections may ask, a rule for requests may ask too. Everything is borrowed:
//! facts are made for one question and cost nothing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, Method};

use crate::{Layer, SpiffeId, token::Token};

/// The labels of a workload of which none are known.
const NO_LABELS: &BTreeMap<String, String> = &BTreeMap::new();

/// Who opens a connection.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The address that it connects from; `None`: not known.
    pub address: Option<IpAddr>,
    /// Who it has proven to be. On the way out: our own workload. `None`: nobody, the connection is plaintext.
    pub identity: Option<&'a SpiffeId>,
    /// The namespace of its workload; `None`: not known.
    pub namespace: Option<&'a str>,
    /// The labels of its workload. Known of our own workload only: a peer proves its identity and no labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl Source<'_> {
    /// A client of which nothing is known.
    pub const UNKNOWN: Self = Self { address: None, identity: None, namespace: None, labels: NO_LABELS };
}

impl<'a> Source<'a> {
    /// A client that comes in from `address` and has proven to be `identity` (`None`: plaintext).
    pub fn peer(address: IpAddr, identity: Option<&'a SpiffeId>) -> Self {
        let namespace = identity.map(SpiffeId::namespace);
        Self { address: Some(address), identity, namespace, labels: NO_LABELS }
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Who opens it.
    pub source: Source<'a>,
    /// The port that it is for: the service's on the way out, the workload's own on the way in.
    pub port: u16,
    /// Where it was going, if it was redirected.
    pub destination: Option<SocketAddr>,
    /// Our own address at which it arrived, if connections are redirected here: then the address of a peer tells which
    /// workload it is.
    pub arrived_at: Option<IpAddr>,
    /// Whether it begins with a ClientHello of the app's own.
    pub layer: Layer,
    /// The name that this ClientHello asks for (SNI); `None`: none, or it is not read.
    pub server_name: Option<&'a str>,
    /// Whose address counts as the client's own.
    pub client: Client,
}

/// Whose address counts as the client's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Client {
    /// The other end of the connection is the client.
    #[default]
    Source,
    /// Proxies that are trusted stand between, and each request says where it comes from.
    OfRequest,
    /// What a request says.
    At(IpAddr),
}

impl<'a> Connection<'a> {
    /// A connection to `port` that `source` opens; of which no more is known.
    pub const fn new(source: Source<'a>, port: u16) -> Self {
        Self {
            source,
            port,
            destination: None,
            arrived_at: None,
            layer: Layer::Tcp,
            server_name: None,
            client: Client::Source,
        }
    }
}

impl Connection<'_> {
    /// The client's own address; `None`: not known.
    pub fn client_address(&self) -> Option<IpAddr> {
        match self.client {
            Client::Source | Client::OfRequest => self.source.address,
            Client::At(address) => Some(address),
        }
    }
}

/// What is known of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The connection that it came on.
    pub connection: &'a Connection<'a>,
    /// The method.
    pub method: &'a Method,
    /// What the client wants to speak with the server: `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as the client sent them.
    pub authority: &'a str,
    /// The path without its query, in normal form.
    pub path: &'a str,
    /// The query without its `?`; empty if there is none.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Its token, if it has one that is accepted.
    pub token: Option<&'a Token>,
}

/// Whether `labels` have all that `selector` asks for; an empty one asks for nothing.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_selects_what_has_all_its_labels() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let web = labels(&[("app", "web"), ("version", "1")]);

        assert!(selects(&labels(&[]), &web));
        assert!(selects(&labels(&[("app", "web")]), &web));
        assert!(!selects(&labels(&[("app", "db")]), &web));
        assert!(!selects(&labels(&[("app", "web"), ("track", "a")]), &web));
    }

    #[test]
    fn a_peers_namespace_is_the_one_that_it_has_proven() {
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let address = IpAddr::from([10, 0, 0, 1]);

        assert_eq!(Source::peer(address, Some(&identity)).namespace, Some("shop"));
        assert_eq!(Source::peer(address, None).namespace, None);
    }
}
