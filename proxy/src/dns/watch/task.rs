//! The task that looks one name up again and again.

use std::{pin::pin, sync::Arc, time::Duration};

use selvedge_ops::{ResolveError, Resolved, Resolver};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

/// The shortest pause between two look-ups of a name, which otherwise is its TTL: a name with a TTL of 0 would be
/// looked up without pause. The longest is [`selvedge_ops::resolver::MAX_TTL`].
pub(super) const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a failure; they double up to it.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The answer to one look-up.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) name: Arc<str>,
    pub(super) answer: Result<Resolved, ResolveError>,
}

/// One look-up of `name`. If a caller is in a hurry while it takes long, another one begins beside it: what the first
/// one finds may be older than the caller's question.
async fn look_up(resolver: &Resolver, name: &str, hurry: &Notify) -> Result<Resolved, ResolveError> {
    let mut first = pin!(resolver.all_addresses_soon(name));
    tokio::select! {
        answer = &mut first => return answer,
        () = hurry.notified() => {}
    }
    tokio::select! {
        answer = first => answer,
        answer = resolver.all_addresses_soon(name) => answer,
    }
}

/// Looks `name` up until it is aborted.
pub(super) async fn watch(
    resolver: Arc<Resolver>,
    name: Arc<str>,
    hurry: Arc<Notify>,
    found: mpsc::UnboundedSender<Answer>,
) {
    let mut failures = 0;
    loop {
        let answer = look_up(&resolver, &name, &hurry).await;
        let pause = pause(&answer, &mut failures);
        if found.send(Answer { name: Arc::clone(&name), answer }).is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = hurry.notified() => {}
        }
    }
}

/// How long to wait before the next look-up.
pub(super) fn pause(answer: &Result<Resolved, ResolveError>, failures: &mut u32) -> Duration {
    match answer {
        Ok(resolved) => {
            *failures = 0;
            resolved.valid_for.max(MIN_PAUSE)
        }
        Err(_) => {
            let pause = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(*failures)).min(MAX_PAUSE);
            *failures = failures.saturating_add(1);
            pause
        }
    }
}
