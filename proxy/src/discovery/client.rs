//! The conversation with the control plane: one stream, opened again whenever it breaks.
//!
//! What is held and what was asked for belong to the client, not to the stream. A new stream begins by saying both, and
//! the control plane answers with only the difference. Requests for authorities are noted at all times, with a stream
//! or without.

mod apply;
mod ended;
mod failing;
mod out;
mod shown;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use selvedge_api::{
    MAX_CLIENT_MESSAGE,
    wire::{self, client_message::Message as Body, discovery_client::DiscoveryClient},
};
use selvedge_certs::{bundle::Bundle, tls::Live};
use selvedge_model::{WorkloadName, seen::Svid};
use selvedge_ops::{Condition, LogLevel, memory};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub use self::out::count_out;
use self::{ended::Ended, failing::FailingTold, out::OutKey, shown::Samples};
use super::{
    binder::Binder,
    held::{Draft, Recipient, Resources},
    status::Status,
    store::{Store, Wanted},
    subscriptions::{SWEEP_EVERY, Subscriptions},
};
use crate::{
    joining::{Complaint, ControlPlane, Joined},
    leave::Leave,
    seen::{REPORT_EVERY, Seen, Told},
    telemetry::{Metrics, TrafficTold},
};

/// All addresses of the control plane together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From the connection to the stream's first sign of life.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one, so the pauses start over. If a stream breaks sooner, the pauses go on
/// growing: otherwise a control plane that fails on its first answer would be asked without pause.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// From the begin of a stream to the first report of who has called: after what it is opened for.
const FIRST_REPORT: Duration = Duration::from_secs(2);
/// The most messages that wait for a control plane that does not read. Beyond, the stream counts as broken.
const MAX_OUTGOING: usize = 1024;
/// One part of a transaction, as the protocol promises.
const MAX_PART: usize = 64 << 20;
/// A stream does not outlive its certificate: it is opened anew this long before the certificate expires, or a tenth of
/// the certificate's life, if that is less.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);

/// What the conversation needs from the rest of the control thread.
#[derive(Debug)]
pub struct Discovery {
    /// Whom to talk to.
    pub control_plane: ControlPlane,
    /// Whose sidecar this is.
    pub workload: WorkloadName,
    /// Our certificate, as soon as there is one, and each that follows.
    pub joined: watch::Receiver<Option<Arc<Joined>>>,
    /// Where configuration is put in force.
    pub store: Arc<Store>,
    /// What workers ask for.
    pub asked: mpsc::Receiver<Wanted>,
    /// What makes tables.
    pub binder: Binder,
    /// Where new trust roots go.
    pub bundle: watch::Sender<Option<Arc<Bundle>>>,
    /// Where revocations are put in force.
    pub live: Live,
    /// Where the conversation's state is told.
    pub status: watch::Sender<Status>,
    /// Met while this workload's own policy is known.
    pub own_policy: Condition,
    /// Who has called our workload, which the control plane is told.
    pub seen: Arc<Seen>,
    /// Whether what peers are shown comes from an agent of the SPIFFE Workload API.
    pub has_agent: bool,
    /// Transactions are counted here.
    pub metrics: Arc<Metrics>,
    /// When the last report is to be given.
    pub leave: Leave,
    /// What the control plane may have us log for a while.
    pub log_level: LogLevel,
}

/// Keeps configuration in force up to date, for as long as it is polled.
pub async fn run(discovery: Discovery) {
    let leave = discovery.leave.clone();
    let mut client = Client::new(discovery);
    let mut complaint = Complaint::new(
        "no configuration from the control plane; the last good one, if there is one, stays in force",
    );
    let mut attempt = 0;
    loop {
        let joined = client.certificate().await;
        let started = Instant::now();
        let ended = client.converse(joined, &mut complaint).await;
        client.hang_up();
        if matches!(ended, Ended::Leaving) {
            leave.last_report_given();
            // The process is ending.
            std::future::pending::<()>().await;
        }
        if started.elapsed() >= GOOD_STREAM {
            attempt = 0;
        }
        if matches!(ended, Ended::NewCertificate) {
            tracing::debug!("reopening the configuration stream with the new certificate");
            continue;
        }
        complaint.raise_as(ended.timeless(), &ended);
        let pause = ended.pause(attempt, fastrand::f64());
        attempt = attempt.saturating_add(1);
        client.while_noting(sleep(pause)).await;
    }
}

