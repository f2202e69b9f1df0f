//! The packets on a wire, looked at as they pass.

use std::{
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use memchr::memmem;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// `ETH_P_ALL` of `linux/if_ether.h`, in network byte order.
const EVERYTHING: i32 = 0x0003_u16.to_be() as i32;

/// Looks at every packet of a namespace's links, in both directions, but for those on `lo`.
#[derive(Debug)]
pub(crate) struct Capture {
    found: Arc<AtomicU64>,
    frames: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Counts packets that have `text` in them.
    pub(crate) fn of(namespace: &Namespace, text: &'static str) -> Self {
        let socket = namespace
            .inside(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERYTHING))).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        let (found, frames, stop) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let thread = thread::spawn({
            let (found, frames, stop) = (Arc::clone(&found), Arc::clone(&frames), Arc::clone(&stop));
            move || {
                let finder = memmem::Finder::new(text);
                let mut socket = socket;
                let mut frame = vec![0; 1 << 17];
                while !stop.load(Ordering::Acquire) {
                    let Ok(length) = socket.read(&mut frame) else { continue };
                    let frame = &frame[..length];
                    // On `lo` both addresses of the Ethernet header are zero.
                    if frame.iter().take(12).all(|byte| *byte == 0) {
                        continue;
                    }
                    frames.fetch_add(1, Ordering::Release);
                    if finder.find(frame).is_some() {
                        found.fetch_add(1, Ordering::Release);
                    }
                }
            }
        });
        Self { found, frames, stop, thread: Some(thread) }
    }

    /// How many packets had the text.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Ordering::Acquire)
    }

    /// How many packets there were.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Acquire)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}
