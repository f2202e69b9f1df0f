//! `wiretap`: looks at every packet of its host for a word that only encrypted ones may carry.
//!
//! The canary's `verify` puts the word into its requests. The browser's own connections are in plaintext, and
//! so prove that the word would be found elsewhere.

use std::{
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use memchr::memmem;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{SignalKind, signal};

/// `ETH_P_ALL` of `linux/if_ether.h`, in network byte order.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;
/// Packets that wait for us, in bytes: a busy host must not make us miss one.
const BUFFER: usize = 16 << 20;
/// An Ethernet header, without a VLAN's tag.
const ETHERNET: usize = 14;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;

/// The settings.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The word to look for.
    #[arg(long)]
    word: String,
    /// A port at which plaintext is right; may be given more than once.
    #[arg(long)]
    browser_port: Vec<u16>,
}

/// What was seen, printed as JSON at the end.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Seen {
    /// Packets of TCP.
    packets: u64,
    /// Those with the word, of a browser's connections.
    browser: u64,
    /// Those with the word, of any other connection. Must be none.
    elsewhere: u64,
    /// The connections of the first of these.
    examples: Vec<String>,
}

/// How many connections are named.
const EXAMPLES: usize = 5;

/// Looks until SIGTERM or SIGINT, then prints what it saw.
///
/// # Errors
/// Without the capability `NET_RAW`.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING)));
    let mut socket = socket.context("packets cannot be looked at; that takes the capability NET_RAW")?;
    socket.set_recv_buffer_size(BUFFER)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let count = Arc::clone(&seen);
    // A thread that ends with the process: a blocked read cannot be cancelled.
    std::thread::spawn(move || {
        let finder = memmem::Finder::new(&args.word);
        let mut frame = vec![0; 1 << 17];
        while let Ok(length) = socket.read(&mut frame) {
            let Some((from, to)) = ends(&frame[..length]) else { continue };
            let found = finder.find(&frame[..length]).is_some();
            count.lock().unwrap_or_else(PoisonError::into_inner).count(from, to, found, &args.browser_port);
        }
    });
    println!("looking at packets");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

impl Seen {
    fn count(&mut self, from: SocketAddr, to: SocketAddr, found: bool, browser_ports: &[u16]) {
        self.packets += 1;
        if !found {
            return;
        }
        if [from, to].iter().any(|end| browser_ports.contains(&end.port())) {
            self.browser += 1;
            return;
        }
        self.elsewhere += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{from} to {to}"));
        }
    }
}

/// The two ends of the TCP connection that a frame belongs to.
fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let packet = frame.get(ETHERNET..)?;
    let (from, to, segment) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == TCP => {
            let header = usize::from(packet[0] & 0xf) * 4;
            (
                IpAddr::V4(v4(packet.get(12..16)?)?),
                IpAddr::V4(v4(packet.get(16..20)?)?),
                packet.get(header..)?,
            )
        }
        6 if *packet.get(6)? == TCP => {
            (IpAddr::V6(v6(packet.get(8..24)?)?), IpAddr::V6(v6(packet.get(24..40)?)?), packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    Some((SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?)))
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a TCP packet from 10.0.0.1:1000 to 10.0.0.2:9080.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x03, 0xe8, 0x23, 0x78]);
        frame
    }

    #[test]
    fn a_packets_ends_are_read_and_nothing_else_is_taken_for_one() {
        let ends_of = |text: [&str; 2]| Some((text[0].parse().unwrap(), text[1].parse().unwrap()));
        assert_eq!(ends(&frame()), ends_of(["10.0.0.1:1000", "10.0.0.2:9080"]));

        for length in 0..frame().len() {
            assert_eq!(ends(&frame()[..length]), None, "{length}");
        }
        let mut udp = frame();
        udp[ETHERNET + 9] = 17;
        assert_eq!(ends(&udp), None);
    }

    #[test]
    fn the_word_counts_where_it_must_not_be_and_the_connection_is_named() {
        let mut seen = Seen::default();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));

        seen.count(at(1000), at(8080), true, &[8080]);
        seen.count(at(1000), at(9080), false, &[8080]);
        seen.count(at(1000), at(9080), true, &[8080]);

        assert_eq!((seen.packets, seen.browser, seen.elsewhere), (3, 1, 1));
        assert_eq!(seen.examples, ["10.0.0.1:1000 to 10.0.0.1:9080"]);
    }
}
