//! Health checks of endpoints outside the mesh: annotations of a `ServiceEntry`, or of a `DestinationRule`, which goes
//! before it.

use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use selvedge_model::{HealthCheck, HealthQuestion};

use super::{
    annotated::{duration, number, place, text},
    document::{Reading, wrong},
    typed::FieldError,
};

/// What is asked: `HTTP`, `GRPC` or `TCP`.
pub(super) const KIND: &str = "config.selvedge.io/health-check";
/// The path of HTTP.
pub(super) const PATH: &str = "config.selvedge.io/health-check-path";
/// The host that is named to the endpoint.
pub(super) const HOST: &str = "config.selvedge.io/health-check-host";
/// The statuses of HTTP that are good.
pub(super) const STATUSES: &str = "config.selvedge.io/health-check-expected-statuses";
/// The service of gRPC.
pub(super) const SERVICE: &str = "config.selvedge.io/health-check-grpc-service";
/// The port that is asked, if not the endpoint's own.
pub(super) const PORT: &str = "config.selvedge.io/health-check-port";
/// The pause between two questions.
pub(super) const INTERVAL: &str = "config.selvedge.io/health-check-interval";
/// The time for an answer.
pub(super) const TIMEOUT: &str = "config.selvedge.io/health-check-timeout";
/// Bad answers in a row.
pub(super) const UNHEALTHY: &str = "config.selvedge.io/health-check-unhealthy-threshold";
/// Good answers in a row.
pub(super) const HEALTHY: &str = "config.selvedge.io/health-check-healthy-threshold";

/// All of them.
pub(super) const ANNOTATIONS: [&str; 10] =
    [KIND, PATH, HOST, STATUSES, SERVICE, PORT, INTERVAL, TIMEOUT, UNHEALTHY, HEALTHY];

/// Those that say more about what the first one asks for, and which questions they are for.
const MORE: [(&str, &[&str]); 9] = [
    (PATH, &["HTTP"]),
    (HOST, &["HTTP", "GRPC"]),
    (STATUSES, &["HTTP"]),
    (SERVICE, &["GRPC"]),
    (PORT, &["HTTP", "GRPC", "TCP"]),
    (INTERVAL, &["HTTP", "GRPC", "TCP"]),
    (TIMEOUT, &["HTTP", "GRPC", "TCP"]),
    (UNHEALTHY, &["HTTP", "GRPC", "TCP"]),
    (HEALTHY, &["HTTP", "GRPC", "TCP"]),
];

/// Everybody who calls the host asks each endpoint so often: not oftener than each second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the annotations of the document that is read ask for; `None`: no checks.
pub(super) fn read(reading: &mut Reading<'_>) -> Result<Option<HealthCheck>, FieldError> {
    let kind = text(reading, KIND);
    report_unused(kind, reading);
    let Some(kind) = kind else { return Ok(None) };
    let question = match kind {
        "HTTP" => {
            HealthQuestion::Http { path: path(reading)?, host: host(reading)?, statuses: statuses(reading)? }
        }
        "GRPC" => {
            let service = text(reading, SERVICE).unwrap_or_default().to_owned();
            HealthQuestion::Grpc { host: host(reading)?, service }
        }
        "TCP" => HealthQuestion::Tcp,
        other => return Err(wrong(place(KIND), format!("{other:?} is not known; write HTTP, GRPC or TCP"))),
    };
    let usual = HealthCheck::new(question);
    let threshold = |name, usual| Ok(number(reading, name, 1..=1_000)?.unwrap_or(usual));
    let port = number(reading, PORT, 1..=u16::MAX.into())?;
    Ok(Some(HealthCheck {
        port: port.and_then(|port| u16::try_from(port).ok()),
        interval: duration(reading, INTERVAL, SHORTEST_INTERVAL..=LONGEST_INTERVAL)?
            .unwrap_or(usual.interval),
        timeout: duration(reading, TIMEOUT, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT)?.unwrap_or(usual.timeout),
        unhealthy_threshold: threshold(UNHEALTHY, usual.unhealthy_threshold)?,
        healthy_threshold: threshold(HEALTHY, usual.healthy_threshold)?,
        ..usual
    }))
}

/// Reports what says more about a question that is not asked.
fn report_unused(kind: Option<&str>, reading: &mut Reading<'_>) {
    for (name, kinds) in MORE {
        if !reading.metadata.annotations.contains_key(name) {
            continue;
        }
        match kind {
            None => {
                let message = format!("has no effect without the annotation {KIND}: HTTP, GRPC or TCP");
                reading.not_acted_on(place(name), message);
            }
            Some(kind) if !kinds.contains(&kind) => {
                let message = format!("has no effect with {KIND}: {kind}; it is for {}", kinds.join(" and "));
                reading.not_acted_on(place(name), message);
            }
            Some(_) => {}
        }
    }
}

fn path(reading: &Reading<'_>) -> Result<String, FieldError> {
    let Some(path) = text(reading, PATH) else { return Ok("/".to_owned()) };
    let is_path = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    let message = || format!("{path:?} is not a path; write for example /healthz");
    is_path.then(|| path.to_owned()).ok_or_else(|| wrong(place(PATH), message()))
}

fn host(reading: &Reading<'_>) -> Result<Option<String>, FieldError> {
    let Some(host) = text(reading, HOST) else { return Ok(None) };
    let is_host = host.parse::<Authority>().is_ok() && !host.contains('@');
    let message = || format!("{host:?} is not a host; write a name, with a port if it needs one");
    is_host.then(|| Some(host.to_owned())).ok_or_else(|| wrong(place(HOST), message()))
}

/// `200-299,304`: first and last of each range.
fn statuses(reading: &Reading<'_>) -> Result<Vec<(u16, u16)>, FieldError> {
    let Some(list) = text(reading, STATUSES) else { return Ok(vec![(200, 399)]) };
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ends = status(first).zip(status(last)).filter(|(first, last)| first <= last);
        let message = || format!("{range:?} is neither a status nor a range; write for example 200-299,304");
        ends.ok_or_else(|| wrong(place(STATUSES), message()))
    };
    list.split(',').map(range).collect()
}
