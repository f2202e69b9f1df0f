//! How long those wait who come again and again.
//!
//! A handshake costs as much for a connection that lasts for a moment as for one that lasts for a day. Proxies whose connections
//! fail wait longer each time; one that does not, or a crowd of them behind one address, would take the processor from everybody
//! else. So an address from which connections of workloads end as soon as they have begun is let in ever later, and its
//! connections keep nobody waiting meanwhile.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selvedge_ops::places::group;
use tokio::time::Instant;

/// A connection that ends within this time was a short one.
const SHORT: Duration = Duration::from_secs(5);
/// One address may have a short connection so often.
const EVERY: Duration = Duration::from_secs(1);
/// So much sooner may they come, all together: 20 at once.
const EARLY: Duration = Duration::from_secs(20);
/// Whoever is ahead by more than that waits the so-manyth part of it.
const PART: u32 = 10;
/// The longest that anybody waits: less than a proxy gives a connection.
const LONGEST: Duration = Duration::from_secs(2);
/// Of so many addresses it is known.
const MOST: usize = 65_536;

/// When each address has used up its short connections, if it has had any more often than it may.
#[derive(Debug, Default)]
pub(super) struct Restless(Mutex<Visits>);

#[derive(Debug, Default)]
struct Visits {
    used_up_at: HashMap<IpAddr, Instant>,
    /// With so many, those are looked for that have used up nothing.
    sweep_at: usize,
}

/// A connection of a workload, for as long as this lives.
#[derive(Debug)]
pub(super) struct Visit {
    restless: Arc<Restless>,
    address: IpAddr,
    began: Instant,
}

impl Restless {
    /// How long a connection from `address` waits; `None`: not at all.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        let used_up_at = *self.lock().used_up_at.get(&group(address))?;
        let ahead = used_up_at.checked_duration_since(Instant::now() + EARLY)?;
        Some((ahead / PART).min(LONGEST)).filter(|wait| !wait.is_zero())
    }

    /// A connection of a workload from `address` has begun.
    pub(super) fn visit(self: &Arc<Self>, address: IpAddr) -> Visit {
        Visit { restless: Arc::clone(self), address: group(address), began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Visits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visits {
    fn was_short(&mut self, address: IpAddr, now: Instant) {
        if self.used_up_at.len() >= self.sweep_at {
            self.used_up_at.retain(|_, at| *at > now);
            self.sweep_at = 2 * self.used_up_at.len() + 16;
        }
        if self.used_up_at.len() < MOST || self.used_up_at.contains_key(&address) {
            let at = self.used_up_at.entry(address).or_insert(now);
            *at = (*at).max(now) + EVERY;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.began) < SHORT {
            self.restless.lock().was_short(self.address, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_again_and_again_waits_and_nobody_else_does() {
        let restless = Arc::<Restless>::default();
        let comes = |lasts: Duration| {
            let visit = restless.visit(address(1));
            async move {
                tokio::time::sleep(lasts).await;
                drop(visit);
            }
        };

        for _ in 0..20 {
            assert_eq!(restless.wait(address(1)), None);
            comes(Duration::ZERO).await;
        }
        comes(Duration::ZERO).await;
        assert_eq!(restless.wait(address(1)), Some(Duration::from_millis(100)));
        assert_eq!(restless.wait(address(2)), None);
        for _ in 0..100 {
            comes(Duration::ZERO).await;
        }
        assert_eq!(restless.wait(address(1)), Some(LONGEST), "and no longer");

        // In one long visit it is forgotten.
        comes(Duration::from_secs(101)).await;
        assert_eq!(restless.wait(address(1)), None);
        restless.lock().sweep_at = 0;
        tokio::time::sleep(EARLY).await;
        drop(restless.visit(address(2)));
        assert_eq!(restless.lock().used_up_at.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_herd_from_one_address_that_stays_waits_for_nothing() {
        let restless = Arc::<Restless>::default();
        let herd: Vec<Visit> = (0..1_000).map(|_| restless.visit(address(1))).collect();
        tokio::time::sleep(SHORT).await;

        drop(herd);

        assert_eq!(restless.wait(address(1)), None);
    }
}
