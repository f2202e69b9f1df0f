//! What is said of a gateway and the listener that a client comes to.

use selvedge_model::gateway::{Chosen, GatewayPort, GatewayRole, Listener, NotServed, Termination};
use serde::Serialize;

use super::find::Known;
use crate::explain::{ends::Step, explanation::RequestView, tree::Tree};

/// The gateway that a client calls, and where it comes in.
#[derive(Debug, Serialize)]
pub(in crate::explain) struct GatewayView {
    /// Its name, `NAMESPACE/NAME`.
    pub(in crate::explain) name: String,
    /// One of the workloads that are it. `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) workload: Option<String>,
    /// Who calls the services behind it.
    pub(in crate::explain) identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) remark: Option<String>,
    /// The port that the client calls. `None`: there is no such port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) port: Option<u16>,
    /// The port on which it listens for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) listens: Option<u16>,
    /// The listener that the client chooses. `None`: none is for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) listener: Option<ListenerView>,
    /// The host names whose rules are followed. `None`: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) virtual_host: Option<String>,
    /// What the gateway's own policies say, kind by kind.
    pub(in crate::explain) policies: Vec<Step>,
    /// The rate limits of the gateway itself that a request must be within.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::explain) limits: Vec<String>,
    /// What the app is told about the client: header fields.
    pub(in crate::explain) told: Vec<(String, String)>,
}

/// A listener.
#[derive(Debug, Serialize)]
pub(in crate::explain) struct ListenerView {
    /// What it is called in logs, such as `Gateway shop/edge https`.
    pub(in crate::explain) name: String,
    /// The names that it is for.
    pub(in crate::explain) hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) tls: Option<TlsView>,
}

/// What becomes of TLS.
#[derive(Debug, Serialize)]
pub(in crate::explain) struct TlsView {
    /// Whether it ends at the gateway; otherwise it goes on to the backend as it is.
    pub(in crate::explain) ends: bool,
    /// The Secret whose certificate the client is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::explain) certificate: Option<String>,
    /// Whether clients are asked for a certificate.
    pub(in crate::explain) asks_for_certificate: bool,
    /// What else is to say.
    pub(in crate::explain) remarks: Vec<String>,
}

impl GatewayView {
    pub(super) fn new(found: &Known<'_>) -> Self {
        let remark = found.is_stand_in().then(|| {
            "no workload is this gateway, so nobody serves it yet; what is said holds for one with the ServiceAccount of its \
             name and no more labels than it needs"
                .to_owned()
        });
        Self {
            name: found.role.name.to_string(),
            workload: (!found.is_stand_in()).then(|| found.workload.name.to_string()),
            identity: found.workload.identity.to_string(),
            remark,
            port: None,
            listens: None,
            listener: None,
            virtual_host: None,
            policies: Vec::new(),
            limits: Vec::new(),
            told: Vec::new(),
        }
    }

    /// The app gets `request`.
    pub(super) fn told(&mut self, request: &RequestView) {
        let told = |name: &str| name.starts_with("x-forwarded-") || name == "x-request-id";
        self.told = request.headers.iter().filter(|(name, _)| told(name)).cloned().collect();
    }

    /// The client comes to `port`.
    pub(super) fn at(&mut self, port: &GatewayPort, role: &GatewayRole) {
        self.port = Some(port.port);
        self.listens = role.ports.get(&port.port).copied().filter(|at| *at != 0 && *at != port.port);
    }

    /// What it comes to there.
    pub(super) fn chose(&mut self, port: &GatewayPort, chosen: Result<Chosen, NotServed>) {
        let (listener, host) = match chosen {
            Ok(Chosen { listener, virtual_host }) => (Some(listener), Some((listener, virtual_host))),
            Err(NotServed::NoVirtualHost(listener)) => (Some(listener), None),
            Err(NotServed::NoListener | NotServed::Misdirected(_)) => (None, None),
        };
        if self.listener.is_none() {
            self.listener = listener.map(|place| ListenerView::of(&port.listeners[place]));
        }
        self.virtual_host =
            host.map(|(listener, host)| port.listeners[listener].virtual_hosts[host].hostname.to_string());
    }

    /// As lines of `tree`.
    pub(in crate::explain) fn tell(&self, tree: &mut Tree) {
        let workload = self.workload.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
        tree.line(0, &format!("gateway: {} ({workload}{})", self.name, self.identity));
        if let Some(remark) = &self.remark {
            tree.line(1, remark);
        }
        if let (Some(port), Some(listens)) = (self.port, self.listens) {
            tree.line(1, &format!("it listens at port {listens} for what clients send to port {port}"));
        }
        if let Some(listener) = &self.listener {
            listener.tell(tree);
        }
        if let Some(host) = &self.virtual_host {
            tree.line(1, &format!("rules for {host}"));
        }
        if !self.told.is_empty() {
            let told: Vec<String> =
                self.told.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            tree.line(1, &format!("the app is told {}", told.join("; ")));
        }
        for Step { asked, judgement } in &self.policies {
            tree.line(1, &format!("{asked}: {}, by {}", judgement.outcome.word(), judgement.reason()));
        }
        for limit in &self.limits {
            tree.line(1, &format!("rate limit: is within {limit}, or is answered 429"));
        }
    }
}

impl ListenerView {
    pub(super) fn of(listener: &Listener) -> Self {
        Self { name: listener.name.to_string(), hostname: listener.hostname.to_string(), tls: None }
    }

    fn tell(&self, tree: &mut Tree) {
        tree.line(1, &format!("listener: {}, for {}", self.name, self.hostname));
        let Some(tls) = &self.tls else { return };
        let words = match (tls.ends, &tls.certificate) {
            (false, _) => "TLS goes on to the backend as it is".to_owned(),
            (true, Some(name)) => format!("TLS ends here, with the certificate of Secret {name}"),
            (true, None) => "TLS ends here".to_owned(),
        };
        let asks = if tls.asks_for_certificate { "; clients are asked for a certificate" } else { "" };
        tree.line(2, &format!("{words}{asks}"));
        tls.remarks.iter().for_each(|remark| tree.line(2, remark));
    }
}

impl TlsView {
    pub(super) fn passthrough() -> Self {
        Self { ends: false, certificate: None, asks_for_certificate: false, remarks: Vec::new() }
    }

    pub(super) fn ends(settings: &Termination) -> Self {
        Self {
            ends: true,
            certificate: None,
            asks_for_certificate: settings.clients.is_some(),
            remarks: Vec::new(),
        }
    }
}
