//! How long requests are served on a connection: until it retires, and until it is ended.

use std::{future::pending, pin::Pin, time::Duration};

use crate::{
    authorize::forbidden_meanwhile,
    clients::Watch,
    error::{Failure, Reason},
    lifetime::Until,
    step::Conn,
    time::when_woken,
    trust::LAST_REQUESTS,
};

/// How long a connection is served that comes when the gateway is leaving, before it is told so. A client that was told at
/// once would connect again and again.
const FIRST_REQUESTS: Duration = Duration::from_secs(1);

const READS_TOO_SLOWLY: &str = "the client reads its answers too slowly (--answer-timeout, --min-body-rate)";

impl Until {
    /// As [`Self::end`], for requests: also when a policy no longer lets the client in. If the peer is not believed
    /// because its root is being replaced, its requests get a moment more.
    async fn requests_end(&self, conn: &Conn, watch: &Watch) -> Failure {
        let forbidden = async {
            match conn.guarded() {
                Some(_) => {
                    let in_progress = || watch.in_progress() > 0;
                    forbidden_meanwhile(&self.worker, conn, in_progress).await
                }
                // Nobody asks whether our own app may go out.
                None => pending().await,
            }
        };
        tokio::select! {
            failure = self.end() => {
                if failure.reason == Reason::Certificate {
                    tokio::time::sleep(LAST_REQUESTS).await;
                }
                failure
            }
            failure = forbidden => failure,
        }
    }

    /// Completes when a gateway has been told to leave, while it still serves whoever comes: its clients move to another one
    /// meanwhile, and load balancers have time to notice. A connection that comes then is served for a moment first.
    async fn leaving(&self) {
        if self.life.is_none() {
            pending::<()>().await;
        }
        self.worker.leave.told().drained().await;
        tokio::time::sleep(FIRST_REQUESTS.saturating_sub(self.began.elapsed())).await;
    }

    /// What happens to the connection next, which `retired` or was told that the gateway leaves.
    async fn turn(&self, retired: bool, told: bool, conn: &Conn, watch: &Watch) -> Turn {
        let leaving = async {
            if retired || told {
                pending::<()>().await;
            }
            self.leaving().await;
        };
        let retire = async {
            if retired {
                pending::<()>().await;
            }
            tokio::select! {
                () = self.requests() => {}
                // HTTP/1 ends itself then.
                () = watch.over(), if conn.watch.get().is_none() => {}
            }
        };
        let refused = async {
            if !retired || conn.watch.get().is_some() {
                pending::<()>().await;
            }
            watch.left_unserved().await;
        };
        tokio::select! {
            biased;
            () = retire => Turn::Retire,
            // HTTP/1 has no word for it but in an answer.
            () = leaving => if conn.watch.get().is_some() { Turn::LastAnswer } else { Turn::Retire },
            failure = self.requests_end(conn, watch) => Turn::End(failure),
            () = watch.readers.are_slow() => Turn::End(Failure::new(Reason::RequestTimeout, READS_TOO_SLOWLY)),
            () = refused => Turn::End(Failure::new(Reason::Policy, "the client was told to close the connection and kept it open")),
        }
    }

    /// Says that requests in progress have been ended.
    fn tell(&self, conn: &Conn, watch: &Watch, failure: &Failure) {
        let requests = watch.in_progress();
        if requests > 0 {
            self.worker.metrics.connection_cut(self.direction, failure.reason);
            let (peer, identity) = (conn.peer, conn.identity().map(tracing::field::display));
            let age = self.began.elapsed();
            tracing::info!(%peer, identity, ?age, requests, %failure, "ended a connection with requests in progress");
        }
    }
}

/// What happens to a connection that has not come to its own end.
enum Turn {
    /// It takes no more requests; those in progress go on.
    Retire,
    /// Its next answer is its last.
    LastAnswer,
    /// It ends, and with it what is in progress.
    End(Failure),
}

/// Carries a connection to its own end; `retire` tells it to take no more requests. Fails if it was ended.
pub(super) async fn carry<C: Future>(
    mut serving: Pin<&mut C>,
    retire: impl Fn(Pin<&mut C>),
    until: &Until,
    conn: &Conn,
    watch: &Watch,
) -> Result<C::Output, Failure> {
    let (mut retired, mut told) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return Ok(ended),
            turn = when_woken(until.turn(retired, told, conn, watch)) => match turn {
                Turn::Retire => {
                    retire(serving.as_mut());
                    retired = true;
                }
                Turn::LastAnswer => {
                    watch.close_after_answer();
                    told = true;
                }
                Turn::End(failure) => {
                    until.tell(conn, watch, &failure);
                    conn.cut.set(Some(failure.reason));
                    return Err(failure);
                }
            },
        }
    }
}