struct Client {
    discovery: Discovery,
    subscriptions: Subscriptions,
    held: Resources,
    /// The transaction whose parts are arriving.
    draft: Draft,
    /// The control plane was not told what is held, so its first transaction is everything.
    anew: bool,
    /// The open stream's other direction.
    outgoing: Option<mpsc::Sender<wire::ClientMessage>>,
    sweep_at: Instant,
    /// What of who has called was told on the open stream.
    told: Told,
    /// What was told of traffic, on whichever stream.
    traffic: TrafficTold,
    /// What was told of endpoints with failures, on whichever stream.
    failing: FailingTold,
    /// Which endpoints are out, as told on the open stream; `None`: nothing was told.
    out: Option<Vec<OutKey>>,
    /// Live requests, which somebody asks to see.
    samples: Option<Samples>,
    report_at: Instant,
    /// Between two reports.
    report_every: Duration,
    /// When newer keys of a URL were last asked for.
    keys_wanted: BTreeMap<Arc<str>, Instant>,
}

impl Client {
    fn new(discovery: Discovery) -> Self {
        let samples = discovery.metrics.tap.samples();
        Self {
            discovery,
            subscriptions: Subscriptions::default(),
            held: Resources::default(),
            draft: Draft::default(),
            anew: false,
            outgoing: None,
            sweep_at: Instant::now() + SWEEP_EVERY,
            told: Told::default(),
            traffic: TrafficTold::default(),
            failing: FailingTold::default(),
            out: None,
            samples,
            report_at: Instant::now(),
            report_every: REPORT_EVERY,
            keys_wanted: BTreeMap::new(),
        }
    }

    /// The certificate in use; waits for the first.
    async fn certificate(&mut self) -> Arc<Joined> {
        loop {
            if let Some(joined) = self.discovery.joined.borrow_and_update().clone() {
                return joined;
            }
            let mut joined = self.discovery.joined.clone();
            let changed = self.while_noting(async move { joined.changed().await.is_ok() }).await;
            if !changed {
                // Nobody is left who could obtain one: the process is ending.
                std::future::pending::<()>().await;
            }
        }
    }

    /// One stream, from connecting to its end.
    async fn converse(&mut self, joined: Arc<Joined>, complaint: &mut Complaint) -> Ended {
        let mut stream = match self.open(&joined).await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        tracing::info!(control_plane = %self.discovery.control_plane.address(), "configuration stream open");
        self.discovery.metrics.control.connected.set(1);
        self.discovery.status.send_modify(|status| status.connected(SystemTime::now()));
        let us = Recipient {
            workload: self.discovery.workload.clone(),
            trust_domain: joined.bundle.trust_domain.clone(),
        };
        let mut renewed = pin!(renewed(self.discovery.joined.clone(), joined));
        let leave = self.discovery.leave.clone();
        let mut leaving = pin!(leave.last_report_wanted());
        // Whoever is at the other end now may know nothing of it.
        self.told = Told::default();
        self.traffic.begin();
        self.out = None;
        self.report_every = REPORT_EVERY;
        self.report_at = Instant::now() + FIRST_REPORT;
        loop {
            tokio::select! {
                part = stream.message() => match part {
                    Ok(Some(part)) => {
                        // Not earlier: a refused stream is first accepted, and then ends with the reason.
                        complaint.settle();
                        self.receive(part, &us);
                    }
                    Ok(None) => return Ended::Closed,
                    Err(status) => return Ended::of(&status),
                },
                Some(wanted) = self.discovery.asked.recv() => self.take(wanted),
                () = self.discovery.binder.names_changed() => self.rebind(),
                () = sleep_until(self.sweep_at) => self.sweep(),
                () = sleep_until(self.report_at) => self.report(),
                sample = shown::next(&mut self.samples) => self.show(sample),
                () = &mut renewed => return Ended::NewCertificate,
                () = &mut leaving => {
                    self.report();
                    return self.say_goodbye(stream).await;
                }
            }
            if self.outgoing.is_none() {
                return Ended::Stuck;
            }
        }
    }

    /// Ends our half of the stream, and waits until the control plane, which has then read all of it, ends the other. Whoever
    /// waits for this has a time limit.
    async fn say_goodbye(&mut self, mut stream: Streaming<wire::Transaction>) -> Ended {
        self.outgoing = None;
        while let Ok(Some(_)) = stream.message().await {}
        Ended::Leaving
    }

    async fn open(&mut self, joined: &Joined) -> Result<Streaming<wire::Transaction>, Ended> {
        let control_plane = self.discovery.control_plane.clone();
        let tls = Arc::clone(&joined.tls);
        let timed_out = |limit| Ended::Timeout { address: control_plane.address().to_string(), limit };
        let channel = self
            .while_noting(timeout(CONNECT_TIMEOUT, control_plane.connect(&tls)))
            .await
            .map_err(|_| timed_out(CONNECT_TIMEOUT))??;
        let (outgoing, messages) = mpsc::channel(MAX_OUTGOING);
        self.outgoing = Some(outgoing);
        let hello = self.hello();
        self.send(Body::Hello(hello));
        let mut client = DiscoveryClient::new(channel).max_decoding_message_size(MAX_PART);
        let opening = timeout(OPEN_TIMEOUT, client.stream(ReceiverStream::new(messages)));
        let response = self.while_noting(opening).await.map_err(|_| timed_out(OPEN_TIMEOUT))?;
        response.map(tonic::Response::into_inner).map_err(|status| Ended::of(&status))
    }

