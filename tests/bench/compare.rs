//! A whole run: start everything, take what is taken once, take rounds in which every subject has its turn at
//! every load, count system calls, measure growth, report.
//!
//! Rounds are short and interleaved, because the speed of a shared machine drifts by tens of percent
//! within minutes: figures are compared within a round, and the median over the rounds is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::certificates;
use crate::field::Field;
use crate::hosts::{self, Taken};
use crate::instructions::{self, Counted};
use crate::load::{Load, Turn};
use crate::netspace::Redirects;
use crate::pairs::{Behind, EdgeProxy, Kind, Site};
use crate::process::Running;
use crate::report::{Conditions, Report, Skipped, base_of};

/// Every part needs a descriptor or two per connection, and the idle measurement opens ten thousand.
const DESCRIPTORS: u64 = 20_000;

/// How many client connections wait, having been used once, when memory is measured again.
const IDLE: [usize; 2] = [1_000, 10_000];

/// The same for opaque TCP, where each of them takes two descriptors of a half.
const IDLE_OPAQUE: [usize; 2] = [1_000, 5_000];

/// How often a client's half is started to see how long that takes.
const STARTS: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many rounds, in each of which every subject has one turn at every load.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each load lasts that has no other end.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections that carry the keep-alive and the steady load.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The size of the large bodies in each round, in MiB; told per GiB.
    #[arg(long, default_value_t = 256)]
    bulk_mib: u64,
    /// Two rounds of a fraction of a second: shows that everything works, and no figure worth quoting.
    #[arg(long)]
    quick: bool,
    /// Measure this subject only; may be given more than once. The app alone is always measured.
    #[arg(long, value_name = "NAME")]
    only: Vec<Kind>,
    /// Measure this only; may be given more than once.
    #[arg(long, value_name = "PART", value_enum)]
    load: Vec<Part>,
    /// Measure opaque TCP, in a network namespace of its own, instead of HTTP.
    #[arg(long)]
    opaque: bool,
    /// Measure a single proxy at the edge, with TLS from the client, instead of pairs.
    #[arg(long, conflicts_with = "opaque")]
    edge: bool,
    /// The same before an app with a sidecar, with mutual TLS in between.
    #[arg(long, requires = "edge")]
    meshed: bool,
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
    /// The `selvedge` binary, with `selvedge-proxy` beside it; by default those beside this binary.
    #[arg(long)]
    selvedge: Option<PathBuf>,
    /// What the run is of, for the report: a commit, a profile.
    #[arg(long, default_value = "")]
    label: String,
}

/// Something that a run can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    KeepAlive,
    Steady,
    H2,
    Connections,
    /// TLS connections that go on with an earlier session (`--edge`).
    Resumed,
    Download,
    Upload,
    /// Memory, fresh and with idle connections.
    Idle,
    /// From starting the client's half until it is ready.
    Start,
    /// System calls per request of the keep-alive load.
    SystemCalls,
    /// Instructions in user space for a request of the keep-alive load, of what `growth` measures, or of the product at the edge.
    /// Only if it is asked for by name, since callgrind makes everything slow.
    Instructions,
    /// The product with a thousand routes, ten thousand endpoints, a second worker, no retry policy, and so on.
    Growth,
    /// A thousand hosts with a certificate each: memory, the time of a start and until a new certificate is shown (`--edge`).
    Hosts,
    /// Ten endpoints, of which one is slow: what the slowest requests wait with `PEAK_EWMA`, and with `LEAST_REQUEST`.
    Slow,
}

impl From<Load> for Part {
    fn from(load: Load) -> Self {
        match load {
            Load::KeepAlive => Self::KeepAlive,
            Load::Steady => Self::Steady,
            Load::H2 => Self::H2,
            Load::Connections => Self::Connections,
            Load::Resumed => Self::Resumed,
            Load::Download => Self::Download,
            Load::Upload => Self::Upload,
        }
    }
}

impl Args {
    fn rounds(&self) -> u32 {
        if self.quick { 2 } else { self.rounds }
    }

    /// System calls are counted over this many requests.
    fn traced_requests(&self) -> u64 {
        if self.quick { 1_000 } else { 10_000 }
    }

    /// Instructions are counted over this many requests.
    fn counted_requests(&self) -> u64 {
        if self.quick { 2_000 } else { 30_000 }
    }

