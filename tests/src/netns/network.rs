//! The networks below the mesh, built from what Linux has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::namespace::Namespace;

/// The first host number of workloads; lower ones are the hosts' own.
const FIRST: u8 = 10;

/// What carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One host with a bridge, and a veth pair to each workload: Docker's `docker0`.
    Bridge,
    /// The same with an MTU of 1400, as below many VPNs and clouds.
    SmallMtu,
    /// The same without IPv4.
    Ipv6,
    /// Two hosts, each with a bridge, joined by VXLAN; workloads alternate between them.
    Overlay,
    /// One host's link, of which each workload has a macvlan in bridge mode.
    Macvlan,
}

/// A network; workloads join it.
#[derive(Debug)]
pub struct Network {
    kind: Kind,
    hosts: Vec<Namespace>,
    joined: u8,
}

/// Where a workload is.
#[derive(Debug, Clone)]
pub struct NetworkPlace {
    /// Its own namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: IpAddr,
    /// The host's end of its link.
    link: String,
    host: Namespace,
}

impl Network {
    /// A network with nobody on it.
    pub fn new(kind: Kind) -> Self {
        let names: &[&str] = if kind == Kind::Overlay { &["host-a", "host-b"] } else { &["host-a"] };
        let network =
            Self { kind, hosts: names.iter().map(|name| Namespace::new(name)).collect(), joined: 0 };
        match kind {
            Kind::Macvlan => network.lay_parent(),
            Kind::Overlay => network.lay_overlay(),
            _ => network.bridge(0),
        }
        network
    }

    /// The hosts: where packets pass that workloads send each other.
    pub fn hosts(&self) -> &[Namespace] {
        &self.hosts
    }

    /// A new namespace on the network, on the next host in turn, with an address of its own.
    pub fn join(&mut self, name: &str) -> NetworkPlace {
        let address = self.address(FIRST + self.joined);
        self.join_as(name, address)
    }

    /// The namespace of the first host itself, as for a container with the host's network.
    pub fn on_host(&self) -> NetworkPlace {
        let namespace = self.hosts[0].clone();
        NetworkPlace { host: namespace.clone(), namespace, address: self.address(1), link: "br0".to_owned() }
    }

    /// The same with an address that somebody else had.
    pub fn join_as(&mut self, name: &str, address: IpAddr) -> NetworkPlace {
        let namespace = Namespace::new(name);
        let host = self.hosts[usize::from(self.joined) % self.hosts.len()].clone();
        let link = format!("v{}", self.joined);
        self.joined += 1;
        let path = namespace.path();
        // As Docker has it: of the IP address, so that neighbours need not learn when that is given to another.
        let mac = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let mac = format!("address 02:42:0a:58:00:{mac:02x}");
        if self.kind == Kind::Macvlan {
            host.ip(&format!("link add link p0 name eth0 netns {path} {mac} type macvlan mode bridge"));
        } else {
            host.ip(&format!("link add {link} type veth peer name eth0 netns {path} {mac}"));
            host.ip(&format!("link set {link} mtu {} master br0 up", self.mtu()));
        }
        self.address_link(&namespace, "eth0", address);
        namespace.ip(&format!("route add default via {}", self.address(1)));
        NetworkPlace { namespace, address, link, host }
    }

    /// Cuts a workload off, silently, as a pulled cable does: nobody is told.
    pub fn cut(&self, place: &NetworkPlace) {
        if self.kind == Kind::Macvlan {
            // Its link has no other end on the host.
            let rules = "table inet cut { chain in { type filter hook input priority -400; iifname eth0 drop; }; \
                         chain out { type filter hook postrouting priority 400; oifname eth0 drop; }; }";
            place.namespace.nft(rules);
        } else {
            place.host.ip(&format!("link set {} down", place.link));
        }
    }

    /// Joins it again.
    pub fn heal(&self, place: &NetworkPlace) {
        if self.kind == Kind::Macvlan {
            place.namespace.nft("delete table inet cut");
        } else {
            place.host.ip(&format!("link set {} up", place.link));
        }
    }

    /// The address of a host number.
    pub fn address(&self, host: u8) -> IpAddr {
        match self.kind {
            Kind::Ipv6 => Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, host.into()).into(),
            _ => Ipv4Addr::new(10, 88, 0, host).into(),
        }
    }

    fn mtu(&self) -> u16 {
        match self.kind {
            Kind::SmallMtu => 1400,
            Kind::Overlay => 1450, // VXLAN adds 50
            _ => 1500,
        }
    }

    fn address_link(&self, namespace: &Namespace, link: &str, address: IpAddr) {
        // Usable at once: nobody else can have it.
        let more = if address.is_ipv6() { "/64 nodad" } else { "/24" };
        namespace.ip(&format!("address add {address}{more} dev {link}"));
        namespace.ip(&format!("link set {link} mtu {} up", self.mtu()));
    }

    fn bridge(&self, host: u8) {
        let namespace = &self.hosts[usize::from(host)];
        namespace.ip("link add br0 type bridge");
        self.address_link(namespace, "br0", self.address(1 + host));
    }

    fn lay_parent(&self) {
        let host = &self.hosts[0];
        host.ip("link add p0 type veth peer name p1");
        host.ip("link set p0 up");
        host.ip("link set p1 up");
        host.ip("link add link p0 name m0 type macvlan mode bridge");
        self.address_link(host, "m0", self.address(1));
    }

    fn lay_overlay(&self) {
        let [a, b] = &self.hosts[..] else { unreachable!("two hosts") };
        a.ip(&format!("link add under type veth peer name under netns {}", b.path()));
        for (number, host) in self.hosts.iter().enumerate() {
            let (own, other) = (1 + number, 2 - number);
            host.ip(&format!("address add 192.168.77.{own}/24 dev under"));
            host.ip("link set under up");
            self.bridge(u8::try_from(number).expect("two"));
            host.ip(&format!(
                "link add vxlan0 type vxlan id 42 dstport 4789 local 192.168.77.{own} remote 192.168.77.{other} dev under"
            ));
            host.ip("link set vxlan0 master br0 up");
        }
    }
}
