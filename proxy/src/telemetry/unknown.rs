//! What counts requests that have no better place, such as those for what is in no configuration.

use std::{cell::OnceCell, sync::Arc};

use super::{Labels, Metrics, Series};

/// The series of such requests on one path. It has the name of our own controller, which configuration tells: what comes
/// before that is counted under the name that is guessed from the workload's.
#[derive(Debug)]
pub struct Unknown {
    early: Arc<Series>,
    named: OnceCell<Arc<Series>>,
    /// How it is found once our own name is told.
    later: Option<(Arc<Metrics>, Labels)>,
}

impl Unknown {
    /// The series with these `labels`.
    pub(super) fn new(metrics: &Arc<Metrics>, labels: Labels) -> Self {
        let early = metrics.series(&labels);
        Self { early, named: OnceCell::new(), later: Some((Arc::clone(metrics), labels)) }
    }

    /// The series as it is known now.
    pub fn series(&self) -> &Arc<Series> {
        if let Some(named) = self.named.get() {
            return named;
        }
        match self.later.as_ref().filter(|(metrics, _)| metrics.is_told_own()) {
            Some((metrics, labels)) => self.named.get_or_init(|| metrics.series(labels)),
            None => &self.early,
        }
    }
}

#[cfg(test)]
impl From<Arc<Series>> for Unknown {
    fn from(early: Arc<Series>) -> Self {
        Self { early, named: OnceCell::new(), later: None }
    }
}
