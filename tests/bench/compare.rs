//! A whole run: start everything, take memory, take rounds in which every subject has its turn, count
//! system calls, report.
//!
//! Rounds are short and interleaved, because the speed of a shared machine drifts by tens of percent
//! within minutes: figures are compared within a round, and the median over the rounds is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::certificates;
use crate::load::{Generator, Target, Until};
use crate::measure::{SystemCalls, resident_kib};
use crate::pairs::{Kind, Pair, Site};
use crate::process::Running;
use crate::report::{Conditions, Footprint, Report, Skipped, Subject};
use crate::sample::{self, Turn};

/// Every part needs a descriptor or two per connection, and the idle measurement opens a thousand.
const DESCRIPTORS: u64 = 16_384;

/// How many connections wait, having been used once, when memory is measured a second time.
const IDLE_CONNECTIONS: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many rounds, in each of which every subject has one turn.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each load of a turn lasts; a turn has two.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections that carry the load.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Two rounds of half a second: shows that everything works, and no figure worth quoting.
    #[arg(long)]
    quick: bool,
    /// Measure this only; may be given more than once. The app alone is always measured.
    #[arg(long, value_name = "NAME")]
    only: Vec<Kind>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// The `selvedge` binary; by default the one beside this binary.
    #[arg(long)]
    selvedge: Option<PathBuf>,
    /// What the run is of, for the report: a commit, a profile.
    #[arg(long, default_value = "")]
    label: String,
}

impl Args {
    fn rounds(&self) -> u32 {
        if self.quick { 2 } else { self.rounds }
    }

    /// System calls are counted over this many requests.
    fn traced_requests(&self) -> u64 {
        if self.quick { 1_000 } else { 10_000 }
    }

    fn turn(&self) -> anyhow::Result<Turn> {
        let seconds = if self.quick { 0.5 } else { self.seconds };
        let duration = Duration::try_from_secs_f64(seconds).context("--seconds is no length of time")?;
        Ok(Turn { connections: self.connections, duration })
    }

    fn selvedge(&self) -> anyhow::Result<PathBuf> {
        match &self.selvedge {
            Some(given) => Ok(given.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("selvedge")),
        }
    }

    fn wants(&self, kind: Kind) -> bool {
        self.only.is_empty() || kind == Kind::Direct || self.only.contains(&kind)
    }
}

/// A subject while it runs.
struct Contender {
    pair: Pair,
    subject: Subject,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let turn = args.turn()?;
    let directory = tempfile::Builder::new().prefix("selvedge-bench-").tempdir()?;
    let (app, site) = prepare(directory.path(), args.selvedge()?)?;

    let mut field = Field::default();
    for kind in Kind::ALL.into_iter().filter(|kind| args.wants(*kind)) {
        match kind.missing(&site) {
            Some(why) => field.skipped.push(Skipped { name: kind.name(), why }),
            None => field.enter(kind, &site),
        }
    }
    for round in 0..args.rounds() {
        eprintln!("round {} of {}", round + 1, args.rounds());
        field.round(round as usize, turn, &app);
    }
    field.trace(args, directory.path());

    let report = Report {
        conditions: Conditions::now(args.label.clone(), turn, args.rounds())?,
        subjects: field.contenders.into_iter().map(|contender| contender.subject).collect(),
        skipped: field.skipped,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.summary())?);
    } else {
        print!("{}", report.summary());
    }
    ensure!(field.broken.is_empty(), "could not be measured to the end: {}", field.broken.join(", "));
    Ok(())
}

/// The app and the certificates, which every pair needs.
fn prepare(directory: &Path, selvedge: PathBuf) -> anyhow::Result<(Running, Site)> {
    let mut app = Command::new(std::env::current_exe()?);
    app.args(["app", "--exit-on-stdin-close"]);
    let mut app = Running::start("app", app, directory)?;
    let site = Site { directory: directory.to_owned(), app: app.address_of("app")?, selvedge };
    std::fs::create_dir_all(site.certificates())?;
    certificates::write(&site.certificates())?;
    Ok((app, site))
}

/// Who takes part. One that breaks leaves the field, so that the others' figures are not lost.
#[derive(Default)]
struct Field {
    contenders: Vec<Contender>,
    skipped: Vec<Skipped>,
    broken: Vec<&'static str>,
}

impl Field {
    fn enter(&mut self, kind: Kind, site: &Site) {
        eprintln!("starting {}", kind.name());
        match start(kind, site) {
            Ok(contender) => self.contenders.push(contender),
            Err(error) => self.leave(kind.name(), &error),
        }
    }

    fn leave(&mut self, name: &'static str, error: &anyhow::Error) {
        eprintln!("{name} is out: {error:#}");
        self.contenders.retain(|contender| contender.subject.name != name);
        self.skipped.push(Skipped { name, why: format!("{error:#}") });
        self.broken.push(name);
    }

    /// Gives each its turn, beginning with another one each time, so that nobody always follows the same.
    fn round(&mut self, round: usize, turn: Turn, app: &Running) {
        let mut broken = Vec::new();
        let count = self.contenders.len();
        for place in 0..count {
            let Contender { pair, subject } = &mut self.contenders[(place + round) % count];
            let mut others = pair.beside();
            others.extend([app.id(), std::process::id()]);
            match sample::take(turn, &pair.target, &pair.proxies(), &others) {
                Ok(sample) => subject.samples.push(sample),
                Err(error) => broken.push((subject.name, error)),
            }
        }
        for (name, error) in broken {
            self.leave(name, &error.context(format!("in round {}", round + 1)));
        }
    }

    /// Counts system calls, in loads of their own since tracing slows everything.
    fn trace(&mut self, args: &Args, directory: &Path) {
        for Contender { pair, subject } in &mut self.contenders {
            let proxies = pair.proxies();
            if proxies.is_empty() {
                continue;
            }
            eprintln!("counting the system calls of {}", subject.name);
            let why = match calls_per_request(args, subject.name, &pair.target, &proxies, directory) {
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
}

/// Starts a pair and takes its memory while it is fresh.
fn start(kind: Kind, site: &Site) -> anyhow::Result<Contender> {
    let pair = kind.start(site)?;
    let mut subject = Subject::new(kind.name());
    if !pair.proxies().is_empty() {
        subject.footprint = Some(footprint(&pair)?);
    }
    Ok(Contender { pair, subject })
}

fn footprint(pair: &Pair) -> anyhow::Result<Footprint> {
    let idle_kib = resident_kib(&pair.proxies())?;
    let mut generator = Generator::new(&pair.target, IDLE_CONNECTIONS)?;
    generator.touch_each(64)?;
    Ok(Footprint { idle_kib, with_connections_kib: resident_kib(&pair.proxies())? })
}

fn calls_per_request(
    args: &Args,
    name: &str,
    target: &Target,
    proxies: &[u32],
    directory: &Path,
) -> anyhow::Result<Option<f64>> {
    let mut generator = Generator::new(target, args.connections)?;
    generator.closed(Until::Elapsed(Duration::from_millis(250)))?;
    let Some(counting) = SystemCalls::attach(name, proxies, directory)? else { return Ok(None) };
    let outcome = generator.closed(Until::Requests(args.traced_requests()))?;
    let calls = counting.finish()?;
    Ok(Some(calls as f64 / outcome.requests.max(1) as f64))
}

/// Our children inherit it.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .context("cannot raise the limit of open files")?;
    }
    Ok(())
}
