//! What is to be said of the annotations of an `Ingress`, once it is known that Selvedge serves it.

use crate::problem::Severity;

/// What is to be said of single fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notes(Vec<(Severity, String, String)>);

impl Notes {
    /// Each of them: how bad it is, the field, and the message.
    pub fn iter(&self) -> impl Iterator<Item = (Severity, &str, &str)> {
        self.0.iter().map(|(severity, field, message)| (*severity, field.as_str(), message.as_str()))
    }

    /// The first that is an error: its field and the message.
    pub fn first_error(&self) -> Option<(&str, &str)> {
        self.iter()
            .find(|(severity, ..)| *severity == Severity::Error)
            .map(|(_, field, message)| (field, message))
    }

    pub(crate) fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push((Severity::Error, field.into(), message.into()));
    }

    pub(crate) fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push((Severity::Warning, field.into(), message.into()));
    }

    pub(crate) fn not_acted_on(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push((Severity::NotActedOn, field.into(), message.into()));
    }
}
