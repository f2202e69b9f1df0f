//! Transactions of resources that are encoded already.
//!
//! One change of a service's endpoints goes to many proxies. Protobuf writes a nested message exactly as
//! it writes `bytes`, so a resource is encoded once, and every stream sends the same shared bytes.

use bytes::Bytes;

/// On the wire a [`crate::wire::Transaction`]; here each of its resources is encoded already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transaction {
    /// Names it in its acknowledgement.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
    /// Encoded [`crate::wire::Resource`]s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub upserts: Vec<Bytes>,
    /// Resource names.
    #[prost(string, repeated, tag = "3")]
    pub removals: Vec<String>,
    /// Whether further parts of this same transaction follow.
    #[prost(bool, tag = "4")]
    pub more: bool,
    /// What somebody asks to see of live requests: then it is no transaction.
    #[prost(message, optional, tag = "5")]
    pub taps: Option<crate::wire::Taps>,
}

/// The generated server of `selvedge.v1.Discovery`, over [`Transaction`].
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/encoded/selvedge.v1.rs"));
    pub use discovery_server::{Discovery, DiscoveryServer};
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire;

    #[test]
    fn a_client_sees_an_ordinary_transaction() {
        let resource = wire::Resource {
            name: "bundle".into(),
            version: "1".into(),
            body: Some(wire::resource::Body::Bundle(wire::Bundle {
                trust_domain: "cluster.local".into(),
                roots: vec![Bytes::from_static(b"root")],
                workload_roots: vec![],
            })),
        };
        let plain = wire::Transaction {
            nonce: 7,
            upserts: vec![resource.clone(), resource.clone()],
            removals: vec!["lookup/a".into()],
            more: true,
            taps: Some(wire::Taps::default()),
        };
        let bytes = Bytes::from(resource.encode_to_vec());
        let encoded = Transaction {
            nonce: 7,
            upserts: vec![bytes.clone(), bytes],
            removals: vec!["lookup/a".into()],
            more: true,
            taps: Some(wire::Taps::default()),
        };

        assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
        assert_eq!(wire::Transaction::decode(encoded.encode_to_vec().as_slice()).unwrap(), plain);
    }
}
