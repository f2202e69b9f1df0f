//! Connections of opaque TCP that an HTTP proxy is asked to carry on: by CONNECT (RFC 9110, section 9.3.6), after which they
//! are bytes as they are, or by POST, where they are the bodies of the request and of its answer, as with Envoy's `use_post`.

use std::io;

use selvedge_model::{HttpTunnel, TunnelMethod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    settings::PoolSettings,
    terms::Opening,
    tunnels::{self, Tunnel},
};
use crate::{
    bind::Target,
    error::{Failure, Reason},
    io::AnswerBody,
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
        Ok(Ok(Answer::Granted { head, body })) => {
            drop(tunnel.said.split_to(head));
            return Ok(match through.method {
                TunnelMethod::Connect => tunnel,
                TunnelMethod::Post => {
                    let said = std::mem::take(&mut tunnel.said);
                    Tunnel { stream: tunnel.stream.in_bodies(body, said), ..tunnel }
                }
            });
        }
        Ok(Ok(Answer::Refused(status))) => format!("it answered {status}"),
        Ok(Ok(Answer::Nonsense)) => "it did not answer as HTTP requires".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {:?}", opening.connect_timeout),
    }))
}

/// Asks for the tunnel, and reads the answer; what follows it is said already.
async fn ask(tunnel: &mut Tunnel, HttpTunnel { target, method }: &HttpTunnel) -> io::Result<Answer> {
    let request = match method {
        TunnelMethod::Connect => format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
        TunnelMethod::Post => {
            format!("POST / HTTP/1.1\r\nHost: {target}\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
    };
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

/// What a proxy answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The tunnel begins after so many bytes; asked for by POST, it is a body of this kind.
    Granted { head: usize, body: AnswerBody },
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
            let fields = &answer[..end];
            at += end + 4;
            match status {
                Some(100..=199) => {}
                Some(200..=299) => {
                    return Some(
                        body(fields).map_or(Self::Nonsense, |body| Self::Granted { head: at, body }),
                    );
                }
                Some(status) => return Some(Self::Refused(status)),
                None => return Some(Self::Nonsense),
            }
        }
    }
}

/// Where the body of the answer with this head ends; `None`: its head contradicts itself.
fn body(head: &[u8]) -> Option<AnswerBody> {
    let mut found = None;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next()?, parts.next().unwrap_or_default().trim_ascii());
        let said = if name.eq_ignore_ascii_case(b"transfer-encoding") {
            value.eq_ignore_ascii_case(b"chunked").then_some(AnswerBody::Chunked)?
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            AnswerBody::Length(is_number.then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()?)
        } else {
            continue;
        };
        if found.replace(said).is_some_and(|before| before != said) {
            return None;
        }
    }
    Some(found.unwrap_or(AnswerBody::UntilClose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_begins_after_the_head_of_its_answer() {
        let granted = |head, body| Some(Answer::Granted { head, body });
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_ANSWER));
        for (said, answer) in [
            ("", None),
            ("HTT", None),
            ("HTTP/1.1 200 OK\r\nvia: x\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\nhello", granted(19, AnswerBody::UntilClose)),
            ("HTTP/1.0 200 Connection established\r\n\r\n", granted(39, AnswerBody::UntilClose)),
            ("HTTP/1.1 103 Hints\r\n\r\n", None),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", granted(41, AnswerBody::UntilClose)),
            ("HTTP/1.1 200 OK\r\ntransfer-Encoding: Chunked\r\n\r\n", granted(47, AnswerBody::Chunked)),
            ("HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\n", granted(37, AnswerBody::Length(5))),
            ("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", Some(Answer::Nonsense)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", Some(Answer::Nonsense)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Some(Answer::Nonsense)),
            ("HTTP/1.1 407 No\r\n\r\n", Some(Answer::Refused(407))),
            ("HTTP/1.1 2x0 No\r\n\r\n", Some(Answer::Nonsense)),
            ("SSH-2.0", Some(Answer::Nonsense)),
            (&long, Some(Answer::Nonsense)),
        ] {
            assert_eq!(Answer::begins(said.as_bytes()), answer, "{said:.60}");
        }
    }
}