    fn turn(&self) -> anyhow::Result<Turn> {
        let seconds = if self.quick { 0.25 } else { self.seconds };
        let duration = Duration::try_from_secs_f64(seconds).context("--seconds is no length of time")?;
        let bulk_bytes = if self.quick { 16 << 20 } else { self.bulk_mib << 20 };
        Ok(Turn { connections: self.connections, duration, bulk_bytes })
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

    fn does(&self, part: Part) -> bool {
        self.load.is_empty() || self.load.contains(&part)
    }

    fn loads(&self) -> Vec<Load> {
        // What a client speaks is nothing to who carries it opaquely: h2 would show nothing new.
        let all = Load::ALL.into_iter().filter(|load| match load {
            Load::H2 => !self.opaque,
            Load::Resumed => self.edge,
            _ => true,
        });
        all.filter(|load| self.does(Part::from(*load))).collect()
    }

    fn kinds(&self) -> &'static [Kind] {
        match (self.opaque, self.edge) {
            (true, _) => &Kind::OPAQUE,
            (false, true) if self.meshed => &Kind::MESHED,
            (false, true) => &Kind::EDGE,
            (false, false) => &Kind::ALL,
        }
    }

    /// The product, and itself with one thing changed: as long as nothing is asked for by name. Then only what is, and what that
    /// is compared with.
    fn grown(&self) -> Vec<Kind> {
        let asked: Vec<&str> = self.only.iter().map(|kind| kind.name()).collect();
        let is_base = |kind: &Kind| asked.iter().any(|name| base_of(name) == kind.name());
        let wanted = |kind: &Kind| {
            asked.is_empty() || *kind == Kind::GROWTH[0] || asked.contains(&kind.name()) || is_base(kind)
        };
        Kind::GROWTH.into_iter().filter(wanted).collect()
    }

    fn idle(&self) -> [usize; 2] {
        let counts = if self.opaque { IDLE_OPAQUE } else { IDLE };
        if self.quick { counts.map(|count| count / 10) } else { counts }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    // First, because it starts this program again.
    let redirects = if args.opaque { Some(Arc::new(Redirects::enter()?)) } else { None };
    raise_descriptor_limit()?;
    let turn = args.turn()?;
    let directory = tempfile::Builder::new().prefix("selvedge-bench-").tempdir()?;
    let (app, site) = prepare(directory.path(), args.selvedge()?, redirects)?;

    let mut field = Field::default();
    let mut loads = args.loads();
    loads.retain(|load| match load.missing() {
        Some(why) => {
            field.skipped.push(Skipped { name: load.name(), why });
            false
        }
        None => true,
    });
    compare(args, turn, &loads, &mut field, &app, &site);
    let mut growth = Field::default();
    if args.does(Part::Growth) && !args.opaque && !args.edge {
        grow(args, turn, &mut growth, &app, &site);
    }

    let mut slow = Field::default();
    if args.does(Part::Slow) && !args.opaque && !args.edge {
        avoid(args, turn, &mut slow, &app, &site);
    }

    let (mut hosting, mut hosts) = (Field::default(), Vec::new());
    if args.does(Part::Hosts) && args.edge && !args.meshed {
        host(args, &mut hosting, &mut hosts, &site);
    }

    let (mut counting, mut instructions) = (Field::default(), Vec::new());
    if args.load.contains(&Part::Instructions) && !args.opaque {
        count(args, &mut counting, &mut instructions, &site);
    }

    let broken =
        [&field.broken[..], &growth.broken, &slow.broken, &hosting.broken, &counting.broken].concat();
    let report = Report {
        conditions: Conditions::now(args.label.clone(), turn, args.rounds(), began.elapsed())?,
        skipped: field
            .skipped
            .drain(..)
            .chain(growth.skipped.drain(..))
            .chain(slow.skipped.drain(..))
            .chain(hosting.skipped.drain(..))
            .chain(counting.skipped.drain(..))
            .collect(),
        subjects: field.subjects(),
        growth: growth.subjects(),
        slow: slow.subjects(),
        hosts,
        instructions,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.summary())?);
    } else {
        print!("{}", report.summary());
    }
    ensure!(broken.is_empty(), "could not be measured to the end: {}", broken.join(", "));
    Ok(())
}

