//! How often each endpoint is to be drawn.

use crate::balance::{aperture::Aperture, weights::Weights};

/// How often each endpoint is to be drawn.
#[derive(Debug)]
pub(super) enum Shares {
    /// All as often.
    Equal,
    /// As their weights say.
    Weighted(Weights),
    /// All as often, but only from a part of them for now.
    OfPart(Aperture),
}

impl Shares {
    /// Those of endpoints with these weights, none of them 0.
    pub(super) fn of(weights: impl Iterator<Item = u32> + Clone) -> Self {
        Weights::of(weights).map_or(Self::Equal, Self::Weighted)
    }

    pub(super) fn weight(&self, index: usize) -> u64 {
        match self {
            Self::Weighted(weights) => weights.weight(index),
            Self::Equal | Self::OfPart(_) => 1,
        }
    }

    /// One of `len` endpoints, at least one.
    pub(super) fn draw(&self, len: usize, rng: &mut fastrand::Rng) -> usize {
        match self {
            Self::OfPart(aperture) => aperture.draw(rng),
            Self::Weighted(weights) => weights.draw(rng),
            Self::Equal => rng.usize(..len),
        }
    }

    /// One of `len` endpoints, at least two, if possible not the `other`.
    pub(super) fn draw_but(&self, other: usize, len: usize, rng: &mut fastrand::Rng) -> usize {
        match self {
            // The same one rarely comes again, and then more are drawn.
            Self::OfPart(_) | Self::Weighted(_) => self.draw(len, rng),
            Self::Equal => {
                let index = rng.usize(..len - 1);
                index + usize::from(index >= other)
            }
        }
    }
}
