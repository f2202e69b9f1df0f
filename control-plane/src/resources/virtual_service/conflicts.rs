//! Which fields of a route exclude each other.

use crate::resources::{document::wrong, typed::FieldError};

/// Which of a route's fields are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    pub(super) delegate: bool,
    pub(super) route: bool,
    pub(super) redirect: bool,
    pub(super) direct_response: bool,
    pub(super) rewrite: bool,
    pub(super) fault: bool,
}

impl Given {
    /// Refuses, at `field`, what Istio's own validation refuses.
    pub(super) fn check(self, field: &str) -> Result<(), FieldError> {
        let beside_redirect = [("directResponse", self.direct_response)];
        let beside_both = [("route", self.route), ("fault", self.fault), ("rewrite", self.rewrite)];
        let beside_delegate =
            [("route", self.route), ("redirect", self.redirect), ("directResponse", self.direct_response)];
        if self.delegate {
            return refuse_all(
                &beside_delegate,
                "delegate, which leaves the requests to another document",
                field,
            );
        }
        let (name, more) = match self {
            Self { redirect: true, .. } => ("redirect, which answers by itself", &beside_redirect[..]),
            Self { direct_response: true, .. } => ("directResponse, which answers by itself", &[][..]),
            Self { route: true, .. } => return Ok(()),
            _ => {
                let message =
                    "has no route; name at least one destination, or give redirect or directResponse";
                return Err(wrong(field, message));
            }
        };
        refuse_all(&beside_both, name, field)?;
        refuse_all(more, name, field)
    }
}

/// Refuses the first of `fields` that is given, beside `what` of the route at `field`.
fn refuse_all(fields: &[(&str, bool)], what: &str, field: &str) -> Result<(), FieldError> {
    match fields.iter().find(|(_, given)| *given) {
        Some((other, _)) => {
            Err(wrong(format!("{field}.{other}"), format!("stands beside {what}; remove one of them")))
        }
        None => Ok(()),
    }
}
