//! This host's clock and the control plane's: certificates and tokens are worth nothing where they differ by much.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use selvedge_api::TIME_METADATA;
use selvedge_certs::facts::Utc;
use tonic::Status;

/// What is no cause for words: an answer takes its time, and certificates are dated back by a minute.
const SMALL: Duration = Duration::from_secs(30);

/// What both say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clocks {
    theirs: SystemTime,
    ours: SystemTime,
}

impl Clocks {
    /// From the seconds since 1970 in an answer of the control plane's that has just come; `None` if it does not say, or
    /// says nearly the same as our clock.
    pub(super) fn differing(theirs: u64, ours: SystemTime) -> Option<Self> {
        let theirs = UNIX_EPOCH.checked_add(Duration::from_secs(theirs)).filter(|_| theirs > 0)?;
        let clocks = Self { theirs, ours };
        (clocks.apart() > SMALL).then_some(clocks)
    }

    /// The same from a refusal.
    pub(super) fn of(status: &Status, ours: SystemTime) -> Option<Self> {
        let theirs = status.metadata().get(TIME_METADATA)?.to_str().ok()?.parse().ok()?;
        Self::differing(theirs, ours)
    }

    fn apart(&self) -> Duration {
        self.theirs.duration_since(self.ours).unwrap_or_else(|behind| behind.duration())
    }
}

impl fmt::Display for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_secs(self.apart().as_secs());
        write!(
            f,
            "the control plane's clock says {}, and this host's says {}, {} {}: set the clock that is wrong",
            Utc(self.theirs),
            Utc(self.ours),
            humantime::format_duration(seconds),
            if self.ours < self.theirs { "behind" } else { "ahead" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn both_clocks_are_named_and_which_is_ahead() {
        let behind = Clocks::differing(1_800_003_600, at(1_800_000_000)).unwrap().to_string();
        let ahead = Clocks::differing(1_800_000_000, at(1_800_000_045)).unwrap().to_string();

        assert_eq!(
            behind,
            "the control plane's clock says 2027-01-15T09:00:00Z, and this host's says 2027-01-15T08:00:00Z, 1h behind: set \
             the clock that is wrong"
        );
        assert!(ahead.contains("45s ahead"), "{ahead}");
    }

    #[test]
    fn nothing_is_said_of_what_does_not_matter() {
        assert_eq!(Clocks::differing(1_800_000_000, at(1_800_000_029)), None);
        assert_eq!(Clocks::differing(0, at(1_800_000_000)), None, "an older control plane does not say");
        assert_eq!(Clocks::of(&Status::unavailable("it is busy"), at(1_800_000_000)), None);
    }
}
