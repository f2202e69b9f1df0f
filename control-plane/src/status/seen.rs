//! Who has called whom lately, as the sidecars tell it; for an hour, in bounded memory.
//!
//! A sidecar speaks of its own workload only. What it says is as true as it is: whoever runs it may make up callers of its own
//! workload, and of no other.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use selvedge_model::{
    WorkloadName,
    seen::{Called, Caller, LATELY, MOST_CALLERS, MOST_REFUSED, RefusedCall, Report},
};
use serde::{Deserialize, Serialize};

/// The most pairs of caller and port that are kept of one workload and one kind of callers: with mutual TLS, and without.
const MOST_OF_ONE: usize = 2 * MOST_CALLERS;
/// The most that are kept of all workloads together, of each kind: both are some 100 MiB at the worst.
const MOST: usize = 250_000;
/// The most refused calls that are kept of all workloads together: some 20 MiB at the worst.
const MOST_REFUSED_OF_ALL: usize = 100_000;
/// How long a caller counts as seen.
const KEPT: Duration = Duration::from_secs(LATELY);
/// Between two looks through all workloads for what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    workloads: BTreeMap<WorkloadName, OfOne>,
    /// How many pairs there are of all workloads together, by their kind.
    pairs: [usize; 2],
    /// How many refused calls there are of all workloads together.
    refused: usize,
    swept_at: Option<Instant>,
}

/// What is known of one workload.
#[derive(Debug)]
struct OfOne {
    /// When each caller was last seen at each port.
    last: BTreeMap<(Caller, u16), Instant>,
    /// How many there are of each kind.
    pairs: [usize; 2],
    /// When each call was last refused that its sidecar does not make, and the rule that says so.
    refused: BTreeMap<(SocketAddr, Arc<str>), Instant>,
    left_out: u64,
    /// When something was last left out.
    left_out_at: Option<Instant>,
    watched: Duration,
    told_at: Instant,
}

/// The answer of `/seen`: who has called whom in the last hour, as the sidecars of this replica have told it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTraffic {
    /// By the workload that was called: those whose sidecars have told something in the last hour.
    pub workloads: BTreeMap<WorkloadName, SeenCallers>,
}

/// Who has called one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCallers {
    /// For how long its sidecar has been watching, in seconds.
    pub watched_seconds: u64,
    /// Who has called, and which port.
    pub callers: Vec<SeenCaller>,
    /// Whom the workload was to call and its own sidecar refused to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_calls: Vec<SeenRefusal>,
    /// How many connections came of callers or to ports that are not kept, because too many are.
    pub left_out: u64,
}

/// One caller at one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenCaller {
    /// Who.
    #[serde(flatten)]
    pub caller: Caller,
    /// The workload's own port.
    pub port: u16,
    /// How long ago it was last seen, in seconds; told every ten minutes of what goes on.
    pub seconds_ago: u64,
}

/// One call that a workload's own sidecar has refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenRefusal {
    /// What was to be called.
    pub target: SocketAddr,
    /// The rule or document that refuses it.
    pub policy: String,
    /// How long ago that was last so, in seconds.
    pub seconds_ago: u64,
}

impl Seen {
    /// The sidecar of `workload` tells something.
    pub fn tell(&self, workload: &WorkloadName, report: Report) {
        self.lock().tell(workload, report, Instant::now());
    }

