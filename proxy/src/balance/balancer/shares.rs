//! How often each endpoint is to be drawn.

use std::time::Instant;

use selvedge_model::Warmup;

use super::{Member, warming::Warming};
use crate::balance::{aperture::Aperture, weights::Weights};

/// A whole share in the arithmetic of shares that grow.
const WHOLE: f64 = 10_000.0;

/// How often each endpoint is to be drawn.
#[derive(Debug)]
pub(super) struct Shares {
    of: Of,
    warming: Option<Warming>,
}

#[derive(Debug)]
enum Of {
    /// All as often.
    Equal,
    /// As their weights say.
    Weighted(Weights),
    /// All as often, but only from a part of them for now.
    Part(Aperture),
}

impl Shares {
    /// Those of `members`. Of very many that are all alike, a part is drawn from, which is about the same as `before`.
    pub(super) fn of(members: &[Member], before: Option<&Self>) -> Self {
        let of = match Weights::of(members.iter().map(|member| member.weight)) {
            Some(weights) => Of::Weighted(weights),
            None => {
                let before = before.and_then(Self::aperture);
                Aperture::over(members.iter().map(Member::key), before).map_or(Of::Equal, Of::Part)
            }
        };
        Self { of, warming: None }
    }

    /// These, while endpoints warm up as `settings` say. `before`: the shares of all groups before this change.
    pub(super) fn warming(
        self,
        settings: Option<Warmup>,
        members: &[Member],
        before: Option<&[&Self]>,
        now: Instant,
    ) -> Self {
        let of_before =
            || before.map(|all| all.iter().filter_map(|before| before.warming.as_ref()).collect());
        let warming = settings.map(|settings| Warming::over(settings, members, of_before(), now));
        Self { warming, ..self }
    }

    fn aperture(&self) -> Option<&Aperture> {
        match &self.of {
            Of::Part(aperture) => Some(aperture),
            Of::Equal | Of::Weighted(_) => None,
        }
    }

    /// An endpoint's weight now; those of one moment can be compared.
    pub(super) fn weight(&self, index: usize, now: Instant) -> u64 {
        let weight = match &self.of {
            Of::Weighted(weights) => weights.weight(index),
            Of::Equal | Of::Part(_) => 1,
        };
        match self.warming.as_ref().filter(|warming| warming.is_in_progress(now)) {
            None => weight,
            Some(warming) => {
                // At most 10,000, and at least 0.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
                let part = (warming.factor(index, now) * WHOLE) as u64;
                weight * part.max(1)
            }
        }
    }

    /// Whether shares grow now, so that a draw may fall on an endpoint and not take it.
    pub(super) fn are_growing(&self, now: Instant) -> bool {
        self.warming.as_ref().is_some_and(|warming| warming.is_in_progress(now))
    }

    /// Whether the endpoint is taken that a draw or a turn has fallen on.
    pub(super) fn takes(&self, index: usize, now: Instant, rng: &mut fastrand::Rng) -> bool {
        self.warming.as_ref().is_none_or(|warming| warming.takes(index, now, rng))
    }

    /// One of `len` endpoints, at least one.
    pub(super) fn draw(&self, len: usize, rng: &mut fastrand::Rng) -> usize {
        match &self.of {
            Of::Part(aperture) => aperture.draw(rng),
            Of::Weighted(weights) => weights.draw(rng),
            Of::Equal => rng.usize(..len),
        }
    }

    /// One of `len` endpoints, at least two, if possible not the `other`.
    pub(super) fn draw_but(&self, other: usize, len: usize, rng: &mut fastrand::Rng) -> usize {
        match &self.of {
            // The same one rarely comes again, and then more are drawn.
            Of::Part(_) | Of::Weighted(_) => self.draw(len, rng),
            Of::Equal => {
                let index = rng.usize(..len - 1);
                index + usize::from(index >= other)
            }
        }
    }

    /// The one of `len` endpoints whose turn it is; at least one.
    pub(super) fn in_turn(&self, turn: usize, len: usize) -> usize {
        match &self.of {
            Of::Weighted(weights) => weights.in_turn(turn),
            Of::Part(aperture) => aperture.in_turn(turn),
            Of::Equal => turn % len,
        }
    }

    /// Whether as many turns as there are endpoints meet all of them.
    pub(super) fn turns_meet_all(&self, now: Instant) -> bool {
        matches!(self.of, Of::Equal) && !self.are_growing(now)
    }

    /// Looks for an endpoint that `is_idle`, if the better of two has this many requests in flight and there are very many.
    pub(super) fn idle(
        &self,
        in_flight: u32,
        now: Instant,
        rng: &mut fastrand::Rng,
        is_idle: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Of::Part(aperture) = &self.of else { return None };
        let looks = aperture.further_looks(in_flight);
        if looks == 0 || self.are_growing(now) {
            return None;
        }
        let found = (0..looks).map(|_| aperture.draw(rng)).find(|index| is_idle(*index));
        aperture.looked(looks, found.is_some());
        found
    }

    /// Notes that a request goes to an endpoint with this many requests in flight.
    pub(super) fn picked(&self, in_flight: impl FnOnce() -> u32) {
        if let Of::Part(aperture) = &self.of {
            aperture.picked(in_flight());
        }
    }
}
