//! What the rules are called that gateways alone have.

use crate::resources::{Document, IngressSpec, IstioGatewaySpec, istio_gateway::GatewayServer};

/// What the rule of an `Ingress`'s default backend is called, behind the name of its document.
pub(super) const DEFAULT_BACKEND: &str = "defaultBackend";

/// What the rule is called that sends `/` elsewhere: the annotation that asks for it.
pub(super) const APP_ROOT: &str = "app-root";

/// What the rules for a part of a path's requests are called, behind the name of the path's rule.
pub(super) const CANARY_RULES: [&str; 4] =
    ["canary by header", "no canary by header", "canary by cookie", "no canary by cookie"];

/// What the rule `called` of `ingress` is called.
pub(super) fn ingress_rule_name(ingress: &Document<IngressSpec>, called: &str) -> String {
    format!("{} {called}", ingress.name)
}

/// What the rule of a path is called, behind the name of its document.
pub(super) fn path_name(rule: usize, path: usize) -> String {
    format!("rules[{rule}].paths[{path}]")
}

/// What the rule is called that sends requests at `server` of `gateway` to HTTPS.
pub(super) fn redirect_name(gateway: &Document<IstioGatewaySpec>, server: &GatewayServer) -> String {
    format!("{} servers[{}] httpsRedirect", gateway.name, server.index)
}
