//! What somebody has had sidecars log for a while.
//!
//! A sidecar is told on its stream, and falls back to its own setting by itself when the time is over, whatever becomes of the
//! control plane meanwhile. One that connects later, while the time is not over, is told as well.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selvedge_model::WorkloadName;
use selvedge_ops::LogLevel;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::taps::Of;

/// How many orders are kept. The oldest make room: those who were told are told no more, and go on until their time is over.
const MOST: usize = 64;
/// The longest that somebody can ask for, in seconds.
const LONGEST: u64 = 24 * 3600;
/// The longest filter, in bytes.
const LONGEST_FILTER: usize = 1_024;

/// What one asks at `/logs`.
#[derive(Debug, Deserialize)]
pub(crate) struct LevelQuestion {
    /// `NAMESPACE/NAME` or `NAMESPACE/*`; absent = the control plane itself.
    of: Option<String>,
    /// A level, or directives; empty = as it is set.
    filter: String,
    /// For how long, in seconds.
    seconds: u64,
}

/// The answer of `/logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelAnswer {
    /// The workloads whose connected sidecars are told, at this replica.
    pub told: Vec<WorkloadName>,
    /// Those whose sidecars are too old to be told.
    pub too_old: Vec<WorkloadName>,
    /// Whether it is this replica of the control plane itself that logs otherwise.
    pub is_own: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Levels {
    orders: Mutex<Vec<Order>>,
    /// Counts the changes.
    changed: watch::Sender<u64>,
}

/// What somebody wants sidecars to log.
#[derive(Debug, Clone)]
struct Order {
    number: u64,
    of: Of,
    filter: String,
    until: Instant,
}

/// What a sidecar is to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    /// Which order it is of.
    number: u64,
    /// Empty: as it is set.
    pub(crate) filter: String,
    pub(crate) until: Instant,
}

impl Level {
    /// For how much longer, in whole seconds, and at least one.
    pub(crate) fn seconds(&self) -> u64 {
        self.until.saturating_duration_since(Instant::now()).as_secs().max(1)
    }
}

impl Levels {
    /// Has those log it that `question` is about; `connected` says of each connected workload whether it can be told. `own` is
    /// the control plane's own log.
    ///
    /// # Errors
    /// If the question cannot be understood.
    pub(crate) fn ask(
        &self,
        question: LevelQuestion,
        connected: Vec<(WorkloadName, bool)>,
        own: &LogLevel,
    ) -> Result<LevelAnswer, String> {
        let LevelQuestion { of, filter, seconds } = question;
        if filter.len() > LONGEST_FILTER {
            return Err(format!("a filter has {LONGEST_FILTER} bytes at most"));
        }
        if !filter.is_empty() {
            selvedge_ops::logging::check(&filter).map_err(|error| error.to_string())?;
        }
        if !(1..=LONGEST).contains(&seconds) {
            return Err(format!("a time is 1 to {LONGEST} seconds"));
        }
        let time = Duration::from_secs(seconds);
        let Some(of) = of else {
            own.lend(&filter, time).map_err(|error| error.to_string())?;
            if filter.is_empty() {
                tracing::info!("somebody on this host has set the log level back to its own setting");
            } else {
                tracing::info!(filter, ?time, "somebody on this host has set the log level for a while");
            }
            return Ok(LevelAnswer { is_own: true, ..LevelAnswer::default() });
        };
        let of: Of = of.parse()?;
        tracing::info!(
            ?of,
            filter,
            ?time,
            "somebody on this host sets the log level of sidecars for a while"
        );
        let meant = connected.into_iter().filter(|(name, _)| of.is(name));
        let (told, too_old): (Vec<_>, Vec<_>) = meant.partition(|(_, can_be_told)| *can_be_told);
        let names = |list: Vec<(WorkloadName, bool)>| list.into_iter().map(|(name, _)| name).collect();
        let answer = LevelAnswer { told: names(told), too_old: names(too_old), is_own: false };
        let mut orders = self.lock();
        let number = orders.last().map_or(0, |order| order.number) + 1;
        let now = Instant::now();
        orders.retain(|order| order.until > now && order.of != of);
        if orders.len() >= MOST {
            orders.remove(0);
        }
        orders.push(Order { number, of, filter, until: now + time });
        drop(orders);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(answer)
    }

    /// What the sidecar of `workload` is to log; of several orders the last counts.
    pub(crate) fn of(&self, workload: &WorkloadName) -> Option<Level> {
        let now = Instant::now();
        let orders = self.lock();
        let order = orders.iter().rev().find(|order| order.until > now && order.of.is(workload))?;
        Some(Level { number: order.number, filter: order.filter.clone(), until: order.until })
    }

    /// Changes whenever somebody wants something else.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkloadName {
        text.parse().unwrap()
    }

    fn ask(levels: &Levels, of: Option<&str>, filter: &str, seconds: u64) -> Result<LevelAnswer, String> {
        let (_layer, own) = selvedge_ops::logging::filter("info").unwrap();
        let question = LevelQuestion { of: of.map(str::to_owned), filter: filter.to_owned(), seconds };
        let connected = vec![(name("shop/a"), true), (name("shop/b"), false), (name("other/c"), true)];
        levels.ask(question, connected, &own)
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_that_are_meant_log_otherwise_until_the_time_is_over() {
        let levels = Levels::default();
        let changes = levels.changes();

        let answer = ask(&levels, Some("shop/*"), "debug", 60).unwrap();

        assert_eq!((answer.told, answer.too_old), (vec![name("shop/a")], vec![name("shop/b")]));
        assert!(changes.has_changed().unwrap());
        assert_eq!(levels.of(&name("shop/a")).map(|level| level.filter), Some("debug".to_owned()));
        assert_eq!(levels.of(&name("other/c")), None);
        ask(&levels, Some("shop/a"), "trace", 30).unwrap();
        assert_eq!(levels.of(&name("shop/a")).map(|level| level.filter), Some("trace".to_owned()));
        assert_eq!(levels.of(&name("shop/b")).map(|level| level.filter), Some("debug".to_owned()));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(levels.of(&name("shop/a")).map(|level| level.filter), Some("debug".to_owned()));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(levels.of(&name("shop/a")), None);
    }

    #[tokio::test]
    async fn what_cannot_be_meant_is_refused() {
        let levels = Levels::default();

        for (of, filter, seconds, words) in [
            ("shop", "debug", 60, "NAMESPACE/NAME"),
            ("shop/a", "x=loud", 60, "log filter"),
            ("shop/a", "debug", 0, "1 to"),
            ("shop/a", "debug", 100_000, "1 to"),
        ] {
            let error = ask(&levels, Some(of), filter, seconds).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(levels.of(&name("shop/a")), None);
        assert!(ask(&levels, None, "debug", 60).unwrap().is_own);
    }
}
