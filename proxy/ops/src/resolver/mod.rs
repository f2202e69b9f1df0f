//! Names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! Never the C library's `getaddrinfo`: our binaries are static, it cannot be linked into those, and it
//! would block a thread for each name. Both files are read again when they change.

mod conf;
mod error;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
};

use self::conf::ResolvConf;
pub use self::error::ResolveError;

/// The longest time until a name that is watched is looked up again, whatever its TTL.
pub const MAX_TTL: Duration = Duration::from_secs(60);
/// The longest time that an answer is kept for others, and that the two files are believed.
const MAX_KEPT: Duration = Duration::from_secs(5);
/// For one name, all servers, search domains and attempts together.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest time that "there is no such name" is used: a name that is starting has no address yet.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// How long an answer about IPv4 waits for the one about IPv6 (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How often the two files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where names are looked up.
#[derive(Debug, Clone, clap::Args)]
pub struct ResolverArgs {
    /// The file that names the DNS servers, search domains and options. A server may have a port: IP:PORT.
    #[arg(long, env = "SELVEDGE_RESOLV_CONF", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// The file of names that need no DNS server.
    #[arg(long, env = "SELVEDGE_HOSTS_FILE", default_value = "/etc/hosts")]
    pub hosts_file: PathBuf,
}

impl Default for ResolverArgs {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts_file: "/etc/hosts".into() }
    }
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one, in the order of the answer.
    pub addresses: Vec<IpAddr>,
    /// How long they may be used: what is left of the TTL, at most 5 s, or [`MAX_TTL`] for who watches a name; nothing for
    /// a TTL of 0.
    pub valid_for: Duration,
    /// Whether DNS has not said in time which IPv6 addresses there are.
    pub lacks_ipv6: bool,
}

/// Which addresses are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    /// IPv4, and IPv6 only if there is none.
    Ipv4ThenIpv6,
    /// Both, however long it takes.
    Both,
    /// Both, but nobody waits long for IPv6 who has IPv4.
    BothSoon,
}

/// Looks names up. Use it on one runtime, on which its connections live.
#[derive(Debug)]
pub struct Resolver {
    args: ResolverArgs,
    state: Mutex<State>,
}

/// What the two files said when they were last looked at.
struct State {
    looked_at: Instant,
    /// Whether they are to be looked at again before anything is looked up.
    forgotten: bool,
    texts: [String; 2],
    client: Client,
}

#[derive(Clone)]
struct Client {
    hosts: Arc<Hosts>,
    /// `None`: no server is named.
    dns: Option<Dns>,
    servers: Arc<str>,
}

/// Two clients of the same servers, each with answers of its own.
#[derive(Clone)]
struct Dns {
    /// For who asks once in a while, and uses what is found at once.
    once: TokioResolver,
    /// For who watches a name, and comes back when its TTL is over.
    watching: TokioResolver,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("servers", &self.client.servers).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver as `args` say. Files that are not there are empty.
    pub fn new(args: ResolverArgs) -> Self {
        let texts = read(&args);
        let client = Client::new(&texts);
        Self { args, state: Mutex::new(State { looked_at: Instant::now(), forgotten: false, texts, client }) }
    }

    /// The addresses of `name`: IPv4 where it has any, otherwise IPv6. A host without IPv6 is common, an
    /// IPv6 address in DNS is too.
    ///
    /// # Errors
    /// If it has none, or nobody knows in time.
    pub async fn addresses(&self, name: &str) -> Result<Resolved, ResolveError> {
        self.find(name, Families::Ipv4ThenIpv6).await
    }

    /// All addresses of `name`, for a caller who tries one after the other: IPv4 first.
    ///
    /// # Errors
    /// If it has none, or nobody knows in time.
    pub async fn all_addresses(&self, name: &str) -> Result<Resolved, ResolveError> {
        self.find(name, Families::Both).await
    }

    /// The same, for a caller who watches a name, and can do with IPv4 alone for now: DNS servers that never answer about
    /// IPv6 are common. [`Resolved::lacks_ipv6`] says whether that is so.
    ///
    /// # Errors
    /// If it has none, or nobody knows in time.
    pub async fn all_addresses_soon(&self, name: &str) -> Result<Resolved, ResolveError> {
        self.find(name, Families::BothSoon).await
    }

