//! Which endpoint gets the next attempt, and which gets none for a while.
//!
//! Algorithms only: they hold no clock, no source of randomness and no connection. `now` and the
//! generator are parameters, so a test of an hour of ejections takes no time. What workers share
//! (round robin's cursor, ejections) is atomics; a pick takes no lock and allocates nothing.

mod aperture;
mod balancer;
mod circuit;
mod hedging;
mod load;
mod outlier;
mod weights;

pub use self::{
    balancer::{
        Balancer, Candidate, GroupShare, GroupState, Latency, Member, MemberGroup, PickFacts, Unmade,
        address_bytes,
    },
    circuit::{Circuit, Copying, Counts, Held, Limit, MAX_COPIES},
    hedging::Hedging,
    load::{Begun, Flight, Load, Total},
    outlier::{Checked, Ejected, Ejection, FailureCounts, Health, Outcome, Outlier, Requests, Why},
};
