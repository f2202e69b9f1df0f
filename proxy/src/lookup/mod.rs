//! What a connection or a request is for: the service that its address or its authority means, by the table in force,
//! or as the control plane says when it is asked.

mod dialled;
mod gateway;
mod pass_through;

use std::sync::Arc;

pub(crate) use self::dialled::{ask as ask_dialled, meant};
pub(crate) use self::gateway::{opaque_host, virtual_host};
pub use self::{
    dialled::{dialled, named},
    gateway::refusal,
    pass_through::{at_its_address, rules, through},
};
use crate::{
    bind::Destination,
    discovery::store::LOOKUP_TIMEOUT,
    error::{Failure, Reason},
    step::Error,
    worker::Worker,
};

/// What `authority` means; `None`: the control plane has not said it in time.
pub async fn destination(worker: &Worker, authority: &str) -> Option<Arc<Destination>> {
    worker.view.refresh();
    let found = match by_name(worker, authority) {
        Some(known) => known,
        None => ask(worker, authority).await.ok()?,
    };
    found.touch();
    Some(found)
}

/// What `authority` means, if that is known without asking the control plane.
pub(crate) fn by_name(worker: &Worker, authority: &str) -> Option<Arc<Destination>> {
    worker.view.with(|table| {
        table.destinations.get(authority).cloned().or_else(|| {
            let lower = authority.bytes().any(|byte| byte.is_ascii_uppercase());
            lower.then(|| table.destinations.get(authority.to_ascii_lowercase().as_str()).cloned())?
        })
    })
}

/// What `authority` means, as the control plane says in time.
pub(crate) async fn ask(worker: &Worker, authority: &str) -> Result<Arc<Destination>, Error> {
    worker.view.store().destination(authority).await.ok_or_else(|| {
        let what = format!(
            "the control plane has not said within {LOOKUP_TIMEOUT:?} what {authority} is; \
             see /config on this proxy's admin port for its connection"
        );
        Error::new(Reason::Discovery, what)
    })
}

pub(crate) fn unknown(authority: &str) -> Failure {
    let what = format!("{authority} is in no Service or ServiceEntry that this workload may see");
    Failure::new(Reason::RegistryOnly, what)
}