    /// Has look-ups that begin from now on trust nothing that was found before: no answer that is still valid,
    /// and not what the two files said.
    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forgotten = true;
        if let Some(dns) = &state.client.dns {
            dns.once.clear_cache();
            dns.watching.clear_cache();
        }
    }

    async fn find(&self, name: &str, families: Families) -> Result<Resolved, ResolveError> {
        if let Ok(ip) = name.parse() {
            return Ok(Resolved::of(vec![ip]));
        }
        let name = Name::from_str_relaxed(name).map_err(|_| ResolveError::NotAName)?;
        let client = self.client();
        match tokio::time::timeout(LIMIT, client.find(name, families)).await {
            Ok(Ok(resolved)) => Ok(resolved),
            Ok(Err(error)) => Err(self.explain(&client, error)),
            Err(_) => Err(no_answer(&client)),
        }
    }

    /// The client for what the files say now.
    fn client(&self) -> Client {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= LOOK_AGAIN || std::mem::take(&mut state.forgotten) {
            state.looked_at = Instant::now();
            let texts = read(&self.args);
            if texts != state.texts {
                tracing::info!(
                    resolv_conf = %self.args.resolv_conf.display(), hosts_file = %self.args.hosts_file.display(),
                    "the resolver's files have changed"
                );
                state.client = Client::new(&texts);
                state.texts = texts;
            }
        }
        state.client.clone()
    }

    fn explain(&self, client: &Client, error: NetError) -> ResolveError {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => ResolveError::NoSuchName,
                ResponseCode::NoError => ResolveError::NoAddress,
                code => ResolveError::Refused { code: format!("{code:?}") },
            },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                ResolveError::Refused { code: format!("{code:?}") }
            }
            NetError::NoConnections if client.dns.is_none() => ResolveError::NoServer {
                hosts_file: self.args.hosts_file.clone(),
                resolv_conf: self.args.resolv_conf.clone(),
            },
            NetError::Timeout => no_answer(client),
            other => ResolveError::Failed { reason: format!("{other} (DNS server {})", client.servers) },
        }
    }
}

fn no_answer(client: &Client) -> ResolveError {
    ResolveError::NoAnswer { servers: client.servers.to_string(), limit: LIMIT }
}

impl Client {
    fn new([resolv_conf, hosts]: &[String; 2]) -> Self {
        let conf = ResolvConf::parse(resolv_conf);
        let mut known = Hosts::default();
        if let Err(error) = known.read_hosts_conf(io::Cursor::new(hosts)) {
            tracing::warn!(%error, "cannot read all of the hosts file");
        }
        let servers = conf.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Self { hosts: Arc::new(known), dns: dns(&conf), servers: servers.into() }
    }

    async fn find(&self, name: Name, families: Families) -> Result<Resolved, NetError> {
        // The library would look only for the name with a search domain behind it.
        if let Some(resolved) = self.in_hosts_file(&name, families) {
            return Ok(resolved);
        }
        let Some(dns) = &self.dns else {
            return if name.is_localhost() { Ok(localhost()) } else { Err(NetError::NoConnections) };
        };
        let dns = if families == Families::BothSoon { &dns.watching } else { &dns.once };
        let v4 = dns.lookup(name.clone(), RecordType::A);
        let v6 = dns.lookup(name, RecordType::AAAA);
        match families {
            Families::Ipv4ThenIpv6 => match addresses([v4.await]) {
                Err(error) if says_none(&error) => addresses([v6.await]),
                found => found,
            },
            Families::Both => {
                let (v4, v6) = tokio::join!(v4, v6);
                addresses([v4, v6])
            }
            Families::BothSoon => both_soon(v4, v6).await,
        }
    }

    fn in_hosts_file(&self, name: &Name, families: Families) -> Option<Resolved> {
        let of = |kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            found.map(|found| ips(&found)).unwrap_or_default()
        };
        let mut all = of(RecordType::A);
        if families != Families::Ipv4ThenIpv6 || all.is_empty() {
            all.extend(of(RecordType::AAAA));
        }
        (!all.is_empty()).then(|| Resolved::of(all))
    }
}