/// The product, its floor and the peers.
fn compare(args: &Args, turn: Turn, loads: &[Load], field: &mut Field, app: &Running, site: &Site) {
    for kind in args.kinds().iter().filter(|kind| args.wants(**kind)) {
        field.enter(*kind, site);
    }
    if args.does(Part::Idle) {
        field.each("measuring the memory of", |contender| contender.footprint(&args.idle()));
    }
    if args.does(Part::Start) && !args.edge {
        let times = if args.quick { 1 } else { STARTS };
        field.each("starting again", |contender| contender.starts(times));
    }
    if !loads.is_empty() {
        field.rounds(args.rounds(), loads, turn, app);
    }
    if args.does(Part::SystemCalls) {
        field.system_calls(args.connections, args.traced_requests(), &site.directory);
    }
}

/// The product, and itself with one thing changed.
fn grow(args: &Args, turn: Turn, field: &mut Field, app: &Running, site: &Site) {
    let kinds = args.grown();
    if kinds.len() < 2 {
        return;
    }
    // A directory of its own, since the product as it is has been started once already.
    let site = Site { directory: site.directory.join("growth"), ..site.clone() };
    for kind in kinds {
        field.enter(kind, &site);
    }
    field.each("warming up", |contender| contender.warm_up(if args.quick { 2_000 } else { 100_000 }));
    field.rounds(args.rounds(), &[Load::KeepAlive], turn, app);
}

/// The product with one slow endpoint. Requests come at a fixed rate: a closed loop would ask less when it waits.
fn avoid(args: &Args, turn: Turn, field: &mut Field, app: &Running, site: &Site) {
    let wanted = |kind: &Kind| args.only.is_empty() || args.only.contains(kind);
    let site = Site { directory: site.directory.join("growth"), ..site.clone() };
    for kind in Kind::SLOW.into_iter().filter(wanted) {
        field.enter(kind, &site);
    }
    field.each("warming up", |contender| contender.warm_up(2_000));
    field.rounds(args.rounds(), &[Load::Steady], turn, app);
}

/// The instructions of each, alone.
fn count(args: &Args, field: &mut Field, all: &mut Vec<Counted>, site: &Site) {
    if let Some(why) = instructions::missing() {
        field.skipped.push(Skipped { name: "instructions", why });
        return;
    }
    let behind = if args.meshed { Behind::Mesh } else { Behind::App };
    let kinds = if args.edge { vec![Kind::Edge(EdgeProxy::Selvedge, behind)] } else { args.grown() };
    // A directory of its own, since the others have been started once already.
    let site = Site { directory: site.directory.join("instructions"), ..site.clone() };
    for kind in kinds {
        if let Some(why) = kind.missing(&site) {
            field.skipped.push(Skipped { name: kind.name(), why });
            continue;
        }
        eprintln!("counting the instructions of {}", kind.name());
        match instructions::take(kind, &site, args.counted_requests()) {
            Ok(counted) => all.push(counted),
            Err(error) => field.leave(kind.name(), &error.context("counting instructions")),
        }
    }
}

/// Each proxy with many hosts, alone.
fn host(args: &Args, field: &mut Field, all: &mut Vec<Taken>, site: &Site) {
    for proxy in EdgeProxy::ALL.into_iter().filter(|proxy| args.wants(Kind::Edge(*proxy, Behind::App))) {
        if Kind::Edge(proxy, Behind::App).missing(site).is_some() {
            continue;
        }
        eprintln!("{} with many hosts", proxy.name());
        match hosts::take(proxy, hosts::count(args.quick), site) {
            Ok(taken) => all.push(taken),
            Err(error) => field.leave(proxy.name(), &error.context("many hosts")),
        }
    }
}

/// The app and the certificates, which every pair needs.
fn prepare(
    directory: &Path,
    selvedge: PathBuf,
    redirects: Option<Arc<Redirects>>,
) -> anyhow::Result<(Running, Site)> {
    let mut app = Command::new(std::env::current_exe()?);
    app.args(["app", "--exit-on-stdin-close"]);
    let mut app = Running::start("app", app, directory)?;
    let site = Site {
        directory: directory.to_owned(),
        app: app.address_of("app")?,
        selvedge,
        redirects,
        counts_instructions: false,
    };
    let certificates = site.certificates();
    for directory in [&certificates, &directory.join("growth"), &directory.join("instructions")] {
        std::fs::create_dir_all(directory)?;
    }
    certificates::write(&certificates)?;
    Ok((app, site))
}

/// Our children inherit it.
pub(crate) fn raise_descriptor_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .context("cannot raise the limit of open files")?;
    }
    Ok(())
}
