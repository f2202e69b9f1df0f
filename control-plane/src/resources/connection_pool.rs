//! `DestinationRule` `connectionPool`: how much may be in progress with a host, and over what connections.

use std::time::Duration;

use selvedge_model::{ConnectionLimits, ConnectionPool, Http2Upgrade, TcpKeepalive};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
    values::{GoDuration, more_than_nothing},
};

/// What the block says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolBlock {
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    /// The rest of `tcp`.
    pub connections: ConnectionLimits,
    /// `http`.
    pub pool: ConnectionPool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PoolYaml {
    tcp: Option<TcpYaml>,
    http: Option<HttpYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TcpYaml {
    max_connections: Option<u32>,
    connect_timeout: Option<GoDuration>,
    idle_timeout: Option<GoDuration>,
    max_connection_duration: Option<GoDuration>,
    tcp_keepalive: Option<KeepaliveYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeepaliveYaml {
    probes: Option<u32>,
    time: Option<GoDuration>,
    interval: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HttpYaml {
    #[serde(rename = "http1MaxPendingRequests")]
    http1_max_pending_requests: Option<u32>,
    #[serde(rename = "http2MaxRequests")]
    http2_max_requests: Option<u32>,
    max_requests_per_connection: Option<u32>,
    max_concurrent_streams: Option<u32>,
    max_retries: Option<u32>,
    idle_timeout: Option<GoDuration>,
    #[serde(rename = "h2UpgradePolicy")]
    h2_upgrade_policy: UpgradeWord,
    use_client_protocol: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum UpgradeWord {
    #[default]
    Default,
    DoNotUpgrade,
    Upgrade,
}

impl PoolYaml {
    /// `field` is where the block stands.
    ///
    /// What is refused is what Istio's validation refuses.
    pub(super) fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<PoolBlock, FieldError> {
        if self.tcp.is_none() && self.http.is_none() {
            return Err(wrong(field, "says nothing; give tcp or http, or remove it"));
        }
        let (tcp, http) = (self.tcp.unwrap_or_default(), self.http.unwrap_or_default());
        let time = |yaml: Option<GoDuration>, name: &str, remedy: &str| {
            yaml.map(|time| more_than_nothing(time, &format!("{field}.{name}"), remedy)).transpose()
        };
        // As in Istio, 0 means no limit.
        let limit = |yaml: Option<u32>| yaml.filter(|limit| *limit > 0);
        let pool = ConnectionPool {
            max_pending_requests: limit(http.http1_max_pending_requests),
            max_requests: limit(http.http2_max_requests),
            max_requests_per_connection: limit(http.max_requests_per_connection),
            max_concurrent_streams: limit(http.max_concurrent_streams),
            max_retries: limit(http.max_retries),
            idle_timeout: time(http.idle_timeout, "http.idleTimeout", "leave it out for the default")?,
            http2_upgrade: http.upgrade(field)?,
        };
        let connections = ConnectionLimits {
            max_connections: limit(tcp.max_connections),
            idle_timeout: tcp.idle_timeout.map(|GoDuration(time)| time),
            max_duration: time(
                tcp.max_connection_duration,
                "tcp.maxConnectionDuration",
                "leave it out if connections may last",
            )?,
            keepalive: tcp.tcp_keepalive.map(|yaml| yaml.read(&format!("{field}.tcp.tcpKeepalive"), reading)),
        };
        let connect_timeout = time(tcp.connect_timeout, "tcp.connectTimeout", "no connection could be made")?;
        Ok(PoolBlock { connect_timeout, connections, pool })
    }
}

impl HttpYaml {
    /// How HTTP/1.1 requests travel. `useClientProtocol` goes before `DO_NOT_UPGRADE`, as in Istio.
    fn upgrade(&self, field: &str) -> Result<Http2Upgrade, FieldError> {
        match self.h2_upgrade_policy {
            UpgradeWord::Upgrade if self.use_client_protocol => {
                let message = "UPGRADE speaks HTTP/2 always, and useClientProtocol: true as the client does; remove one of them";
                Err(wrong(format!("{field}.http.h2UpgradePolicy"), message))
            }
            _ if self.use_client_protocol => Ok(Http2Upgrade::AsClient),
            UpgradeWord::Default => Ok(Http2Upgrade::Default),
            UpgradeWord::DoNotUpgrade => Ok(Http2Upgrade::Never),
            UpgradeWord::Upgrade => Ok(Http2Upgrade::Always),
        }
    }
}

/// What the kernel can be told (tcp(7)): probes up to 127, times in whole seconds up to 32,767.
const MOST_PROBES: u32 = 127;
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
const LONGEST_SILENCE: Duration = Duration::from_secs(32_767);

impl KeepaliveYaml {
    /// What is not given, or 0, is left to the operating system. Istio takes what the kernel does not: then it is the nearest that
    /// the kernel takes.
    fn read(&self, field: &str, reading: &mut Reading<'_>) -> TcpKeepalive {
        let mut time = |yaml: Option<GoDuration>, name: &str| {
            let GoDuration(asked) = yaml.filter(|GoDuration(time)| !time.is_zero())?;
            let used = asked.clamp(SHORTEST_SILENCE, LONGEST_SILENCE);
            if used != asked {
                let message = format!(
                    "is used as {}s, because the kernel takes 1s to 32767s; write that",
                    used.as_secs()
                );
                reading.warning(format!("{field}.{name}"), message);
            }
            Some(used)
        };
        let (silence, interval) = (time(self.time, "time"), time(self.interval, "interval"));
        let probes = self.probes.filter(|probes| *probes > 0);
        if probes.is_some_and(|probes| probes > MOST_PROBES) {
            let message = format!("is used as {MOST_PROBES}, because the kernel sends no more; write that");
            reading.warning(format!("{field}.probes"), message);
        }
        TcpKeepalive { probes: probes.map(|probes| probes.min(MOST_PROBES)), time: silence, interval }
    }
}
