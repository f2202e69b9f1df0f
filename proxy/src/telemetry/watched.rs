//! What configuration has written down of requests, and which of them it has traced; live.
//!
//! While nothing is to be written down or traced, a request costs two looks at flags. What configuration says is prepared when
//! it changes.

use std::{
    sync::{
        Arc, Mutex, Once, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName};
use selvedge_model::{
    AccessLog, Telemetry,
    telemetry::{LogFilter, LogSink, Logged, OneWay, TagValue, is_readable},
};

use super::{
    Record,
    access_log::{self, Connection},
    finished::{Finished, Traced},
    line::{Json, Text, key, millis},
    lines::{Lines, Stdout},
    outbox::{Outbox, Told},
    trace::{self, Decision},
};
use crate::{arrival::Direction, error::Reason};

/// How lines on standard output are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LineFormat {
    /// Istio's text format.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

/// See the module.
#[derive(Debug)]
pub struct Watched {
    on: [AtomicBool; Direction::ALL.len()],
    plans: [ArcSwap<Plan>; Direction::ALL.len()],
    /// Held by each rule whose requests have an access log of their own.
    of_routes: Arc<()>,
    lines: Arc<Lines>,
    /// What goes to a collector.
    pub outbox: Outbox,
    own: OnceLock<Own>,
    /// It was said that there is no collector. Each rule may ask for one, whenever configuration changes.
    missing: Once,
    /// What configuration last said.
    last: Mutex<Option<Arc<Telemetry>>>,
}

/// What the proxy's own settings say.
#[derive(Debug, Clone, Copy)]
struct Own {
    format: LineFormat,
    has_collector: bool,
    is_gateway: bool,
}

/// What becomes of the requests of one direction.
#[derive(Debug, Default)]
struct Plan {
    log: Vec<Going>,
    tracing: Option<TracingPlan>,
}

/// One place where lines go.
#[derive(Debug)]
struct Going {
    to: To,
    /// Which requests: what one of these admits. None: all.
    filters: Vec<Arc<LogFilter>>,
}

impl Going {
    fn admits<'l>(&self, logged: impl FnOnce() -> Logged<'l>) -> bool {
        if self.filters.is_empty() {
            return true;
        }
        let logged = logged();
        self.filters.iter().any(|filter| filter.admits(&logged))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Text,
    Json,
    Collector,
}

#[derive(Debug)]
struct TracingPlan {
    /// Of a million.
    share: u32,
    fixed: Arc<[(Arc<str>, String)]>,
    headers: Vec<(Arc<str>, HeaderName, Option<String>)>,
}

/// The access log of a rule's requests, which replaces that of the workload.
#[derive(Debug)]
pub struct RouteLog {
    log: Vec<Going>,
    _held: Arc<()>,
}

/// What is noted of a request as it comes.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) traced: Option<Box<Traced>>,
    /// Whether it may become a line.
    pub(super) may_be_line: bool,
}

