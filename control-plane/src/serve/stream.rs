//! The configuration stream: tells one proxy what it asked for, and keeps that current.
//!
//! At most one transaction is in progress; what changes meanwhile is in the next. So a slow proxy costs
//! nothing but its own delay, however often configuration changes. `Session` holds what was said and
//! does no I/O; the rest of this file is the conversation around it.

mod alarm;
mod session;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use selvedge_api::{
    PUSHBACK, ResourceName,
    encoded::{Transaction, server},
    wire::{self, client_message},
};
use selvedge_certs::verify::Peer;
use selvedge_model::WorkloadName;
use selvedge_ops::{
    Drain,
    places::{Activity, Doing},
    plain_within, when_woken,
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::Stream;
use tonic::{Code, Request, Status, Streaming};

use super::{
    connection::Client,
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
/// Messages of one transaction that wait in memory for a slow connection.
const OUTGOING: usize = 2;

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

/// What is sent on one stream. The channel has room for dozens of messages from the start; so there are boxes in it.
type Message = Box<Result<Transaction, Status>>;

/// The other end of a conversation's messages.
#[derive(Debug)]
pub struct Transactions(mpsc::Receiver<Message>);

impl Stream for Transactions {
    type Item = Result<Transaction, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(|message| *message))
    }
}

impl server::Discovery for Streams {
    type Transactions = Transactions;

    fn stream(&self, request: Request<Streaming<wire::ClientMessage>>) -> Result<Self::Transactions, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let client = client.ok_or_else(|| Status::internal("the connection is unknown"))?;
        let Some(peer) = client.peer else {
            self.metrics.stream_refused(reason(Code::Unauthenticated));
            return Err(Status::unauthenticated(
                "a configuration stream needs the workload's certificate; get one with Certificates.Sign",
            ));
        };
        let (outgoing, transactions) = mpsc::channel(OUTGOING);
        let conversation = Conversation {
            address: client.address,
            peer,
            root: client.root,
            store: Arc::clone(&self.store),
            snapshots: self.store.subscribe(),
            proxies: Arc::clone(&self.proxies),
            seen: Arc::clone(&self.seen),
            traffic: Arc::clone(&self.traffic),
            taps: Arc::clone(&self.taps),
            levels: Arc::clone(&self.levels),
            metrics: Arc::clone(&self.metrics),
            keys: self.keys.clone(),
            turns: Arc::clone(&self.turns),
            activity: client.activity,
            outgoing,
        };
        // Ends with the drain, with the client, or with its certificate.
        tokio::spawn(conversation.run(request.into_inner(), self.drain.clone()));
        Ok(Transactions(transactions))
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
    outgoing: mpsc::Sender<Message>,
    over: Over,
}

enum Aside {
    /// Somebody asks to see other requests.
    Taps,
    /// Something else is to be logged.
    Levels,
    /// Nobody takes messages any more.
    Closed,
    /// Newer streams have the workload's turns.
    Over,
}

impl Asides {
    async fn next(mut self) -> (Aside, Self) {
        let happened = tokio::select! {
            Ok(()) = self.taps.changed() => Aside::Taps,
            Ok(()) = self.levels.changed() => Aside::Levels,
            () = self.outgoing.closed() => Aside::Closed,
            () = self.over.reached() => Aside::Over,
        };
        (happened, self)
    }
}

struct Conversation {
    address: std::net::SocketAddr,
    peer: Peer,
    root: Option<Arc<str>>,
    store: Arc<Store>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    proxies: Arc<Proxies>,
    seen: Arc<Seen>,
    traffic: Arc<Traffic>,
    taps: Arc<Taps>,
    levels: Arc<Levels>,
    metrics: Arc<Metrics>,
    keys: KeyWishes,
    turns: Arc<Turns>,
    activity: Activity,
    outgoing: mpsc::Sender<Message>,
}

