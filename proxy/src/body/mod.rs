//! The one body type of the request path, and what happens when it ends.
//!
//! An enum and not a trait object: there are few kinds of body, and every frame passes through here.
//! What must happen exactly once when an answer is over (count it, give its connection back) hangs on
//! the body as an `End`, so that no step needs a task or a wrapper of its own.

mod admission;
mod arriving;
mod copies;
mod in_flight;
mod lease;
mod limit;
mod pace;
mod progress;
mod read;
mod replay;
mod sending;

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use selvedge_model::StreamTimeouts;

use self::copies::Copied;
pub use self::{
    admission::{Admission, FreePlaces, Review},
    arriving::{Arriving, Interrupted},
    copies::{COPY_LIMIT, CopyWatch, Ending},
    in_flight::InFlight,
    lease::{Lease, PoolPlace, Shared, Whole},
    limit::SizeLimit,
    pace::Pace,
    progress::{Exceeded, Progress},
    read::{Drive, Piece, Read},
    replay::{Original, REPLAY_LIMIT, Replay, ReplayError},
    sending::Sending,
};
use crate::{
    bind::{BoundEndpoint, BoundShare, Permit},
    budget::{Budget, Ledger},
    clients::UnderWay,
    error::{Failure, Reason, SaidBy},
    fields::{self, grpc_message},
    io::Duplex,
    spare::{self, Spare},
    telemetry::{BodySize, Passed, Record, Underway},
    time::{Deadline, Deadlines},
    trust::Standing,
};

/// How many bytes a body may say that it has for metrics to believe it. Anybody can say more and send nothing.
const BELIEVED: u64 = 1 << 20;

/// Opaque TCP whose connection to an endpoint is open.
pub trait OpenTunnel: std::fmt::Debug {
    /// Carries what `client` sends and gets, to its end. If `is_told` somebody else writes down what has passed, which it
    /// returns then.
    fn carry(
        self: Box<Self>,
        client: Box<dyn Duplex>,
        is_told: bool,
    ) -> LocalBoxFuture<'static, Option<Passed>>;
}

/// Why a body could not be read to its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or an answer's body.
#[derive(Debug, Default)]
pub struct Body {
    kind: Kind,
    /// Boxed: a message is moved a dozen times on its way. Only answers have one.
    end: Option<Box<End>>,
    /// Where its request has gone so far. `None`: nobody sees it.
    underway: Option<Underway>,
}

/// When a request's time is over, its answer's body included.
#[derive(Debug)]
pub struct TimeLimit {
    /// When that is.
    pub deadline: Deadline,
    /// Whether the answer is gRPC's, and says in its trailers that its time is over.
    pub grpc: bool,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    /// Given up before its end.
    Cut,
    /// Has failed. The error is given one poll later: hyper has sent by then what came before, which it would otherwise
    /// drop together with the connection.
    Failed(BodyError),
    /// None, of a request for a WebSocket: what follows is not HTTP.
    WebSocket,
    Full(Bytes),
    /// None, of an answer that says how long it would have been.
    Absent(u64),
    Arriving(Arriving),
    /// Its first frame was looked at. Boxed: few answers are looked at.
    Peeked(Box<Peeked>),
    Replay(Replay<Arriving>),
    /// As it passes on its way to somebody else.
    Copied(Copied),
}

/// A body whose first frame has been read, and not yet been given.
#[derive(Debug)]
struct Peeked {
    first: Frame<Bytes>,
    rest: Arriving,
}

impl Peeked {
    fn size_hint(&self) -> SizeHint {
        let first = self.first.data_ref().map_or(0, Bytes::len) as u64;
        self.rest
            .size_hint()
            .exact()
            .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(first + rest))
    }
}

/// That an answer does not come to its end, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct BrokenOff {
    reason: Reason,
    what: &'static str,
    /// What it came from, if we have not ended it ourselves.
    #[source]
    cause: Option<BodyError>,
}

/// Why an answer whose body has failed with `error` does not come to its end.
pub fn reason_of(error: &BodyError) -> Reason {
    error.downcast_ref::<BrokenOff>().map_or(Reason::Reset, |broken| broken.reason)
}

