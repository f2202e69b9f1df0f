//! A workload that runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use selvedge_demo::{
    call::{self, Answer, Call, CallError},
    load::{Plan, Report},
    processes::Process,
};

use super::spec::{APP_PORT, Mode, OTHER_PORT, Spec};
use crate::{namespace::Namespace, network::NetworkPlace};

/// A workload that runs.
#[derive(Debug)]
pub(crate) struct Workload {
    /// What it was to be.
    pub(crate) spec: Spec,
    /// Where it is.
    pub(crate) place: NetworkPlace,
    pub(super) app: Option<Process>,
    pub(super) sidecar: Option<Process>,
}

impl Workload {
    /// Where its app is dialled.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.place.address, APP_PORT + self.spec.shift)
    }

    /// Where its sidecar is told of requests, if its connections are not redirected.
    pub(crate) fn outbound(&self) -> SocketAddr {
        self.loopback(4140 + self.spec.shift)
    }

    /// Where others' connections for it come in.
    pub(crate) fn door(&self) -> SocketAddr {
        match self.spec.mode {
            Mode::Explicit => SocketAddr::new(self.place.address, 4143 + self.spec.shift),
            Mode::Redirected | Mode::NoSidecar => self.address(),
        }
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.place.namespace
    }

    /// An address of its own on `lo`, with this port.
    pub(crate) fn loopback(&self, port: u16) -> SocketAddr {
        let address = match self.place.address {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        SocketAddr::new(address, port)
    }

    /// Makes a call from inside, as its app would: to `address`, whatever is redirected.
    pub(crate) async fn call(&self, address: SocketAddr, call: Call) -> Result<Answer, CallError> {
        self.namespace().run(move || call::send(address, call)).await
    }

    /// Makes many.
    pub(crate) async fn load(&self, plan: Plan) -> Report {
        self.namespace().run(move || plan.run()).await
    }
}

/// The `WorkloadEntry` of a workload.
pub(super) fn entry(workload: &Workload) -> String {
    let Spec { name, namespace, app, version, mode, .. } = &workload.spec;
    let port = workload.address().port();
    let address = match workload.spec.by_name {
        true => format!("{name}.test"),
        false => workload.place.address.to_string(),
    };
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: {name}\n  namespace: {namespace}\n"
    );
    if *mode == Mode::Explicit {
        let inbound = workload.door();
        text.push_str(&format!("  annotations:\n    config.selvedge.io/inbound: \"{inbound}\"\n"));
    }
    text.push_str(&format!(
        "spec:\n  address: \"{address}\"\n  serviceAccount: {app}\n  ports:\n    http: {port}\n    other: {OTHER_PORT}\n  labels:\n    app: {app}\n    name: {name}\n"
    ));
    if let Some(version) = version {
        text.push_str(&format!("    version: {version}\n"));
    }
    if *mode != Mode::NoSidecar {
        text.push_str("    security.istio.io/tlsMode: istio\n");
    }
    text
}
