//! When a connection ends without its client's doing: it is dead, or we are.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use selvedge_ops::{Drain, when_woken};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a peer may be silent before it is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The control plane stops.
    Drained,
    /// Nobody is at its other end.
    Silent,
}

/// See [`keep`].
pub(super) type Vigil = Pin<Box<dyn Future<Output = End> + Send>>;

/// Waits for the end of a connection that is `heard`, and asks with `pings` whether its peer is there.
pub(super) fn keep(pings: PingPong, heard: Heard, drain: Drain) -> Vigil {
    Box::pin(when_woken(async move {
        tokio::select! {
            _ = drain.drained() => End::Drained,
            () = silence(&heard, pings) => End::Silent,
        }
    }))
}

/// Who can be asked whether he is there.
trait Peer {
    /// Asks; `false`: that cannot be done any more.
    fn ask(&mut self) -> bool;

    /// Ready when he has answered.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

impl Peer for PingPong {
    fn ask(&mut self) -> bool {
        self.send_ping(Ping::opaque()).is_ok()
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // It fails only with the connection, of which others tell.
        self.poll_pong(context).map(drop)
    }
}

/// Returns when `peer` was silent for long and then does not answer.
async fn silence(heard: &Heard, mut peer: impl Peer) {
    loop {
        let quiet = heard.last() + KEEPALIVE_INTERVAL;
        sleep_until(quiet).await;
        if Instant::now() < heard.last() + KEEPALIVE_INTERVAL {
            continue;
        }
        if !peer.ask() {
            return pending().await;
        }
        if timeout(KEEPALIVE_TIMEOUT, poll_fn(|context| peer.poll_answer(context))).await.is_err() {
            return;
        }
        heard.again();
    }
}

/// When something was last heard of a peer. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(in crate::serve) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// It was heard of now.
    pub(in crate::serve) fn now() -> Self {
        let heard = Self(Arc::default());
        heard.again();
        heard
    }

    /// The same once more.
    pub(in crate::serve) fn again(&self) {
        let since = u64::try_from(began().elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(since, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        began() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A moment in the life of this process before which nobody was heard of.
fn began() -> Instant {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *BEGAN
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Answers so many questions.
    struct Fake {
        answers: usize,
        asked: mpsc::UnboundedSender<Instant>,
    }

    impl Peer for Fake {
        fn ask(&mut self) -> bool {
            self.asked.send(Instant::now()).is_ok()
        }

        fn poll_answer(&mut self, _: &mut Context<'_>) -> Poll<()> {
            if self.answers == 0 {
                return Poll::Pending;
            }
            self.answers -= 1;
            Poll::Ready(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_asked_and_who_does_not_answer_has_gone() {
        let (start, heard) = (Instant::now(), Heard::now());
        let (asked, mut questions) = mpsc::unbounded_channel();
        let speaks = async {
            sleep_until(start + Duration::from_secs(20)).await;
            heard.again();
            pending::<()>().await;
        };

        tokio::select! {
            () = silence(&heard, Fake { answers: 1, asked }) => {}
            () = speaks => unreachable!("it never ends"),
        }

        for expected in [50, 80] {
            let asked = questions.recv().await.unwrap();
            assert_eq!(asked.duration_since(start).as_secs(), expected);
        }
        assert_eq!(start.elapsed().as_secs(), 90);
    }
}
