//! What the control thread finds out about endpoints, beside what their requests tell: it asks those outside the mesh
//! whether they are well, and compares endpoints with each other at the end of each interval.
//!
//! One thread does it for all workers. What it finds is written where workers look.

mod ask;
pub mod grpc;
mod health;
mod intervals;
mod standing;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    bind::{BoundBackend, Table},
    discovery::Store,
    settings::OwnListeners,
    telemetry::Metrics,
};

/// Looks after the endpoints of the table in force for as long as it is polled. Nothing is asked at our `own` listeners.
pub async fn run(store: Arc<Store>, metrics: Arc<Metrics>, own: Arc<OwnListeners>) {
    tokio::join!(intervals::run(&store, &metrics), health::run(&store, &metrics, own));
}

/// Drives `connection` until the result is dropped.
pub(crate) fn drive<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> JoinSet<()> {
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What breaks it is told by the request.
        let _ = connection.await;
    });
    driver
}

/// Puts the backends that `table` has looked after in the place of those from `before`. Returns whether they are others: most
/// changes of the table change nothing of them.
fn take_over(before: &mut Arc<[Arc<BoundBackend>]>, table: &Table) -> bool {
    let are_others = !Arc::ptr_eq(before, &table.looked_after);
    if are_others {
        *before = Arc::clone(&table.looked_after);
    }
    are_others
}