/// Who judges endpoints by answers that break off.
pub trait Judge: std::fmt::Debug {
    /// The connection to `endpoint` has failed, as `last` says, before an answer of it to a request of `share` had come to its
    /// end.
    fn broke_off(&self, share: &BoundShare, endpoint: &BoundEndpoint, last: &str);
}

/// Against whom it counts if an answer breaks off, and with whom.
#[derive(Debug)]
pub struct Blamed {
    /// Who counts it.
    pub judge: Rc<dyn Judge>,
    /// What the request is a share of.
    pub share: Arc<BoundShare>,
    /// Who answers.
    pub endpoint: Arc<BoundEndpoint>,
    /// How the body of its request goes on.
    pub sending: Sending,
    /// Whether a stranger sends it.
    pub is_strangers: bool,
}

/// What happens once, when a body has ended or was given up.
#[derive(Debug, Default)]
pub struct End {
    /// The connection that it came on, to be used again.
    pub lease: Option<Lease>,
    /// The endpoint's count of requests in flight.
    pub in_flight: Option<InFlight>,
    /// The request's record, to be finished.
    pub record: Option<Record>,
    /// Against whom it counts if it breaks off; `None`: nobody asks.
    pub blamed: Option<Blamed>,
    /// The tunnel that the answered request opened by CONNECT.
    pub tunnel: Option<Box<dyn OpenTunnel>>,
    /// When the body is ended if it has not ended by itself: with the status that gRPC has for that, or with an error.
    pub limit: Option<TimeLimit>,
    /// How far it has come, where its rule limits that: it is ended then as at `limit`.
    pub progress: Option<Rc<Progress>>,
    /// Whether its request may still go on, where policy looked into that.
    pub admission: Option<Admission>,
    /// Whether the answer is gRPC's. If it breaks off, it then ends with a status. Without a status a gRPC client would
    /// report an error in the server (INTERNAL) instead of a lost connection (UNAVAILABLE).
    pub is_grpc: bool,
    /// The sidecar that answered, if the answer is a WebSocket. It must be believed as long as the WebSocket lasts.
    pub standing: Option<Arc<Standing>>,
    /// Whether network policies let us call whoever answered, if the answer is a WebSocket.
    pub permit: Option<Arc<Permit>>,
    /// Its client's connection, where it counts as in progress.
    pub under_way: Option<UnderWay>,
    /// Bytes of it that wait for its client, whose pace is limited. `None`: nothing does.
    held: Option<u32>,
}

thread_local! {
    /// What answers that are over have left for later ones.
    static LEFT: Spare<Box<End>> = const { Spare::new(64) };
}

impl End {
    /// One with nothing in it.
    fn taken_up() -> Box<Self> {
        LEFT.with(Spare::take).unwrap_or_default()
    }

    /// Leaves it for another answer.
    fn leave(mut self: Box<Self>) {
        *self = Self::default();
        spare::leave(&LEFT, self);
    }

