//! The sockets that a proxy listens on.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use selvedge_ops::{
    announce, guarded,
    listen::{self, ListenError},
};

use crate::{cli::Args, settings::OwnListeners};

/// The sockets that a proxy listens on.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) outbound: Vec<std::net::TcpListener>,
    /// Each with its place among `--upstream`.
    pub(super) upstreams: Vec<(usize, std::net::TcpListener)>,
    /// `None`: this is a gateway.
    pub(super) inbound: Option<std::net::TcpListener>,
    pub(super) admin: std::net::TcpListener,
}

/// Opens them, and says where they are.
pub(super) fn listen(args: &Args) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners {
        outbound: outbound_listeners(&args.outbound)?,
        upstreams: Vec::new(),
        inbound: args.inbound.map(|address| listen::tcp("--inbound", address)).transpose()?,
        admin: listen::tcp("--admin", args.admin)?,
    };
    for outbound in &listeners.outbound {
        let address = outbound.local_addr()?;
        guarded::guard(guarded::Kind::Outbound, address);
        announce("outbound", address);
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "--outbound is not on loopback: whoever reaches it calls with this workload's identity");
        }
    }
    if let Some(inbound) = &listeners.inbound {
        let inbound = inbound.local_addr()?;
        guarded::guard(guarded::Kind::Inbound, inbound);
        announce("inbound", inbound);
    }
    guarded::guard(guarded::Kind::Private, listeners.admin.local_addr()?);
    announce("admin", listeners.admin.local_addr()?);
    for (place, upstream) in args.upstream.iter().enumerate() {
        listeners.upstreams.extend(upstream.open()?.into_iter().map(|listener| (place, listener)));
    }
    Ok(listeners)
}

/// Opens the outbound listeners. One of the defaults is `::1`. A host without IPv6, as many containers are, has no such
/// address: it is left out if there is another.
fn outbound_listeners(addresses: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        match listen::tcp("--outbound", *address) {
            Err(ListenError::NoSuchAddress { .. })
                if address.ip() == Ipv6Addr::LOCALHOST && addresses.len() > 1 =>
            {
                tracing::info!(%address, "not listening here: this host has no IPv6");
            }
            opened => listeners.push(opened?),
        }
    }
    Ok(listeners)
}

/// Their addresses, at which nothing that we carry may arrive.
pub(super) fn own_listeners(args: &Args, listeners: &Listeners) -> anyhow::Result<OwnListeners> {
    let upstreams = listeners.upstreams.iter().map(|(_, listener)| listener);
    let outbound = listeners.outbound.iter().chain(upstreams).map(std::net::TcpListener::local_addr);
    Ok(OwnListeners {
        outbound: outbound.collect::<Result<_, _>>()?,
        inbound: listeners.inbound.as_ref().map(std::net::TcpListener::local_addr).transpose()?,
        gateway: Arc::default(),
        admin: listeners.admin.local_addr()?,
        control_plane: args.control_plane.port_on_loopback(),
        redirected: args.redirected,
    })
}
