//! Opens a connection: TCP, then mutual TLS with exactly the expected workload, or TLS as its configuration says. For
//! every carrier.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use selvedge_api::{preamble, wire};
use selvedge_certs::{
    tls::{self, Live},
    verify::Role,
};
use selvedge_model::{Holder, ProxyProtocol, TcpKeepalive};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    eyeballs, named,
    settings::PoolSettings,
    terms::{Named, Opening},
};
use crate::{
    bind::{ClientTls, Other, Permit, Target, withdrawn},
    error::{Failure, Reason, Unconnected},
    io::{ReadAhead, Stream},
    settings::Way,
    trust::{Part, Standing, lost, revoked},
};

/// The longest that a connection is used, however long its certificates live, unless its backend's policy
/// says otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

/// A connection, and when it must no longer be used for new requests.
#[derive(Debug)]
pub struct Opened {
    /// The bytes.
    pub stream: Stream,
    /// Until when it may be used.
    pub lifetime: Lifetime,
}

/// Until when a connection takes new requests.
#[derive(Debug, Clone)]
pub struct Lifetime {
    retire_at: Instant,
    /// Its peer. `None`: it is not the mesh's TLS.
    standing: Option<Arc<Standing>>,
    /// Whether network policies let us call it.
    permit: Option<Arc<Permit>>,
}

impl Lifetime {
    /// Whether it still takes new requests: its certificates are valid, and no root that they may depend on has been
    /// withdrawn.
    pub fn lasts(&self, now: Instant) -> bool {
        now < self.retire_at && !self.standing.as_ref().is_some_and(|standing| standing.is_retired())
    }

    /// Its peer, which must stay allowed as long as something is in progress. `None`: it is not the mesh's TLS.
    pub fn standing(&self) -> Option<&Arc<Standing>> {
        self.standing.as_ref()
    }

    /// Whether anything may still be sent to the peer.
    pub fn is_allowed(&self) -> bool {
        self.refusal().is_none()
    }

    /// Why nothing may go to the peer or come from it any more; `None`: it may.
    pub fn refusal(&self) -> Option<Failure> {
        let by_standing = self.standing.as_ref().and_then(|standing| standing.refusal());
        by_standing.or_else(|| self.permit.as_ref()?.refusal())
    }

    /// Whether network policies let us call the peer.
    pub fn permit(&self) -> Option<&Arc<Permit>> {
        self.permit.as_ref()
    }

    /// Whether it can only end by itself.
    pub fn is_unconditional(&self) -> bool {
        self.standing.is_none() && self.permit.is_none()
    }

    /// Completes when nothing may go to the peer any more, and says why.
    pub async fn lost(&self) -> Failure {
        tokio::select! {
            failure = lost(self.standing.as_deref()) => failure,
            failure = withdrawn(self.permit.as_deref()) => failure,
        }
    }

    /// The lifetime of a connection that is not the mesh's: only its age ends it, or a policy.
    fn of_age(permit: Option<Arc<Permit>>, max_age: Duration) -> Self {
        Self { retire_at: retire_at(max_age), standing: None, permit }
    }
}

/// Opens a connection to `target` as `opening` says, ready for the carrier that `preamble` names.
///
/// # Errors
/// [`Reason::ConnectFailure`], [`Reason::Tls`] or [`Reason::Identity`]; nothing was sent to an app.
pub async fn open(
    target: &Target,
    preamble: &wire::Preamble,
    settings: &PoolSettings,
    opening: Opening,
) -> Result<Opened, Failure> {
    let Opening { connect_timeout: limit, max_age, keepalive, named } = opening;
    let opened = async {
        if matches!(target.tls, ClientTls::Impossible) {
            let what = format!(
                "{} has no sidecar, and its DestinationRule asks for ISTIO_MUTUAL; it is not called in plaintext",
                target.dial
            );
            return Err(Failure::new(Reason::Tls, what));
        }
        if let Some(identity) = &target.identity {
            let holder = Holder { identity, workload: target.workload.as_ref(), serial: None };
            if let Some(failure) = revoked(&settings.live, holder, Part::Server) {
                return Err(failure);
            }
        }
        let mut reached = match target.others.list() {
            None => {
                let (dial, permit) = (target.dial, target.permit.clone());
                Reached { tcp: tcp(target, dial, settings, keepalive).await?, dial, permit }
            }
            // Boxed, so that targets with one address carry nothing for it.
            Some(others) => Box::pin(any(target, &others, settings, keepalive, limit)).await?,
        };
        if let Some(version) = target.proxy_protocol {
            tell(&mut reached.tcp, reached.dial, version, named).await?;
        }
        match (&target.tls, &target.identity) {
            (ClientTls::Outside(outside), _) => {
                let stream = outside.connect(reached.tcp, preamble.carrier()).await?;
                Ok(Opened {
                    stream: Stream::Tls(Box::new(stream)),
                    lifetime: Lifetime::of_age(reached.permit, max_age),
                })
            }
            (_, None) => {
                let lifetime = Lifetime::of_age(reached.permit, max_age);
                Ok(Opened { stream: Stream::Plain(reached.tcp), lifetime })
            }
            (_, Some(_)) => mesh(reached, target, preamble, &settings.live, max_age).await,
        }
    };
    tokio::time::timeout(limit, opened).await.unwrap_or_else(|_| {
        let what = format!(
            "no connection to {} within {limit:?}; a network policy that drops packets looks like this",
            target.dial
        );
        Err(Failure::new(Reason::ConnectFailure, what).unconnected(Unconnected::TimedOut))
    })
}