impl Conversation {
    async fn run(mut self, mut messages: Streaming<wire::ClientMessage>, drain: Drain) {
        let (proxies, not_after) = (Arc::clone(&self.proxies), self.peer.not_after);
        let ended = async {
            tokio::select! {
                () = expiry(not_after) => Status::unauthenticated(
                    "the certificate that this stream was opened with has expired; renew it and reconnect",
                ),
                _ = drain.drained() => {
                    let spread = proxies.count_at_end() as u64 * 1000 / LET_IN_PER_SECOND;
                    later("the control plane is stopping; reconnect", spread)
                }
            }
        };
        let ended = tokio::select! {
            ended = self.converse(&mut messages) => ended,
            status = when_woken(ended) => Err(status),
        };
        self.activity.set(Doing::Idle);
        let (address, identity) = (self.address, &self.peer.identity);
        match ended {
            Ok(()) => tracing::debug!(%address, %identity, "configuration stream closed by the proxy"),
            Err(status) => {
                let reason = reason(status.code());
                self.metrics.stream_refused(reason);
                tracing::info!(%address, %identity, reason, why = status.message(), "configuration stream ended");
                // Fails if the proxy is gone, and then there is nobody to tell.
                let _ = timeout(FAREWELL_TIMEOUT, self.outgoing.send(Box::new(Err(status)))).await;
            }
        }
    }

