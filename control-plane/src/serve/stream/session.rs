//! What one proxy has said, and what it has been told. It does no I/O.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_api::{
    ResourceName,
    wire::{self, client_message::Message},
};
use selvedge_certs::verify::Peer;
use selvedge_model::{
    Holder, Workload, WorkloadName,
    seen::Report,
    tap::Sample,
    traffic::{Edge, Told},
};
use selvedge_ops::{plain::is_hidden, plain_within};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    snapshot::{
        ALWAYS, Encoded, News, Snapshot, Standing, Store, Watcher,
        diff::{self, Difference, Pace, Refused},
        held::{Changes, Held},
        view::{Part, Subject},
    },
    status::{Live, Proof, Proxy, TrafficReport},
};

/// Subscriptions of one proxy. Each costs work on every change.
const MAX_AUTHORITIES: usize = 10_000;

/// The longest authority: a DNS name, a colon and a port.
const MAX_AUTHORITY: usize = 260;

/// Resources that a proxy may say that it holds.
const MAX_HELD: usize = 10_000;

/// The longest name of a resource: its kind, and an authority or a service's host and port.
const MAX_NAME: usize = 300;

/// The longest version of a resource.
const MAX_VERSION: usize = 128;

/// How much is kept of what a proxy says that it is, in bytes.
const MAX_PROXY_VERSION: usize = 64;

/// How much is kept of why it refused something, in bytes.
pub(super) const MAX_REASON: usize = 1024;

/// A proxy reports every second at the most.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// So much sooner may reports come, all together, if they were held up on their way.
const REPORT_EARLY: Duration = Duration::from_secs(5);

/// So often may a proxy say anything else, and each sample that it shows counts for a tenth of it.
const MESSAGE_EVERY: Duration = Duration::from_millis(1);

/// So much sooner may other messages come, all together: as many as it may have subscriptions.
const MESSAGES_EARLY: Duration = Duration::from_secs(10);

/// What was said on one stream, and what follows from it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: Arc<Peer>,
    pub(super) workload: WorkloadName,
    pub(super) proxy_version: String,
    /// Is told of changes to what it holds; what it asks for is kept there.
    pub(super) watcher: Watcher,
    pub(super) held: Live<Held>,
    pub(super) refused: Refused,
    pub(super) pace: Pace,
    pub(super) nonce: u64,
    pub(super) under_way: Option<PendingTransaction>,
    pub(super) acknowledged: Option<u64>,
    /// The configuration version that the proxy is up to date with.
    pub(super) configuration: Option<u64>,
    /// The version by which it was found out last what it lacks, if it has all of that, or will have when it has answered: then
    /// only what has changed since is looked at.
    pub(super) settled: Option<u64>,
    /// Something may have changed since the last look.
    pub(super) due: bool,
    /// The configuration has changed since the last look, which therefore waits for nothing.
    pub(super) has_changed: bool,
    pub(super) greeted: bool,
    /// Whether it has asked for names that it does not look at, because everybody together asks for too many.
    pub(super) is_left_without: bool,
    /// When the next report is due, if reports come as often as they may.
    pub(super) report_at: Instant,
    /// The same of all other messages.
    pub(super) message_at: Instant,
    /// Whether it can be asked to show live requests.
    pub(super) takes_taps: bool,
    /// Whether it has been asked to.
    pub(super) is_tapped: bool,
    /// Whether it can be told what to log.
    pub(super) takes_log_levels: bool,
    /// Whether it can be told what has changed in a list of endpoints, and has refused none of that.
    pub(super) takes_endpoint_deltas: bool,
    /// What the numbers stand for by which it tells of its traffic; at most [`MOST_EDGES`](selvedge_model::traffic::MOST_EDGES).
    /// `None`: something that only a newer version knows.
    pub(super) edges: BTreeMap<u32, Option<Arc<Edge>>>,
}