    /// What is known.
    pub fn now(&self) -> SeenTraffic {
        self.lock().shown(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a caller's kind in what is counted of each.
fn kind((caller, _): &(Caller, u16)) -> usize {
    usize::from(matches!(caller, Caller::Address(_)))
}

impl Inner {
    fn tell(&mut self, workload: &WorkloadName, report: Report, now: Instant) {
        if self.swept_at.is_none_or(|at| now.duration_since(at) >= SWEEP_EVERY) {
            self.sweep(now);
        }
        let known = self.workloads.entry(workload.clone()).or_insert_with(|| OfOne {
            last: BTreeMap::new(),
            pairs: [0; 2],
            refused: BTreeMap::new(),
            left_out: 0,
            left_out_at: None,
            watched: Duration::ZERO,
            told_at: now,
        });
        known.told_at = now;
        known.watched = Duration::from_secs(report.watched.min(LATELY));
        let mut left_out = report.left_out;
        for (caller, called) in report.callers {
            for Called { port, seconds_ago } in called {
                let ago = Duration::from_secs(seconds_ago);
                let Some(last) = now.checked_sub(ago).filter(|_| ago < KEPT) else { continue };
                let pair = (caller.clone(), port);
                let kind = kind(&pair);
                let has_room = known.pairs[kind] < MOST_OF_ONE && self.pairs[kind] < MOST;
                if let Some(before) = known.last.get_mut(&pair) {
                    *before = last.max(*before);
                } else if has_room {
                    known.pairs[kind] += 1;
                    self.pairs[kind] += 1;
                    known.last.insert(pair, last);
                } else {
                    left_out = left_out.saturating_add(1);
                }
            }
        }
        for RefusedCall { target, policy, seconds_ago } in report.refused {
            let ago = Duration::from_secs(seconds_ago);
            let Some(last) = now.checked_sub(ago).filter(|_| ago < KEPT) else { continue };
            let has_room = known.refused.len() < MOST_REFUSED && self.refused < MOST_REFUSED_OF_ALL;
            let call = (target, policy);
            if let Some(before) = known.refused.get_mut(&call) {
                *before = last.max(*before);
            } else if has_room {
                self.refused += 1;
                known.refused.insert(call, last);
            }
        }
        if left_out > 0 {
            known.left_out = known.left_out.saturating_add(left_out);
            known.left_out_at = Some(now);
        }
    }

    /// Forgets what is over.
    fn sweep(&mut self, now: Instant) {
        self.swept_at = Some(now);
        let is_over = |at: Instant| now.duration_since(at) >= KEPT;
        (self.pairs, self.refused) = ([0; 2], 0);
        self.workloads.retain(|_, known| {
            known.last.retain(|_, last| !is_over(*last));
            known.pairs = [0; 2];
            for kind in known.last.keys().map(kind) {
                known.pairs[kind] += 1;
                self.pairs[kind] += 1;
            }
            known.refused.retain(|_, last| !is_over(*last));
            self.refused += known.refused.len();
            if known.left_out_at.is_some_and(is_over) {
                (known.left_out, known.left_out_at) = (0, None);
            }
            !known.last.is_empty() || !known.refused.is_empty() || !is_over(known.told_at)
        });
    }

    fn shown(&mut self, now: Instant) -> SeenTraffic {
        self.sweep(now);
        let caller = |((caller, port), last): (&(Caller, u16), &Instant)| SeenCaller {
            caller: caller.clone(),
            port: *port,
            seconds_ago: now.duration_since(*last).as_secs(),
        };
        let refusal = |((target, policy), last): (&(SocketAddr, Arc<str>), &Instant)| SeenRefusal {
            target: *target,
            policy: policy.to_string(),
            seconds_ago: now.duration_since(*last).as_secs(),
        };
        let of_one = |known: &OfOne| SeenCallers {
            refused_calls: known.refused.iter().map(refusal).collect(),
            // It has gone on watching since it last told something.
            watched_seconds: (known.watched + now.duration_since(known.told_at)).min(KEPT).as_secs(),
            callers: known.last.iter().map(caller).collect(),
            left_out: known.left_out,
        };
        let workloads = self.workloads.iter().map(|(name, known)| (name.clone(), of_one(known))).collect();
        SeenTraffic { workloads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkloadName {
        text.parse().unwrap()
    }

    fn address(number: u32) -> Caller {
        Caller::Address(std::net::Ipv4Addr::from(number).into())
    }

    fn report(callers: impl IntoIterator<Item = Caller>, seconds_ago: u64) -> Report {
        let called = |caller| (caller, vec![Called { port: 80, seconds_ago }]);
        Report { callers: callers.into_iter().map(called).collect(), watched: 100, ..Report::default() }
    }

    /// How long ago each caller of `workload` was seen.
    fn ages(seen: &mut Inner, workload: &str, now: Instant) -> Vec<u64> {
        let shown = seen.shown(now);
        let known = shown.workloads.get(&name(workload));
        known.map(|known| known.callers.iter().map(|one| one.seconds_ago).collect()).unwrap_or_default()
    }

    /// A moment with an hour before it.
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(10_000)
    }

    #[test]
    fn a_caller_is_known_for_an_hour_after_it_was_last_seen() {
        let (mut seen, now) = (Inner::default(), start());
        let later = |seconds| now + Duration::from_secs(seconds);
        seen.tell(&name("a/b"), report([address(1)], 30), now);

        assert_eq!(ages(&mut seen, "a/b", later(10)), [40]);
        seen.tell(&name("a/b"), report([address(1)], 0), later(600));
        seen.tell(&name("a/b"), report([address(1)], 900), later(600));
        assert_eq!(ages(&mut seen, "a/b", later(700)), [100], "the last time counts");
        assert!(ages(&mut seen, "a/b", later(600 + LATELY)).is_empty());
        assert!(seen.workloads.is_empty() && seen.pairs == [0; 2]);
    }

    #[test]
    fn a_sidecar_that_says_much_takes_no_more_than_its_share() {
        let (mut seen, now) = (Inner::default(), start());
        seen.tell(&name("a/noisy"), report((0..100_000).map(address), 0), now);
        seen.tell(&name("a/quiet"), report([address(1)], 0), now);

        let shown = seen.shown(now);
        let noisy = &shown.workloads[&name("a/noisy")];
        assert_eq!(noisy.callers.len(), MOST_OF_ONE);
        assert_eq!(noisy.left_out, 100_000 - MOST_OF_ONE as u64);
        assert_eq!(shown.workloads[&name("a/quiet")].callers.len(), 1);
        assert_eq!(seen.pairs, [0, MOST_OF_ONE + 1]);
        // Whoever has a certificate finds room all the same.
        let identity = Caller::Identity("spiffe://td/ns/a/sa/b".parse().unwrap());
        seen.tell(&name("a/noisy"), report([identity], 0), now);
        assert_eq!(seen.pairs, [1, MOST_OF_ONE + 1]);
    }

    #[test]
    fn a_refused_call_is_known_for_an_hour_and_of_one_sidecar_only_so_many_are() {
        let (mut seen, now) = (Inner::default(), start());
        let refused = (0..1000).map(|port| RefusedCall {
            target: SocketAddr::new([10, 0, 0, 1].into(), port),
            policy: "NetworkPolicy a/b".into(),
            seconds_ago: 5,
        });
        seen.tell(&name("a/b"), Report { refused: refused.collect(), ..Report::default() }, now);

        let shown = seen.shown(now + Duration::from_secs(10));
        let known = &shown.workloads[&name("a/b")].refused_calls;
        assert_eq!((known.len(), known[0].seconds_ago, seen.refused), (MOST_REFUSED, 15, MOST_REFUSED));
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<SeenTraffic>(&text).unwrap(), shown);
        assert!(seen.shown(now + KEPT).workloads.is_empty() && seen.refused == 0);
    }

    #[test]
    fn a_sidecar_that_has_seen_nobody_is_known_to_watch() {
        let (mut seen, now) = (Inner::default(), start());
        seen.tell(&name("a/b"), report([], 0), now);

        let shown = seen.shown(now + Duration::from_secs(7));
        assert_eq!(shown.workloads[&name("a/b")].watched_seconds, 107);
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<SeenTraffic>(&text).unwrap(), shown);
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let (mut seen, now) = (Inner::default(), start());
        let identity = Caller::Identity("spiffe://td/ns/a/sa/b".parse().unwrap());
        seen.tell(&name("a/b"), report([identity, address(1)], 5), now);

        let shown = seen.shown(now);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(text.contains(r#"{"identity":"spiffe://td/ns/a/sa/b","port":80,"seconds_ago":5}"#), "{text}");
        assert!(text.contains(r#"{"address":"0.0.0.1","port":80,"seconds_ago":5}"#), "{text}");
        assert_eq!(serde_json::from_str::<SeenTraffic>(&text).unwrap(), shown);
    }
}
