//! One of several replicas is chosen, by a Lease, for what only one may do.
//!
//! Whether a Lease has run out is judged by how long *we* have seen it unchanged, never by comparing its
//! time with our clock: clocks of different nodes differ.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::api::{Api, PostParams};
use tokio::{sync::watch, time::Instant};

use crate::{Client, Error};

/// How long a holder that is silent keeps the Lease.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How often the holder says that it is there, and the others look.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// A holder that could not renew for this long gives up, well before anybody else takes over.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// A Lease that several replicas want.
#[derive(Debug, Clone)]
pub struct Election {
    /// Where the Lease is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// Who we are; no two replicas may say the same.
    pub identity: String,
}

/// What we know of the Lease.
#[derive(Debug, Default)]
struct ObservedLease {
    /// Holder, renewal and changes of holder: whatever makes one state of the Lease differ from the next.
    record: Option<Record>,
    /// When we first saw it so.
    since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq)]
struct Record {
    holder: String,
    renewed: Option<String>,
    transitions: i32,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq, Eq)]
enum NextMove {
    /// It is ours: say so again.
    Renew,
    /// It is nobody's, or its holder has been silent for too long.
    Take,
    /// Another replica holds it.
    Wait,
}

impl ObservedLease {
    fn judge(&mut self, record: &Record, us: &str, duration: Duration, now: Instant) -> NextMove {
        if self.record.as_ref() != Some(record) {
            self.record = Some(record.clone());
            self.since = Some(now);
        }
        let silent = self.since.is_some_and(|since| now.duration_since(since) >= duration);
        match record.holder.as_str() {
            holder if holder == us => NextMove::Renew,
            "" => NextMove::Take,
            _ if silent => NextMove::Take,
            _ => NextMove::Wait,
        }
    }
}

impl Client {
    /// Takes part in `election` for as long as it is polled; `holding` says whether we have the Lease.
    ///
    /// An API server that is away costs the Lease after 10 s; we take it again when it is back.
    pub async fn take_part(&self, election: Election, holding: watch::Sender<bool>) {
        let mut seen = ObservedLease::default();
        let mut renewed: Option<Instant> = None;
        let mut looks = tokio::time::interval(RENEW_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !holding.is_closed() {
            looks.tick().await;
            let start = Instant::now();
            match tokio::time::timeout(RENEW_INTERVAL, self.attempt(&election, &mut seen)).await {
                Ok(Ok(true)) => renewed = Some(start),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => tracing::debug!(%error, lease = election.name, "the Lease is not renewed"),
                Err(_) => tracing::debug!(lease = election.name, "the Lease is not renewed in time"),
            }
            let ours = renewed.is_some_and(|at| at.elapsed() < GIVE_UP_AFTER);
            holding.send_if_modified(|held| std::mem::replace(held, ours) != ours);
        }
    }

    /// Gives the Lease up, so that another replica need not wait for it to run out.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn give_up(&self, election: &Election) -> Result<(), Error> {
        let leases: Api<Lease> = Api::namespaced(self.inner.clone(), &election.namespace);
        let Some(mut lease) = self.within(leases.get_opt(&election.name)).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&election.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        self.within(leases.replace(&election.name, &PostParams::default(), &lease)).await.map(|_| ())
    }

    /// Whether the Lease is ours now.
    async fn attempt(&self, election: &Election, seen: &mut ObservedLease) -> Result<bool, Error> {
        let leases: Api<Lease> = Api::namespaced(self.inner.clone(), &election.namespace);
        let parameters = PostParams::default();
        let Some(mut lease) = self.within(leases.get_opt(&election.name)).await? else {
            let spec = spec_of(election, 0, None);
            let metadata = ObjectMeta { name: Some(election.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return match self.within(leases.create(&parameters, &lease)).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists(_)) => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.take().unwrap_or_default();
        let record = Record {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            renewed: spec.renew_time.as_ref().map(|time| time.0.to_string()),
            transitions: spec.lease_transitions.unwrap_or_default(),
        };
        let stated = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = stated.map_or(LEASE_DURATION, Duration::from_secs);
        let transitions = record.transitions;
        let next = match seen.judge(&record, &election.identity, duration, Instant::now()) {
            NextMove::Wait => return Ok(false),
            NextMove::Renew => spec_of(election, transitions, spec.acquire_time),
            NextMove::Take => spec_of(election, transitions.saturating_add(1), None),
        };
        lease.spec = Some(next);
        match self.within(leases.replace(&election.name, &parameters, &lease)).await {
            Ok(_) => Ok(true),
            // Somebody was faster; the next look shows who.
            Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn spec_of(election: &Election, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(election.identity.clone()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, renewed: &str) -> Record {
        Record { holder: holder.to_owned(), renewed: Some(renewed.to_owned()), transitions: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_only_from_a_holder_that_was_silent_for_its_whole_duration() {
        let mut seen = ObservedLease::default();
        let start = Instant::now();
        let mut at = |seconds: u64, record: Record| {
            seen.judge(&record, "us", LEASE_DURATION, start + Duration::from_secs(seconds))
        };

        assert_eq!(at(0, record("other", "1")), NextMove::Wait);
        assert_eq!(at(14, record("other", "1")), NextMove::Wait);
        assert_eq!(at(15, record("other", "2")), NextMove::Wait, "it has renewed");
        assert_eq!(at(29, record("other", "2")), NextMove::Wait);
        assert_eq!(at(30, record("other", "2")), NextMove::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_lease_is_renewed_and_one_that_was_given_up_is_taken_at_once() {
        let mut seen = ObservedLease::default();
        let now = Instant::now();

        assert_eq!(seen.judge(&record("us", "1"), "us", LEASE_DURATION, now), NextMove::Renew);
        assert_eq!(seen.judge(&record("", "2"), "us", LEASE_DURATION, now), NextMove::Take);
    }
}