    async fn converse(&mut self, messages: &mut Streaming<wire::ClientMessage>) -> Result<(), Status> {
        let hello = hello(messages).await?;
        let applicant = Applicant::new(&self.peer, hello)?;
        self.started().await?;
        // Before anything is kept of it.
        applicant.admit(&*self.snapshot()?)?;
        let (mut session, authorities) = applicant.begin(&self.store);
        let (turn, mut over) = self.turns.take(&session.workload);
        if !self.ask_for_all(&mut session, (&turn, &mut over), authorities).await? {
            return Ok(());
        }
        // Its connection keeps its place from now on.
        self.activity.set(Doing::Busy);
        let registration = session.shown(self.address, self.root.clone());
        let registration = self.proxies.register(registration, session.standing());
        tracing::info!(workload = %session.workload, address = %self.address, "configuration stream open");
        let (taps, levels) = (self.taps.changes(), self.levels.changes());
        let asides = Asides { taps, levels, outgoing: self.outgoing.clone(), over };
        let (mut asked, mut level, mut alarm) = (Asked::default(), None, Alarm::new());
        self.ask(&mut session, &mut asked).await?;
        self.set_level(&session, &mut level).await?;
        // What seldom happens costs nothing whenever something else does.
        let mut aside = pin!(when_woken(asides.next()));
        loop {
            let is_due = session.due && session.under_way.is_none();
            // A proxy has no more looked at than its share; a change of configuration is told at once.
            let waits = if is_due && !session.has_changed { turn.look_waits_until() } else { None };
            if is_due && waits.is_none() {
                // Whoever causes looks himself does not keep everybody else from theirs.
                let yields = !session.has_changed;
                let next = self.look(&mut session, &turn)?;
                let rest = next.map(|difference| self.send(&session, difference)).unwrap_or_default();
                if !rest.is_empty() {
                    // What waiting needs is given back when it is done, and not kept for as long as the stream is open.
                    let start = Instant::now();
                    Box::pin(self.send_in_turn(rest)).await?;
                    self.metrics.spent(Stage::Write, start.elapsed());
                }
                registration.update(|proxy| session.show(proxy));
                if yields {
                    yield_now().await;
                }
            }
            let deadline = session.under_way.as_ref().map(|under_way| under_way.deadline);
            // Whoever tells too often is not listened to for a while. All else goes on: he may be revoked meanwhile.
            let unheard = session.waits_until();
            // What is due is looked at above.
            let lent = level.as_ref().map(|level: &Level| level.until);
            alarm.set([waits, deadline, unheard, lent].into_iter().flatten().min());
            tokio::select! {
                message = messages.message(), if unheard.is_none() => match message? {
                    Some(message) => {
                        if !self.hear_all(&mut session, message, messages, &registration).await? {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                () = session.watcher.changed() => {
                    // At once, and not when what is in progress has been answered.
                    if session.watcher.concerns_itself() {
                        session.admit(&*self.snapshot()?)?;
                    }
                    (session.due, session.has_changed) = (true, true);
                }
                (happened, asides) = &mut aside => {
                    match happened {
                        Aside::Taps => self.ask(&mut session, &mut asked).await?,
                        Aside::Levels => self.set_level(&session, &mut level).await?,
                        Aside::Closed => return Ok(()),
                        Aside::Over => return Err(replaced(&session.workload)),
                    }
                    aside.set(when_woken(asides.next()));
                }
                () = alarm.rings() => {
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(Status::deadline_exceeded(format!("no Ack within {ACK_TIMEOUT:?}")));
                    }
                    // Another order may hold from now on.
                    if lent.is_some_and(|until| until <= Instant::now()) {
                        self.set_level(&session, &mut level).await?;
                    }
                }
            }
        }
    }

    /// Asks for the `authorities` of a Hello. Of many, a few are taken in at a time, so that everybody else has their turn, and
    /// none before the workload has had its share of a thread: it may come and go without a pause. `false`: the proxy is gone.
    async fn ask_for_all(
        &self,
        session: &mut Session,
        (turn, over): (&Turn, &mut Over),
        authorities: Vec<String>,
    ) -> Result<bool, Status> {
        let is_large = authorities.len() > MOST_AT_ONCE;
        while let Some(waits) = turn.look_waits_until().filter(|_| is_large) {
            tokio::select! {
                () = sleep_until(waits) => {}
                () = self.outgoing.closed() => return Ok(false),
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
    async fn started(&mut self) -> Result<(), Status> {
        match timeout(START_TIMEOUT, self.snapshots.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(later("the control plane has not read its configuration yet; reconnect", STARTING_MS)),
        }
    }

    fn snapshot(&mut self) -> Result<Arc<Snapshot>, Status> {
        let newest = self.snapshots.borrow_and_update().clone();
        newest.ok_or_else(|| Status::unavailable("the control plane has no configuration; reconnect"))
    }

    /// What the proxy lacks now, if anything.
    fn look(&mut self, session: &mut Session, turn: &Turn) -> Result<Option<Difference>, Status> {
        // In this order: what comes later is in a later snapshot.
        let news = session.watcher.news();
        let snapshot = self.snapshot()?;
        let start = Instant::now();
        let is_for_change = session.has_changed;
        let next = session.next(&news, &snapshot, start + ACK_TIMEOUT)?;
        let took = start.elapsed();
        turn.looked(took, is_for_change);
        self.metrics.spent(Stage::View, took);
        Ok(next)
    }

    /// Sends what there is room for, which mostly is all: one transaction is under way. Gives the rest.
    fn send(&self, session: &Session, difference: Difference) -> Vec<Message> {
        let start = Instant::now();
        let nonce = session.nonce;
        let (upserts, removals) = (difference.upserts.len(), difference.removals.len());
        tracing::debug!(workload = %session.workload, nonce, upserts, removals, "transaction");
        for list in difference.upserts.iter().filter(|one| matches!(one.name(), ResourceName::Endpoints(_))) {
            self.metrics.endpoints_sent(list.is_delta(), list.bytes().len());
        }
        self.metrics.transaction(TransactionOutcome::Sent);
        let messages = difference.messages(nonce).into_iter().map(|message| Box::new(Ok(message)));
        let mut rest = Vec::new();
        for message in messages {
            if !rest.is_empty() {
                rest.push(message);
            } else if let Err(TrySendError::Full(message)) = self.outgoing.try_send(message) {
                rest.push(message);
            }
        }
        self.metrics.spent(Stage::Write, start.elapsed());
        rest
    }

    /// Waits for room for `messages`.
    async fn send_in_turn(&self, messages: Vec<Message>) -> Result<(), Status> {
        for message in messages {
            let sent = timeout(ACK_TIMEOUT, self.outgoing.send(message)).await;
            // Closed: the proxy is gone, and the loop around us sees that next.
            sent.map_err(|_| Status::deadline_exceeded(format!("nothing was read for {ACK_TIMEOUT:?}")))?
                .ok();
        }
        Ok(())
    }

    /// Asks to see the live requests that somebody wants to see now, if it is not `asked` for them already.
    async fn ask(&self, session: &mut Session, asked: &mut Asked) -> Result<(), Status> {
        let wanted = self.taps.of(&session.workload);
        // An older proxy would take it for a transaction, and, if it has said nothing of what it holds, drop all that.
        if wanted == *asked || !session.takes_taps {
            return Ok(());
        }
        let list = wanted.list.iter().map(Into::into).collect();
        let taps = Some(wire::Taps { list, often: wanted.often });
        *asked = wanted;
        session.is_tapped = !asked.list.is_empty();
        self.send_beside(Transaction { taps, ..Transaction::default() }).await
    }

    /// Has the proxy log what somebody wants it to, if that is not what it was `told` already. When the time is over, it goes
    /// back to its own setting by itself.
    async fn set_level(&self, session: &Session, told: &mut Option<Level>) -> Result<(), Status> {
        let wanted = self.levels.of(&session.workload).filter(|_| session.takes_log_levels);
        if wanted == *told {
            return Ok(());
        }
        *told = None;
        let Some(level) = wanted else { return Ok(()) };
        let log_level = Some(wire::LogLevel { filter: level.filter.clone(), seconds: level.seconds() });
        *told = Some(level);
        self.send_beside(Transaction { log_level, ..Transaction::default() }).await
    }

    /// Sends what is no transaction.
    async fn send_beside(&self, message: Transaction) -> Result<(), Status> {
        Box::pin(self.send_in_turn(vec![Box::new(Ok(message))])).await
    }

    /// Whether a rule about tokens of `workload` has its keys from `url`. No proxy has anything else fetched.
    fn takes_keys_from(&self, workload: &WorkloadName, url: &str) -> bool {
        let snapshot = self.snapshots.borrow();
        let workload = snapshot.as_ref().and_then(|snapshot| snapshot.mesh().workloads.get(workload));
        let rules = workload.and_then(|workload| workload.policy.authentication.as_deref());
        rules.is_some_and(|rules| rules.rules.iter().any(|rule| rule.keys_from.as_deref() == Some(url)))
    }

    /// Takes in `message` and those that have come with it, so that one look is for all of them. `false`: there are no more.
    async fn hear_all(
        &self,
        session: &mut Session,
        mut message: wire::ClientMessage,
        messages: &mut Streaming<wire::ClientMessage>,
        registration: &Registration,
    ) -> Result<bool, Status> {
        for _ in 0..MOST_AT_ONCE {
            self.hear(session, message, registration)?;
            // Nothing is looked at yet. Or the rest is read when it may be.
            if !session.due || session.waits_until().is_some() {
                return Ok(true);
            }
            message = match messages.message().now_or_never() {
                Some(Ok(Some(next))) => next,
                Some(Ok(None)) => return Ok(false),
                Some(Err(status)) => return Err(status),
                None => return Ok(true),
            };
        }
        self.hear(session, message, registration)?;
        // One frame may hold thousands.
        yield_now().await;
        Ok(true)
    }

    fn hear(
        &self,
        session: &mut Session,
        message: wire::ClientMessage,
        registration: &Registration,
    ) -> Result<(), Status> {
        match session.hear(message)? {
            MessageOutcome::Nothing => {}
            MessageOutcome::Told(report, traffic) => {
                if let Some(svid) = report.svid {
                    registration.update(|proxy| proxy.svid = Some(svid));
                }
                if report.memory > 0 {
                    registration.update(|proxy| proxy.memory_bytes = Some(report.memory));
                }
                self.seen.tell(&session.workload, report);
                self.traffic.tell(&session.workload, &self.peer.identity, *traffic);
            }
            MessageOutcome::Shown { samples, missed } => {
                self.taps.show(&session.workload, samples, &missed);
            }
            MessageOutcome::KeysWanted(url) if self.takes_keys_from(&session.workload, &url) => {
                self.keys.wish(&url);
            }
            MessageOutcome::KeysWanted(_) => {}
            MessageOutcome::Applied { sent, since } => {
                self.metrics.transaction(TransactionOutcome::Acknowledged);
                self.metrics.acknowledged(sent, since);
                registration.update(|proxy| session.show(proxy));
            }
            MessageOutcome::Refused { nonce, reason } => {
                self.metrics.transaction(TransactionOutcome::Refused);
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

async fn hello(messages: &mut Streaming<wire::ClientMessage>) -> Result<wire::Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, messages.message()).await;
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
