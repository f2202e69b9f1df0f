//! Shutting down in the order in which no request is lost.
//!
//! A proxy that is told to end usually ends together with its app. The app still has requests to finish, and may make
//! others for them. So the inbound direction closes first, and the outbound direction when nothing that came in needs
//! it any more:
//!
//! 1. Told. Everything goes on; only `/ready` says so, for load balancers to notice. Until the app is gone,
//!    which is when it has closed its port, or `Limits::delay` has passed: an app that listens on is not
//!    leaving, and we are restarted alone.
//! 2. The way in closes: no more connections, and those that are open take no more requests.
//! 3. The way out closes, once all that came in is finished, and an app that has closed its port has closed
//!    its connections, too.
//!
//! All of it takes `Limits::timeout` at most. What is in progress then is cut off.

mod listening;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub use listening::App;
use selvedge_ops::{Drain, Reason};
use tokio::sync::watch;

use crate::arrival::Direction;

/// How often the proxy looks whether the app is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How long each part of leaving may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long everything goes on for an app that does.
    pub delay: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// How far the shutdown has come, for all threads. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Leave {
    told: Drain,
    inbound: Way,
    outbound: Way,
    deadline: Arc<OnceLock<Instant>>,
    last_report: Arc<LastReport>,
}

/// What the control plane is told last.
#[derive(Debug, Default)]
struct LastReport {
    /// It is to be told now.
    wanted: watch::Sender<bool>,
    /// It has been told.
    given: watch::Sender<bool>,
}

/// One of the two ways.
#[derive(Debug, Clone, Default)]
struct Way {
    closed: Arc<watch::Sender<bool>>,
    /// Connections that are open.
    open: Arc<AtomicUsize>,
}

/// An open connection, as long as this lives.
#[derive(Debug)]
pub struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Leave {
    /// The signal that begins it.
    pub fn told(&self) -> &Drain {
        &self.told
    }

    /// Completes when connections of this direction must end, and new ones are not taken. Cancel-safe.
    pub async fn closed(&self, direction: Direction) {
        let mut closed = self.way(direction).closed.subscribe();
        // `self` keeps the sender.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Counts a connection as open for as long as the answer lives.
    pub fn open(&self, direction: Direction) -> Open {
        let open = &self.way(direction).open;
        open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(open))
    }

    /// How much longer what is in progress may take: `limit`, or what is left of it since the shutdown began.
    pub fn rest(&self, limit: Duration) -> Duration {
        self.deadline.get().map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Has the control plane be told what has happened since it was told last, and waits until it knows, but for `limit` at
    /// most: a process that leaves does not wait for a control plane that is away.
    pub async fn report_last(&self, limit: Duration) {
        self.last_report.wanted.send_replace(true);
        let mut given = self.last_report.given.subscribe();
        if tokio::time::timeout(limit, given.wait_for(|given| *given)).await.is_err() {
            tracing::debug!("the control plane has not taken the last report in time");
        }
    }

    /// Completes when the last report is to be given. Cancel-safe.
    pub async fn last_report_wanted(&self) {
        let mut wanted = self.last_report.wanted.subscribe();
        // `self` keeps the sender.
        let _ = wanted.wait_for(|wanted| *wanted).await;
    }

    /// The last report has been given, or there is nobody to take it.
    pub fn last_report_given(&self) {
        self.last_report.given.send_replace(true);
    }

    /// Waits to be told, then closes one way after the other. `app` says where the app listens.
    pub async fn in_order(&self, limits: Limits, app: impl Fn() -> App) {
        let reason = self.told.drained().await;
        let began = Instant::now();
        let deadline = *self.deadline.get_or_init(|| began + limits.timeout);
        // When the parent process is gone, or a part of this one has failed, there is nothing to wait for.
        if matches!(reason, Reason::StdinClosed | Reason::Failed) {
            self.inbound.close();
            return self.outbound.close();
        }
        let until = deadline.min(began + limits.delay);
        let mut listens = app().listens();
        while listens && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            listens = app().listens();
        }
        tracing::info!(app_is_gone = !listens, "shutting down: no new incoming connections or requests");
        self.inbound.close();
        while Instant::now() < deadline && (self.inbound.is_open() || !listens && self.outbound.is_open()) {
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!("shutting down: no new outgoing connections or requests");
        self.outbound.close();
    }

    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

impl Way {
    fn close(&self) {
        self.closed.send_replace(true);
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const LIMITS: Limits = Limits { delay: PATIENCE, timeout: PATIENCE };

    fn is_closed(leave: &Leave, direction: Direction) -> bool {
        *leave.way(direction).closed.borrow()
    }

    /// A proxy that is told to leave, beside an app of which `listens` says where it is.
    fn leaving(
        limits: Limits,
        reason: Reason,
        listener: &TcpListener,
    ) -> (Leave, tokio::task::JoinHandle<()>) {
        let leave = Leave::default();
        let at = listener.local_addr().unwrap();
        leave.told.begin(reason);
        let ordered = leave.clone();
        (leave, tokio::spawn(async move { ordered.in_order(limits, || App::At(vec![at])).await }))
    }

    fn app() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[tokio::test]
    async fn everything_goes_on_until_the_app_has_closed_its_port() {
        let app = app();
        let (leave, ended) = leaving(LIMITS, Reason::Signal, &app);
        let under_way = leave.open(Direction::Inbound);
        tokio::time::sleep(LOOK * 2).await;
        assert!(!is_closed(&leave, Direction::Inbound));

        drop(app);
        leave.closed(Direction::Inbound).await;

        assert!(!is_closed(&leave, Direction::Outbound), "what came in may need it");
        drop(under_way);
        leave.closed(Direction::Outbound).await;
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn an_app_without_a_port_keeps_the_way_out_by_its_connections() {
        let gone = app();
        let (leave, _ended) = leaving(LIMITS, Reason::Signal, &gone);
        let in_use = leave.open(Direction::Outbound);
        drop(gone);
        leave.closed(Direction::Inbound).await;
        tokio::time::sleep(LOOK * 2).await;
        assert!(!is_closed(&leave, Direction::Outbound));

        drop(in_use);

        leave.closed(Direction::Outbound).await;
    }

    #[tokio::test]
    async fn an_app_that_listens_on_is_waited_for_no_longer_than_the_delay() {
        let app = app();
        let limits = Limits { delay: LOOK, ..LIMITS };
        let (leave, ended) = leaving(limits, Reason::Asked, &app);
        let _kept_alive = leave.open(Direction::Outbound);

        ended.await.unwrap();

        assert!(is_closed(&leave, Direction::Inbound) && is_closed(&leave, Direction::Outbound));
    }

    #[tokio::test]
    async fn what_never_ends_is_not_waited_for_beyond_the_limit() {
        let app = app();
        let (leave, ended) = leaving(Limits { timeout: LOOK, ..LIMITS }, Reason::Signal, &app);
        let _never_ends = leave.open(Direction::Inbound);

        ended.await.unwrap();

        assert!(is_closed(&leave, Direction::Outbound));
        assert_eq!(leave.rest(PATIENCE), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_parent_that_is_gone_is_reason_enough() {
        let app = app();
        let leave = Leave::default();
        let _under_way = (leave.open(Direction::Inbound), leave.open(Direction::Outbound));
        leave.told.begin(Reason::StdinClosed);

        leave.in_order(LIMITS, || App::At(vec![app.local_addr().unwrap()])).await;

        assert!(is_closed(&leave, Direction::Inbound) && is_closed(&leave, Direction::Outbound));
    }
}
