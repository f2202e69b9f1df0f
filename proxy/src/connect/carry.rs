//! An HTTP connection from its first request to its end.

use std::{net::SocketAddr, sync::Arc};

use super::tls::Lifetime;
use crate::{
    arrival::Direction,
    budget::{Budget, Side, is_flood},
    error::{Failure, Reason},
    telemetry::Metrics,
    time::when_woken,
    trust::LAST_REQUESTS,
};

/// Carries an HTTP connection to its end, or until its peer is no longer allowed; where that is because of a root that
/// is being replaced, a moment more for requests in progress. `in_progress` says how many there are.
///
/// # Errors
/// Why it was ended.
pub(super) async fn carry(
    connection: impl Future<Output = hyper::Result<()>>,
    dial: SocketAddr,
    lifetime: Lifetime,
    (metrics, budget): (Arc<Metrics>, Arc<Budget>),
    in_progress: impl Fn() -> usize,
) -> Result<(), Failure> {
    if lifetime.is_unconditional() {
        ended(dial, connection.await, &budget);
        return Ok(());
    }
    let lost = async {
        let failure = lifetime.lost().await;
        if failure.reason == Reason::Certificate {
            tokio::time::sleep(LAST_REQUESTS).await;
        }
        failure
    };
    tokio::select! {
        biased;
        end = connection => {
            ended(dial, end, &budget);
            Ok(())
        }
        failure = when_woken(lost) => {
            let (standing, requests) = (lifetime.standing(), in_progress());
            let identity = standing.map(|standing| tracing::field::display(&standing.peer.identity));
            let age = standing.map(|standing| standing.since.elapsed());
            if requests > 0 {
                metrics.connection_cut(Direction::Outbound, failure.reason);
                tracing::info!(%dial, identity, ?age, requests, %failure, "ended a connection with requests in progress");
            }
            Err(failure)
        }
    }
}

fn ended(dial: SocketAddr, end: hyper::Result<()>, budget: &Budget) {
    match end {
        Ok(()) => {}
        Err(error) if is_flood(&error) => {
            budget.flooded(Side::Client);
            tracing::info!(%dial, error = &error as &dyn std::error::Error, "ended an HTTP/2 connection that floods this proxy");
        }
        Err(error) => tracing::debug!(%dial, %error, "HTTP connection ended"),
    }
}
