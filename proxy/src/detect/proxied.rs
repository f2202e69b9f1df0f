//! The header of the PROXY protocol, versions 1 and 2: how a load balancer for TCP says whose connection it carries
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use crate::arrival::canonical;

/// The longest header of version 1, with its CRLF (section 2.1).
const LONGEST_TEXT: usize = 107;

/// The longest header of version 2 that is read. Its addresses take 36 bytes, and the rest is for what load balancers add.
const LONGEST_BINARY: usize = 16 << 10;

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Partial,
    /// The header is whole.
    Whole {
        /// Its length in bytes.
        length: usize,
        /// Whose connection it is. `None`: the sender's own, such as a health check, or unknown.
        client: Option<SocketAddr>,
    },
    /// There is no header, or it cannot be understood.
    Wrong(String),
}

/// Whether `bytes` begin with a header, as far as they go. `false`: they certainly do not.
pub fn begins(bytes: &[u8]) -> bool {
    let with = |prefix: &[u8]| {
        let length = prefix.len().min(bytes.len());
        bytes[..length] == prefix[..length]
    };
    !bytes.is_empty() && (with(b"PROXY ") || with(v2::PROTOCOL_PREFIX))
}

/// Reads the header with which `bytes` begin.
pub fn parse(bytes: &[u8]) -> Header {
    if bytes.is_empty() {
        return Header::Partial;
    }
    if !begins(bytes) {
        return Header::Wrong("the connection does not begin with one".to_owned());
    }
    if bytes[0] == b'P' { text(bytes) } else { binary(bytes) }
}

/// Version 1.
fn text(bytes: &[u8]) -> Header {
    let start = &bytes[..bytes.len().min(LONGEST_TEXT)];
    let Some(line) = start.windows(2).position(|two| two == b"\r\n") else {
        return match start.len() == LONGEST_TEXT {
            true => Header::Wrong(format!("a line of version 1 has at most {LONGEST_TEXT} bytes")),
            false => Header::Partial,
        };
    };
    let length = line + 2;
    match v1::Header::try_from(&start[..length]) {
        Ok(header) => {
            let client = match header.addresses {
                v1::Addresses::Unknown => None,
                v1::Addresses::Tcp4(ends) => Some((ends.source_address, ends.source_port).into()),
                v1::Addresses::Tcp6(ends) => Some((ends.source_address, ends.source_port).into()),
            };
            Header::Whole { length, client: client.map(canonical) }
        }
        Err(error) => Header::Wrong(error.to_string()),
    }
}

/// Version 2.
fn binary(bytes: &[u8]) -> Header {
    /// Version 2 and the command LOCAL.
    const LOCAL: u8 = 0x20;
    const FIXED: usize = v2::PROTOCOL_PREFIX.len() + 4;
    let Some(&[command, _, high, low]) = bytes.get(FIXED - 4..FIXED) else { return Header::Partial };
    let declared = usize::from(u16::from_be_bytes([high, low]));
    let unfinished = || match declared > LONGEST_BINARY {
        true => Header::Wrong(format!("its {declared} bytes are more than {LONGEST_BINARY}")),
        false => Header::Partial,
    };
    // Of LOCAL its length counts, and nothing else, not even the family (section 2.2).
    if command == LOCAL {
        let length = FIXED + declared;
        let is_whole = declared <= LONGEST_BINARY && bytes.len() >= length;
        return if is_whole { Header::Whole { length, client: None } } else { unfinished() };
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(error) if error.is_incomplete() => return unfinished(),
        Err(error) => return Header::Wrong(error.to_string()),
    };
    if header.protocol == v2::Protocol::Datagram {
        return Header::Wrong("it is for datagrams".to_owned());
    }
    let client = match &header.addresses {
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        v2::Addresses::IPv4(ends) => Some((ends.source_address, ends.source_port).into()),
        v2::Addresses::IPv6(ends) => Some((ends.source_address, ends.source_port).into()),
    };
    Header::Whole { length: header.len(), client: client.map(canonical) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, addresses: &[u8], more: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len() + more.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, addresses, more].concat()
    }

    fn whole(bytes: &[u8]) -> Option<String> {
        match parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()) {
            Header::Whole { length, client } if length == bytes.len() => {
                client.map(|client| client.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_version_and_family_names_the_client() {
        let v4 = [203, 0, 113, 7, 192, 0, 2, 1, 0xc3, 0x50, 0, 80];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 7;
        v6[32..34].copy_from_slice(&[0xc3, 0x50]);

        assert_eq!(whole(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 80\r\n").unwrap(), "203.0.113.7:50000");
        assert_eq!(whole(b"PROXY TCP6 2001:db8::7 ::1 50000 80\r\n").unwrap(), "[2001:db8::7]:50000");
        assert_eq!(whole(b"PROXY TCP6 ::ffff:203.0.113.7 ::1 50000 80\r\n").unwrap(), "203.0.113.7:50000");
        assert_eq!(whole(&v2(1, 0x11, &v4, b"")).unwrap(), "203.0.113.7:50000");
        assert_eq!(whole(&v2(1, 0x11, &v4, &[4, 0, 1, 0])).unwrap(), "203.0.113.7:50000");
        assert_eq!(whole(&v2(1, 0x21, &v6, b"")).unwrap(), "[2001:db8::7]:50000");
    }

    #[test]
    fn a_load_balancers_own_connection_names_nobody() {
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(whole(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        assert_eq!(whole(&v2(0, 0, b"", b"")), None);
        assert_eq!(whole(&v2(0, 0x11, &[1; 12], b"")), None, "LOCAL counts, whatever addresses it has");
        assert_eq!(whole(&v2(0, 0x11, b"", b"")), None, "a family without addresses");
        assert_eq!(whole(&v2(0, 0x22, &[1; 5], b"")), None);
        assert_eq!(whole(&v2(0, 0xff, b"", b"")), None);
        assert_eq!(whole(&v2(1, 0, &[1; 3], b"")), None);
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_that_is_certain() {
        for wrong in [
            &b"G"[..],
            b"PROXYTCP4",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000\r\n",
            b"PROXY TCP4 203.0.113.700 192.0.2.1 50000 80\r\n",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 80000\r\n",
            b"PROXY TCP4 2001:db8::7 192.0.2.1 50000 80\r\n",
            b"PROXY UDP4 203.0.113.7 192.0.2.1 50000 80\r\n",
            &[b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
            &v2(2, 0x11, &[1; 12], b""),
            &v2(1, 0x12, &[1; 12], b""),
            &v2(1, 0x11, &[1; 11], b""),
            &[v2::PROTOCOL_PREFIX, &[0x31, 0x11, 0, 12]].concat(),
            &[v2::PROTOCOL_PREFIX, &[0x21, 0x11, 0xff, 0xff]].concat(),
        ] {
            assert!(matches!(parse(wrong), Header::Wrong(_)), "{wrong:?}: {:?}", parse(wrong));
        }
    }

    #[test]
    fn a_header_in_parts_is_waited_for() {
        for header in [
            &b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 80\r\n"[..],
            &v2(1, 0x11, &[1; 12], b"abc"),
            &v2(0, 0x11, &[1; 12], b"abc"),
        ] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Header::Partial, "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text: bool, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let start: &[u8] = if text { b"PROXY " } else { v2::PROTOCOL_PREFIX };
            parse(&bytes);
            if let Header::Whole { length, .. } = parse(&[start, &bytes].concat()) {
                prop_assert!(length <= start.len() + bytes.len());
            }
        }
    }
}