impl Watched {
    /// Nothing is written down or traced yet; there are this many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            on: Default::default(),
            plans: Default::default(),
            of_routes: Arc::default(),
            lines: Lines::new(workers),
            outbox: Outbox::new(workers),
            own: OnceLock::new(),
            missing: Once::new(),
            last: Mutex::default(),
        }
    }

    /// Takes over what the proxy's settings say. Once.
    pub fn set_up(&self, format: LineFormat, has_collector: bool, is_gateway: bool) {
        // A process has its settings once.
        let _ = self.own.set(Own { format, has_collector, is_gateway });
    }

    /// From now on this is written down and traced; whether it was something else before.
    pub fn set(&self, telemetry: Option<&Arc<Telemetry>>) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() == telemetry {
            self.note_for_others();
            return false;
        }
        *last = telemetry.cloned();
        drop(last);
        let nothing = OneWay::default();
        for direction in Direction::ALL {
            let one_way = telemetry.map_or(&nothing, |telemetry| match direction {
                Direction::Inbound => &telemetry.inbound,
                Direction::Outbound => &telemetry.outbound,
            });
            let plan = self.plan(one_way);
            let is_on = !plan.log.is_empty() || plan.tracing.is_some();
            self.plans[direction as usize].store(Arc::new(plan));
            self.on[direction as usize].store(is_on, Ordering::Relaxed);
        }
        self.note_for_others();
        true
    }

    /// The access log of a rule.
    pub fn of_route(&self, log: &AccessLog) -> Arc<RouteLog> {
        let log = RouteLog { log: self.going(log), _held: Arc::clone(&self.of_routes) };
        access_log::set_watched(true);
        Arc::new(log)
    }

    /// Lines of the access log that were lost on their way to standard output, and [`Outbox::counts`].
    pub(super) fn counts(&self) -> (u64, [[u64; 2]; 2]) {
        (self.lines.lost(), self.outbox.counts())
    }

    /// Waits until everything is sent and written: for two seconds at most until a collector has taken it, and for one until
    /// standard output has.
    pub async fn finish(&self) {
        self.outbox.finish(Duration::from_secs(2)).await;
        self.lines.finish(Duration::from_secs(1));
    }

    /// Whether the proxy is a gateway.
    pub(super) fn is_gateway(&self) -> bool {
        self.own().is_gateway
    }

    fn own(&self) -> Own {
        let usual = Own { format: LineFormat::default(), has_collector: false, is_gateway: false };
        self.own.get().copied().unwrap_or(usual)
    }

    /// Whether there is a collector for what configuration has sent to one. The first time that there is none, the log says so.
    fn has_collector(&self) -> bool {
        let has_collector = self.own().has_collector;
        if !has_collector {
            self.missing.call_once(|| {
                tracing::warn!(
                    "configuration asks for traces, or for an access log at a collector, and this proxy has none to send them to; set --otlp-endpoint"
                );
            });
        }
        has_collector
    }

    /// Others note what only lines say.
    fn note_for_others(&self) {
        let is_on = self.on.iter().any(|on| on.load(Ordering::Relaxed));
        access_log::set_watched(is_on || self.has_routes());
    }

    fn has_routes(&self) -> bool {
        Arc::strong_count(&self.of_routes) > 1
    }

    fn plan(&self, one_way: &OneWay) -> Plan {
        let tracing = one_way.tracing.as_ref().filter(|_| self.has_collector());
        let tracing = tracing.map(|tracing| {
            let (mut fixed, mut headers) = (Vec::new(), Vec::new());
            for tag in &tracing.tags {
                let name: Arc<str> = Arc::from(trace::cut(&tag.name));
                match &tag.value {
                    TagValue::Literal(value) => fixed.push((name, trace::cut(value))),
                    TagValue::Environment { name: variable, default } => {
                        let value = std::env::var(variable).ok().filter(|_| is_readable(variable));
                        let value = value.or_else(|| default.clone());
                        fixed.extend(value.map(|value| (name, trace::cut(&value))));
                    }
                    TagValue::Header { name: header, default } => {
                        let header = HeaderName::from_bytes(header.as_bytes()).ok();
                        headers.extend(header.map(|header| (name, header, default.clone())));
                    }
                }
            }
            TracingPlan { share: tracing.sampling, fixed: fixed.into(), headers }
        });
        Plan { log: self.going(&one_way.access_log), tracing }
    }

    fn going(&self, log: &AccessLog) -> Vec<Going> {
        let format = self.own().format;
        let mut going: Vec<Going> = Vec::new();
        for to in &log.0 {
            let place = match (to.sink, format) {
                (LogSink::Text, _) | (LogSink::Stdout, LineFormat::Text) => To::Text,
                (LogSink::Json, _) | (LogSink::Stdout, LineFormat::Json) => To::Json,
                (LogSink::Otlp, _) if self.has_collector() => To::Collector,
                (LogSink::Otlp, _) => continue,
            };
            if place != To::Collector {
                self.lines.start(Stdout);
            }
            match (going.iter_mut().find(|one| one.to == place), &to.filter) {
                (None, filter) => going.push(Going { to: place, filters: filter.iter().cloned().collect() }),
                // The same place by two names is one, and has what either name is to have.
                (Some(one), Some(filter)) if !one.filters.is_empty() => one.filters.push(Arc::clone(filter)),
                (Some(one), _) => one.filters.clear(),
            }
        }
        going
    }

    /// What is noted of `request`, which has come.
    pub(super) fn note<B>(&self, request: &mut http::Request<B>, direction: Direction) -> Noted {
        let is_on = self.on[direction as usize].load(Ordering::Relaxed);
        let by_route = direction == Direction::Outbound && self.has_routes();
        if !is_on {
            return Noted { traced: None, may_be_line: by_route };
        }
        let plan = self.plans[direction as usize].load();
        let traced = plan.tracing.as_ref().and_then(|tracing| tracing.note(request));
        Noted { traced, may_be_line: by_route || !plan.log.is_empty() }
    }

    /// Writes down a request that is over at `now`, and tells of its spans.
    pub(super) fn tell(&self, record: &mut Record, now: Instant) {
        let Some(mut head) = record.head.take() else { return };
        let plan = self.plans[record.direction() as usize].load();
        let route = head.route_log.take();
        let log = route.as_ref().map_or(&plan.log, |route| &route.log);
        let is_traced = head.traced.is_some();
        if log.is_empty() && !is_traced {
            return;
        }
        let is_gateway = record.direction() == Direction::Outbound && self.is_gateway();
        let (received, sent) = head.passed.unwrap_or_else(|| (record.received(), record.sent));
        let mut finished = Finished {
            direction: record.direction(),
            at_gateway: is_gateway,
            began: SystemTime::now()
                .checked_sub(now.duration_since(record.began))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            came: record.began,
            duration: record.duration,
            status: record.status,
            grpc_status: record.grpc_status,
            reason: record.reason,
            error: record.error.take(),
            retries: record.retries,
            received,
            sent,
            peer: record.client.peer(),
            identity: record.client.identity().cloned(),
            is_http2: record.client.is_http2(),
            is_tls: record.client.is_tls(),
            head,
        };
        let worker = record.worker();
        let mut is_line = false;
        for going in log {
            if !going.admits(|| finished.logged()) {
                continue;
            }
            match going.to {
                To::Text => self.lines.add(worker, |out| finished.write_text(out)),
                To::Json => self.lines.add(worker, |out| finished.write_json(out)),
                To::Collector => is_line = true,
            }
        }
        if is_traced || is_line {
            finished.shorten();
            self.outbox.put(worker, Told { finished, is_line });
        }
    }

    /// Whether lines about opaque connections of this direction are written.
    pub fn logs_connections(&self, direction: Direction) -> bool {
        self.on[direction as usize].load(Ordering::Relaxed)
    }

    /// Writes down an opaque connection that is over.
    pub fn tell_connection(&self, worker: usize, connection: &Connection<'_>) {
        let plan = self.plans[connection.direction as usize].load();
        for going in plan.log.iter().filter(|going| going.admits(|| connection.logged())) {
            match going.to {
                To::Text => self.lines.add(worker, |out| write_text(connection, out)),
                To::Json => self.lines.add(worker, |out| write_json(connection, out)),
                // A collector is told of requests alone.
                To::Collector => {}
            }
        }
    }
}

