//! A client's connection for each request: what accepting one costs, its handshake included. Between the proxies nothing
//! is new.

use super::generator::{Generator, Target, Until};
use super::stream::Handshake;
use super::{Load, Sample, Turn, WARM_UP, Watch};

/// How many are open at once.
const AT_ONCE: usize = 16;

pub(super) fn take(turn: Turn, target: &Target, watch: &Watch) -> anyhow::Result<Sample> {
    let handshake = if watch.load == Load::Resumed { Handshake::Resumed } else { Handshake::Full };
    let mut generator = Generator::connecting_anew(target, AT_ONCE, handshake)?;
    generator.closed(Until::Elapsed(WARM_UP))?;
    watch.during(|| Ok(generator.closed(Until::Elapsed(turn.duration))?.work()))
}
