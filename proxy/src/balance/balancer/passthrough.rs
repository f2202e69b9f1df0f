//! The endpoint whose address the client itself dialled (`PASSTHROUGH`; Envoy's original destination).
//!
//! A request that names no endpoint by its address, such as one to the service's own address, goes as with
//! `LEAST_REQUEST`: sent on to that address it would leave the mesh in plaintext, and kube-proxy would balance it.

use std::{collections::HashMap, net::SocketAddr};

use super::{Candidate, Eligible, Member, Shares, least_request::LeastRequest};

/// See the module.
#[derive(Debug)]
pub(super) struct Passthrough {
    places: HashMap<SocketAddr, usize>,
    others: LeastRequest,
}

impl Passthrough {
    pub(super) fn new(members: &[Member], others: LeastRequest) -> Self {
        let places = members.iter().enumerate().map(|(place, member)| (member.address, place));
        // Of two at one address, the first.
        Self { places: places.rev().collect(), others }
    }

    pub(super) fn shares(&self) -> &Shares {
        self.others.shares()
    }

    /// The place of the one at the address `dialled`.
    pub(super) fn place(&self, dialled: SocketAddr) -> Option<usize> {
        self.places.get(&dialled).copied()
    }

    /// Where none was dialled.
    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        self.others.pick(eligible, rng)
    }
}
