//! Holding a network namespace: the process that owns a pod's namespace while others come and go in it.
//!
//! It is usually process 1 of its container. So it reaps orphaned processes, and it has a handler for signals, without
//! which process 1 would not end. It has no children of its own, so it passes on no signals.
//!
//! A datagram socket with an abstract name shows that the namespace is held, with verified rules. Abstract names belong
//! to the network namespace and need neither a file nor a port.

use std::{
    io,
    os::linux::net::SocketAddrExt as _,
    os::unix::net::{SocketAddr, UnixDatagram},
};

use rustix::{
    process::{WaitOptions, wait},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::Error;

/// The abstract name of the socket that marks a held namespace.
const MARK: &[u8] = b"selvedge-init";

/// Gives up all capabilities and waits for SIGTERM or SIGINT.
///
/// # Errors
/// If somebody else holds the namespace, or the capabilities cannot be given up.
pub fn hold() -> Result<(), Error> {
    // Before the mark: from then on we may be told to end.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD]).map_err(Error::Signals)?;
    give_up_capabilities().map_err(Error::Drop)?;
    let _mark = mark()?;
    println!("the network namespace is held, without capabilities; SIGTERM ends this process");
    // Some may have ended before we listened.
    reap();
    for signal in signals.forever() {
        if signal != SIGCHLD {
            break;
        }
        reap();
    }
    Ok(())
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Whether the namespace is held.
///
/// # Errors
/// If it is not.
pub fn held() -> Result<(), Error> {
    let connected = address().and_then(|address| UnixDatagram::unbound()?.connect_addr(&address));
    connected.map_err(|_| Error::NotHeld)
}

fn mark() -> Result<UnixDatagram, Error> {
    let bound = address().and_then(|address| UnixDatagram::bind_addr(&address));
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Error::HeldAlready,
        _ => Error::Mark(error),
    })
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(MARK)
}

/// For ever: with `no_new_privs` not even a program of root's gets any back.
fn give_up_capabilities() -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    for capability in CapabilitySet::all() {
        // Needs SETPCAP, which a container that follows our examples has not; no_new_privs is enough.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}
