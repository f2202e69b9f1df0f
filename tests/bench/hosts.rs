//! What many hosts at the edge take, each of which has a certificate of its own: memory, the time of a start, and the time
//! until a new certificate is shown.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::load::generator::Target;
use crate::load::stream::{ClientStream, ClientTls, Handshake};
use crate::measure::{children, proportional_kib};
use crate::pairs::{EdgeProxy, Hosting, Site};
use crate::process::{Running, poll_until};

/// How long a start may take, and a new certificate.
const LIMIT: Duration = Duration::from_secs(60);

/// How often it is started, after one start that is not counted: then its files are in the kernel's cache, and the product's
/// control plane knows what to tell.
const STARTS: usize = 3;

/// How many hosts get a new certificate, one after another.
const RENEWALS: usize = 5;

/// What one proxy took.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    pub(crate) name: &'static str,
    pub(crate) hosts: usize,
    /// From starting the process until it answers for the last host: the median.
    pub(crate) start_ms: f64,
    /// From writing a host's new certificate until it is shown: the median, and the longest.
    pub(crate) renewal_ms: (f64, f64),
    /// Memory of all its processes, shared pages once, after that first answer.
    pub(crate) kib: u64,
    /// The same after a request for each host.
    pub(crate) kib_used: u64,
    /// Of the control plane, where there is one.
    pub(crate) control_plane_kib: Option<u64>,
}

/// Starts `proxy` with so many hosts, and stops it.
pub(crate) fn take(proxy: EdgeProxy, count: usize, site: &Site) -> anyhow::Result<Taken> {
    let hosting = Hosting::prepare(proxy, count, site)?;
    let tls = ClientTls::new(&site.certificates())?;
    let mut starts = Vec::new();
    let mut running = started(&hosting, &tls)?.0;
    for _ in 0..STARTS {
        drop(running);
        let (next, took) = started(&hosting, &tls)?;
        running = next;
        starts.push(took.as_secs_f64() * 1e3);
    }
    let kib = proportional_kib(running.id())?;
    for name in &hosting.names {
        ask(&hosting, &tls, name).with_context(|| format!("asked for {name}"))?;
    }
    let kib_used = proportional_kib(running.id())?;
    let mut renewals = Vec::new();
    for name in hosting.names.iter().step_by(count.div_ceil(RENEWALS)) {
        renewals.push(renewed(&hosting, &tls, name, &mut running)?.as_secs_f64() * 1e3);
    }
    let longest = renewals.iter().copied().fold(0.0, f64::max);
    let control_plane_kib = hosting.control_plane().map(proportional_kib).transpose()?;
    Ok(Taken {
        name: proxy.name(),
        hosts: count,
        start_ms: middle(starts),
        renewal_ms: (middle(renewals), longest),
        kib,
        kib_used,
        control_plane_kib,
    })
}

/// One that runs, and how long it took until it answered for the last host.
fn started(hosting: &Hosting<'_>, tls: &ClientTls) -> anyhow::Result<(Running, Duration)> {
    let last = hosting.names.last().context("no hosts")?;
    let began = Instant::now();
    let mut running = hosting.start()?;
    match poll_until(LIMIT, || Ok(ask(hosting, tls, last).ok()))? {
        Some(_) => Ok((running, began.elapsed())),
        None => {
            let error = ask(hosting, tls, last).err().map(|error| format!("{error:#}")).unwrap_or_default();
            Err(running.failure(&format!("did not answer for {last}: {error}")))
        }
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long it takes until `name` has another certificate.
fn renewed(
    hosting: &Hosting<'_>,
    tls: &ClientTls,
    name: &str,
    running: &mut Running,
) -> anyhow::Result<Duration> {
    // One that is still taking over from another does not listen to a second word.
    let alone = || Ok((children(running.id())? <= 1).then_some(()));
    if poll_until(LIMIT, alone)?.is_none() {
        return Err(running.failure("has not finished with the certificate before"));
    }
    let began = Instant::now();
    let new = hosting.renew(name, running)?.leaf;
    // While one process takes over from another, a connection may fail.
    let is_shown = || Ok(ask(hosting, tls, name).ok().filter(|shown| *shown == new));
    match poll_until(LIMIT, is_shown)? {
        Some(_) => Ok(began.elapsed()),
        None => Err(running.failure(&format!("did not show the new certificate of {name}"))),
    }
}

/// The certificate with which it answers a request for `name`.
fn ask(hosting: &Hosting<'_>, tls: &ClientTls, name: &str) -> anyhow::Result<CertificateDer<'static>> {
    let target = Target { tls: Some(tls.to(name)?), ..Target::plain(hosting.listen, name) };
    let mut stream = ClientStream::connect(&target, Handshake::Full)?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).context("no answer")?;
    ensure!(start.ends_with(b" 200"), "another answer: {}", String::from_utf8_lossy(&start));
    stream.leaf().cloned().context("no certificate")
}

/// How many hosts there are.
pub(crate) fn count(quick: bool) -> usize {
    if quick { 20 } else { 1_000 }
}
