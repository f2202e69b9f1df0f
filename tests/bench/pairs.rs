//! What is measured: the app alone, and pairs of proxies in front of it.
//!
//! Every pair takes plain HTTP/1.1 at its client's half, carries it over mutual TLS 1.3, and gives plain
//! HTTP/1.1 to the same app. Each half is one process with one thread for traffic.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::floor::{Carrier, Half};
use crate::load::{Generator, Target};
use crate::process::{Running, installed, poll_until, spare_address};

mod haproxy;
mod nginx;
mod selvedge;

/// Something to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The app, with no proxy before it.
    Direct,
    Floor(Carrier),
    Selvedge(Carrier),
    Nginx,
    Haproxy(Carrier),
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Selvedge(Carrier::Http1),
        Self::Floor(Carrier::Http1),
        Self::Nginx,
        Self::Haproxy(Carrier::Http1),
        Self::Selvedge(Carrier::Http2),
        Self::Floor(Carrier::Http2),
        Self::Haproxy(Carrier::Http2),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor(Carrier::Http1) => "floor-h1",
            Self::Floor(Carrier::Http2) => "floor-h2",
            Self::Selvedge(Carrier::Http1) => "selvedge-h1",
            Self::Selvedge(Carrier::Http2) => "selvedge-h2",
            Self::Nginx => "nginx",
            Self::Haproxy(Carrier::Http1) => "haproxy-h1",
            Self::Haproxy(Carrier::Http2) => "haproxy-h2",
        }
    }

    /// Why it cannot be measured on this machine, and what to do about it.
    pub(crate) fn missing(self, site: &Site) -> Option<String> {
        let program = match self {
            Self::Direct | Self::Floor(_) => return None,
            Self::Selvedge(_) => {
                let found = site.selvedge.is_file();
                return (!found).then(|| format!("{} is not there: build it", site.selvedge.display()));
            }
            Self::Nginx => "nginx",
            Self::Haproxy(_) => "haproxy",
        };
        installed(program).is_none().then(|| format!("{program} is not installed: apt-get install {program}"))
    }

    /// Starts it and waits until it answers through every part.
    pub(crate) fn start(self, site: &Site) -> anyhow::Result<Pair> {
        let mut pair = match self {
            Self::Direct => Pair::direct(site.app),
            Self::Floor(carrier) => floor(self.name(), carrier, site)?,
            Self::Selvedge(carrier) => selvedge::start(self.name(), carrier, site)?,
            Self::Nginx => nginx::start(site)?,
            Self::Haproxy(carrier) => haproxy::start(self.name(), carrier, site)?,
        };
        pair.wait_until_it_answers()?;
        Ok(pair)
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("{name:?} is not one of {known}"))
    }
}

/// What every pair is built around.
#[derive(Debug)]
pub(crate) struct Site {
    /// Where configuration, certificates and logs are written.
    pub(crate) directory: PathBuf,
    /// Where the app is.
    pub(crate) app: SocketAddr,
    /// The `selvedge` binary.
    pub(crate) selvedge: PathBuf,
}

impl Site {
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
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) target: Target,
    /// The two proxies, whose use is charged.
    halves: Vec<Running>,
    /// What it needs beside them: a control plane.
    beside: Vec<Running>,
}

impl Pair {
    fn direct(app: SocketAddr) -> Self {
        Self {
            target: Target { address: app, authority: "app".into() },
            halves: Vec::new(),
            beside: Vec::new(),
        }
    }

    pub(crate) fn proxies(&self) -> Vec<u32> {
        self.halves.iter().map(Running::id).collect()
    }

    pub(crate) fn beside(&self) -> Vec<u32> {
        self.beside.iter().map(Running::id).collect()
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let mut last = None;
        let answered = poll_until(Duration::from_secs(20), || {
            let probe = Generator::new(&self.target, 1).and_then(|mut generator| generator.touch_each(1));
            last = probe.err();
            Ok(last.is_none().then_some(()))
        })?;
        if answered.is_some() {
            return Ok(());
        }
        let mut report = format!("no answer through {}: {last:?}", self.target.address);
        for process in self.halves.iter_mut().chain(&mut self.beside) {
            report.push_str(&format!("\n{}", process.failure("runs in that pair")));
        }
        Err(anyhow::Error::msg(report))
    }
}

fn floor(name: &str, carrier: Carrier, site: &Site) -> anyhow::Result<Pair> {
    let start = |half: Half, to: SocketAddr| -> anyhow::Result<(Running, SocketAddr)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["floor", "--half", half.word(), "--carrier", carrier.word(), "--to", &to.to_string()])
            .arg("--certificates")
            .arg(site.certificates())
            .arg("--exit-on-stdin-close");
        let mut running = Running::start(&format!("{name}-{}", half.word()), command, &site.directory)?;
        let address = running.address_of("floor")?;
        Ok((running, address))
    };
    let (server, server_address) = start(Half::Server, site.app)?;
    let (client, address) = start(Half::Client, server_address)?;
    Ok(Pair {
        target: Target { address, authority: "app".into() },
        halves: vec![client, server],
        beside: Vec::new(),
    })
}

/// A pair of programs that have to be told their ports and know no `--exit-on-stdin-close`.
///
/// `start` gets the half, where it listens, and where it sends.
fn foreign(
    site: &Site,
    start: impl Fn(Half, SocketAddr, SocketAddr) -> anyhow::Result<Running>,
) -> anyhow::Result<Pair> {
    let (inner, outer) = (spare_address()?, spare_address()?);
    let server = start(Half::Server, inner, site.app)?;
    let client = start(Half::Client, outer, inner)?;
    Ok(Pair {
        target: Target { address: outer, authority: "app".into() },
        halves: vec![client, server],
        beside: Vec::new(),
    })
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}