    fn hello(&mut self) -> wire::Hello {
        for dropped in self.subscriptions.keep_within(MAX_CLIENT_MESSAGE / 2) {
            tracing::warn!(authority = %dropped, "the proxy asks for too many names; it asks for this one again when the app uses it");
        }
        let held = self.held.versions().iter();
        let mut hello = wire::Hello {
            workload: self.discovery.workload.to_string(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held: held.map(|(name, version)| (name.to_string(), version.clone())).collect(),
            authorities: self.subscriptions.authorities().map(ToString::to_string).collect(),
            takes_taps: true,
            takes_log_levels: true,
            takes_endpoint_deltas: true,
        };
        // A little is for the message around it.
        self.anew = hello.encoded_len() > MAX_CLIENT_MESSAGE - 64;
        if self.anew {
            tracing::info!(
                held = hello.held.len(),
                "the proxy holds too many resources to list them, so it asks for all of them again"
            );
            hello.held.clear();
        }
        hello
    }

    /// Tells who has called, what was carried, and which endpoints get nothing, if that is new.
    fn report(&mut self) {
        self.report_at = Instant::now() + self.report_every;
        let svid = self.discovery.has_agent.then(|| self.svid());
        let mut traffic = self.traffic.next(&self.discovery.metrics);
        (traffic.at_endpoints, traffic.endpoints_left_out) = self.failing.next(&self.discovery.store, now());
        let (keys, out) = out::now(&self.discovery.store, now());
        if self.out.as_ref() != Some(&keys) {
            (self.out, traffic.out) = (Some(keys), Some(out));
        }
        if let Some(mut report) = self.told.next(&self.discovery.seen, svid, &traffic) {
            report.memory_bytes = memory::resident().unwrap_or_default();
            self.send(Body::Report(report.into()));
        }
        self.tell_missed();
    }

    /// What peers are shown now, which an agent gives.
    fn svid(&self) -> Svid {
        let usable =
            self.discovery.live.current().filter(|current| current.usable(SystemTime::now()).is_ok());
        let expires_at = usable.and_then(|current| current.not_after.duration_since(UNIX_EPOCH).ok());
        Svid { expires_at: expires_at.map(|since| since.as_secs()) }
    }

    fn hang_up(&mut self) {
        self.outgoing = None;
        self.draft = Draft::default();
        self.discovery.metrics.tap.set(Vec::new());
        // The next control plane has not asked for what the last one was to be shown.
        while self.samples.as_mut().is_some_and(|samples| samples.try_recv().is_ok()) {}
        self.discovery.metrics.control.connected.set(0);
        self.discovery.status.send_modify(|status| status.away(SystemTime::now()));
    }

    /// Sends on the open stream. Without a stream nothing is lost, because the next one begins with everything.
    fn send(&mut self, body: Body) {
        let Some(outgoing) = &self.outgoing else { return };
        if outgoing.try_send(wire::ClientMessage { message: Some(body) }).is_err() {
            self.outgoing = None;
        }
    }

    /// Waits for `work`, and meanwhile notes what workers ask for.
    async fn while_noting<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(wanted) = self.discovery.asked.recv() => self.take(wanted),
                () = self.discovery.binder.names_changed() => self.rebind(),
                () = sleep_until(self.sweep_at) => self.sweep(),
            }
        }
    }
}

/// Ends when a stream opened as `used` should be opened anew: there is a newer certificate, and `used`
/// is about to expire, or the newer one leads to another root.
async fn renewed(joined: watch::Receiver<Option<Arc<Joined>>>, used: Arc<Joined>) {
    let newer = |now: &Option<Arc<Joined>>| now.as_ref().is_some_and(|now| !Arc::ptr_eq(now, &used));
    // The control plane waits to see another root in use, before it gives the old one up.
    let elsewhere = |now: &Option<Arc<Joined>>| now.as_ref().is_some_and(|now| now.root != used.root);
    let mut both = [joined.clone(), joined];
    let [first, second] = &mut both;
    let about_to_expire = async {
        if first.wait_for(newer).await.is_err() {
            std::future::pending::<()>().await;
        }
        let life = used.not_after.duration_since(used.not_before).unwrap_or_default();
        let at = used.not_after - BEFORE_EXPIRY.min(life / 10);
        sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await;
    };
    tokio::select! {
        () = about_to_expire => {}
        Ok(_) = second.wait_for(elsewhere) => {}
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests;
