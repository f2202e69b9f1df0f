//! Failures that are made on purpose (`VirtualService` `http.fault`).

use std::time::Duration;

use serde::Serialize;

/// How many of a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Fraction(u32);

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self(Self::WHOLE);
    /// None of them.
    pub const NONE: Self = Self(0);
    const WHOLE: u32 = 1_000_000;

    /// `parts` of a million; `None` if that is more than a million.
    pub fn of_million(parts: u32) -> Option<Self> {
        (parts <= Self::WHOLE).then_some(Self(parts))
    }

    /// `percent` of a hundred, to four digits after the point; `None` outside of 0–100.
    pub fn of_percent(percent: f64) -> Option<Self> {
        // The range makes the conversion exact.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 1,000,000")]
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 10_000.0).round() as u32))
    }

    /// `numerator` of `denominator`, rounded down; `None` if there is no such share.
    pub fn of(numerator: u32, denominator: u32) -> Option<Self> {
        let parts = (u64::from(numerator) * u64::from(Self::WHOLE)).checked_div(denominator.into())?;
        u32::try_from(parts).ok().and_then(Self::of_million)
    }

    /// How many of a million.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// Whether this request is one of them.
    pub fn draw(self, rng: &mut fastrand::Rng) -> bool {
        match self.0 {
            0 => false,
            Self::WHOLE => true,
            parts => rng.u32(..Self::WHOLE) < parts,
        }
    }
}

/// What is done to requests. Each of the two is drawn by itself, and the delay comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// They wait.
    pub delay: Option<Delay>,
    /// They fail.
    pub abort: Option<Abort>,
}

/// `http.fault.delay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// How many of them.
    pub fraction: Fraction,
}

/// `http.fault.abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Abort {
    /// The HTTP status (200–599). A gRPC client gets `grpc` with HTTP status 200.
    pub status: u16,
    /// The gRPC status, if that is what is asked for.
    pub grpc: Option<u8>,
    /// How many of them.
    pub fraction: Fraction,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_to_four_digits() {
        assert_eq!(Fraction::of_percent(0.0), Some(Fraction::NONE));
        assert_eq!(Fraction::of_percent(0.0001).map(Fraction::parts), Some(1));
        assert_eq!(Fraction::of_percent(33.3333).map(Fraction::parts), Some(333_333));
        assert_eq!(Fraction::of_percent(100.0), Some(Fraction::ALL));
        for wrong in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Fraction::of_percent(wrong), None);
        }
    }

    #[test]
    fn a_share_needs_a_denominator_and_is_no_more_than_all() {
        assert_eq!(Fraction::of(1, 4).map(Fraction::parts), Some(250_000));
        assert_eq!(Fraction::of(7, 7), Some(Fraction::ALL));
        assert_eq!(Fraction::of(1, 0), None);
        assert_eq!(Fraction::of(8, 7), None);
    }

    #[test]
    fn all_and_none_need_no_luck() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert!((0..1000).all(|_| Fraction::ALL.draw(&mut rng)));
        assert!(!(0..1000).any(|_| Fraction::NONE.draw(&mut rng)));
        let half = Fraction::of(1, 2).unwrap();
        let drawn = (0..10_000).filter(|_| half.draw(&mut rng)).count();
        assert!((4_500..5_500).contains(&drawn), "{drawn}");
    }
}