impl TracingPlan {
    fn note<B>(&self, request: &mut http::Request<B>) -> Option<Box<Traced>> {
        let trace = match trace::decide(request.headers(), self.share) {
            Decision::Pass => return None,
            Decision::Leave => {
                trace::leave(request.headers_mut());
                return None;
            }
            Decision::Sample(trace) => trace,
        };
        let tags = self.tags(request.headers());
        trace.settle(request);
        Some(Box::new(Traced { trace, tags, fixed: Arc::clone(&self.fixed) }))
    }

    fn tags(&self, headers: &HeaderMap) -> Vec<(Arc<str>, String)> {
        let tag = |(name, header, default): &(Arc<str>, HeaderName, Option<String>)| {
            let value = headers.get(header).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let value = value.map(|value| trace::cut(&value)).or_else(|| default.clone())?;
            Some((Arc::clone(name), value))
        };
        self.headers.iter().filter_map(tag).collect()
    }
}

/// Istio's line of a connection that is not HTTP.
fn write_text(connection: &Connection<'_>, out: &mut Vec<u8>) {
    let mut line = Text(out);
    line.time(SystemTime::now().checked_sub(connection.duration).unwrap_or(SystemTime::UNIX_EPOCH));
    line.0.extend_from_slice(b" \"- - -\" 0");
    line.word(Some(connection.reason.map_or("-", Reason::response_flags)));
    line.word(Some(connection.reason.map_or("-", Reason::word)));
    line.word(None);
    line.quoted(None);
    for number in [connection.received, connection.sent, millis(connection.duration)] {
        line.0.push(b' ');
        line.number(number);
    }
    line.word(None);
    for _ in 0..3 {
        line.quoted(None);
    }
    let destination = connection.destination.to_string();
    line.quoted(Some(&destination));
    line.quoted_address(connection.endpoint);
    for _ in 0..3 {
        line.word(None);
    }
    line.address(connection.peer);
    line.word(None);
    line.word(None);
    line.0.push(b'\n');
}