#[derive(Debug)]
pub(super) struct PendingTransaction {
    pub(super) nonce: u64,
    /// The configuration version that the proxy is up to date with once it is applied.
    pub(super) configuration: u64,
    /// When the earliest change in it was noticed. `None`: it is not for a change.
    pub(super) since: Option<Instant>,
    /// When it was sent.
    pub(super) sent: Instant,
    /// What becomes of what is held once it is applied.
    pub(super) changes: Changes,
    /// What it consists of.
    pub(super) parts: Vec<Part>,
    /// Whether some of it is only what has changed in a list of endpoints.
    pub(super) has_deltas: bool,
    pub(super) deadline: Instant,
}

/// What a message from the proxy came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MessageOutcome {
    Nothing,
    /// Who has called its workload, and what it has carried.
    Told(Report, Box<TrafficReport>),
    /// Live requests, and how many more there were, each by the number of who asks.
    Shown {
        samples: Vec<(u64, Sample)>,
        missed: Vec<(u64, u64)>,
    },
    /// It has seen a token of a key that is not among those at this URL.
    KeysWanted(String),
    /// It has applied a transaction that was sent so long ago; and how long ago the earliest change in it was noticed.
    Applied {
        sent: Duration,
        since: Option<Duration>,
    },
    Refused {
        nonce: u64,
        reason: String,
    },
}

/// Who has begun a stream, before it is known whether it may have one. It costs no more than its first message.
#[derive(Debug)]
pub(super) struct Applicant {
    peer: Arc<Peer>,
    workload: WorkloadName,
    hello: wire::Hello,
}

impl Applicant {
    pub(super) fn new(peer: &Arc<Peer>, hello: wire::Hello) -> Result<Self, Status> {
        let workload: WorkloadName =
            hello.workload.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if hello.held.len() > MAX_HELD {
            return Err(Status::resource_exhausted(format!("more than {MAX_HELD} resources are held")));
        }
        if hello.authorities.len() > MAX_AUTHORITIES {
            return Err(too_many_subscriptions());
        }
        hello.authorities.iter().try_for_each(|authority| check_authority(authority))?;
        Ok(Self { peer: Arc::clone(peer), workload, hello })
    }

    /// Whether the workload exists, is who the certificate says, and is not revoked.
    pub(super) fn admit(&self, snapshot: &Snapshot) -> Result<Arc<Workload>, Status> {
        admit(&self.peer, &self.workload, snapshot)
    }

    /// The session, and the authorities that it is still to ask for.
    pub(super) fn begin(self, store: &Store, snapshot: &Snapshot) -> (Session, Vec<String>) {
        let Self { peer, workload, hello } = self;
        let within =
            |(name, version): &(String, String)| name.len() <= MAX_NAME && version.len() <= MAX_VERSION;
        // A name that we do not know is a newer control plane's; we will never change what it stands for.
        let known = |(name, version): (String, String)| Some((name.parse().ok()?, Arc::from(version)));
        let held: Held = hello.held.into_iter().filter(within).filter_map(known).collect();
        // The mesh has the same name, which is shared by all who have it.
        let workload = snapshot.mesh().workloads.get(&workload).map_or(workload, |known| known.name.clone());
        let session = Session {
            peer,
            watcher: store.watch(&workload, snapshot.mesh().clients(&workload)),
            workload,
            proxy_version: plain_within(&hello.proxy_version, MAX_PROXY_VERSION),
            held: held.into(),
            refused: Refused::new(),
            pace: Pace::default(),
            nonce: 0,
            under_way: None,
            acknowledged: None,
            configuration: None,
            settled: None,
            due: true,
            has_changed: false,
            greeted: false,
            is_left_without: false,
            report_at: Instant::now(),
            message_at: Instant::now(),
            takes_taps: hello.takes_taps,
            is_tapped: false,
            takes_log_levels: hello.takes_log_levels,
            takes_endpoint_deltas: hello.takes_endpoint_deltas,
            edges: BTreeMap::new(),
        };
        (session, hello.authorities)
    }
}

fn too_many_subscriptions() -> Status {
    Status::resource_exhausted(format!("more than {MAX_AUTHORITIES} subscriptions"))
}

