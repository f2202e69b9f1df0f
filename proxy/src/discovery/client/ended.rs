//! Why a stream ended, and how long to wait before the next.

use std::time::Duration;

use crate::joining::ConnectError;

/// Before the second attempt, at most; doubles from there.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The longest pause that the control plane may tell us.
const MAX_TOLD: Duration = Duration::from_secs(30);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// Our certificate is about to expire, and there is a newer one.
    #[error("the certificate was replaced")]
    NewCertificate,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A control plane that is overloaded, or stopped.
    #[error("the control plane at {address} does not answer within {limit:?}")]
    Timeout { address: String, limit: Duration },
    /// It said why.
    #[error("the control plane refuses the stream: {message} ({code:?})")]
    Refused {
        message: String,
        code: tonic::Code,
        /// How long it wants us to wait.
        pause: Option<Duration>,
    },
    /// It ended without a word, or the network did.
    #[error("the connection to the control plane broke: {reason}")]
    Broken { reason: String },
    /// It is shutting down.
    #[error("the control plane closed the stream")]
    Closed,
    /// This proxy ends, and has told the last that it had to tell.
    #[error("the proxy is shutting down")]
    Leaving,
    /// Nothing that we send is taken.
    #[error("the control plane does not read what this proxy sends")]
    Stuck,
}

impl Ended {
    pub(super) fn of(status: &tonic::Status) -> Self {
        let message = status.message().to_owned();
        // A status that the control plane did not send has a cause on this side.
        match std::error::Error::source(status) {
            Some(_) => Self::Broken { reason: message },
            None => Self::Refused { message, code: status.code(), pause: pause(status) },
        }
    }

    /// How long to wait before the next stream, after the `attempt`-th failure in a row: as the control plane says, which tells
    /// each of a fleet another time, or else what [`backoff`] says. If the first time did not help, whichever is longer.
    pub(super) fn pause(&self, attempt: u32, jitter: f64) -> Duration {
        let told = if let Self::Refused { pause, .. } = self { *pause } else { None };
        match told {
            Some(told) if attempt == 0 => told,
            told => backoff(attempt, jitter).max(told.unwrap_or_default()),
        }
    }
}

fn pause(status: &tonic::Status) -> Option<Duration> {
    let told = status.metadata().get(selvedge_api::PUSHBACK)?.to_str().ok()?;
    Some(Duration::from_millis(told.parse().ok()?).min(MAX_TOLD))
}

impl Ended {
    /// What tells one failure from another.
    pub(super) fn timeless(&self) -> String {
        if let Self::Connect(error) = self { error.timeless() } else { self.to_string() }
    }
}

/// How long to wait after the `attempt`-th failure in a row (the first is 0): anything up to a limit that
/// doubles, so that a fleet which lost its control plane does not come back as one.
pub(super) fn backoff(attempt: u32, jitter: f64) -> Duration {
    let limit = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(attempt)).min(MAX_BACKOFF);
    limit.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_says_when_to_come_back_within_limits() {
        let told = |text: &str| {
            let mut status = tonic::Status::unavailable("it is stopping");
            status.metadata_mut().insert(selvedge_api::PUSHBACK, text.parse().unwrap());
            Ended::of(&status)
        };
        let longest = |attempt| backoff(attempt, 1.0);

        assert_eq!(told("1234").pause(0, 1.0), Duration::from_millis(1234));
        assert_eq!(told("86400000").pause(0, 1.0), MAX_TOLD);
        assert_eq!((told("-1").pause(0, 1.0), told("soon").pause(1, 1.0)), (longest(0), longest(1)));
        let nothing = Ended::of(&tonic::Status::unavailable("it is stopping"));
        assert_eq!(nothing.pause(2, 1.0), longest(2));
        // Once it may say that it is ready at once; if it goes on so, it is not asked without a pause.
        assert_eq!((told("0").pause(0, 1.0), told("0").pause(3, 1.0)), (Duration::ZERO, longest(3)));
        assert_eq!(told("1234").pause(1, 1.0), Duration::from_millis(1234));
    }
}
