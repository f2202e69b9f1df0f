//! Logs a failure that repeats only once, and once more when it is over.
//!
//! A control plane that is away for an hour fails a thousand attempts; an operator wants two lines.

use std::fmt;

/// One thing that can go wrong again and again.
#[derive(Debug)]
pub struct Complaint {
    about: &'static str,
    open: Option<String>,
}

impl Complaint {
    /// Nothing to complain of yet. `about` says what does not work while it fails.
    pub fn new(about: &'static str) -> Self {
        Self { about, open: None }
    }

    /// It has failed: a warning, unless the last failure was the same. Returns whether it was logged.
    pub fn raise(&mut self, reason: &impl fmt::Display) -> bool {
        self.raise_as(reason.to_string(), reason)
    }

    /// The same, where the reason's words are others each time: `same` is what tells one failure from another.
    pub fn raise_as(&mut self, same: String, reason: &impl fmt::Display) -> bool {
        if self.open.as_ref() == Some(&same) {
            return false;
        }
        tracing::warn!(%reason, "{}", self.about);
        self.open = Some(same);
        true
    }

    /// It works (again). Returns whether that was logged.
    pub fn settle(&mut self) -> bool {
        let Some(reason) = self.open.take() else { return false };
        tracing::info!(was = %reason, "works again: {}", self.about);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_until_it_changes_or_is_over() {
        let mut complaint = Complaint::new("no configuration");

        assert!(complaint.raise(&"refused"));
        assert!(!complaint.raise(&"refused"));
        assert!(complaint.raise(&"timed out"));
        assert!(!complaint.raise_as("timed out".to_owned(), &"timed out at noon"));
        assert!(complaint.settle());
        assert!(!complaint.settle());
        assert!(complaint.raise(&"timed out"));
    }
}