fn check_authority(authority: &str) -> Result<(), Status> {
    if authority.is_empty() || authority.len() > MAX_AUTHORITY {
        return Err(Status::invalid_argument(format!(
            "an authority has 1 to {MAX_AUTHORITY} bytes, not {}",
            authority.len()
        )));
    }
    Ok(())
}

/// Whether the workload `name` exists, is who the certificate of `peer` says, and is not revoked.
fn admit(peer: &Peer, name: &WorkloadName, snapshot: &Snapshot) -> Result<Arc<Workload>, Status> {
    if let Some(bound) = peer.workload.as_ref().filter(|bound| bound.name != *name) {
        return Err(Status::permission_denied(format!(
            "the certificate is for workload {}, not for {name}",
            bound.name
        )));
    }
    let holder = Holder { workload: Some(name), ..peer.holder() };
    if let Some(found) = snapshot.mesh().revocations.find(holder, SystemTime::now()) {
        return Err(Status::permission_denied(format!("{found}; ask the author of that document")));
    }
    let Some(workload) = snapshot.mesh().workloads.get(name) else {
        return Err(Status::not_found(format!(
            "no document declares workload {name}; add a WorkloadEntry with metadata.namespace: {}, \
             metadata.name: {}, spec.serviceAccount: {} and spec.address",
            name.namespace(),
            name.name(),
            peer.identity.service_account(),
        )));
    };
    if workload.identity != peer.identity {
        return Err(Status::permission_denied(format!(
            "workload {name} is {}, and the certificate is for {}",
            workload.identity, peer.identity
        )));
    }
    Ok(Arc::clone(workload))
}

impl Session {
    /// Whether the workload still exists, is who the certificate says, and is not revoked.
    pub(super) fn admit(&self, snapshot: &Snapshot) -> Result<Arc<Workload>, Status> {
        admit(&self.peer, &self.workload, snapshot)
    }

    /// Also asks for `authority`.
    pub(super) fn add(&mut self, authority: String) -> Result<(), Status> {
        check_authority(&authority)?;
        if !self.watcher.ask(&Arc::from(authority)) {
            // The stream goes on. Without it the proxy would come back with the same names, and keep old policies meanwhile.
            if !std::mem::replace(&mut self.is_left_without, true) {
                tracing::warn!(
                    workload = %self.workload,
                    "asks for more than {ALWAYS} names, while all proxies together ask for very many different ones; what else it asks \
                     for is not answered until it connects again: look with selvedge status for workloads that ask for too much"
                );
            }
            return Ok(());
        }
        if self.watcher.authorities().len() > MAX_AUTHORITIES {
            return Err(too_many_subscriptions());
        }
        Ok(())
    }

