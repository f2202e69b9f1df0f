//! The saturating load: every connection asks again as soon as it is answered.

use super::generator::{Generator, Target, Until};
use super::{Sample, Turn, WARM_UP, Watch};

pub(super) fn take(turn: Turn, target: &Target, watch: &Watch) -> anyhow::Result<Sample> {
    let mut generator = Generator::new(target, turn.connections)?;
    generator.closed(Until::Elapsed(WARM_UP))?;
    watch.during(|| Ok(generator.closed(Until::Elapsed(turn.duration))?.work()))
}
