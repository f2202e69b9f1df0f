//! Faults: requests wait and fail on purpose. No endpoint sees them, so none is blamed, and nothing is sent again.
//!
//! A rule's time begins after the delay, as Envoy's does: its `timeout` does not end what its own `fault` delays.

use std::{rc::Rc, time::Instant};

use selvedge_model::filter::{ReadyAbort, ReadyFilters};

use super::failed;
use crate::{
    error::{Failure, Reason},
    step::{Error, Matched},
    worker::Worker,
};

/// Has `matched` wait and fail, if it is one that shall.
pub(super) async fn inject(
    worker: &Rc<Worker>,
    filters: &ReadyFilters,
    matched: &mut Matched,
) -> Result<(), Error> {
    if filters.delay.is_none() && filters.abort.is_none() {
        return Ok(());
    }
    let delay = filters.drawn_delay(&mut worker.rng.borrow_mut());
    if let Some(delay) = delay {
        let began = Instant::now();
        worker.deadlines.at(began + delay).await;
        matched.has_waited(began.elapsed());
    }
    match filters.drawn_abort(&mut worker.rng.borrow_mut()) {
        None => Ok(()),
        Some(abort) => Err(failed(matched, failure(abort, &matched.rule.name))),
    }
}

fn failure(abort: &ReadyAbort, rule: &str) -> Failure {
    let what = format!("{rule} makes this request fail on purpose");
    Failure::new(Reason::Fault, what).answered(abort.status, abort.grpc)
}