    /// Takes in one message.
    pub(super) fn hear(&mut self, message: wire::ClientMessage) -> Result<MessageOutcome, Status> {
        if !matches!(message.message, Some(Message::Report(_))) {
            let samples = match &message.message {
                Some(Message::TapSamples(samples)) => samples.list.len() + samples.missed.len(),
                _ => 0,
            };
            let samples = u32::try_from(samples).unwrap_or(u32::MAX);
            self.message_at =
                self.message_at.max(Instant::now()) + MESSAGE_EVERY + MESSAGE_EVERY / 10 * samples;
        }
        match message.message {
            Some(Message::Subscribe(subscribe)) => self.subscribe(subscribe.authority)?,
            Some(Message::Unsubscribe(unsubscribe)) => self.unsubscribe(&unsubscribe.authority),
            Some(Message::Ack(ack)) => return Ok(self.acknowledge(ack)),
            Some(Message::Report(report)) => {
                self.report_at = self.report_at.max(Instant::now()) + REPORT_EVERY;
                let wrong = |error| Status::invalid_argument(format!("a report: {error}"));
                let mut report = Report::try_from(*report).map_err(wrong)?;
                let traffic = self.traffic(std::mem::take(&mut report.traffic), report.watched)?;
                return Ok(MessageOutcome::Told(report, Box::new(traffic)));
            }
            // What nobody asks for, or no longer, is not even looked at.
            Some(Message::TapSamples(samples)) if self.is_tapped => return shown(samples),
            Some(Message::TapSamples(_)) => {}
            Some(Message::KeysWanted(wanted)) => return Ok(MessageOutcome::KeysWanted(wanted.url)),
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument("Hello comes once, at the start of a stream"));
            }
            None => tracing::debug!(workload = %self.workload, "a message that this version does not know"),
        }
        Ok(MessageOutcome::Nothing)
    }

    /// When the next message is read, if it reports or says anything else too often.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let report = self.report_at.checked_sub(REPORT_EARLY);
        let next = report.max(self.message_at.checked_sub(MESSAGES_EARLY));
        next.filter(|at| *at > Instant::now())
    }

    /// What `told` says, each number resolved to what it stands for on this stream.
    fn traffic(&mut self, told: Told, watched: u64) -> Result<TrafficReport, Status> {
        for number in &told.not_understood {
            self.edges.insert(*number, None);
        }
        for (number, edge) in told.named {
            let [host, route, subset, backend] =
                [edge.host, edge.route, edge.subset, edge.backend].map(|name| visible(&name));
            self.edges.insert(number, Some(Arc::new(Edge { host, route, subset, backend, ..edge })));
        }
        let (mut edges, mut left_out) = (Vec::new(), told.left_out);
        for (number, mut counts) in told.counts {
            for one in &mut counts.outcomes {
                one.outcome.reason = one.outcome.reason.as_ref().map(visible);
            }
            match self.edges.get(&number) {
                Some(Some(edge)) => edges.push((Arc::clone(edge), counts)),
                Some(None) => left_out = left_out.saturating_add(counts.ends().max(counts.connections)),
                None => {
                    return Err(Status::invalid_argument(format!("a report: edge {number} has no name")));
                }
            }
        }
        let mut out = told.out;
        for one in out.iter_mut().flatten() {
            one.backend.service.host = visible(&one.backend.service.host);
            one.backend.subset = one.backend.subset.as_ref().map(visible);
            (one.why, one.last_failure) = (visible(&one.why), visible(&one.last_failure));
        }
        let mut at_endpoints = told.at_endpoints;
        for one in &mut at_endpoints {
            one.backend.service.host = visible(&one.backend.service.host);
            one.backend.subset = one.backend.subset.as_ref().map(visible);
        }
        let endpoints_left_out = told.endpoints_left_out;
        Ok(TrafficReport { edges, left_out, out, at_endpoints, endpoints_left_out, watched })
    }

    pub(super) fn subscribe(&mut self, authority: String) -> Result<(), Status> {
        // Forgotten, so that it is answered even if the answer is the same.
        let name = ResourceName::Lookup(Arc::from(authority.as_str()));
        self.held.lock().remove(&name);
        if let Some(PendingTransaction { changes, .. }) = &mut self.under_way {
            changes.upserts.retain(|stamp| stamp.name != name);
            changes.removals.retain(|removed| *removed != name);
        }
        self.refused.remove(&Subject::Authority(Arc::from(authority.as_str())));
        (self.due, self.settled) = (true, None);
        self.add(authority)
    }

    pub(super) fn unsubscribe(&mut self, authority: &str) {
        // What it never asked for is no reason to look.
        if self.watcher.leave(authority) {
            self.refused.remove(&Subject::Authority(Arc::from(authority)));
            (self.due, self.settled) = (true, None);
        }
    }

    pub(super) fn acknowledge(&mut self, ack: wire::Ack) -> MessageOutcome {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.nonce == ack.nonce) else {
            tracing::debug!(workload = %self.workload, nonce = ack.nonce, "an Ack for no update");
            return MessageOutcome::Nothing;
        };
        let Some(reason) = ack.refused else {
            self.held.lock().apply(under_way.changes);
            self.acknowledged = Some(under_way.nonce);
            if self.pace == Pace::Together && self.refused.is_empty() {
                // All that it lacked was in it. Of what has changed meanwhile, the watcher tells.
                self.configuration = Some(under_way.configuration);
            } else {
                self.due = true;
            }
            let now = Instant::now();
            let ago = |then: Instant| now.saturating_duration_since(then);
            return MessageOutcome::Applied { sent: ago(under_way.sent), since: under_way.since.map(ago) };
        };
        self.settled = None;
        if under_way.has_deltas {
            // It may hold something else than we know of: all of it comes again, with whole lists.
            self.takes_endpoint_deltas = false;
            self.due = true;
        } else if under_way.parts.len() > 1 {
            self.pace = Pace::OneByOne;
            self.due = true;
        } else {
            // Not sent again before it changes. Refused removals wait for any change, too.
            self.due |= !under_way.parts.is_empty();
            self.refused.extend(diff::refused(under_way.parts));
        }
        MessageOutcome::Refused { nonce: under_way.nonce, reason }
    }

    /// The next transaction; `None` if the proxy lacks nothing, or nothing that it would take. `news` is what has changed since
    /// the last look, all of which `snapshot` has.
    pub(super) fn next(
        &mut self,
        news: &News,
        snapshot: &Snapshot,
        deadline: Instant,
    ) -> Result<Option<Difference>, Status> {
        (self.due, self.has_changed) = (false, false);
        let since = news.since;
        let mut difference = match self.of_news(news, snapshot) {
            Some(difference) => difference,
            None => self.of_all(snapshot)?,
        };
        if difference.is_empty() {
            self.pace = Pace::default();
            self.configuration = Some(snapshot.version());
            if self.greeted {
                return Ok(None);
            }
        }
        self.greeted = true;
        let changes = difference.changes();
        if self.takes_endpoint_deltas {
            let held = self.held.lock();
            let held = |name: &ResourceName| held.version(name).map(|version| &**version);
            snapshot.encodings().shorten(&mut difference.upserts, held);
        }
        self.nonce += 1;
        self.under_way = Some(PendingTransaction {
            nonce: self.nonce,
            configuration: snapshot.version(),
            since,
            sent: Instant::now(),
            changes,
            parts: std::mem::take(&mut difference.parts),
            has_deltas: difference.upserts.iter().any(Encoded::is_delta),
            deadline,
        });
        Ok(Some(difference))
    }

    /// What the proxy lacks by the `news`, if nothing else has to be looked at for that.
    fn of_news(&mut self, news: &News, snapshot: &Snapshot) -> Option<Difference> {
        let parts = self.watcher.parts_of(news, snapshot, self.settled?)?;
        self.settled = Some(snapshot.version());
        Some(diff::next_of(parts, &self.held.lock()))
    }

    /// What the proxy lacks of all that it is to hold.
    fn of_all(&mut self, snapshot: &Snapshot) -> Result<Difference, Status> {
        let workload = self.admit(snapshot)?;
        let (parts, are_kept) = self.watcher.parts(snapshot, &workload);
        let mut held = self.held.lock();
        if !self.greeted {
            held.share(&parts);
        }
        let is_all = are_kept && self.pace == Pace::Together && self.refused.is_empty();
        self.settled = is_all.then(|| snapshot.version());
        Ok(diff::next(&parts, &held, &self.refused, self.pace))
    }

    /// By which others see whether it is up to date.
    pub(super) fn standing(&self) -> Standing {
        self.watcher.standing()
    }

    /// What others see of it. What it says that it is is kept there alone.
    pub(super) fn shown(&mut self, address: std::net::SocketAddr, root: Option<Arc<str>>) -> Proxy {
        Proxy {
            workload: self.workload.clone(),
            identity: self.peer.identity.clone(),
            proof: Proof::of(&self.peer),
            certificate_serial: self.peer.serial.clone(),
            certificate_root: root,
            address,
            svid: None,
            memory_bytes: None,
            configuration_at: None,
            proxy_version: std::mem::take(&mut self.proxy_version),
            connected_at: SystemTime::now(),
            certificate_expires_at: self.peer.not_after,
            authorities: self.watcher.authorities().clone(),
            holds: self.held.clone(),
            configuration_version: None,
            acknowledged: None,
            under_way: None,
            refused: None,
            takes_log_levels: self.takes_log_levels,
        }
    }

    pub(super) fn show(&self, proxy: &mut Proxy) {
        if proxy.configuration_version != self.configuration {
            (proxy.configuration_version, proxy.configuration_at) =
                (self.configuration, Some(SystemTime::now()));
        }
        proxy.acknowledged = self.acknowledged;
        proxy.under_way = self.under_way.as_ref().map(|under_way| under_way.nonce);
    }
}

