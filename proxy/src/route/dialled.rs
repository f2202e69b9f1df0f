//! What the address means that a redirected connection was going to.

use std::sync::Arc;

use crate::{accept::Original, bind::Destination, worker::Worker};

/// What `original` is the address of: a service, a workload, or (if its `bound` is `None`) nothing that
/// the mesh knows. Asked of the control plane if need be; `None`: it has not said within
/// [`LOOKUP_TIMEOUT`](crate::discovery::store::LOOKUP_TIMEOUT).
///
/// Once for each connection; [`known`] is what requests ask.
pub async fn dialled(worker: &Worker, original: Original) -> Option<Arc<Destination>> {
    worker.view.refresh();
    if let Some(known) = known(worker, original) {
        return Some(known);
    }
    let found = worker.view.store().destination(&original.address.to_string()).await?;
    found.touch();
    Some(found)
}

/// The same, if it is known already.
pub(super) fn known(worker: &Worker, original: Original) -> Option<Arc<Destination>> {
    let found = worker.view.with(|table| table.addresses.get(&original.address).cloned())?;
    found.touch();
    Some(found)
}
