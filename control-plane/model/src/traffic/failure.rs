//! How an attempt at an endpoint fails.

/// How an attempt at an endpoint has failed, as its client's sidecar sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// In a way that only a newer version knows, or that has no name of its own.
    Other,
    /// The connection was refused.
    ConnectRefused,
    /// No connection was made in time.
    ConnectTimeout,
    /// There was no connection for another reason.
    ConnectFailure,
    /// Its sidecar had no connection to the app.
    AppUnreachable,
    /// TLS with a server outside of the mesh was not agreed on.
    Tls,
    /// It did not prove to be who it must be.
    Identity,
    /// The connection broke off.
    Reset,
    /// What it sent was no HTTP.
    Protocol,
    /// It was connected, and did not answer in time.
    Timeout,
    /// It was about to end.
    Draining,
    /// The answer had a status of 500 or more.
    Status5xx,
    /// The answer had a status of gRPC that says that the call did not work.
    GrpcStatus,
}

impl FailureKind {
    /// All of them, each at its own number.
    pub const ALL: [Self; 13] = [
        Self::Other,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectFailure,
        Self::AppUnreachable,
        Self::Tls,
        Self::Identity,
        Self::Reset,
        Self::Protocol,
        Self::Timeout,
        Self::Draining,
        Self::Status5xx,
        Self::GrpcStatus,
    ];

    /// The word for it: where a proxy has one for it in `proxy/errors.md`, that.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::ConnectRefused => "connect-refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::ConnectFailure => "connect-failure",
            Self::AppUnreachable => "app-unreachable",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Draining => "draining",
            Self::Status5xx => "5xx",
            Self::GrpcStatus => "grpc-status",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_at_its_own_number() {
        for (place, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.word());
        }
    }
}
