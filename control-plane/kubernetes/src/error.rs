//! Why the API server did not do what it was asked.
//!
//! Sorted by what a caller does about it, not by the layer that failed.

use kube::core::Status;

/// Why a request to the API server came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is nothing to connect with: no kubeconfig, and not inside a pod.
    #[error("no way to the Kubernetes API server: {0}; give --kubeconfig, set KUBECONFIG, or run in a pod")]
    Configuration(String),
    /// No answer, or none that can be understood.
    #[error("the Kubernetes API server at {server} does not answer: {reason}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What failed.
        reason: String,
    },
    /// The object, or its whole kind, does not exist.
    #[error("{0}")]
    NotFound(String),
    /// An object of that name is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// Somebody else changed the object meanwhile: read it again.
    #[error("{0}")]
    Conflict(String),
    /// Our ServiceAccount's role does not allow it.
    #[error("{0}; the role of this ServiceAccount must allow it")]
    Forbidden(String),
    /// The API server does not know who we are.
    #[error("the Kubernetes API server refuses our credentials: {0}")]
    Unauthorized(String),
    /// It refuses for another reason, which it names.
    #[error("the Kubernetes API server refuses: {message} ({code} {reason})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// One word, such as `Invalid`.
        reason: String,
        /// Its explanation.
        message: String,
    },
}

impl Error {
    pub(crate) fn of_status(status: &Status) -> Self {
        let message = match (status.message.as_str(), status.reason.as_str()) {
            ("", "") => format!("status {}", status.code),
            ("", reason) => reason.to_owned(),
            (message, _) => message.to_owned(),
        };
        match (status.code, status.reason.as_str()) {
            (404, _) => Self::NotFound(message),
            (409, "AlreadyExists") => Self::AlreadyExists(message),
            (409, _) => Self::Conflict(message),
            (403, _) => Self::Forbidden(message),
            (401, _) => Self::Unauthorized(message),
            (code, reason) => Self::Refused { code, reason: reason.to_owned(), message },
        }
    }

    pub(crate) fn of_kube(error: &kube::Error, server: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            kube::Error::InferConfig(error) => Self::Configuration(causes(error)),
            kube::Error::InferKubeconfig(error) => Self::Configuration(causes(error)),
            other => Self::Unreachable { server: server.to_owned(), reason: causes(other) },
        }
    }
}

/// An error and all that caused it, each said once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str) -> Status {
        Status { code, reason: reason.to_owned(), message: "no".to_owned(), ..Status::default() }
    }

    #[test]
    fn an_answer_is_sorted_by_what_to_do_about_it() {
        let sorted = |code, reason| Error::of_status(&status(code, reason));

        assert!(matches!(sorted(404, "NotFound"), Error::NotFound(_)));
        assert!(matches!(sorted(409, "AlreadyExists"), Error::AlreadyExists(_)));
        assert!(matches!(sorted(409, "Conflict"), Error::Conflict(_)));
        assert!(matches!(sorted(403, "Forbidden"), Error::Forbidden(_)));
        assert!(matches!(sorted(401, "Unauthorized"), Error::Unauthorized(_)));
        assert_eq!(sorted(422, "Invalid").to_string(), "the Kubernetes API server refuses: no (422 Invalid)");
    }
}