impl Resolved {
    /// Addresses that need no server.
    fn of(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, valid_for: MAX_KEPT, lacks_ipv6: false }
    }
}

fn says_none(error: &NetError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}

/// See [`Families::BothSoon`].
async fn both_soon(
    v4: impl Future<Output = Result<Lookup, NetError>>,
    v6: impl Future<Output = Result<Lookup, NetError>>,
) -> Result<Resolved, NetError> {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    let mut early = None;
    let v4 = tokio::select! {
        v4 = &mut v4 => v4,
        v6 = &mut v6 => {
            early = Some(v6);
            v4.await
        }
    };
    let v4 = match addresses([v4]) {
        // Who does not know of IPv4 now does not know where the name leads.
        Err(error) if !says_none(&error) => return Err(error),
        known => known,
    };
    let v6 = match (early, &v4) {
        (Some(v6), _) => Some(v6),
        (None, Ok(_)) => tokio::time::timeout(RESOLUTION_DELAY, v6).await.ok(),
        (None, Err(_)) => Some(v6.await),
    };
    let lacks_ipv6 = v6.as_ref().is_none_or(|v6| v6.as_ref().is_err_and(|error| !says_none(error)));
    match (v4, v6.map(|v6| addresses([v6]))) {
        (Ok(mut v4), Some(Ok(v6))) => {
            v4.addresses.extend(v6.addresses);
            Ok(Resolved { valid_for: v4.valid_for.min(v6.valid_for), ..v4 })
        }
        (Ok(v4), _) => Ok(Resolved { lacks_ipv6, ..v4 }),
        (Err(_), Some(Ok(v6))) => Ok(v6),
        (Err(_), Some(Err(error))) if !says_none(&error) => Err(error),
        (Err(error), None | Some(Err(_))) => Err(error),
    }
}

/// The addresses in all of `answers`; the first error if there is none.
fn addresses<const N: usize>(answers: [Result<Lookup, NetError>; N]) -> Result<Resolved, NetError> {
    let mut resolved = Resolved { valid_for: MAX_TTL, ..Resolved::of(Vec::new()) };
    let mut failed = None;
    for answer in answers {
        match answer {
            Ok(lookup) => {
                resolved.addresses.extend(ips(&lookup));
                let left = lookup.valid_until().saturating_duration_since(Instant::now());
                resolved.valid_for = resolved.valid_for.min(left);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        _ if !resolved.addresses.is_empty() => Ok(resolved),
        Some(error) => Err(error),
        None => Err(NetError::Message("the answer has no address")),
    }
}

fn ips(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// RFC 6761, section 6.3: needs no server.
fn localhost() -> Resolved {
    let addresses = vec![std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
    Resolved::of(addresses)
}

fn dns(conf: &ResolvConf) -> Option<Dns> {
    if conf.servers.is_empty() {
        return None;
    }
    Some(Dns { once: dns_client(conf, MAX_KEPT)?, watching: dns_client(conf, MAX_TTL)? })
}

/// A client that keeps answers for their TTL, and at most for `longest`.
fn dns_client(conf: &ResolvConf, longest: Duration) -> Option<TokioResolver> {
    let servers = conf.servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    let search = conf.search.iter().filter_map(|domain| Name::from_str_relaxed(domain).ok()).collect();
    let config = ResolverConfig::from_parts(None, search, servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ndots = conf.ndots;
    options.timeout = conf.timeout;
    options.attempts = conf.attempts;
    options.positive_max_ttl = Some(longest);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    // The first server first, and the next only if it does not answer, as the C library does: servers for
    // the inside and for the outside of a network may know different things.
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = 1;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().inspect_err(|error| tracing::error!(%error, "cannot make a DNS client")).ok()
}

/// Both files' texts; files that cannot be read are empty.
fn read(args: &ResolverArgs) -> [String; 2] {
    let text = |path: &Path| match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read this file; the names in it are unknown");
            }
            String::new()
        }
    };
    [text(&args.resolv_conf), text(&args.hosts_file)]
}
