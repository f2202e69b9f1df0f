//! Why a name has no address.

use std::{path::PathBuf, time::Duration};

/// Why a name has no address. The words follow "NAME ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not something that DNS could know.
    #[error("is not a name that DNS allows")]
    NotAName,
    /// The server says that it does not exist (NXDOMAIN).
    #[error("does not exist, says DNS (NXDOMAIN)")]
    NoSuchName,
    /// It exists, without an address.
    #[error("has no address in DNS")]
    NoAddress,
    /// Neither in the hosts file, nor is there anyone to ask.
    #[error("is not in {}, and {} names no DNS server", hosts_file.display(), resolv_conf.display())]
    NoServer {
        /// Where names without a server are.
        hosts_file: PathBuf,
        /// Where servers are.
        resolv_conf: PathBuf,
    },
    /// Nobody answers: a wrong server, or a firewall.
    #[error("gets no answer from DNS ({servers}) within {limit:?}")]
    NoAnswer {
        /// The servers asked.
        servers: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The server answers, with an error.
    #[error("cannot be resolved: the DNS server answers {code}")]
    Refused {
        /// What it says, such as `ServFail`.
        code: String,
    },
    /// The server cannot be talked to.
    #[error("cannot be resolved: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
}

impl ResolveError {
    /// Whether it is known now that the name has no address. Otherwise it may have any: who knows was not reached, or
    /// has not said.
    pub fn says_there_is_none(&self) -> bool {
        match self {
            Self::NotAName | Self::NoSuchName | Self::NoAddress | Self::NoServer { .. } => true,
            Self::NoAnswer { .. } | Self::Refused { .. } | Self::Failed { .. } => false,
        }
    }
}
