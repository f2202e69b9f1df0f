//! Connections of opaque TCP that an HTTP proxy is asked to carry on (CONNECT, RFC 9110, section 9.3.6).

use std::io;

use selvedge_model::HttpTunnel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    settings::PoolSettings,
    terms::Opening,
    tunnels::{self, Tunnel},
};
use crate::{
    bind::Target,
    error::{Failure, Reason},
};

/// The longest head of a proxy's answer, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// Opens a connection to `target`, an HTTP proxy without a sidecar, and has that one carry it `through` to where it leads.
///
/// # Errors
/// [`Reason::ConnectFailure`]: no byte of the client's was sent.
pub(super) async fn open(
    target: &Target,
    settings: &PoolSettings,
    opening: Opening,
    through: &HttpTunnel,
) -> Result<Tunnel, Failure> {
    let failed = |why: String| {
        let what = format!("no tunnel to {} through {}: {why}", through.target, target.dial);
        Failure::new(Reason::ConnectFailure, what)
    };
    if target.identity.is_some() {
        return Err(failed(
            "it has a sidecar, and a tunnel is asked for from proxies without one".to_owned(),
        ));
    }
    let mut tunnel = tunnels::open(None, target, settings, opening).await?;
    let answer = tokio::time::timeout(opening.connect_timeout, ask(&mut tunnel, through)).await;
    Err(failed(match answer {
        Ok(Ok(Answer::Granted { head })) => {
            drop(tunnel.said.split_to(head));
            return Ok(tunnel);
        }
        Ok(Ok(Answer::Refused(status))) => format!("it answered {status}"),
        Ok(Ok(Answer::Nonsense)) => "it did not answer as HTTP requires".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {:?}", opening.connect_timeout),
    }))
}

/// Asks for the tunnel, and reads the answer; what follows it is said already.
async fn ask(tunnel: &mut Tunnel, HttpTunnel { target }: &HttpTunnel) -> io::Result<Answer> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    tunnel.stream.write_all(request.as_bytes()).await?;
    tunnel.stream.flush().await?;
    loop {
        if let Some(answer) = Answer::begins(&tunnel.said) {
            return Ok(answer);
        }
        if tunnel.stream.read_buf(&mut tunnel.said).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What a proxy answers to CONNECT.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The tunnel begins after so many bytes.
    Granted { head: usize },
    /// This status, which grants none.
    Refused(u16),
    /// Something other than an answer.
    Nonsense,
}

impl Answer {
    /// The answer that `said` begins with, after interim ones; `None`: there must be more of it.
    fn begins(said: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let answer = said.get(at..).unwrap_or_default();
            let start = answer.get(..7).unwrap_or(answer);
            if !b"HTTP/1.".starts_with(start) || said.len() > MAX_ANSWER {
                return Some(Self::Nonsense);
            }
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
            let status = answer.get(9..12).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
            at += end + 4;
            match status {
                Some(100..=199) => {}
                Some(200..=299) => return Some(Self::Granted { head: at }),
                Some(status) => return Some(Self::Refused(status)),
                None => return Some(Self::Nonsense),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_begins_after_the_head_of_its_answer() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_ANSWER));
        for (said, answer) in [
            ("", None),
            ("HTT", None),
            ("HTTP/1.1 200 OK\r\nvia: x\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\nhello", Some(Answer::Granted { head: 19 })),
            ("HTTP/1.0 200 Connection established\r\n\r\n", Some(Answer::Granted { head: 39 })),
            ("HTTP/1.1 103 Hints\r\n\r\n", None),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Some(Answer::Granted { head: 41 })),
            ("HTTP/1.1 407 No\r\n\r\n", Some(Answer::Refused(407))),
            ("HTTP/1.1 2x0 No\r\n\r\n", Some(Answer::Nonsense)),
            ("SSH-2.0", Some(Answer::Nonsense)),
            (&long, Some(Answer::Nonsense)),
        ] {
            assert_eq!(Answer::begins(said.as_bytes()), answer, "{said:.60}");
        }
    }
}