    /// Ready when the body is to be ended: with this reason, and these words.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<(Reason, &'static str)> {
        if let Some(limit) = &mut self.limit
            && Pin::new(&mut limit.deadline).poll(cx).is_ready()
        {
            return Poll::Ready((Reason::Timeout, "the answer took too long"));
        }
        if let Some(admission) = &self.admission
            && admission.poll_ended(cx).is_ready()
        {
            return Poll::Ready((Reason::Policy, "a policy has changed, and no longer allows the request"));
        }
        match &self.progress {
            Some(progress) => {
                progress.poll_exceeded(cx).map(|()| (Reason::Timeout, "the answer took too long"))
            }
            None => Poll::Pending,
        }
    }

    /// A piece of `bytes` waits for its client. Who speaks gRPC may take its time.
    fn gave(&mut self, bytes: usize) {
        if let Some(UnderWay(watch)) = &self.under_way
            && watch.readers.is_limited()
            && !self.is_grpc
            && bytes > 0
        {
            watch.readers.waits();
            self.held = Some(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// It has failed: notes why, and counts it against whom it is the fault of. Returns why, and words for that.
    fn broke(&mut self) -> (Reason, &'static str) {
        let (reason, what) = match self.lease.as_ref().and_then(Lease::refusal) {
            Some(Failure { reason: Reason::Overflow, .. }) => {
                (Reason::Overflow, "too much of the connection's answers was not read")
            }
            Some(failure) => (failure.reason, "nothing more may come from the server"),
            None => (Reason::Reset, "the connection broke before the answer's end"),
        };
        if let Some(record) = &mut self.record {
            record.broken_off(reason);
        }
        if let Some(Blamed { judge, share, endpoint, sending, is_strangers }) = self.blamed.take()
            && reason.blames_endpoint(SaidBy::Us)
            && !sending.may_have_broken_its_answer(is_strangers)
        {
            judge.broke_off(&share, &endpoint, what);
        }
        (reason, what)
    }

    /// Its client has made room for more.
    fn taken(&mut self) {
        if let Some(bytes) = self.held.take()
            && let Some(UnderWay(watch)) = &self.under_way
        {
            watch.readers.took(bytes);
        }
    }

    /// Carries out everything that was waiting.
    pub(crate) fn finish(&mut self, whole: bool) {
        self.taken();
        let now = Instant::now();
        self.limit = None;
        self.progress = None;
        self.admission = None;
        if let Some(lease) = self.lease.take()
            && whole
        {
            lease.give_back(now);
        }
        self.in_flight = None;
        self.blamed = None;
        self.under_way = None;
        self.finish_record(whole, now);
    }

    /// The record of the request is over.
    fn finish_record(&mut self, whole: bool, now: Instant) {
        if let Some(record) = self.record.take() {
            record.finish(whole, now);
        }
    }
}

impl Body {
    /// A body of known bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// Notes how long the body of an answer without one would have been (RFC 9110, section 15.4.5). Only HTTP/1 asks
    /// for that.
    pub fn would_be(&mut self, length: u64) {
        if self.is_empty() {
            self.kind = Kind::Absent(length);
        }
    }

    /// A body that arrives on a connection. An HTTP/2 connection accounts for it in its `ledger`. A body with a `pace`
    /// must keep it.
    pub fn arriving(body: Incoming, ledger: Option<&Rc<Ledger>>, pace: Option<Rc<Pace>>) -> Self {
        if body.is_end_stream() {
            return Self::of(Kind::Empty);
        }
        Self::of(Kind::Arriving(Arriving::new(body, ledger, pace)))
    }

    /// A body that arrives on a `connection` of HTTP/1.1, which is driven by whoever reads it.
    pub fn read(body: Incoming, connection: Rc<dyn Drive>) -> Self {
        Self::of(Kind::Arriving(Arriving::read(Read::new(body, connection))))
    }

    /// A body all of which has arrived over HTTP/1.1, so that nothing more is to come from its connection.
    pub fn arrived(mut body: Incoming) -> Self {
        // Without a length its end, and its trailers, are still to be read.
        if body.is_end_stream() || body.size_hint().exact().is_none() {
            return Self::arriving(body, None, None);
        }
        let mut nobody = Context::from_waker(Waker::noop());
        match Pin::new(&mut body).poll_frame(&mut nobody) {
            Poll::Ready(Some(Ok(first))) => match first.into_data() {
                Ok(bytes) if body.is_end_stream() => Self::full(bytes),
                first => {
                    let first = first.map_or_else(|first| first, Frame::data);
                    Self::of(Kind::Peeked(Box::new(Peeked { first, rest: Arriving::new(body, None, None) })))
                }
            },
            Poll::Ready(Some(Err(error))) => Self::of(Kind::Failed(error.into())),
            Poll::Ready(None) | Poll::Pending => Self::arriving(body, None, None),
        }
    }

    /// The body of a request for a WebSocket, which has none.
    pub fn web_socket() -> Self {
        Self::of(Kind::WebSocket)
    }

    /// Whether its request asks for a WebSocket.
    pub fn is_web_socket(&self) -> bool {
        matches!(self.kind, Kind::WebSocket)
    }

    /// The pace that it has to keep as it arrives.
    pub fn pace(&self) -> Option<Rc<Pace>> {
        match &self.kind {
            Kind::Arriving(body) => body.pace().cloned(),
            Kind::Peeked(body) => body.rest.pace().cloned(),
            Kind::Replay(body) => body.look(|body| body.pace().cloned()).flatten(),
            Kind::Empty
            | Kind::Cut
            | Kind::Failed(_)
            | Kind::WebSocket
            | Kind::Full(_)
            | Kind::Absent(_)
            | Kind::Copied(_) => None,
        }
    }

    /// Lets it have at most `most` bytes. `false`: it is longer, as it says itself.
    pub fn limit(&mut self, most: u64) -> bool {
        let length = self.size_hint();
        if length.lower() > most {
            return false;
        }
        if length.exact().is_none()
            && let Kind::Arriving(body) = &mut self.kind
        {
            body.limit(most);
        }
        true
    }

    /// What tells later how it goes on, as the body of a request.
    pub fn sending(&mut self) -> Sending {
        match &mut self.kind {
            Kind::Empty | Kind::WebSocket | Kind::Full(_) | Kind::Absent(_) => Sending::Whole,
            Kind::Arriving(body) => body.sending(),
            Kind::Peeked(body) => body.rest.sending(),
            Kind::Replay(body) => body.look(Arriving::sending).unwrap_or(Sending::Whole),
            Kind::Cut | Kind::Failed(_) | Kind::Copied(_) => Sending::Unknown,
        }
    }

    /// How long it may be; `None`: as long as it is.
    pub fn size_limit(&self) -> Option<Rc<SizeLimit>> {
        match &self.kind {
            Kind::Arriving(body) => body.size_limit(),
            Kind::Peeked(body) => body.rest.size_limit(),
            Kind::Replay(body) => body.look(|body| body.size_limit()).flatten(),
            _ => None,
        }
    }

    /// The trailers, if they have arrived already and no data came before them. It does not wait, and takes nothing away.
    pub fn trailers_without_data(&mut self) -> Option<&HeaderMap> {
        self.peek();
        match &self.kind {
            Kind::Peeked(body) => body.first.trailers_ref(),
            _ => None,
        }
    }

    /// Reads the first frame if it has arrived.
    fn peek(&mut self) {
        let Kind::Arriving(body) = &mut self.kind else { return };
        let mut nobody = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(first)) = Pin::new(body).poll_frame(&mut nobody) else { return };
        self.kind = match (first, self.take_arriving()) {
            (Ok(first), Some(rest)) => Kind::Peeked(Box::new(Peeked { first, rest })),
            (Err(error), _) => Kind::Failed(error.into()),
            (Ok(_), None) => return,
        };
    }

    /// Has where its request goes noted there.
    pub fn follow(&mut self, underway: Option<Underway>) {
        self.underway = underway;
    }

    /// Where it is noted where its request goes; `None`: nobody sees it. A copy for somebody else has none.
    pub fn underway(&self) -> Option<&Underway> {
        self.underway.as_ref()
    }

    /// A copy of it, which is read while it is read itself and draws on `budget`, and what says how it went on. Where
    /// it does not arrive but is there, nothing needs to be said.
    pub fn copy(&mut self, budget: &Arc<Budget>) -> (Self, Option<CopyWatch>) {
        match &mut self.kind {
            Kind::Arriving(body) => {
                let (copied, watch) = body.copy(budget);
                (Self::of(Kind::Copied(copied)), Some(watch))
            }
            Kind::Full(bytes) => (Self::full(bytes.clone()), None),
            _ => (Self::default(), None),
        }
    }

    /// How far the request comes whose body this is, and its answer, by the `limits` of its rule.
    pub fn progress(&mut self, limits: StreamTimeouts, deadlines: &Rc<Deadlines>) -> Rc<Progress> {
        let progress = Progress::new(limits, self.is_empty(), deadlines);
        if let Kind::Arriving(body) = &mut self.kind {
            body.note_in(&progress);
        }
        progress
    }

    /// A body that can be sent again.
    pub fn replay(body: Replay<Arriving>) -> Self {
        Self::of(Kind::Replay(body))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, end: None, underway: None }
    }

    /// How many bytes it has: what it says, if that is little, or what is counted as it arrives.
    pub fn measured(&mut self) -> BodySize {
        match (self.size_hint().exact(), &mut self.kind) {
            (Some(bytes), _) if bytes <= BELIEVED => BodySize::Told(bytes),
            (_, Kind::Arriving(body)) => BodySize::Counted(body.counted()),
            (told, _) => BodySize::Told(told.unwrap_or_default()),
        }
    }

    /// What happens when it ends.
    pub fn end(&mut self) -> &mut End {
        self.end.get_or_insert_with(End::taken_up)
    }

    /// What happens when it ends, which is left to the caller.
    pub fn take_end(&mut self) -> Box<End> {
        self.end.take().unwrap_or_default()
    }

    /// Has apps see only the trailers that they may, and records what these say.
    fn pass_trailers(&mut self, trailers: &mut HeaderMap) {
        fields::trailers(trailers);
        if self.end.is_none() {
            // They are a request's.
            fields::claims::strip_trailers(trailers);
        }
        if let Some(end) = &mut self.end
            && let Some(record) = &mut end.record
        {
            record.trailers(trailers);
        }
    }

    /// Carries out what was to happen when it ends.
    fn finish(&mut self, whole: bool) {
        if let Some(mut end) = self.end.take() {
            end.finish(whole);
            end.leave();
        }
    }

    /// Whether there is nothing to read: a request without a body needs no replay.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::WebSocket)
    }

    /// Gives `error` at the next poll.
    fn fail<T>(&mut self, error: BodyError, cx: &Context<'_>) -> Poll<T> {
        self.kind = Kind::Failed(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn ended_by_us(&mut self, reason: Reason, what: &'static str) -> Result<Frame<Bytes>, BodyError> {
        let end = self.end();
        if let Some(record) = &mut end.record {
            record.broken_off(reason);
        }
        let of_grpc = end.limit.take().is_some_and(|limit| limit.grpc) || end.is_grpc;
        let last = if of_grpc {
            let trailers = status(reason, what);
            if let Some(record) = &mut end.record {
                record.trailers(&trailers);
            }
            self.kind = Kind::Empty;
            Ok(Frame::trailers(trailers))
        } else {
            self.kind = Kind::Cut;
            Err(BrokenOff { reason, what, cause: None }.into())
        };
        self.finish(false);
        last
    }

    /// The connection that the body came on broke, or we have ended it. A reset by the app's server is passed on as a
    /// reset, because its code says what it means.
    fn broke(&mut self, error: BodyError) -> Result<Frame<Bytes>, BodyError> {
        // A request's is for whoever carries it.
        let Some(end) = &mut self.end else { return Err(error) };
        let (reason, what) = end.broke();
        let is_grpc = end.is_grpc && !is_reset_of_peer(&*error);
        if !is_grpc {
            self.finish(false);
            return Err(BrokenOff { reason, what, cause: Some(error) }.into());
        }
        // In fixed words: whoever called may be a stranger.
        tracing::debug!(%error, "{what}");
        let trailers = status(reason, what);
        if let Some(record) = &mut self.end().record {
            record.trailers(&trailers);
        }
        self.kind = Kind::Empty;
        self.finish(false);
        Ok(Frame::trailers(trailers))
    }

    /// Takes the arriving body out; `None` if there is none, or it is not one as it came.
    pub fn take_arriving(&mut self) -> Option<Arriving> {
        match std::mem::take(&mut self.kind) {
            Kind::Arriving(body) => Some(body),
            other => {
                self.kind = other;
                None
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(end) = &mut this.end {
            end.taken();
            if let Poll::Ready((reason, what)) = end.poll_over(cx) {
                return Poll::Ready(Some(this.ended_by_us(reason, what)));
            }
        }
        let mut frame = match &mut this.kind {
            Kind::Empty | Kind::Cut | Kind::WebSocket | Kind::Absent(_) => None,
            Kind::Failed(_) => match std::mem::replace(&mut this.kind, Kind::Cut) {
                Kind::Failed(error) => Some(Err(error)),
                _ => None,
            },
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Arriving(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => return this.fail(error.into(), cx),
                frame => frame.map(|frame| frame.map_err(Into::into)),
            },
            Kind::Peeked(_) => match std::mem::take(&mut this.kind) {
                Kind::Peeked(body) => {
                    this.kind = Kind::Arriving(body.rest);
                    Some(Ok(body.first))
                }
                _ => None,
            },
            Kind::Replay(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => return this.fail(error.into(), cx),
                frame => frame.map(|frame| frame.map_err(Into::into)),
            },
            Kind::Copied(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
        };
        if let Some(Err(error)) = frame {
            return Poll::Ready(Some(this.broke(error)));
        }
        if let Some(end) = &this.end
            && let Some(progress) = &end.progress
        {
            progress.passed();
        }
        if let Some(Ok(frame)) = &mut frame {
            if let Some(trailers) = frame.trailers_mut() {
                this.pass_trailers(trailers);
            } else if let (Some(data), Some(end)) = (frame.data_ref(), &mut this.end)
                && let Some(record) = &mut end.record
            {
                record.gave(data.len());
            }
        }
        match &frame {
            None => this.finish(true),
            Some(Ok(_)) if this.is_end_stream() => this.finish(true),
            Some(Ok(frame)) => {
                if let Some(end) = &mut this.end {
                    end.gave(frame.data_ref().map_or(0, Bytes::len));
                    // Nothing follows trailers, and whoever passes them on asks for no more.
                    if frame.is_trailers() {
                        end.finish_record(true, Instant::now());
                    }
                }
            }
            Some(_) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::WebSocket => true,
            Kind::Cut | Kind::Failed(_) | Kind::Absent(_) | Kind::Peeked(_) => false,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Arriving(body) => body.is_end_stream(),
            Kind::Replay(body) => body.is_end_stream(),
            Kind::Copied(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            // Not 0: hyper would say so in requests that never said a length (RFC 9110, section 8.6).
            Kind::Empty | Kind::Cut | Kind::Failed(_) | Kind::WebSocket => SizeHint::default(),
            Kind::Absent(length) => SizeHint::with_exact(*length),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Arriving(body) => body.size_hint(),
            Kind::Peeked(body) => body.size_hint(),
            Kind::Replay(body) => body.size_hint(),
            Kind::Copied(body) => body.size_hint(),
        }
    }
}

/// That a request's body has more than `most` bytes.
pub fn body_too_long(most: u64) -> Failure {
    let what =
        format!("the request's body is longer than {most} bytes, which its route or --max-body-bytes allows");
    Failure::new(Reason::BodyTooLarge, what)
}

/// gRPC's status for a call that has failed for `reason` after its answer had begun.
fn status(reason: Reason, what: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc())));
    trailers.insert("grpc-message", grpc_message(&format!("{reason}: {what}")));
    trailers
}

/// Whether the peer reset the stream, rather than the connection being lost.
fn is_reset_of_peer(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| cause.source());
    let http2 = causes.find_map(|cause| cause.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| error.is_reset() && error.is_remote())
}

impl Drop for Body {
    fn drop(&mut self) {
        // hyper drops a body without reading it where none may follow (HEAD, 204, 304): that is an end
        // like any other.
        // So does HTTP/1 where all of a body with a length has passed, before HTTP/2 has said that it is over.
        let has_passed = || matches!(&self.kind, Kind::Arriving(body) if body.size_hint().exact() == Some(0));
        let whole = self.is_end_stream() || matches!(self.kind, Kind::Absent(_)) || has_passed();
        if !whole && let Some(end) = &mut self.end {
            if matches!(self.kind, Kind::Failed(_)) {
                end.broke();
            } else if let Some(record) = &mut end.record {
                record.given_up();
            }
        }
        self.finish(whole);
    }
}

/// Where workers' futures run: the worker's own thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

#[cfg(test)]
mod tests;
