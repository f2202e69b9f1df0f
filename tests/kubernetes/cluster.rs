//! A cluster of one node in network namespaces: the real API server, and around it what is real enough to run pods.
//!
//! The kubelet and the controllers are the tests' own, in this process, and work when a test calls
//! [`Cluster::sync`] and while it waits. Services' addresses lead to pods by netfilter on the node, as kube-proxy has
//! it; names are answered by a DNS server there.

use std::{
    fmt, fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use selvedge_tests::{
    dns::DnsServer,
    kubernetes::{Api, ApiServer, Assets, kinds},
    netns::network::{Kind, Network, NetworkPlace},
};
use serde_json::Value;

use crate::{
    controllers::{self, State},
    kubelet::{Image, Kubelet, Pod, items, text},
};

/// How long to wait for what takes several processes to start.
pub(crate) const START: Duration = Duration::from_secs(90);

/// One node, and the API server on it.
pub(crate) struct Cluster {
    pub(crate) kubelet: Kubelet,
    pub(crate) server: ApiServer,
    dns: DnsServer,
    pub(crate) host: NetworkPlace,
    network: Network,
    /// The rules for Services, as they stand.
    rules: String,
    pub(crate) state: Option<State>,
}

impl Cluster {
    /// A cluster with nothing in it but its API server.
    pub(crate) async fn new(assets: Assets, images: Vec<Image>) -> Self {
        let network = Network::new(Kind::Bridge);
        let host = network.on_host();
        host.namespace.inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        // Nobody has these addresses: they are another's by the time that a packet leaves.
        host.namespace.ip("route add 10.96.0.0/16 dev br0");
        let server = ApiServer::start_at(assets, &host).await;
        server.serve(kinds::CORE).await;
        let socket = host.namespace.inside(|| std::net::UdpSocket::bind((host.address, 53)).unwrap());
        socket.set_nonblocking(true).unwrap();
        let dns = DnsServer::on(tokio::net::UdpSocket::from_std(socket).unwrap());
        let kubelet = Kubelet::new(&server, images, &host).await;
        let mut cluster = Self { kubelet, server, dns, host, network, rules: String::new(), state: None };
        cluster.sync().await;
        cluster
    }

    /// The administrator's way to the API server.
    pub(crate) fn api(&self) -> &Api {
        self.server.api()
    }

    /// A pod that runs.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> &Pod {
        self.kubelet.pod(namespace, name)
    }

    /// One round of everything that a cluster does of itself.
    pub(crate) async fn sync(&mut self) {
        self.kubelet.sync(&mut self.network).await;
        let state = controllers::sync(self.server.api()).await;
        self.route(&state);
        self.state = Some(state);
    }

    /// Lets the cluster work until `look` is `Ok`; its `Err` says what is there instead.
    pub(crate) async fn until<T, E: fmt::Display>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&mut Self) -> Result<T, E>,
    ) -> T {
        let deadline = Instant::now() + START;
        loop {
            self.sync().await;
            match look(self).await {
                Ok(found) => return found,
                Err(seen) => {
                    assert!(Instant::now() < deadline, "{what}: not within {START:?}; last seen: {seen}")
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many pods with a label are ready; says their names.
    pub(crate) async fn ready(&mut self, namespace: &str, label: (&str, &str), count: usize) -> Vec<String> {
        let (key, value) = label;
        let what = format!("{count} pods {key}={value} of {namespace} are ready");
        self.until(&what, async |cluster| {
            let state = cluster.state.as_ref().expect("after a round");
            let names: Vec<String> = state
                .ready()
                .map(|pod| &pod["metadata"])
                .filter(|metadata| metadata["namespace"] == namespace && metadata["labels"][key] == value)
                .map(|metadata| text(&metadata["name"]).to_owned())
                .collect();
            if names.len() == count { Ok(names) } else { Err(format!("{names:?}")) }
        })
        .await
    }

    /// Services' addresses and names.
    fn route(&mut self, state: &State) {
        let own = self.server.address();
        let mut rules = format!("ip daddr 10.96.0.1 tcp dport 443 dnat to {own}\n");
        for service in &state.services {
            let metadata = &service["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let slice = state.slices.iter().find(|slice| {
                slice["metadata"]["namespace"] == namespace
                    && slice["metadata"]["labels"]["kubernetes.io/service-name"] == name
            });
            let ready: Vec<IpAddr> = slice.map(ready_addresses).unwrap_or_default();
            let address = text(&service["spec"]["clusterIP"]).parse::<IpAddr>();
            let names = address.as_ref().map_or_else(|_| ready.clone(), |address| vec![*address]);
            self.dns.set(&format!("{name}.{namespace}.svc.cluster.local"), &names);
            if let (Ok(address), Some(slice)) = (address, slice) {
                rules.push_str(&dnat(service, slice, address, &ready));
            }
        }
        if rules != self.rules {
            self.host.namespace.nft(&format!(
                "table ip services\ndelete table ip services\ntable ip services {{\n\
                 chain by_address {{\n{rules}}}\n\
                 chain passing {{ type nat hook prerouting priority dstnat; jump by_address; }}\n\
                 chain own {{ type nat hook output priority -100; jump by_address; }}\n\
                 chain back {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}\n}}\n"
            ));
            self.rules = rules;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kubelet.print_logs();
        }
    }
}

fn ready_addresses(slice: &Value) -> Vec<IpAddr> {
    items(&slice["endpoints"])
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .filter_map(|endpoint| text(&endpoint["addresses"][0]).parse().ok())
        .collect()
}

/// The rules for one Service: each endpoint with the same chance.
fn dnat(service: &Value, slice: &Value, address: IpAddr, ready: &[IpAddr]) -> String {
    let mut rules = String::new();
    for (port, target) in items(&service["spec"]["ports"]).zip(items(&slice["ports"])) {
        let Some(target) = target["port"].as_u64() else { continue };
        for (index, endpoint) in ready.iter().enumerate() {
            let left = ready.len() - index;
            rules.push_str(&format!(
                "ip daddr {address} tcp dport {} numgen random mod {left} 0 dnat to {endpoint}:{target}\n",
                port["port"]
            ));
        }
    }
    rules
}
