//! Who takes part in a run. One that breaks leaves the field, so that the others' figures are not lost.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use crate::load::generator::{Generator, Target, Until};
use crate::load::{self, Load, Turn};
use crate::measure::SystemCalls;
use crate::once;
use crate::pairs::{Kind, Pair, Site};
use crate::process::Running;
use crate::report::{Skipped, Subject};

/// A subject while it runs.
pub(crate) struct Contender {
    kind: Kind,
    pair: Pair,
    subject: Subject,
}

#[derive(Default)]
pub(crate) struct Field {
    contenders: Vec<Contender>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) broken: Vec<&'static str>,
}

impl Field {
    /// Starts `kind`, if it can be.
    pub(crate) fn enter(&mut self, kind: Kind, site: &Site) {
        if let Some(why) = kind.missing(site) {
            self.skipped.push(Skipped { name: kind.name(), why });
            return;
        }
        eprintln!("starting {}", kind.name());
        match kind.start(site) {
            Ok(pair) => {
                let subject = Subject::new(kind.name(), !pair.proxies().is_empty());
                self.contenders.push(Contender { kind, pair, subject });
            }
            Err(error) => self.leave(kind.name(), &error),
        }
    }

    pub(crate) fn leave(&mut self, name: &'static str, error: &anyhow::Error) {
        eprintln!("{name} is out: {error:#}");
        self.contenders.retain(|contender| contender.subject.name != name);
        let all = format!("{error:#}");
        let why = all.lines().next().unwrap_or_default().to_owned();
        self.skipped.push(Skipped { name, why });
        self.broken.push(name);
    }

    /// Does something once with every subject that has proxies.
    pub(crate) fn each(
        &mut self,
        what: &'static str,
        mut action: impl FnMut(&mut Contender) -> anyhow::Result<()>,
    ) {
        let mut broken = Vec::new();
        for contender in self.contenders.iter_mut().filter(|contender| contender.subject.proxied) {
            eprintln!("{what} {}", contender.subject.name);
            if let Err(error) = action(contender) {
                broken.push((contender.subject.name, error.context(what)));
            }
        }
        for (name, error) in broken {
            self.leave(name, &error);
        }
    }

    /// In each round, gives each its turn at each load, beginning with another one each time, so that nobody
    /// always follows the same.
    pub(crate) fn rounds(&mut self, rounds: u32, loads: &[Load], turn: Turn, app: &Running) {
        for round in 0..rounds as usize {
            for load in loads {
                eprintln!("round {} of {rounds}: {}", round + 1, load.name());
                self.round(round, *load, turn, app);
            }
        }
    }

    fn round(&mut self, round: usize, load: Load, turn: Turn, app: &Running) {
        let mut broken = Vec::new();
        let count = self.contenders.len();
        for place in 0..count {
            let Contender { kind, pair, subject } = &mut self.contenders[(place + round) % count];
            if !kind.takes(load) {
                continue;
            }
            match load::take(load, turn, pair, app.id()) {
                Ok(sample) => subject.samples.entry(load).or_default().push(sample),
                Err(error) => broken.push((subject.name, error)),
            }
        }
        for (name, error) in broken {
            self.leave(name, &error.context(format!("{} in round {}", load.name(), round + 1)));
        }
    }

    /// Counts system calls, in loads of their own since tracing slows everything.
    pub(crate) fn system_calls(&mut self, connections: usize, requests: u64, directory: &Path) {
        for Contender { pair, subject, .. } in &mut self.contenders {
            let proxies = pair.proxies();
            if proxies.is_empty() {
                continue;
            }
            eprintln!("counting the system calls of {}", subject.name);
            let counted =
                calls_per_request(subject.name, &pair.target, &proxies, connections, requests, directory);
            let why = match counted {
                Ok(Some(calls)) => {
                    subject.system_calls = Some(calls);
                    continue;
                }
                Ok(None) => "strace is not installed: apt-get install strace".to_owned(),
                Err(error) => format!("{}: {error:#}", subject.name),
            };
            // Whatever stands in the way of tracing one stands in the way of all.
            self.skipped.push(Skipped { name: "system calls", why });
            return;
        }
    }

    /// What was seen; everything is stopped.
    pub(crate) fn subjects(self) -> Vec<Subject> {
        self.contenders.into_iter().map(|contender| contender.subject).collect()
    }
}

impl Contender {
    /// Takes memory, fresh and with so many connections.
    pub(crate) fn footprint(&mut self, counts: &[usize]) -> anyhow::Result<()> {
        self.subject.footprint = Some(once::footprint(&self.pair, counts)?);
        Ok(())
    }

    /// Takes the time that a start takes, so many times.
    pub(crate) fn starts(&mut self, times: usize) -> anyhow::Result<()> {
        self.subject.starts_ms = once::starts(&self.pair, times)?;
        Ok(())
    }

    /// Carries so many requests, so that all connections are open that there will be.
    pub(crate) fn warm_up(&mut self, requests: u64) -> anyhow::Result<()> {
        let outcome = Generator::new(&self.pair.target, 64)?.closed(Until::Requests(requests))?;
        ensure!(outcome.failed == 0, "{} of {requests} requests failed", outcome.failed);
        Ok(())
    }
}

fn calls_per_request(
    name: &str,
    target: &Target,
    proxies: &[u32],
    connections: usize,
    requests: u64,
    directory: &Path,
) -> anyhow::Result<Option<f64>> {
    let mut generator = Generator::new(target, connections)?;
    generator.closed(Until::Elapsed(Duration::from_millis(250)))?;
    let Some(counting) = SystemCalls::attach(name, proxies, directory)? else { return Ok(None) };
    let outcome = generator.closed(Until::Requests(requests))?;
    let calls = counting.finish()?;
    Ok(Some(calls as f64 / outcome.requests.max(1) as f64))
}
