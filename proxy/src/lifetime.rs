//! How long a client's connection is served, whatever it carries: when it takes no more requests, and when what is in
//! progress must end.

use std::{future::pending, rc::Rc, sync::Arc, time::Instant};

use crate::{
    arrival::Direction,
    bind::Life,
    connect,
    error::{Failure, Reason},
    trust::{Standing, lost},
    worker::Worker,
};

/// How long a connection is served: until its direction is closed, it is too old, or its peer is no longer believed.
#[derive(Debug)]
pub struct Until {
    pub(crate) worker: Rc<Worker>,
    pub(crate) direction: Direction,
    pub(crate) began: Instant,
    /// When it takes no more requests. `None`: its age does not matter.
    pub(crate) retire_at: Option<Instant>,
    /// How long what it came to is served; `None`: as long as the proxy is there.
    pub(crate) life: Option<Life>,
    /// Its peer; `None`: it is not the mesh's.
    pub(crate) standing: Option<Arc<Standing>>,
}

/// A connection of `worker`'s is served until its `direction` is closed, because the proxy leaves; one of a mesh
/// `peer` takes requests until the time that is given, and goes on as long as that peer is believed.
pub fn until(worker: Rc<Worker>, direction: Direction, peer: Option<(Instant, Arc<Standing>)>) -> Until {
    let (retire_at, standing) = peer.unzip();
    let oldest = worker.settings.max_connection_age.map(connect::tls::retire_at);
    let retire_at = [retire_at, oldest].into_iter().flatten().min();
    Until { worker, direction, began: Instant::now(), retire_at, life: None, standing }
}

impl Until {
    /// The same, but only as long as what it came to is served.
    #[must_use]
    pub fn within(self, life: Life) -> Self {
        Self { life: Some(life), ..self }
    }

    /// Completes when what the connection came to is served no longer.
    async fn life_ended(&self) {
        match &self.life {
            Some(life) => life.ended().await,
            None => pending().await,
        }
    }

    /// Completes when the connection must take no more requests.
    pub(crate) async fn requests(&self) {
        let withdrawn = async {
            match &self.standing {
                Some(standing) => standing.retired().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.worker.leave.closed(self.direction) => {}
            () = at(self.retire_at) => {}
            () = withdrawn => {}
            () = self.life_ended() => {}
        }
    }

    /// Completes when nothing may go to the mesh peer at the other end or come from it any more, and says why.
    pub(crate) async fn lost(&self) -> Failure {
        lost(self.standing.as_deref()).await
    }

    /// Completes when what is in progress must end, and says why. A renewed certificate does not end it.
    pub(crate) async fn end(&self) -> Failure {
        let Self { worker, began, .. } = self;
        let left = async {
            worker.leave.closed(self.direction).await;
            tokio::time::sleep(worker.leave.rest(worker.settings.drain_timeout)).await;
        };
        let unserved = async {
            self.life_ended().await;
            tokio::time::sleep(worker.settings.drain_timeout).await;
        };
        let oldest = worker.settings.max_connection_age.and_then(|age| began.checked_add(age));
        tokio::select! {
            () = left => Failure::new(Reason::Draining, "the proxy is shutting down"),
            () = unserved => Failure::new(Reason::Draining, "the gateway no longer serves what it came to"),
            failure = self.lost() => failure,
            () = at(oldest) => Failure::new(Reason::Timeout, "it is as old as --max-connection-age allows"),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
