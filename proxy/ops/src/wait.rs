//! Waits until a daemon is ready, by asking its admin port: for health checks, and for programs that must start later.
//!
//! Needs no shell, no curl and no runtime, because an image may hold one binary and nothing else.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::plain_within;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one question may take, so that a lost one is asked again.
const QUESTION: Duration = Duration::from_secs(2);

/// An answer of `/ready` is a line; whatever is longer comes from something else.
const MAX_ANSWER: u64 = 64 << 10;

/// How much of an answer is repeated, in bytes.
const MAX_SAID: usize = 1024;

/// The daemon was not ready in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ready within {}: {seen}", Words(*limit))]
pub struct NotReady {
    /// How long it had.
    pub limit: Duration,
    /// What was there instead, at the last look.
    pub seen: Seen,
}

/// What a question found instead of a ready daemon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Seen {
    /// Nobody was asked yet.
    #[error("there was no time to ask")]
    Nothing,
    /// No connection, or none that answered.
    #[error(
        "{admin} does not answer ({reason}); check that the daemon runs, and that {admin} is its --admin"
    )]
    Silence {
        /// Who was asked.
        admin: SocketAddr,
        /// What the operating system says.
        reason: String,
    },
    /// The daemon says that it is not, and why.
    #[error("{admin} says: {said}")]
    Said {
        /// Who was asked.
        admin: SocketAddr,
        /// Its words.
        said: String,
    },
    /// Another server has the port.
    #[error("{admin} is not an admin port of Selvedge's: it answered {said:?}")]
    Stranger {
        /// Who was asked.
        admin: SocketAddr,
        /// The beginning of its answer.
        said: String,
    },
}

/// A duration as people write it: `2s`, `500ms`.
struct Words(Duration);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Returns once `/ready` on the admin port at `admin` says so. Blocks the thread meanwhile.
///
/// An unspecified address, as a daemon may be told to listen on, is asked on loopback.
///
/// # Errors
/// If that does not happen within `limit`; the error says what was there instead.
pub fn until_ready(admin: SocketAddr, limit: Duration) -> Result<(), NotReady> {
    let admin = on_this_host(admin);
    let deadline = Instant::now() + limit;
    let mut seen = Seen::Nothing;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(NotReady { limit, seen });
        }
        match ask(admin, rest.min(QUESTION)) {
            Ok(()) => return Ok(()),
            Err(instead) => seen = instead,
        }
        #[allow(clippy::disallowed_methods)] // this is what polling with a deadline does in between
        std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// `[::]` serves IPv4 as well, and a host without IPv6 has no `::1`.
fn on_this_host(admin: SocketAddr) -> SocketAddr {
    if admin.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin.port());
    }
    admin
}

fn ask(admin: SocketAddr, limit: Duration) -> Result<(), Seen> {
    let answer = exchange(admin, limit).map_err(|error| {
        // A time limit that has passed reads "resource temporarily unavailable" otherwise.
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("nothing within {}", Words(limit)),
            _ => error.to_string(),
        };
        Seen::Silence { admin, reason }
    })?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match (status, body) {
        (Some("200"), Some("ready")) => Ok(()),
        (Some("503"), Some(said)) if said.starts_with("not ready") => {
            Err(Seen::Said { admin, said: plain_within(said, MAX_SAID) })
        }
        _ => Err(Seen::Stranger {
            admin,
            said: plain_within(answer.lines().next().unwrap_or_default(), MAX_SAID),
        }),
    }
}

fn exchange(admin: SocketAddr, limit: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let question = format!("GET /ready HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests;
