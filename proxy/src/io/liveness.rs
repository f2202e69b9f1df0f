//! How soon the proxy notices that a peer is gone silently: its host lost power, or a network drops its packets.
//!
//! The kernel probes silent connections (TCP keep-alive). HTTP/2 probes its own while requests wait (PING), which also
//! notices a process that hangs. For bytes that nobody acknowledges the kernel gives up after about 15 minutes.
//! `TCP_USER_TIMEOUT` makes that quicker, but also cuts off a peer that lives and reads nothing for so long (tcp(7)),
//! and slow readers should slow their writers down. So it is off by default.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Probes that go unanswered before a connection counts as broken.
const PROBES: u32 = 5;

/// How long a silent peer may be gone before the proxy notices. Zero means for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// From a connection's last byte until it has been found out that its peer is gone.
    pub keepalive: Duration,
    /// How long bytes may go unacknowledged, or a peer take none.
    pub user_timeout: Duration,
    /// How long an HTTP/2 connection with requests in progress may be silent before it is asked.
    pub ping_interval: Duration,
    /// How long the answer may take.
    pub ping_timeout: Duration,
}

impl Liveness {
    /// Nobody is watched.
    #[cfg(test)]
    pub(crate) const OFF: Self = Self {
        keepalive: Duration::ZERO,
        user_timeout: Duration::ZERO,
        ping_interval: Duration::ZERO,
        ping_timeout: Duration::ZERO,
    };

    /// Has the kernel watch a connection to or from another host. `policy`: how its destination's policy says; as ours
    /// do if it says nothing.
    ///
    /// # Errors
    /// If the connection has ended already.
    pub fn watch(&self, tcp: &TcpStream, policy: Option<selvedge_model::TcpKeepalive>) -> io::Result<()> {
        let socket = SockRef::from(tcp);
        match policy {
            Some(policy) => socket.set_tcp_keepalive(&of_policy(policy))?,
            None if self.keepalive.is_zero() => {}
            None => socket.set_tcp_keepalive(&probes(self.keepalive))?,
        }
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        Ok(())
    }

    /// Watches a connection that was silent and is used again. Its peer may have gone meanwhile, so what is sent now
    /// must find out as soon as silence would have, not after the kernel's 15 minutes. Until [`Self::trust`].
    pub(crate) fn doubt(&self, tcp: &TcpStream) {
        let known = [self.keepalive, self.user_timeout].into_iter().filter(|time| !time.is_zero()).min();
        give_up_after(tcp, known);
    }

    /// Watches a connection as one whose peer is known to live.
    pub(crate) fn trust(&self, tcp: &TcpStream) {
        give_up_after(tcp, (!self.user_timeout.is_zero()).then_some(self.user_timeout));
    }

    /// How often to ask over HTTP/2; `None`: never.
    pub fn pings(&self) -> Option<Duration> {
        (!self.ping_interval.is_zero()).then_some(self.ping_interval)
    }
}

fn give_up_after(tcp: &TcpStream, time: Option<Duration>) {
    if let Err(error) = SockRef::from(tcp).set_tcp_user_timeout(time) {
        // The next read or write finds out.
        tracing::debug!(%error, "a connection has ended");
    }
}

/// What a policy leaves out is as the operating system has it.
fn of_policy(policy: selvedge_model::TcpKeepalive) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = policy.time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = policy.interval {
        keepalive = keepalive.with_interval(interval);
    }
    match policy.probes {
        Some(probes) => keepalive.with_retries(probes),
        None => keepalive,
    }
}

/// Half of the time in silence, the rest in probes; the kernel counts in whole seconds.
fn probes(within: Duration) -> TcpKeepalive {
    let second = Duration::from_secs(1);
    let interval = (within / 2 / PROBES).max(second);
    let silence = within.saturating_sub(interval * PROBES).max(second);
    TcpKeepalive::new().with_time(silence).with_interval(interval).with_retries(PROBES)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let liveness = Liveness {
            keepalive: Duration::from_secs(30),
            user_timeout: Duration::from_secs(7),
            ..Liveness::OFF
        };

        liveness.watch(&tcp, None).unwrap();

        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(3));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(liveness.pings(), None);

        let never = Liveness { user_timeout: Duration::ZERO, ..liveness };
        never.doubt(&tcp);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        never.trust(&tcp);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        liveness.doubt(&tcp);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    }
}
