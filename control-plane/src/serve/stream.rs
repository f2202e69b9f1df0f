//! The configuration stream: tells one proxy what it asked for, and keeps that current.
//!
//! At most one transaction is in progress; what changes meanwhile is in the next. So a slow proxy costs
//! nothing but its own delay, however often configuration changes. `Session` holds what was said and
//! does no I/O; the rest of this file is the conversation around it.

mod alarm;
mod session;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use selvedge_api::{
    PUSHBACK, ResourceName,
    encoded::Transaction,
    wire::{self, client_message},
};
use selvedge_certs::verify::Peer;
use selvedge_model::WorkloadName;
use selvedge_ops::{Drain, places::Doing, plain_within, when_woken};
use tokio::{
    sync::{Semaphore, watch},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tonic::{Code, Status};

use super::{
    connection::Client,
    exchange::{Messages, Outgoing, Passed},
    own::sleep_by_clock,
    turns::{self, Over, Turn, Turns},
};
use crate::{
    keys::KeyWishes,
    metrics::{Metrics, Stage, TransactionOutcome},
    snapshot::{Snapshot, Store, diff::Difference},
    status::{Asked, Level, Levels, Proxies, RefusedTransaction, Registration, Seen, Taps, Traffic},
};
use alarm::Alarm;
use session::{Applicant, MAX_REASON, MessageOutcome, Session};

/// From the stream's start to its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// From the Hello to the first configuration of a control plane that is starting.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// From a transaction to its Ack.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the words at the end of a stream may take to be sent.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages or subscriptions of a proxy that are taken in before anybody else has their turn.
const MOST_AT_ONCE: usize = 64;
/// So many proxies are let in each second after a restart, at least.
const LET_IN_PER_SECOND: u64 = 2_000;
/// The longest pause that a proxy is told, in milliseconds.
const LONGEST_SPREAD_MS: u64 = 10_000;
/// The same while the control plane is starting.
const STARTING_MS: u64 = 1_000;

/// Serves configuration streams.
#[derive(Debug)]
pub struct Streams {
    /// What is told.
    pub store: Arc<Store>,
    /// Who is told.
    pub proxies: Arc<Proxies>,
    /// What they tell of who has called.
    pub seen: Arc<Seen>,
    /// What they tell of the traffic that they carry.
    pub traffic: Arc<Traffic>,
    /// Who asks to see live requests of them.
    pub taps: Arc<Taps>,
    /// What they are to log for a while.
    pub levels: Arc<Levels>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where wishes for newer keys of issuers go.
    pub keys: KeyWishes,
    /// How many each workload has.
    pub turns: Arc<Turns>,
    /// Ends every stream.
    pub drain: Drain,
}

impl Streams {
    /// A conversation with `client`.
    ///
    /// # Errors
    /// What it is told instead, if it has no certificate.
    pub(super) fn conversation(self: &Arc<Self>, client: &Arc<Client>) -> Result<Conversation, Status> {
        let Some(peer) = &client.peer else {
            self.metrics.stream_refused(reason(Code::Unauthenticated));
            return Err(Status::unauthenticated(
                "a configuration stream needs the workload's certificate; get one with Certificates.Sign",
            ));
        };
        Ok(Conversation { streams: Arc::clone(self), client: Arc::clone(client), peer: Arc::clone(peer) })
    }
}

/// The word for a refusal in metrics.
fn reason(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "unauthenticated",
        Code::NotFound => "unknown-workload",
        Code::PermissionDenied => "not-allowed",
        Code::InvalidArgument => "protocol",
        Code::ResourceExhausted => "too-many-subscriptions",
        Code::DeadlineExceeded => "silent",
        Code::Aborted => "replaced",
        Code::Unavailable => "stopping",
        _ => "broken",
    }
}

/// What seldom happens beside a conversation.
struct Asides {
    taps: watch::Receiver<u64>,
    levels: watch::Receiver<u64>,
    over: Over,
}

enum Aside {
    /// Somebody asks to see other requests.
    Taps,
    /// Something else is to be logged.
    Levels,
    /// Newer streams have the workload's turns.
    Over,
}