/// A name as a proxy tells it, with `?` for what a reader could not see in it: it is shown on terminals, and must not become
/// several times as long in JSON.
fn visible(name: &Arc<str>) -> Arc<str> {
    if !name.chars().any(is_hidden) {
        return Arc::clone(name);
    }
    name.chars().map(|c| if is_hidden(c) { '?' } else { c }).collect::<String>().into()
}

/// What a proxy shows of live requests.
fn shown(samples: wire::TapSamples) -> Result<MessageOutcome, Status> {
    let wrong = |error| Status::invalid_argument(format!("a sample: {error}"));
    let sample = |shown: wire::TapShown| {
        let sample = shown.sample.map(Sample::try_from).transpose().map_err(wrong)?;
        Ok::<_, Status>(sample.map(|sample| (shown.tap, sample)))
    };
    let all = samples.list.into_iter().map(sample).collect::<Result<Vec<_>, _>>()?;
    let missed = samples.missed.into_iter().map(|missed| (missed.tap, missed.count)).collect();
    Ok(MessageOutcome::Shown { samples: all.into_iter().flatten().collect(), missed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, identity};

    fn session() -> Session {
        let peer = Peer {
            identity: identity("shop", "frontend"),
            not_before: SystemTime::now(),
            not_after: SystemTime::now() + Duration::from_secs(60),
            serial: "4fa0".parse().unwrap(),
            workload: None,
        };
        let hello = wire::Hello { workload: "shop/frontend".into(), ..wire::Hello::default() };
        let store = Store::new(&testing::bundle());
        store.publish(testing::mesh());
        Applicant::new(&Arc::new(peer), hello).unwrap().begin(&store, &store.current().unwrap()).0
    }

    fn hear(session: &mut Session, message: Message) -> MessageOutcome {
        session.hear(wire::ClientMessage { message: Some(message) }).unwrap()
    }

    fn unsubscribe(authority: &str) -> Message {
        Message::Unsubscribe(wire::Unsubscribe { authority: authority.into() })
    }

    #[tokio::test]
    async fn only_what_changes_something_is_a_reason_to_look() {
        let mut session = session();
        let mut is_due_after = |message: Message| {
            session.due = false;
            hear(&mut session, message);
            session.due
        };

        assert!(!is_due_after(unsubscribe("reviews")), "it never asked for it");
        assert!(is_due_after(Message::Subscribe(wire::Subscribe { authority: "reviews".into() })));
        assert!(is_due_after(unsubscribe("reviews")));
        assert!(!is_due_after(unsubscribe("reviews")));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_too_much_waits_and_what_nobody_asked_to_see_is_not_looked_at() {
        let mut session = session();
        for _ in 0..10_000 {
            hear(&mut session, unsubscribe("reviews"));
        }
        assert_eq!(session.waits_until(), None);
        hear(&mut session, unsubscribe("reviews"));
        assert_eq!(session.waits_until(), Some(Instant::now() + MESSAGE_EVERY));

        // Nobody could read it, and nobody tries.
        let sample = wire::TapSample { method: "\0".into(), ..wire::TapSample::default() };
        let shown = wire::TapShown { tap: 1, sample: Some(sample) };
        let samples =
            || Message::TapSamples(wire::TapSamples { list: vec![shown.clone()], missed: Vec::new() });
        assert_eq!(hear(&mut session, samples()), MessageOutcome::Nothing);
        session.is_tapped = true;
        assert_ne!(
            session.hear(wire::ClientMessage { message: Some(samples()) }).ok(),
            Some(MessageOutcome::Nothing)
        );
    }
}
