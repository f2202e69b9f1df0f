//! One opaque connection from its first byte to its last: carried, limited, counted, and written down.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use selvedge_model::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    answer::refusal,
    copy::{Broken, Meter, copy},
};
use crate::{
    arrival::Direction,
    error::{Failure, Reason},
    io::Abort,
    settings::StreamLimits,
    telemetry::{Passed, TcpSeries, access_log},
    time::when_woken,
    worker::Worker,
};

/// How many times a silence is checked until it has lasted too long. A connection is cut off at most this share of the
/// limit too late, and no time is noted for each byte.
const LOOKS: u32 = 4;

/// A connection, as it is counted and written down.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) series: &'a TcpSeries,
    pub(crate) direction: Direction,
    /// The client.
    pub(crate) peer: SocketAddr,
    /// Who it has proven to be.
    pub(crate) identity: Option<&'a SpiffeId>,
    /// Whether it came, or goes, over the mesh's mutual TLS.
    pub(crate) mtls: bool,
    /// What it is for: a service, or an address.
    pub(crate) destination: std::fmt::Arguments<'a>,
    /// When it came.
    pub(crate) started: Instant,
    /// Where what has passed is left for who writes it down. `None`: it is a line of its own.
    pub(crate) told: Option<&'a Cell<Option<Passed>>>,
}

/// How a connection ended that did not come to its own end.
#[derive(Debug)]
enum Ended {
    Broken(Broken),
    Cut(Failure),
}

impl Session<'_> {
    /// Notes that the connection is not carried.
    pub(crate) fn refused(&self, failure: &Failure) {
        self.series.refused(self.worker.index, failure.reason);
        tracing::debug!(peer = %self.peer, destination = %self.destination, %failure, "connection refused");
        self.write(None, Some(failure.reason), (0, 0));
    }

    /// Carries bytes both ways until both have ended, a limit is reached, or `until` completes. Returns the
    /// failure, if there was one, after both have been cut off so that neither takes it for an end.
    pub(crate) async fn carry<C, S>(
        &self,
        client: &mut C,
        server: &mut S,
        endpoint: SocketAddr,
        limits: StreamLimits,
        until: impl Future<Output = Failure>,
    ) -> Result<(), Failure>
    where
        C: AsyncRead + AsyncWrite + Unpin + Abort,
        S: AsyncRead + AsyncWrite + Unpin + Abort,
    {
        let index = self.worker.index;
        self.series.opened(index);
        let (received, sent) = (Meter::new(self.series.received(index)), Meter::new(self.series.sent(index)));
        let ended = tokio::select! {
            biased;
            ended = copy(client, server, &received, &sent) => ended.map_err(Ended::Broken),
            failure = when_woken(over(limits, [&received, &sent], until)) => Err(Ended::Cut(failure)),
        };
        let ended = ended.map_err(|ended| {
            client.abort();
            server.abort();
            self.tell(&ended);
            failure(ended)
        });
        let reason = ended.as_ref().err().map(|failure| failure.reason);
        self.series.closed(index, reason);
        self.write(Some(endpoint), reason, (received.total(), sent.total()));
        ended
    }

    /// Logs the end of a connection that did not end by itself, and counts it if we ended it.
    fn tell(&self, ended: &Ended) {
        let Self { peer, destination, identity, .. } = self;
        match ended {
            Ended::Broken(Broken { side, error }) => {
                tracing::debug!(%peer, %destination, %side, %error, "connection cut off");
            }
            Ended::Cut(failure) => {
                self.worker.metrics.connection_cut(self.direction, failure.reason);
                let identity = identity.map(tracing::field::display);
                let age = self.started.elapsed();
                tracing::info!(%peer, identity, %destination, ?age, %failure, "ended an opaque connection in progress");
            }
        }
    }

    fn write(&self, endpoint: Option<SocketAddr>, reason: Option<Reason>, bytes: (u64, u64)) {
        let (received, sent) = bytes;
        if let Some(told) = self.told {
            let mtls = Some(self.mtls);
            return told.set(Some(Passed { endpoint, reason, received, sent, mtls }));
        }
        let watched = &self.worker.metrics.watched;
        if access_log::by_filter() || watched.logs_connections(self.direction) {
            let line = access_log::Connection {
                direction: self.direction,
                peer: self.peer,
                identity: self.identity,
                mtls: self.mtls,
                destination: self.destination,
                endpoint,
                reason,
                received,
                sent,
                duration: self.started.elapsed(),
            };
            line.write();
            watched.tell_connection(self.worker.index, &line);
        }
    }
}

fn failure(ended: Ended) -> Failure {
    match ended {
        Ended::Cut(failure) => failure,
        Ended::Broken(Broken { side, error }) => match refusal(&error) {
            Some(failure) => failure.clone(),
            None => Failure::new(side.leaving(), format!("the connection to the {side} broke: {error}")),
        },
    }
}

/// Completes when a connection must end before it does by itself.
pub(crate) async fn over(
    limits: StreamLimits,
    meters: [&Meter<'_>; 2],
    until: impl Future<Output = Failure>,
) -> Failure {
    let at_most = async {
        match limits.longest {
            Some(longest) => tokio::time::sleep(longest).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        failure = until => failure,
        limit = silent(limits.idle, meters) => {
            Failure::new(Reason::Timeout, format!("no byte went in either direction for {limit:?}"))
        }
        () = at_most => Failure::new(Reason::Timeout, "the connection has reached its longest duration"),
    }
}

/// Completes when nothing has been carried for `limit`, or a little longer.
async fn silent(limit: Option<Duration>, meters: [&Meter<'_>; 2]) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    let total = || meters.map(Meter::total);
    let (mut seen, mut quiet) = (total(), 0);
    while quiet < LOOKS {
        tokio::time::sleep(limit / LOOKS).await;
        let now = total();
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
    }
    limit
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_over_after_its_limit_and_not_while_bytes_pass() {
        let limit = Duration::from_secs(100);
        let counted = AtomicU64::new(0);
        let (received, sent) = (Meter::new(Some(&counted)), Meter::default());
        let start = Instant::now();
        let passing = async {
            for _ in 0..10 {
                advance(Duration::from_secs(50)).await;
                received.add(1);
            }
            std::future::pending::<()>().await;
        };

        tokio::select! {
            _ = silent(Some(limit), [&received, &sent]) => {}
            () = passing => {}
        }

        let lasted = start.elapsed() - Duration::from_secs(500);
        assert!(lasted >= limit && lasted <= limit + limit / LOOKS, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_ends_a_busy_connection() {
        let limits = StreamLimits::new(Duration::ZERO, Duration::from_secs(60));
        let start = Instant::now();

        let failure = over(limits, [&Meter::default(), &Meter::default()], std::future::pending()).await;

        assert_eq!(failure.reason, Reason::Timeout);
        assert_eq!(start.elapsed(), Duration::from_secs(60));
    }
}
