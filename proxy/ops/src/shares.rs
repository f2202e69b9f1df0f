//! Whose turn it is where something is dear and anybody may ask for it: nobody waits behind all that one address asks for.
//!
//! An address (IPv6: the /64 network, which one host may fill) has at most so many turns at once, waiting ones for the common
//! ones included. So a newcomer waits for a few of each other address at most, however many those have asked for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::places::group;

/// With more addresses than this, those that ask for nothing now are forgotten.
const MOST: usize = 1024;

/// Turns at something, in all and of each address.
#[derive(Debug)]
pub struct Shares {
    common: Arc<Semaphore>,
    of_each: usize,
    own: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    // In this order they are given back: who waits for the common one first.
    _common: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// `in_all` turns at once, of which one address has or waits for at most `of_each`.
    pub fn new(in_all: usize, of_each: usize) -> Self {
        Self { common: Arc::new(Semaphore::new(in_all)), of_each, own: Mutex::default() }
    }

    /// A turn of `address`, once there is one. Who no longer waits for it has lost nothing.
    pub async fn turn(&self, address: IpAddr) -> Turn {
        // Neither is ever closed.
        let own = self.own(group(address)).acquire_owned().await.ok();
        let common = Arc::clone(&self.common).acquire_owned().await.ok();
        Turn { _common: common, _own: own }
    }

    fn own(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&address) {
            // A turn, and whoever waits for one, holds its semaphore.
            all.retain(|_, own| Arc::strong_count(own) > 1);
        }
        Arc::clone(all.entry(address).or_insert_with(|| Arc::new(Semaphore::new(self.of_each))))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// Who stands in line, or had a turn at once.
    enum Asked<'a> {
        Waits(Pin<Box<dyn Future<Output = Turn> + 'a>>),
        Has(Turn),
    }

    impl Asked<'_> {
        /// The turn, if it has come.
        fn turn(&mut self) -> Option<&Turn> {
            if let Self::Waits(turn) = self
                && let Poll::Ready(turn) = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                *self = Self::Has(turn);
            }
            match self {
                Self::Waits(_) => None,
                Self::Has(turn) => Some(turn),
            }
        }
    }

    fn ask<'a>(shares: &'a Shares, address: &str) -> Asked<'a> {
        let mut asked = Asked::Waits(Box::pin(shares.turn(address.parse().unwrap())));
        asked.turn();
        asked
    }

    #[test]
    fn one_address_waits_behind_what_it_has_asked_for_itself() {
        let shares = Shares::new(1, 1);
        let mut first = ask(&shares, "10.0.0.1");
        assert!(first.turn().is_some(), "nobody else has asked");
        let mut crowd: Vec<_> = (0..60).map(|_| ask(&shares, "10.0.0.1")).collect();
        let mut other = ask(&shares, "10.0.0.2");
        assert!(other.turn().is_none(), "there is one turn");
        drop(first);
        assert!(crowd.iter_mut().all(|one| one.turn().is_none()), "the other address was before them");
        assert!(other.turn().is_some(), "its turn is next");
        drop(other);
        assert!(crowd[0].turn().is_some(), "then it is the first one's again");
    }

    #[test]
    fn a_network_is_one_address_and_who_gave_up_keeps_nobody_waiting() {
        let shares = Shares::new(8, 1);
        let first = ask(&shares, "2001:db8::1");
        let gave_up = ask(&shares, "2001:db8::2");
        let mut third = ask(&shares, "2001:db8::3");
        assert!(third.turn().is_none(), "all are of one network");
        assert!(ask(&shares, "2001:db8:0:1::1").turn().is_some(), "this is another");
        drop(gave_up);
        drop(first);
        assert!(third.turn().is_some(), "nobody is before it any more");
    }

    #[test]
    fn addresses_that_ask_for_nothing_are_forgotten() {
        let shares = Shares::new(1, 1);
        let held = ask(&shares, "10.0.0.1");
        for number in 0..3_000 {
            drop(ask(&shares, &std::net::Ipv4Addr::from_bits((11 << 24) + number).to_string()));
        }
        let own = shares.own.lock().unwrap();
        assert!(own.len() <= MOST);
        assert!(own.contains_key(&"10.0.0.1".parse::<IpAddr>().unwrap()), "it has its turn");
        drop(own);
        drop(held);
    }
}