fn write_json(connection: &Connection<'_>, out: &mut Vec<u8>) {
    let began = SystemTime::now().checked_sub(connection.duration).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut line = Json::beginning(out, began);
    line.text(key!("direction"), Some(connection.direction.word()));
    line.text(key!("protocol"), Some("TCP"));
    line.text(key!("response_flags"), Some(connection.reason.map_or("-", Reason::response_flags)));
    line.number(key!("bytes_received"), Some(connection.received));
    line.number(key!("bytes_sent"), Some(connection.sent));
    line.number(key!("duration"), Some(millis(connection.duration)));
    line.text(key!("authority"), Some(&connection.destination.to_string()));
    line.address(key!("upstream_host"), connection.endpoint);
    line.address(key!("downstream_remote_address"), Some(connection.peer));
    line.text(key!("downstream_identity"), connection.identity.map(selvedge_model::SpiffeId::as_str));
    line.flag(key!("mtls"), connection.mtls);
    line.text(key!("reason"), connection.reason.map(Reason::word));
    line.end();
}

#[cfg(test)]
mod tests {
    use selvedge_model::telemetry::LogTo;

    use super::*;

    #[test]
    fn a_place_by_two_names_has_what_either_is_to_have() {
        let watched = Watched::new(1);
        let to = |sink, filter: &str| {
            let filter = (!filter.is_empty()).then(|| Arc::new(filter.parse().expect("an expression")));
            LogTo { sink, filter }
        };
        let failures = to(LogSink::Stdout, "response.code >= 500");
        for (other, is_for_all) in [("response.code == 404", false), ("", true)] {
            let going = watched.going(&AccessLog(vec![failures.clone(), to(LogSink::Text, other)]));

            let [going] = going.as_slice() else { panic!("{going:?}") };
            for (status, is_meant) in [(503, true), (404, true), (200, is_for_all)] {
                let logged = || Logged { status, ..Logged::default() };
                assert_eq!(going.admits(logged), is_meant, "{other} {status}");
            }
        }
    }

    fn written(connection: &Connection<'_>) -> [String; 2] {
        let (mut text, mut json) = (Vec::new(), Vec::new());
        write_text(connection, &mut text);
        write_json(connection, &mut json);
        [text, json].map(|line| String::from_utf8(line).expect("lines are text"))
    }

    #[test]
    fn a_line_has_the_flags_that_metrics_have() {
        for reason in Reason::ALL {
            let [text, json] = written(&Connection {
                direction: Direction::Outbound,
                peer: std::net::SocketAddr::from(([127, 0, 0, 1], 5000)),
                identity: None,
                mtls: false,
                destination: format_args!("db:5432"),
                endpoint: None,
                reason: Some(reason),
                received: 0,
                sent: 0,
                duration: Duration::ZERO,
            });

            let flags = reason.response_flags();
            assert!(text.contains(&format!("\"- - -\" 0 {flags} {} ", reason.word())), "{text}");
            assert!(json.contains(&format!("\"response_flags\":\"{flags}\"")), "{json}");
        }
    }
}
