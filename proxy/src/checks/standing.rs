//! What the answers of one endpoint make of it. Pure.

use selvedge_model::HealthCheck;

/// Whether an endpoint is well, by its answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// `None`: it has not been asked yet, and gets requests.
    pub(super) is_well: Option<bool>,
    /// The answers in a row that say otherwise.
    against: u32,
}

impl Standing {
    /// Notes one answer. Returns whether the endpoint is well now where it was not, or the other way round. The first answer
    /// decides alone.
    pub(super) fn note(&mut self, is_good: bool, check: &HealthCheck) -> Option<bool> {
        let threshold = if is_good { check.healthy_threshold } else { check.unhealthy_threshold };
        if self.is_well == Some(is_good) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.is_well.is_some() && self.against < threshold {
            return None;
        }
        self.against = 0;
        self.is_well = Some(is_good);
        Some(is_good)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use selvedge_model::HealthQuestion;

    use super::*;

    fn thresholds(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
        HealthCheck { unhealthy_threshold, healthy_threshold, ..HealthCheck::new(HealthQuestion::Tcp) }
    }

    #[test]
    fn the_first_answer_counts_at_once_and_later_ones_when_there_are_enough_in_a_row() {
        let check = thresholds(2, 3);
        let mut standing = Standing::default();
        let mut note = |is_good| standing.note(is_good, &check);

        assert_eq!(note(false), Some(false));
        assert_eq!([note(true), note(true), note(false)], [None; 3]);
        assert_eq!([note(true), note(true), note(true)], [None, None, Some(true)]);
        assert_eq!([note(false), note(true), note(false), note(false)], [None, None, None, Some(false)]);
    }

    /// The last change is where so many equal answers in a row ended last, or the first answer.
    fn naive(answers: &[bool], check: &HealthCheck) -> Option<bool> {
        let mut well = *answers.first()?;
        for end in 1..=answers.len() {
            let needed = if well { check.unhealthy_threshold } else { check.healthy_threshold };
            let needed = needed as usize;
            let turned = end > needed && answers[end - needed..end].iter().all(|answer| *answer != well);
            if turned {
                well = !well;
            }
        }
        Some(well)
    }

    proptest! {
        #[test]
        fn an_endpoint_is_as_its_answers_say(
            answers in proptest::collection::vec(any::<bool>(), 0..60), unhealthy in 1_u32..5, healthy in 1_u32..5,
        ) {
            let check = thresholds(unhealthy, healthy);
            let mut standing = Standing::default();
            for answer in &answers {
                let _ = standing.note(*answer, &check);
            }

            prop_assert_eq!(standing.is_well, naive(&answers, &check));
        }
    }
}