impl Asides {
    async fn next(mut self) -> (Aside, Self) {
        let happened = tokio::select! {
            Ok(()) = self.taps.changed() => Aside::Taps,
            Ok(()) = self.levels.changed() => Aside::Levels,
            () = self.over.reached() => Aside::Over,
        };
        (happened, self)
    }
}

/// A configuration stream that was asked for. It ends with the drain, with the client, or with its certificate.
pub(super) struct Conversation {
    streams: Arc<Streams>,
    client: Arc<Client>,
    peer: Arc<Peer>,
}

/// A conversation whose proxy has said who it is.
struct Known {
    session: Session,
    turn: Turn,
    registration: Registration,
    asked: Asked,
    level: Option<Level>,
}

impl Conversation {
    /// Until the stream has ended. What happens once in its life is by itself in memory, which is not kept for the rest of it.
    #[expect(clippy::manual_async_fn, reason = "an async function has room for whatever it is given twice")]
    pub(super) fn run(
        self,
        mut messages: Messages,
        mut outgoing: Outgoing,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let ended = tokio::select! {
                ended = self.converse(&mut messages, &mut outgoing) => ended,
                status = when_woken(self.over()) => Err(status),
            };
            Box::pin(self.end(outgoing, ended)).await;
        }
    }

    /// Why a stream ends whatever is said on it.
    async fn over(&self) -> Status {
        let Streams { drain, proxies, .. } = &*self.streams;
        tokio::select! {
            () = expiry(self.peer.not_after) => Status::unauthenticated(
                "the certificate that this stream was opened with has expired; renew it and reconnect",
            ),
            _ = drain.drained() => {
                let spread = proxies.count_at_end() as u64 * 1000 / LET_IN_PER_SECOND;
                later("the control plane is stopping; reconnect", spread)
            }
        }
    }

    async fn end(&self, outgoing: Outgoing, ended: Result<(), Status>) {
        self.client.activity.set(Doing::Idle);
        let (address, identity) = (self.client.address, &self.peer.identity);
        let status = match ended {
            Ok(()) => {
                tracing::debug!(%address, %identity, "configuration stream closed by the proxy");
                Status::ok("")
            }
            Err(status) => {
                let reason = reason(status.code());
                self.streams.metrics.stream_refused(reason);
                tracing::info!(%address, %identity, reason, why = status.message(), "configuration stream ended");
                status
            }
        };
        // Who does not take it is not told.
        let _ = timeout(FAREWELL_TIMEOUT, outgoing.end(status)).await;
    }

    async fn converse(&self, messages: &mut Messages, outgoing: &mut Outgoing) -> Result<(), Status> {
        let Some((mut known, asides)) = Box::pin(self.begin(messages, outgoing)).await? else {
            return Ok(());
        };
        let known = &mut *known;
        let mut alarm = Alarm::new();
        // What seldom happens costs nothing whenever something else does.
        let mut aside = pin!(when_woken(asides.next()));
        loop {
            // What is sent waits where it is until the proxy has taken what was sent before.
            let is_due =
                known.session.due && known.session.under_way.is_none() && outgoing.stalled().is_none();
            // A proxy has no more looked at than its share; a change of configuration is told at once.
            let waits = match is_due && !known.session.has_changed {
                true => known.turn.look_waits_until(),
                false => None,
            };
            if is_due && waits.is_none() {
                // Whoever causes looks himself does not keep everybody else from theirs.
                let yields = !known.session.has_changed;
                if let Some(difference) = self.look(known)? {
                    self.send(&known.session, difference, outgoing);
                }
                known.registration.update(|proxy| known.session.show(proxy));
                if yields {
                    yield_now().await;
                }
            }
            let deadline = known.session.under_way.as_ref().map(|under_way| under_way.deadline);
            let stalled = outgoing.stalled().map(|since| since + ACK_TIMEOUT);
            // Whoever tells too often is not listened to for a while. All else goes on: he may be revoked meanwhile.
            let unheard = known.session.waits_until();
            // What is due is looked at above.
            let lent = known.level.as_ref().map(|level: &Level| level.until);
            alarm.set([waits, deadline, stalled, unheard, lent].into_iter().flatten().min());
            tokio::select! {
                message = messages.message(), if unheard.is_none() => {
                    let Some(message) = message? else { return Ok(()) };
                    match self.hear_all(known, message, messages)? {
                        Heard::All => {}
                        // One frame may hold thousands.
                        Heard::Some => yield_now().await,
                        Heard::Last => return Ok(()),
                    }
                },
                () = known.session.watcher.changed() => {
                    // At once, and not when what is in progress has been answered.
                    if known.session.watcher.concerns_itself() {
                        known.session.admit(&*self.snapshot()?)?;
                    }
                    (known.session.due, known.session.has_changed) = (true, true);
                }
                (happened, asides) = &mut aside => {
                    match happened {
                        Aside::Taps => self.ask(known, outgoing),
                        Aside::Levels => self.set_level(known, outgoing),
                        Aside::Over => return Err(replaced(&known.session.workload)),
                    }
                    aside.set(when_woken(asides.next()));
                }
                passed = outgoing.passes() => {
                    if passed == Passed::Gone {
                        return Ok(());
                    }
                }
                () = alarm.rings() => {
                    let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
                    if is_over(deadline) {
                        return Err(Status::deadline_exceeded(format!("no Ack within {ACK_TIMEOUT:?}")));
                    }
                    // It may have taken something meanwhile.
                    if is_over(outgoing.stalled().map(|since| since + ACK_TIMEOUT)) {
                        return Err(Status::deadline_exceeded(format!("nothing was read for {ACK_TIMEOUT:?}")));
                    }
                    // Another order may hold from now on.
                    if is_over(lent) {
                        self.set_level(known, outgoing);
                    }
                }
            }
        }
    }

    /// Until the proxy has said who it is and what it asks for. `None`: it is gone.
    async fn begin(
        &self,
        messages: &mut Messages,
        outgoing: &mut Outgoing,
    ) -> Result<Option<(Box<Known>, Asides)>, Status> {
        let hello = hello(messages, &self.client.greeting).await?;
        let applicant = Applicant::new(&self.peer, hello)?;
        self.started().await?;
        let streams = &self.streams;
        // Before anything is kept of it.
        let snapshot = self.snapshot()?;
        applicant.admit(&snapshot)?;
        let (mut session, authorities) = applicant.begin(&streams.store, &snapshot);
        drop(snapshot);
        let (turn, mut over) = streams.turns.take(&session.workload);
        if !self.ask_for_all(&mut session, (&turn, &mut over), authorities, outgoing).await? {
            return Ok(None);
        }
        // Its connection keeps its place from now on.
        self.client.activity.set(Doing::Busy);
        let shown = session.shown(self.client.address, self.client.root.clone());
        let registration = streams.proxies.register(shown, session.standing());
        tracing::info!(workload = %session.workload, address = %self.client.address, "configuration stream open");
        let (taps, levels) = (streams.taps.changes(), streams.levels.changes());
        let mut known = Box::new(Known { session, turn, registration, asked: Asked::default(), level: None });
        self.ask(&mut known, outgoing);
        self.set_level(&mut known, outgoing);
        Ok(Some((known, Asides { taps, levels, over })))
    }

    /// Asks for the `authorities` of a Hello. Of many, a few are taken in at a time, so that everybody else has their turn, and
    /// none before the workload has had its share of a thread: it may come and go without a pause. `false`: the proxy is gone.
    async fn ask_for_all(
        &self,
        session: &mut Session,
        (turn, over): (&Turn, &mut Over),
        authorities: Vec<String>,
        outgoing: &mut Outgoing,
    ) -> Result<bool, Status> {
        let is_large = authorities.len() > MOST_AT_ONCE;
        while let Some(waits) = turn.look_waits_until().filter(|_| is_large) {
            tokio::select! {
                () = sleep_until(waits) => {}
                Passed::Gone = outgoing.passes() => return Ok(false),
                () = over.reached() => return Err(replaced(&session.workload)),
            }
        }
        let mut authorities = authorities.into_iter().peekable();
        while authorities.peek().is_some() {
            let start = Instant::now();
            authorities.by_ref().take(MOST_AT_ONCE).try_for_each(|authority| session.add(authority))?;
            turn.looked(start.elapsed(), false);
            if is_large {
                yield_now().await;
            }
        }
        Ok(true)
    }

    /// Waits for the first configuration of a control plane that is starting.
    async fn started(&self) -> Result<(), Status> {
        let mut snapshots = self.streams.store.subscribe();
        match timeout(START_TIMEOUT, snapshots.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(later("the control plane has not read its configuration yet; reconnect", STARTING_MS)),
        }
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Status> {
        let newest = self.streams.store.current();
        newest.ok_or_else(|| Status::unavailable("the control plane has no configuration; reconnect"))
    }

    /// What the proxy lacks now, if anything.
    fn look(&self, known: &mut Known) -> Result<Option<Difference>, Status> {
        let session = &mut known.session;
        // In this order: what comes later is in a later snapshot.
        let news = session.watcher.news();
        let snapshot = self.snapshot()?;
        let start = Instant::now();
        let is_for_change = session.has_changed;
        let next = session.next(&news, &snapshot, start + ACK_TIMEOUT)?;
        let took = start.elapsed();
        known.turn.looked(took, is_for_change);
        self.streams.metrics.spent(Stage::View, took);
        Ok(next)
    }

    /// Sends a transaction: what there is room for at once, which mostly is all.
    fn send(&self, session: &Session, difference: Difference, outgoing: &mut Outgoing) {
        let (start, metrics) = (Instant::now(), &self.streams.metrics);
        let nonce = session.nonce;
        let (upserts, removals) = (difference.upserts.len(), difference.removals.len());
        tracing::debug!(workload = %session.workload, nonce, upserts, removals, "transaction");
        for list in difference.upserts.iter().filter(|one| matches!(one.name(), ResourceName::Endpoints(_))) {
            metrics.endpoints_sent(list.is_delta(), list.bytes().len());
        }
        metrics.transaction(TransactionOutcome::Sent);
        difference.messages(nonce).into_iter().for_each(|message| outgoing.send(message));
        metrics.spent(Stage::Write, start.elapsed());
    }

    /// Asks to see the live requests that somebody wants to see now, if it is not asked for them already.
    fn ask(&self, known: &mut Known, outgoing: &mut Outgoing) {
        let session = &mut known.session;
        let wanted = self.streams.taps.of(&session.workload);
        // An older proxy would take it for a transaction, and, if it has said nothing of what it holds, drop all that.
        if wanted == known.asked || !session.takes_taps {
            return;
        }
        let list = wanted.list.iter().map(Into::into).collect();
        let taps = Some(wire::Taps { list, often: wanted.often });
        session.is_tapped = !wanted.list.is_empty();
        known.asked = wanted;
        outgoing.send(Transaction { taps, ..Transaction::default() });
    }

    /// Has the proxy log what somebody wants it to, if that is not what it was told already. When the time is over, it goes
    /// back to its own setting by itself.
    fn set_level(&self, known: &mut Known, outgoing: &mut Outgoing) {
        let session = &known.session;
        let wanted = self.streams.levels.of(&session.workload).filter(|_| session.takes_log_levels);
        if wanted == known.level {
            return;
        }
        known.level = wanted;
        let Some(level) = &known.level else { return };
        let log_level = Some(wire::LogLevel { filter: level.filter.clone(), seconds: level.seconds() });
        outgoing.send(Transaction { log_level, ..Transaction::default() });
    }

    /// Whether a rule about tokens of `workload` has its keys from `url`. No proxy has anything else fetched.
    fn takes_keys_from(&self, workload: &WorkloadName, url: &str) -> bool {
        let snapshot = self.streams.store.current();
        let workload = snapshot.as_ref().and_then(|snapshot| snapshot.mesh().workloads.get(workload));
        let rules = workload.and_then(|workload| workload.policy.authentication.as_deref());
        rules.is_some_and(|rules| rules.rules.iter().any(|rule| rule.keys_from.as_deref() == Some(url)))
    }

    /// Takes in `message` and those that have come with it, so that one look is for all of them.
    fn hear_all(
        &self,
        known: &mut Known,
        mut message: wire::ClientMessage,
        messages: &mut Messages,
    ) -> Result<Heard, Status> {
        for _ in 0..MOST_AT_ONCE {
            self.hear(known, message)?;
            // Nothing is looked at yet. Or the rest is read when it may be.
            if !known.session.due || known.session.waits_until().is_some() {
                return Ok(Heard::All);
            }
            message = match messages.message().now_or_never() {
                Some(Ok(Some(next))) => next,
                Some(Ok(None)) => return Ok(Heard::Last),
                Some(Err(status)) => return Err(status),
                None => return Ok(Heard::All),
            };
        }
        self.hear(known, message)?;
        Ok(Heard::Some)
    }

    fn hear(&self, known: &mut Known, message: wire::ClientMessage) -> Result<(), Status> {
        let Known { session, registration, .. } = known;
        let Streams { metrics, seen, traffic: of_all, taps, keys, .. } = &*self.streams;
        match session.hear(message)? {
            MessageOutcome::Nothing => {}
            MessageOutcome::Told(report, traffic) => {
                if let Some(svid) = report.svid {
                    registration.update(|proxy| proxy.svid = Some(svid));
                }
                if report.memory > 0 {
                    registration.update(|proxy| proxy.memory_bytes = Some(report.memory));
                }
                seen.tell(&session.workload, report);
                of_all.tell(&session.workload, &self.peer.identity, *traffic);
            }
            MessageOutcome::Shown { samples, missed } => {
                taps.show(&session.workload, samples, &missed);
            }
            MessageOutcome::KeysWanted(url) if self.takes_keys_from(&session.workload, &url) => {
                keys.wish(&url);
            }
            MessageOutcome::KeysWanted(_) => {}
            MessageOutcome::Applied { sent, since } => {
                metrics.transaction(TransactionOutcome::Acknowledged);
                metrics.acknowledged(sent, since);
                registration.update(|proxy| session.show(proxy));
            }
            MessageOutcome::Refused { nonce, reason } => {
                metrics.transaction(TransactionOutcome::Refused);
                // The log writes out by itself what would act in it.
                let told = &reason[..reason.floor_char_boundary(MAX_REASON)];
                tracing::warn!(workload = %session.workload, nonce, reason = told, "the proxy refused its configuration");
                let reason = plain_within(&reason, MAX_REASON);
                let refused = RefusedTransaction { nonce, at: SystemTime::now(), reason };
                registration.update(|proxy| {
                    session.show(proxy);
                    proxy.refused = Some(refused);
                });
            }
        }
        Ok(())
    }
}

