//! Lets in only whoever has a name and its password. Neither goes on to the app: nginx's controller removes them, too
//! (`proxy_set_header Authorization ""`).

use std::{
    net::IpAddr,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{
    HeaderValue,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use selvedge_model::limit::network;

use super::{failed, unusable};
use crate::{
    bind::BoundBasic,
    credentials::{Presented, Verdict},
    error::{Failure, Reason},
    limit::whole,
    step::{Error, Matched},
    telemetry::Decision,
    worker::Worker,
};

/// How long a request waits for its password to be verified. If there are so many that this is not enough, others only
/// wait for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Lets `matched` go on, without its password, if `basic` lets in whom it names; its client is at `address`.
///
/// # Errors
/// If it does not, or if that cannot be found out.
pub(super) async fn judge(
    worker: &Rc<Worker>,
    basic: &BoundBasic,
    address: IpAddr,
    matched: &mut Matched,
) -> Result<(), Error> {
    let Some(users) = &basic.users else {
        return Err(unusable(matched, "the users that it lets in are not known"));
    };
    let Some(presented) = Presented::of(matched.http.headers()) else {
        return Err(unproven(worker, basic, matched, "the request has no name and password"));
    };
    let began = Instant::now();
    let judged = pin!(worker.credentials.judge(users, &presented, address, began));
    let verdict = worker.deadlines.within(Some(began + LONGEST_WAIT), judged).await;
    match verdict.unwrap_or(Verdict::Busy) {
        Verdict::Right => {
            matched.http.headers_mut().remove(AUTHORIZATION);
            matched.has_waited(began.elapsed());
            Ok(())
        }
        Verdict::Wrong => {
            if let Some(left_out) = worker.said.says((&*basic.document, network(address), "wrong"), began) {
                tracing::info!(peer = %address, rule = %basic.document, left_out, "refused: no such name and password");
            }
            Err(unproven(worker, basic, matched, "the name or the password is wrong"))
        }
        Verdict::TooMany(refused) => {
            worker.metrics.policy_decision(&basic.document, Decision::Deny, worker.index);
            let retry_after = whole(refused.retry_after);
            if let Some(left_out) = worker.said.says((&*basic.document, network(address), "too many"), began)
            {
                tracing::info!(peer = %address, rule = %basic.document, retry_after, left_out, "refused: too many wrong passwords");
            }
            let what = format!(
                "{}: too many wrong passwords from {address}; try again in {retry_after} s",
                basic.document
            );
            let mut error = failed(matched, Failure::new(Reason::RateLimit, what));
            error.facts.rare().headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
            Err(error)
        }
        Verdict::Busy => {
            let what = "too many passwords are being verified; try again";
            Err(failed(matched, Failure::new(Reason::Overflow, what)))
        }
    }
}

/// The failure of `matched`, which does not say who asks.
fn unproven(worker: &Worker, basic: &BoundBasic, matched: &Matched, why: &str) -> Error {
    worker.metrics.policy_decision(&basic.document, Decision::Deny, worker.index);
    let what = format!("{}: {why}", basic.document);
    let mut error = failed(matched, Failure::new(Reason::Credentials, what));
    error.facts.rare().headers.insert(WWW_AUTHENTICATE, basic.challenge.clone());
    error
}
