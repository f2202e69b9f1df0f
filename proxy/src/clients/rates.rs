//! How often one client's address may connect to a gateway, and send it a request.
//!
//! IPv6 clients count by their /64. The buckets are the bounded table of [`crate::buckets`], which has room for them when a
//! limit is set, and takes no lock.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use selvedge_model::limit::network;

use crate::buckets::{Buckets, Overflow, Rate, Refused};

/// What one client's address may do in a second. As much may come at once. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientRates {
    /// New connections.
    pub connections: Option<u32>,
    /// Requests.
    pub requests: Option<u32>,
}

/// See the module. Shared by all workers.
#[derive(Debug)]
pub struct Rates {
    connections: Option<Metered>,
    requests: Option<Metered>,
    buckets: Buckets,
}

/// A limit, and its clients for whom the table has no place.
#[derive(Debug)]
struct Metered {
    each_second: u32,
    rate: Rate,
    overflow: Overflow,
}

/// What a client does too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// How often it may, in a second.
    pub each_second: u32,
    /// When it may again.
    pub refused: Refused,
}

impl Metered {
    fn new(each_second: u32) -> Self {
        let rate = Rate::new(each_second, Duration::from_secs(1), each_second);
        Self { each_second, rate, overflow: Overflow::default() }
    }
}

impl Rates {
    /// Nobody has called yet.
    pub fn new(each: ClientRates) -> Self {
        Self {
            connections: each.connections.map(Metered::new),
            requests: each.requests.map(Metered::new),
            buckets: Buckets::default(),
        }
    }

    /// One more connection from `client`.
    ///
    /// # Errors
    /// If it connects too often.
    pub fn connect(&self, client: IpAddr, now: Instant) -> Result<(), TooOften> {
        self.connections.as_ref().map_or(Ok(()), |limit| self.take("connection", limit, client, now))
    }

    /// Whether requests are limited.
    pub fn limits_requests(&self) -> bool {
        self.requests.is_some()
    }

    /// One more request of `client`.
    ///
    /// # Errors
    /// If it asks too often.
    pub fn request(&self, client: IpAddr, now: Instant) -> Result<(), TooOften> {
        self.requests.as_ref().map_or(Ok(()), |limit| self.take("request", limit, client, now))
    }

    fn take(&self, what: &str, limit: &Metered, client: IpAddr, now: Instant) -> Result<(), TooOften> {
        let key = self.buckets.key((what, network(client)));
        let taken = self.buckets.take(key, &limit.rate, &limit.overflow, self.buckets.clock(now));
        taken.map(drop).map_err(|refused| TooOften { each_second: limit.each_second, refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_so_many_in_a_second_and_a_network_of_ipv6_is_one() {
        let rates = Rates::new(ClientRates { connections: Some(1), requests: Some(2) });
        let now = Instant::now();
        let request = |from: &str, now| rates.request(address(from), now).is_ok();

        assert!(request("192.0.2.1", now) && request("192.0.2.1", now) && !request("192.0.2.1", now));
        assert!(request("192.0.2.2", now), "another client");
        assert!(request("::ffff:192.0.2.2", now) && !request("192.0.2.2", now), "the same client");
        assert!(request("2001:db8::1", now) && request("2001:db8::2", now) && !request("2001:db8::3", now));
        assert!(request("2001:db8:0:1::1", now), "another network");
        let later = now + Duration::from_millis(500);
        assert!(request("192.0.2.1", later) && !request("192.0.2.1", later));
        let connect = |now| rates.connect(address("192.0.2.1"), now);
        assert_eq!((connect(now).is_ok(), connect(now).unwrap_err().each_second), (true, 1));
    }

    #[test]
    fn what_has_no_limit_is_never_refused() {
        let (rates, now) = (Rates::new(ClientRates::default()), Instant::now());

        assert!((0..10_000).all(|_| rates.request(address("::1"), now).is_ok()));
        assert!((0..10_000).all(|_| rates.connect(address("::1"), now).is_ok()));
        assert!(!rates.limits_requests());
    }
}
