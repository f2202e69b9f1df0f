//! Which gateway a client outside of the mesh calls.

use std::sync::Arc;

use selvedge_control_plane::resources::Resources;
use selvedge_model::{
    Mesh, Workload, facts,
    gateway::{Carries, Gateway, GatewayPort, GatewayRole, NotServed},
};

use super::{
    outside::{Asks, Outside},
    stand_in,
};

/// A gateway, and one of the workloads that are it.
#[derive(Debug)]
pub(super) struct Known<'m> {
    pub(super) role: &'m GatewayRole,
    pub(super) workload: &'m Arc<Workload>,
    pub(super) gateway: Arc<Gateway>,
}

impl<'m> Known<'m> {
    /// Every gateway of `mesh`; one whose workloads do not serve the same comes several times.
    pub(super) fn all(mesh: &'m Mesh) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (name, gateway) in &mesh.gateways {
            let workload = mesh.workloads.get(name);
            let Some((workload, role)) = workload.and_then(|one| Some((one, one.gateway.as_deref()?))) else {
                continue;
            };
            if !all.iter().any(|known| Arc::ptr_eq(&known.gateway, gateway) && known.role.name == role.name) {
                all.push(Self { role, workload, gateway: Arc::clone(gateway) });
            }
        }
        all
    }

    /// Whether no workload is it, and it is looked at as if one was.
    pub(super) fn is_stand_in(&self) -> bool {
        stand_in::is_one(&self.workload.name)
    }

    /// What clients get who call `number`: the port of that number, or the one for which the gateway listens there.
    pub(super) fn port(&self, number: u16) -> Option<&GatewayPort> {
        let listens = || self.role.ports.iter().find(|(_, at)| **at == number).map(|(port, _)| port);
        let of = |port: &u16| self.gateway.ports.get(port).map(|port| &**port);
        of(&number).or_else(|| listens().and_then(of))
    }

    /// How much of what `outside` asks for it has: nothing, the port, a listener, or a virtual host.
    fn rank(&self, outside: &Outside) -> u8 {
        let Some(port) = self.port(outside.port) else { return 0 };
        match port.choose(outside.name_at(port)) {
            Ok(_) => 3,
            Err(NotServed::NoVirtualHost(_) | NotServed::Misdirected(_)) => 2,
            Err(NotServed::NoListener) => 1,
        }
    }

    /// Whether it is called `name`: as a gateway, or as the `Gateway` of Istio that selects it.
    fn is_called(&self, name: &str, resources: &Resources) -> bool {
        let mut istio = resources.istio_gateways.iter();
        *self.role.name == *name
            || istio.any(|gateway| {
                format!("{}/{}", gateway.name.namespace, gateway.name.name) == name
                    && facts::selects(&gateway.spec.selector, &self.workload.labels)
            })
    }

    /// Its name and its ports, in words.
    fn words(&self) -> String {
        let carries = |carries: Carries| match carries {
            Carries::Http => "HTTP",
            Carries::Tls => "TLS",
            Carries::Tcp => "TCP",
        };
        let ports: Vec<String> = self
            .gateway
            .ports
            .values()
            .map(|port| format!("{} {}", port.port, carries(port.carries)))
            .collect();
        let ports = if ports.is_empty() { "no port".to_owned() } else { ports.join(", ") };
        format!("{} ({ports})", self.role.name)
    }
}

impl Outside {
    /// The name by which a listener of `port` is chosen.
    pub(super) fn name_at(&self, port: &GatewayPort) -> Option<&str> {
        match (port.carries, self.asks) {
            (Carries::Tls, _) => self.server_name.as_deref(),
            (Carries::Http, _) => Some(&self.host),
            (Carries::Tcp, _) => None,
        }
    }
}

/// The one that `outside` calls: that it names, or that has the most of what it asks for.
///
/// # Errors
/// If it is none, or if it may be any of several.
pub(super) fn find<'k, 'm>(
    known: &'k [Known<'m>],
    resources: &Resources,
    outside: &Outside,
) -> Result<&'k Known<'m>, String> {
    if known.is_empty() {
        let message = "no document declares a gateway that a client outside of the mesh could call; for a client with a sidecar \
                       give --from NAMESPACE/NAME";
        return Err(message.to_owned());
    }
    let named: Vec<&Known<'m>> = match &outside.gateway {
        None => known.iter().collect(),
        Some(name) => known.iter().filter(|one| one.is_called(name, resources)).collect(),
    };
    let best = named.iter().map(|one| one.rank(outside)).max().unwrap_or_default();
    let mut fitting = named.iter().filter(|one| one.rank(outside) == best);
    match (fitting.next(), fitting.next()) {
        (None, _) => {
            let name = outside.gateway.as_deref().unwrap_or_default();
            Err(format!("there is no gateway {name}; there is {}", list(known.iter())))
        }
        (Some(one), None) => Ok(one),
        // Its workloads differ in their labels; the first is as good as any that serves the same port.
        (Some(one), Some(_)) if outside.gateway.is_some() => Ok(one),
        (Some(_), Some(_)) => {
            let fitting = named.iter().filter(|one| one.rank(outside) == best).copied();
            let (host, port) = (&outside.host, outside.port);
            let what = match best {
                3 => format!("several gateways serve {host} at port {port}"),
                _ => format!("no gateway has rules for {host} at port {port}"),
            };
            Err(format!("{what}; name one with --gateway: {}", list(fitting)))
        }
    }
}

fn list<'k, 'm: 'k>(known: impl Iterator<Item = &'k Known<'m>>) -> String {
    let words: Vec<String> = known.map(Known::words).collect();
    words.join("; ")
}

impl Asks {
    /// Whether it begins with TLS, at a port that `carries` this.
    pub(super) fn is_tls(self, carries: Carries) -> bool {
        match self {
            Self::Http => false,
            Self::Https => true,
            Self::Anything => carries == Carries::Tls,
        }
    }
}
