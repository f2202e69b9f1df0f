//! Through which port, listener and virtual host a client comes to a gateway, and what becomes of its TLS.

use std::sync::Arc;

use selvedge_certs::tls::Edge;
use selvedge_model::{
    Layer, ServiceKey,
    gateway::{Carries, Chosen, GatewayPort, ListenerTls, NotServed, Termination},
};
use selvedge_proxy::{
    error::{Failure, Reason},
    gateway as told,
    lookup::refusal,
};
use tokio_rustls::rustls::pki_types::UnixTime;

use super::{
    find::Known,
    outside::Outside,
    view::{GatewayView, ListenerView, TlsView},
};
use crate::explain::explanation::Refusal;

/// A client, and the gateway that it calls.
pub(super) struct Entry<'a> {
    pub(super) found: &'a Known<'a>,
    pub(super) outside: &'a Outside,
    /// Whether the certificates of listeners are known.
    pub(super) reads_secrets: bool,
}

/// How a client has come in.
pub(super) struct Came<'a> {
    pub(super) port: &'a GatewayPort,
    chosen: Result<Chosen, NotServed>,
    carried: Carried,
}

enum Carried {
    /// Requests.
    Http {
        is_secure: bool,
        /// What the client has proven, as `x-forwarded-client-cert`.
        certificate: Option<String>,
    },
    /// Opaque bytes; and the TLS server name, if they came over TLS.
    Opaque(Layer, Option<String>),
}

impl Came<'_> {
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.carried, Carried::Opaque(..))
    }

    pub(super) fn is_secure(&self) -> bool {
        matches!(self.carried, Carried::Http { is_secure: true, .. })
    }

    pub(super) fn client_certificate(&self) -> Option<&str> {
        match &self.carried {
            Carried::Http { certificate, .. } => certificate.as_deref(),
            Carried::Opaque(..) => None,
        }
    }

    /// What its bytes begin with, as rules for connections ask it.
    pub(super) fn layer(&self) -> Layer {
        match &self.carried {
            Carried::Opaque(layer, _) => *layer,
            Carried::Http { .. } => Layer::Tcp,
        }
    }

    pub(super) fn server_name(&self) -> Option<&str> {
        match &self.carried {
            Carried::Opaque(_, name) => name.as_deref(),
            Carried::Http { .. } => None,
        }
    }

    /// The rules of the virtual host that it is for.
    pub(super) fn virtual_host(&self) -> Result<&ServiceKey, Failure> {
        let Chosen { listener, virtual_host } = self.chosen.map_err(refusal)?;
        Ok(&self.port.listeners[listener].virtual_hosts[virtual_host].service)
    }
}

/// Why a virtual host is not there that a listener names.
pub(super) fn nothing() -> Failure {
    refusal(NotServed::NoListener)
}

impl<'a> Entry<'a> {
    /// Lets the client in, and says in `view` where.
    pub(super) fn enter(&self, view: &mut GatewayView) -> Result<Came<'a>, Refusal> {
        let port = self.found.port(self.outside.port).ok_or_else(|| self.no_port())?;
        view.at(port, self.found.role);
        let is_tls = self.outside.asks.is_tls(port.carries);
        let came = match (port.carries, is_tls) {
            (Carries::Http, false) => self.in_plaintext(port),
            (Carries::Http, true) => return Err(Refusal::reset(Reason::Protocol, told::TLS_AT_PLAINTEXT)),
            (Carries::Tls, false) => return Err(Refusal::reset(Reason::Protocol, told::PLAINTEXT_AT_TLS)),
            (Carries::Tls, true) => self.over_tls(port, view)?,
            (Carries::Tcp, _) => {
                Came { port, chosen: port.choose(None), carried: Carried::Opaque(Layer::Tcp, None) }
            }
        };
        view.chose(port, came.chosen);
        Ok(came)
    }

    fn no_port(&self) -> Refusal {
        let port = self.outside.port;
        let ports: Vec<String> = self.found.gateway.ports.keys().map(ToString::to_string).collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        let why = format!("the gateway does not listen for port {port}; its ports: {ports}");
        Refusal { how: "there is no connection", error: None, why }
    }

    fn in_plaintext(&self, port: &'a GatewayPort) -> Came<'a> {
        let carried = Carried::Http { is_secure: false, certificate: None };
        Came { port, chosen: port.choose(Some(&self.outside.host)), carried }
    }

    fn over_tls(&self, port: &'a GatewayPort, view: &mut GatewayView) -> Result<Came<'a>, Refusal> {
        let name = self.outside.server_name.as_deref();
        let own = port.listener(name).ok_or_else(|| {
            Refusal::alert("TLS alert unrecognized_name", Reason::NoRoute, told::NO_LISTENER)
        })?;
        let listener = &port.listeners[own];
        let opaque = || Came {
            port,
            chosen: port.choose(name),
            carried: Carried::Opaque(Layer::Tls, name.map(ToOwned::to_owned)),
        };
        let mut shown = ListenerView::of(listener);
        let came = match &listener.tls {
            Some(ListenerTls::Passthrough) => {
                shown.tls = Some(TlsView::passthrough());
                Ok(opaque())
            }
            Some(ListenerTls::Terminate(settings)) => {
                let ended = self.end(settings, shown.tls.insert(TlsView::ends(settings)));
                ended.map(|certificate| match settings.http {
                    false => opaque(),
                    true => Came {
                        port,
                        chosen: port.choose_on(Some(own), &self.outside.host),
                        carried: Carried::Http { is_secure: true, certificate },
                    },
                })
            }
            None => Err(no_certificate()),
        };
        view.listener = Some(shown);
        came
    }

    /// Ends TLS as `settings` say: what the client has proven.
    fn end(&self, settings: &Termination, shown: &mut TlsView) -> Result<Option<String>, Refusal> {
        if !self.reads_secrets {
            shown.remarks.push(
                "its certificates are not looked at: in a cluster this command reads no Secrets; the status of the Gateway \
                 says which of them cannot be used"
                    .to_owned(),
            );
            return Ok(None);
        }
        let named = settings.certificates.iter();
        let certificates: Vec<Arc<_>> =
            named.filter_map(|name| self.found.gateway.certificates.get(name).cloned()).collect();
        let edge = Edge::new(settings, &certificates).map_err(|error| {
            shown.remarks.push(error.to_string());
            no_certificate()
        })?;
        let unusable =
            edge.unusable.iter().map(|(name, error)| format!("Secret {name} is not shown: {error}"));
        shown.remarks.extend(unusable);
        if let Some((name, is_for_it)) = edge.shown(self.outside.server_name.as_deref()) {
            shown.certificate = Some(name.to_string());
            if !is_for_it {
                shown
                    .remarks
                    .push("the certificate is not for that name, so most clients refuse it".to_owned());
            }
        }
        edge.accepts(&self.outside.certificate, UnixTime::now()).map_err(|error| {
            let why = format!(
                "the TLS handshake failed: {error}; --client-certificate names what the client shows"
            );
            Refusal { how: "TLS alert", error: Some(Reason::Tls.word()), why }
        })
    }
}

fn no_certificate() -> Refusal {
    Refusal::alert("TLS alert handshake_failure", Reason::Certificate, told::NO_CERTIFICATE)
}
