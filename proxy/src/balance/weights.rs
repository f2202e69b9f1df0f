//! Endpoints of unequal weight: which of them a draw or a turn falls on.
//!
//! Pure. Equal weights cost nothing: only backends whose endpoints differ have any. A turn walks over all weights by a
//! stride of about 0.618 of their sum that shares no divisor with it. So in one cycle every endpoint comes exactly as
//! often as its weight says, and a heavy one not many times in a row.

/// The weights of a backend's endpoints, in their order.
#[derive(Debug)]
pub(super) struct Weights {
    /// Where each endpoint's share of the sum ends.
    ends: Box<[u64]>,
    stride: u64,
}

impl Weights {
    /// Those of endpoints in this order, none of them 0. `None`: all are equal.
    pub(super) fn of(weights: impl Iterator<Item = u32> + Clone) -> Option<Self> {
        let first = weights.clone().next()?;
        if weights.clone().all(|weight| weight == first) {
            return None;
        }
        let mut sum = 0;
        let ends: Box<[u64]> = weights
            .map(|weight| {
                sum += u64::from(weight);
                sum
            })
            .collect();
        let near = sum / 1000 * 618 + sum % 1000 * 618 / 1000;
        let stride = (near.max(1)..=sum).find(|stride| greatest_common_divisor(*stride, sum) == 1);
        Some(Self { ends, stride: stride.unwrap_or(1) })
    }

    /// One endpoint's weight.
    pub(super) fn weight(&self, index: usize) -> u64 {
        self.ends[index] - index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// An endpoint, each as likely as its weight says.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        self.at(rng.u64(..self.sum()))
    }

    /// The endpoint whose turn it is.
    pub(super) fn in_turn(&self, turn: usize) -> usize {
        let sum = u128::from(self.sum());
        let position = (turn as u128 % sum * u128::from(self.stride)) % sum;
        self.at(u64::try_from(position).unwrap_or_default())
    }

    fn at(&self, position: u64) -> usize {
        self.ends.partition_point(|end| *end <= position)
    }

    fn sum(&self) -> u64 {
        self.ends.last().copied().unwrap_or(1)
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_are_none() {
        assert!(Weights::of([1, 1, 1].into_iter()).is_none());
        assert!(Weights::of([7].into_iter()).is_none());
        assert!(Weights::of(std::iter::empty()).is_none());
    }

    #[test]
    fn a_heavy_endpoint_is_not_taken_many_times_in_a_row() {
        let weights = Weights::of([5, 1, 1].into_iter()).unwrap();

        let turns: Vec<usize> = (0..7).map(|turn| weights.in_turn(turn)).collect();

        assert_eq!(turns.iter().filter(|index| **index == 0).count(), 5);
        assert!(!turns.windows(4).any(|four| four.iter().all(|index| *index == 0)), "{turns:?}");
    }

    proptest! {
        #[test]
        fn a_cycle_of_turns_has_each_as_often_as_its_weight(
            list in proptest::collection::vec(1_u32..50, 1..10),
            start in any::<u32>(),
        ) {
            let Some(weights) = Weights::of(list.iter().copied()) else { return Ok(()) };
            let sum: u32 = list.iter().sum();
            // From the start of a cycle or from its middle.
            let start = start as usize;
            let mut taken = vec![0_u32; list.len()];
            for turn in start..start + sum as usize {
                taken[weights.in_turn(turn)] += 1;
            }
            prop_assert_eq!(&taken, &list);
            for (index, weight) in list.iter().enumerate() {
                prop_assert_eq!(weights.weight(index), u64::from(*weight));
            }
        }

        #[test]
        fn a_draw_is_always_an_endpoint(list in proptest::collection::vec(1_u32.., 2..5), seed in any::<u64>()) {
            let Some(weights) = Weights::of(list.iter().copied()) else { return Ok(()) };
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..100 {
                prop_assert!(weights.draw(&mut rng) < list.len());
            }
        }
    }
}
