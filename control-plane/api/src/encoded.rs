//! Transactions of resources that are encoded already.
//!
//! One change of a service's endpoints goes to many proxies. Protobuf writes a nested message exactly as
//! it writes `bytes`, so a resource is encoded once, and every stream sends the same shared bytes.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

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
    /// What the proxy is to log for a while: then it is no transaction.
    #[prost(message, optional, tag = "20")]
    pub log_level: Option<crate::wire::LogLevel>,
}

/// Resources that are smaller are copied into one frame with their neighbours; a larger one is a frame by itself, which all
/// streams share. HTTP/2 keeps a place for each frame that has ever waited on a connection, so that many small ones would
/// cost each proxy more for as long as it is connected than their copies do for a moment.
const SHARED: usize = 12 << 10;
/// The longest frame of copies. It is shorter than what an allocator may take from the kernel for each stream, which would have to
/// clear it (the control plane's does from 16,000 bytes on), and than a frame of HTTP/2 and a record of TLS, which it fits into.
const COPIED: usize = 15_000;

impl Transaction {
    /// The gRPC message as frames. Each lives until it is written, and no longer.
    pub fn into_frames(self) -> VecDeque<Bytes> {
        let upserts = self.upserts;
        let rest = Self { upserts: Vec::new(), ..self };
        let head = |bytes: &Bytes| key_len(UPSERTS) + encoded_len_varint(bytes.len() as u64);
        let length =
            rest.encoded_len() + upserts.iter().map(|bytes| head(bytes) + bytes.len()).sum::<usize>();
        let copied = |bytes: &Bytes| head(bytes) + if bytes.len() < SHARED { bytes.len() } else { 0 };
        let mut left: usize = upserts.iter().map(copied).sum();
        let first = GRPC_HEADER + rest.encoded_len();
        let mut frames = VecDeque::new();
        let mut frame = BytesMut::with_capacity((first + left).min(COPIED).max(first));
        frame.put_u8(0);
        // 32 MiB are the most that a proxy takes.
        frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        rest.encode_raw(&mut frame);
        for bytes in upserts {
            if frame.len() + copied(&bytes) > frame.capacity() {
                let full = std::mem::replace(&mut frame, BytesMut::with_capacity(left.min(COPIED)));
                frames.extend(Some(full.freeze()).filter(|full| !full.is_empty()));
            }
            left -= copied(&bytes);
            encode_key(UPSERTS, WireType::LengthDelimited, &mut frame);
            encode_varint(bytes.len() as u64, &mut frame);
            if bytes.len() < SHARED {
                frame.put(bytes);
            } else {
                frames.push_back(frame.split().freeze());
                frames.push_back(bytes);
            }
        }
        if !frame.is_empty() {
            frames.push_back(frame.freeze());
        }
        frames
    }
}

/// The tag of `upserts`.
const UPSERTS: u32 = 2;
/// Before each message: whether it is compressed, and how long it is.
const GRPC_HEADER: usize = 5;

#[cfg(test)]
mod tests {
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
            log_level: Some(wire::LogLevel::default()),
        };
        let bytes = Bytes::from(resource.encode_to_vec());
        let encoded = Transaction {
            nonce: 7,
            upserts: vec![bytes.clone(), bytes],
            removals: vec!["lookup/a".into()],
            more: true,
            taps: Some(wire::Taps::default()),
            log_level: Some(wire::LogLevel::default()),
        };

        assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
        assert_eq!(wire::Transaction::decode(encoded.encode_to_vec().as_slice()).unwrap(), plain);
    }

    #[test]
    fn frames_make_up_the_message_and_share_what_is_large() {
        let resource = |contents: usize| {
            let roots = vec![Bytes::from(vec![7; contents])];
            let body = Some(wire::resource::Body::Bundle(wire::Bundle { roots, ..Default::default() }));
            wire::Resource { name: "bundle".into(), version: "1".into(), body }
        };
        for sizes in [
            vec![],
            vec![1],
            vec![SHARED * 2],
            vec![1, SHARED, 5, 6, SHARED * 9],
            vec![SHARED, 1],
            vec![4_000; 10],
            vec![11_000, SHARED, 11_000, 3_900, SHARED, SHARED, 11_000],
        ] {
            let upserts: Vec<_> = sizes.iter().map(|size| resource(*size)).collect();
            let plain = wire::Transaction {
                nonce: 300,
                upserts: upserts.clone(),
                removals: vec!["lookup/a".into()],
                more: true,
                taps: None,
                log_level: None,
            };
            let upserts: Vec<Bytes> = upserts.iter().map(|one| one.encode_to_vec().into()).collect();
            let large = upserts.iter().filter(|bytes| bytes.len() >= SHARED).cloned().collect::<Vec<_>>();
            let encoded = Transaction {
                nonce: 300,
                upserts,
                removals: vec!["lookup/a".into()],
                more: true,
                taps: None,
                log_level: None,
            };

            let frames = encoded.into_frames();

            let shared = |bytes: &Bytes| frames.iter().any(|frame| frame.as_ptr() == bytes.as_ptr());
            assert!(large.iter().all(shared), "{sizes:?}");
            let copies =
                frames.iter().filter(|frame| !large.iter().any(|one| one.as_ptr() == frame.as_ptr()));
            let copies: Vec<usize> = copies.map(Bytes::len).collect();
            assert!(copies.iter().all(|length| (1..=COPIED).contains(length)), "{copies:?}");
            let all: usize = copies.iter().sum();
            assert!(copies.len() <= all / (COPIED - SHARED) + 1 + large.len(), "as few as that: {copies:?}");
            let whole: Vec<u8> = frames.iter().flatten().copied().collect();
            assert_eq!(whole[0], 0);
            assert_eq!(
                whole[1..GRPC_HEADER],
                u32::try_from(whole.len() - GRPC_HEADER).unwrap().to_be_bytes()
            );
            assert_eq!(wire::Transaction::decode(&whole[GRPC_HEADER..]).unwrap(), plain, "{sizes:?}");
        }
    }
}
