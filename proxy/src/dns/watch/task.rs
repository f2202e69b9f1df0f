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

/// The longest pause after a failure, and while addresses are in doubt; they double up to it.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What ends the pause between two look-ups early.
#[derive(Debug, Clone, Default)]
pub(super) struct Wake {
    /// A caller waits for an answer.
    pub(super) hurry: Arc<Notify>,
    /// An endpoint that was found by the name has not answered: the name may lead elsewhere by now.
    pub(super) doubt: Arc<Notify>,
}

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
    Wake { hurry, doubt }: Wake,
    found: mpsc::UnboundedSender<Answer>,
) {
    let (mut failures, mut doubts) = (0, 0);
    loop {
        let answer = look_up(&resolver, &name, &hurry).await;
        let pause = pause(&answer, &mut failures);
        if found.send(Answer { name: Arc::clone(&name), answer }).is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => doubts = 0,
            () = hurry.notified() => {}
            () = doubted(&doubt, doubling(doubts)) => {
                doubts = doubts.saturating_add(1);
                resolver.forget();
            }
        }
    }
}

/// Waits until there is doubt, and at least for `pause`.
async fn doubted(doubt: &Notify, pause: Duration) {
    sleep(pause).await;
    doubt.notified().await;
}

/// The pause after so many in a row.
fn doubling(times: u32) -> Duration {
    MIN_PAUSE.saturating_mul(2_u32.saturating_pow(times)).min(MAX_PAUSE)
}

/// How long to wait before the next look-up.
pub(super) fn pause(answer: &Result<Resolved, ResolveError>, failures: &mut u32) -> Duration {
    match answer {
        Ok(resolved) => {
            *failures = 0;
            // What is not known of IPv6 is asked again before long.
            let longest = if resolved.lacks_ipv6 { MAX_PAUSE } else { resolved.valid_for };
            resolved.valid_for.min(longest).max(MIN_PAUSE)
        }
        Err(_) => {
            let pause = doubling(*failures);
            *failures = failures.saturating_add(1);
            pause
        }
    }
}