/// A TCP connection, where it leads, and whether network policies let us call that.
struct Reached {
    tcp: TcpStream,
    dial: SocketAddr,
    permit: Option<Arc<Permit>>,
}

/// A connection to `target` or to one of the `others` that its name leads to, whichever is made first.
async fn any(
    target: &Target,
    others: &[Other],
    settings: &PoolSettings,
    keepalive: Option<TcpKeepalive>,
    limit: Duration,
) -> Result<Reached, Failure> {
    let others = others.iter().map(|Other { dial, permit }| (*dial, permit.clone()));
    let itself = (target.dial, target.permit.clone());
    let mut places: Vec<_> = std::iter::once(itself).chain(others).enumerate().collect();
    // The target itself may be called; that was asked before.
    places.retain(|(place, (_, permit))| {
        *place == 0 || permit.as_ref().is_none_or(|permit| permit.refusal().is_none())
    });
    let first = target.others.first();
    let begin = places.iter().position(|(place, _)| *place == first).unwrap_or_default();
    places.rotate_left(begin);
    let attempts = places.iter().map(|(_, (dial, _))| tcp(target, *dial, settings, keepalive));
    match eyeballs::first(attempts, eyeballs::stagger(places.len(), limit)).await {
        Ok((made, tcp)) => {
            let (place, (dial, permit)) = places.swap_remove(made);
            target.others.connected(place);
            Ok(Reached { tcp, dial, permit })
        }
        Err(mut failures) if failures.len() == 1 => Err(failures.remove(0)),
        Err(failures) => {
            let words: Vec<_> = failures.iter().map(|failure| &*failure.what).collect();
            Err(Failure::new(Reason::ConnectFailure, words.join("; ")))
        }
    }
}

async fn tcp(
    target: &Target,
    dial: SocketAddr,
    settings: &PoolSettings,
    keepalive: Option<TcpKeepalive>,
) -> Result<TcpStream, Failure> {
    settings.own.refuse_own(dial, way(target))?;
    let failed = |error: io::Error| {
        let how = match error.kind() {
            io::ErrorKind::ConnectionRefused => Unconnected::Refused,
            io::ErrorKind::TimedOut => Unconnected::TimedOut,
            _ => Unconnected::Otherwise,
        };
        Failure::new(Reason::ConnectFailure, format!("no connection to {dial}: {error}")).unconnected(how)
    };
    let tcp = TcpStream::connect(dial).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    // An app beside us cannot be cut off from us.
    if !target.is_app() {
        settings.liveness.watch(&tcp, keepalive).map_err(failed)?;
    }
    Ok(tcp)
}

/// Tells the server at `dial` whose connection it is.
async fn tell(
    tcp: &mut TcpStream,
    dial: SocketAddr,
    version: ProxyProtocol,
    named: Option<Named>,
) -> Result<(), Failure> {
    tcp.write_all(&named::header(version, named)).await.map_err(|error| {
        Failure::new(Reason::ConnectFailure, format!("{dial} closed the connection at once: {error}"))
    })
}

fn way(target: &Target) -> Way {
    if target.is_app() {
        Way::App
    } else if target.identity.is_some() {
        Way::Mesh
    } else if target.port != target.dial.port() {
        Way::Sidecar
    } else {
        Way::Out
    }
}

async fn mesh(
    Reached { tcp, dial, permit }: Reached,
    target: &Target,
    preamble: &wire::Preamble,
    live: &Live,
    max_age: Duration,
) -> Result<Opened, Failure> {
    let failed = |what: String| Failure::new(Reason::Tls, what);
    let own = |what: String| Failure::new(Reason::Certificate, what);
    let current = live.current().ok_or_else(|| {
        own("this proxy has no certificate yet; /ready on its admin port says what is missing".into())
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
            "{dial} proved the identity {}, expected {expected}; the address may have been given to another workload",
            peer.identity
        );
        return Err(Failure::new(Reason::Identity, what));
    }

    if let Some(failure) = revoked(live, peer.holder(), Part::Server) {
        return Err(failure);
    }

    let not_after = peer.not_after.min(current.not_after);
    let retire_at = retire_at(not_after.duration_since(now).unwrap_or_default().min(max_age));
    let standing = Standing::new(stream.get_ref().1, Role::Server, peer, current, live, now);
    let mut stream = TlsStream::Client(stream);
    stream
        .write_all(&preamble::encode(preamble))
        .await
        .map_err(|error| failed(format!("{dial} closed the connection before the first request: {error}")))?;
    let lifetime = Lifetime { retire_at, standing: Some(standing), permit };
    Ok(Opened { stream: Stream::Tls(Box::new(stream)), lifetime })
}

/// When a connection takes no more requests: a little before the end of `life`, the time to its greatest age or to the
/// first end of a certificate on it. So this side stops first, and nothing is cut off. Jittered, so that the
/// connections of a restart do not all end together.
pub(crate) fn retire_at(life: Duration) -> Instant {
    let jitter = fastrand::f64() * 0.1;
    // A life that no clock can hold is one without end.
    let now = Instant::now();
    now.checked_add(life.mul_f64(0.9 - jitter)).unwrap_or(now + MAX_AGE)
}
