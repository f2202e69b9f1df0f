//! Opening a connection: TCP, then mutual TLS with exactly the expected workload, or whatever else its
//! configuration says of TLS. For every carrier.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use selvedge_api::{preamble, wire};
use selvedge_certs::tls::{self, Current, Live};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, TlsStream};

use super::stream::Stream;
use crate::{
    bind::{ClientTls, Target},
    error::{Failure, Reason},
    opaque::ReadAhead,
    serve,
};

/// The longest that a mesh connection is used, however long its certificates live.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

/// A connection, and when it must no longer be used for new requests.
#[derive(Debug)]
pub struct Opened {
    /// The bytes.
    pub stream: Stream,
    /// Until when it may be used. `None`: without end, it is plaintext.
    pub lifetime: Option<Lifetime>,
}

/// Until when a mesh connection takes new requests.
#[derive(Debug, Clone)]
pub struct Lifetime {
    retire_at: Instant,
    /// When the peer's certificate ends.
    ends_at: Instant,
    current: Arc<Current>,
}

impl Lifetime {
    /// Whether it still takes new requests: its certificates are valid, and no root that they may hang
    /// on has been withdrawn.
    pub fn lasts(&self, now: Instant) -> bool {
        now < self.retire_at && !self.current.is_retired()
    }

    /// Until when a connection lasts that is not HTTP's, and cannot move to a younger one.
    pub fn of_tunnel(self) -> serve::Lifetime {
        serve::Lifetime { retire_at: self.retire_at, ends_at: self.ends_at, current: self.current }
    }
}

/// Opens a connection to `target` within `limit`, ready for the carrier that `preamble` names.
///
/// # Errors
/// [`Reason::ConnectFailure`], [`Reason::Tls`] or [`Reason::Identity`]; nothing was sent to an app.
pub async fn open(
    target: &Target,
    preamble: &wire::Preamble,
    live: &Live,
    limit: Duration,
) -> Result<Opened, Failure> {
    let opened = async {
        if matches!(target.tls, ClientTls::Impossible) {
            let what = format!(
                "{} has no sidecar, and its DestinationRule asks for ISTIO_MUTUAL; it is not called in plaintext",
                target.dial
            );
            return Err(Failure::new(Reason::Tls, what));
        }
        let tcp = tcp(target.dial).await?;
        match (&target.tls, &target.identity) {
            (ClientTls::Outside(outside), _) => {
                let stream = outside.connect(tcp, preamble.carrier()).await?;
                Ok(Opened { stream: Stream::Tls(Box::new(stream)), lifetime: None })
            }
            (_, None) => Ok(Opened { stream: Stream::Plain(tcp), lifetime: None }),
            (_, Some(_)) => mesh(tcp, target, preamble, live).await,
        }
    };
    tokio::time::timeout(limit, opened).await.unwrap_or_else(|_| {
        let what = format!(
            "no connection to {} within {limit:?}; a network policy that drops packets looks like this",
            target.dial
        );
        Err(Failure::new(Reason::ConnectFailure, what))
    })
}

async fn tcp(dial: SocketAddr) -> Result<TcpStream, Failure> {
    let failed = |error| Failure::new(Reason::ConnectFailure, format!("no connection to {dial}: {error}"));
    let tcp = TcpStream::connect(dial).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    Ok(tcp)
}

async fn mesh(
    tcp: TcpStream,
    target: &Target,
    preamble: &wire::Preamble,
    live: &Live,
) -> Result<Opened, Failure> {
    let dial = target.dial;
    let failed = |what: String| Failure::new(Reason::Tls, what);
    let own = |what: String| Failure::new(Reason::Certificate, what);
    let current = live.current().ok_or_else(|| {
        own("this proxy has no certificate yet; see /ready on its admin port for what it waits for".into())
    })?;
    let now = SystemTime::now();
    current.usable(now).map_err(|error| own(format!("our own certificate cannot be used: {error}")))?;

    let connector = TlsConnector::from(Arc::clone(&current.client));
    let stream = connector
        .connect(tls::session_name(dial), ReadAhead::new(tcp))
        .await
        .map_err(|error| failed(format!("no mutual TLS with {dial}: {}", tls::explain(&error))))?;
    let peer = tls::peer_of(stream.get_ref().1, &current, now)
        .map_err(|error| failed(format!("{dial} has no acceptable certificate: {error}")))?;
    if target.identity.as_ref() != Some(&peer.identity) {
        let expected = target.identity.as_ref().map_or("nobody", |identity| identity.as_str());
        let what = format!(
            "{dial} proved to be {}, expected {expected}; the address may have been given to another workload",
            peer.identity
        );
        return Err(Failure::new(Reason::Identity, what));
    }

    let mut stream = TlsStream::Client(stream);
    stream
        .write_all(&preamble::encode(preamble))
        .await
        .map_err(|error| failed(format!("{dial} closed the connection before the first request: {error}")))?;
    let retire_at = retire_at(now, peer.not_after.min(current.not_after));
    let ends_at = Instant::now() + peer.not_after.duration_since(now).unwrap_or_default();
    let lifetime = Some(Lifetime { retire_at, ends_at, current });
    Ok(Opened { stream: Stream::Tls(Box::new(stream)), lifetime })
}

/// When a connection takes no more requests: a little before the first certificate on it ends, so that
/// it is this side that stops and nothing is cut off; at the latest after [`MAX_AGE`], jittered so that
/// the connections of a restart do not all end together.
fn retire_at(now: SystemTime, not_after: SystemTime) -> Instant {
    let life = not_after.duration_since(now).unwrap_or_default();
    let jitter = fastrand::f64() * 0.1;
    Instant::now() + life.min(MAX_AGE).mul_f64(0.9 - jitter)
}
