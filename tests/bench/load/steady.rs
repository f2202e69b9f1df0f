//! The light load: requests fall due at a fixed rate, far below what any subject can carry, and nothing can
//! be batched.

use super::generator::{Generator, Target};
use super::{Sample, Turn, WARM_UP, Watch};

/// Requests per second.
const RATE: u32 = 1000;

pub(super) fn take(turn: Turn, target: &Target, watch: &Watch) -> anyhow::Result<Sample> {
    let mut generator = Generator::new(target, turn.connections)?;
    generator.open(RATE, WARM_UP)?;
    watch.during(|| Ok(generator.open(RATE, turn.duration)?.work()))
}