/// What was heard of what has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// All that can be heard now.
    All,
    /// So much that others are to have their turn.
    Some,
    /// The last of all.
    Last,
}

/// An end after which the proxy is to come back within so many milliseconds. Each is told another time, so that they can be let
/// in as they come.
fn later(message: &'static str, spread: u64) -> Status {
    let mut status = Status::unavailable(message);
    status.metadata_mut().insert(PUSHBACK, fastrand::u64(0..=spread.min(LONGEST_SPREAD_MS)).into());
    status
}

fn replaced(workload: &WorkloadName) -> Status {
    Status::aborted(format!(
        "{} newer streams of workload {workload} are open; give each proxy its own workload",
        turns::MOST
    ))
}

async fn hello(messages: &mut Messages, greeting: &Semaphore) -> Result<wire::Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, async {
        let _turn = greeting.acquire().await;
        messages.message().await
    });
    let first = first.await;
    let first =
        first.map_err(|_| Status::deadline_exceeded(format!("no Hello within {HELLO_TIMEOUT:?}")))??;
    match first.and_then(|message| message.message) {
        Some(client_message::Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message on a configuration stream is Hello")),
    }
}

async fn expiry(not_after: SystemTime) {
    sleep_by_clock(not_after, SystemTime::now).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// How long a certificate of an hour keeps its stream if after ten minutes the clock is set by `jump`.
    async fn lasts(jump: impl Fn(SystemTime) -> SystemTime) -> u64 {
        let (began, clock) = (Instant::now(), SystemTime::now());
        let now = || {
            let right = clock + began.elapsed();
            if began.elapsed() < HOUR / 6 { right } else { jump(right) }
        };
        sleep_by_clock(clock + HOUR, now).await;
        began.elapsed().as_secs() / 60
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_certificate_however_the_clock_is_set_meanwhile() {
        assert_eq!(lasts(|right| right).await, 60);
        assert_eq!(lasts(|right| right + 2 * HOUR).await, 10, "it is over by now");
        assert_eq!(lasts(|right| right - 2 * HOUR).await, 180);
        assert_eq!(lasts(|right| right + HOUR / 2).await, 30);
    }
}
