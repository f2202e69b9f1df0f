//! `limit-rps`, `limit-rpm`, `limit-burst-multiplier` and `limit-whitelist` (also called `limit-allowlist`).
//!
//! As in nginx (`limit_req` with `nodelay`): each client address has a bucket, so many times the rate and one more may come
//! at once. The buckets are of the `Ingress`: its paths share them.

use std::time::Duration;

use selvedge_model::limit::{By, Limit, MOST_REQUESTS, Quota};

use super::{Annotations, sources::addresses};

/// What nginx's controller multiplies a rate by, for how many may come at once.
const USUAL_MULTIPLIER: u32 = 5;
const LARGEST_MULTIPLIER: u32 = 1_000;
const SECOND: u64 = 1;
const MINUTE: u64 = 60;

/// How many requests of each client are answered; none: all.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Vec<Limit> {
    let largest = MOST_REQUESTS / LARGEST_MULTIPLIER;
    let multiplier = annotations.number("limit-burst-multiplier", "a factor", 1, LARGEST_MULTIPLIER - 1);
    let multiplier = multiplier.unwrap_or(USUAL_MULTIPLIER);
    let white = addresses(annotations, "limit-whitelist");
    let exempt = addresses(annotations, "limit-allowlist").or(white).unwrap_or_default();
    let mut limits = Vec::new();
    for (name, what, seconds) in
        [("limit-rps", "requests per second", SECOND), ("limit-rpm", "requests per minute", MINUTE)]
    {
        // 0 is nginx's word for no limit.
        let asked = annotations.number(name, &format!("a number of {what}"), 0, largest);
        if let Some(requests) = asked.filter(|requests| *requests > 0) {
            let burst = requests * multiplier + 1;
            let quota = Quota { requests, per: Duration::from_secs(seconds), burst };
            limits.push(Limit { exempt: exempt.clone(), ..Limit::new(By::ClientAddress, quota) });
        }
    }
    limits
}
