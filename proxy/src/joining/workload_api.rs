//! The SPIFFE Workload API: what the agent of this host, such as SPIRE's, says of who we are.
//!
//! One stream (SPIFFE Workload API, section 5.2.1): the agent sends all our SVIDs at once, and again whenever one of them
//! or a trust bundle changes. It knows us by our process, so there is nothing to show.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use selvedge_certs::{renewal, tls::Live};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, transport::Endpoint};
use tokio::sync::watch;

use super::Complaint;
use crate::telemetry::Metrics;

/// Where the standard has clients look for the address of the agent (SPIFFE Workload Endpoint, section 4).
const STANDARD_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// For connecting and the first answer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The agent's socket: `unix:///PATH`, or `env` for what `SPIFFE_ENDPOINT_SOCKET` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    path: PathBuf,
}

/// A text is no address of a Workload API that we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// TCP would carry private keys in plaintext.
    #[error(
        "{text:?} is not unix:///PATH, such as unix:///run/spire/agent.sock; TCP is not used, since keys would be readable on it"
    )]
    NotUnix {
        /// What was given.
        text: String,
    },
    /// `env` was asked for.
    #[error(
        "it is to be taken from the environment variable {STANDARD_VARIABLE}, which is not set; set it, or give unix:///PATH"
    )]
    NotSet,
}

impl FromStr for Socket {
    type Err = SocketError;

    fn from_str(text: &str) -> Result<Self, SocketError> {
        if text == "env" {
            let text = std::env::var(STANDARD_VARIABLE).map_err(|_| SocketError::NotSet)?;
            return Self::at(&text);
        }
        Self::at(text)
    }
}

impl Socket {
    fn at(text: &str) -> Result<Self, SocketError> {
        let wrong = || SocketError::NotUnix { text: text.to_owned() };
        let rest = text.strip_prefix("unix:").ok_or_else(wrong)?;
        // No authority (RFC 3986), which would be a host.
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let is_path = path.len() > 1 && path.starts_with('/') && !path.contains(['?', '#']);
        if is_path { Ok(Self { path: PathBuf::from(path) }) } else { Err(wrong()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path.clone())
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.path.display())
    }
}

/// What the agent last said.
#[derive(Debug, Clone)]
pub enum Said {
    /// Who we may be, the default first, and whom to trust.
    Identities(Arc<X509Context>),
    /// That we are nobody, in its own words.
    Nobody(Arc<str>),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error("the agent at {socket} has no identity for this process ({reason}); register it there")]
    Nobody { socket: Socket, reason: String },
    #[error(
        "no answer from the SPIFFE Workload API at {socket}: {reason}; check that the agent runs, and that this proxy may open its socket"
    )]
    Unreachable { socket: Socket, reason: String },
    #[error("the agent at {socket} has ended the stream")]
    Ended { socket: Socket },
}

/// The conversation with the agent.
#[derive(Debug)]
pub struct Agent {
    /// Where it is.
    pub socket: Socket,
    /// What it says.
    pub said: watch::Sender<Option<Said>>,
    /// Until when what it has said holds.
    pub live: Live,
    /// Whether it answers is shown here.
    pub metrics: Arc<Metrics>,
}

impl Agent {
    /// Listens to the agent, and comes back to it when it was away, for as long as this is polled.
    pub async fn listen(self) {
        let mut complaint = Complaint::new(
            "no news from the SPIFFE Workload API; the last SVID stays in use while it is valid",
        );
        let mut failures = 0;
        loop {
            let Err(error) = self.converse(&mut failures, &mut complaint).await;
            self.metrics.control.workload_api_connected.set(0);
            self.metrics.control.workload_api_failures.inc();
            if let AgentError::Nobody { reason, .. } = &error {
                self.said.send_replace(Some(Said::Nobody(reason.as_str().into())));
            }
            complaint.raise(&error);
            let pause = renewal::retry_delay(failures, self.remaining(), fastrand::f64());
            failures = failures.saturating_add(1);
            tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        }
    }

    async fn converse(
        &self,
        failures: &mut u32,
        complaint: &mut Complaint,
    ) -> Result<std::convert::Infallible, AgentError> {
        let opening = async {
            let client = WorkloadApiClient::connect(self.socket.endpoint()).await?;
            let mut stream = client.stream_x509_contexts().await?;
            let first = stream.next().await;
            Ok::<_, WorkloadApiError>((stream, first))
        };
        let opened = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, opening).await;
        let late = |_| self.unreachable(format!("nothing came within {FIRST_ANSWER_TIMEOUT:?}"));
        let (mut stream, mut next) = opened.map_err(late)?.map_err(|error| self.failed(&error))?;
        loop {
            let context = next.ok_or_else(|| AgentError::Ended { socket: self.socket.clone() })?;
            let context = context.map_err(|error| self.failed(&error))?;
            *failures = 0;
            complaint.settle();
            self.metrics.control.workload_api_connected.set(1);
            self.said.send_replace(Some(Said::Identities(Arc::new(context))));
            next = stream.next().await;
        }
    }

    fn remaining(&self) -> Duration {
        let not_after = self.live.current().map(|current| current.not_after);
        not_after.and_then(|not_after| not_after.duration_since(SystemTime::now()).ok()).unwrap_or_default()
    }

    fn failed(&self, error: &WorkloadApiError) -> AgentError {
        match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                AgentError::Nobody { socket: self.socket.clone(), reason: error.to_string() }
            }
            other => self.unreachable(words(other)),
        }
    }

    fn unreachable(&self, reason: String) -> AgentError {
        AgentError::Unreachable { socket: self.socket.clone(), reason }
    }
}

/// The whole chain of causes, since each layer says only what it did itself.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_an_absolute_path() {
        for text in ["unix:///run/spire/agent.sock", "unix:/run/spire/agent.sock"] {
            let socket = text.parse::<Socket>().unwrap();
            assert_eq!(socket.path(), Path::new("/run/spire/agent.sock"));
            assert_eq!(socket.to_string(), "unix:///run/spire/agent.sock");
        }
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "",
            "/run/agent.sock",
            "unix:",
            "unix:///",
            "unix://host/agent.sock",
            "unix:agent.sock",
            "tcp://127.0.0.1:1",
        ] {
            assert!(text.parse::<Socket>().unwrap_err().to_string().contains("unix:///"), "{text}");
        }
    }
}
