//! Linkerd's policies.

use std::collections::BTreeSet;

use super::{Draw, document, fields};

const GROUP: &str = "policy.linkerd.io";

impl Draw<'_> {
    /// Some servers, who may call them, and perhaps the default of their namespace.
    pub(super) fn linkerd(&mut self) -> String {
        let mut text = String::new();
        if self.rarely(3) {
            let word = self.one(&["deny", "all-authenticated", "cluster-unauthenticated", "audit"]);
            text += &format!(
                "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: default, annotations: \
                 {{config.linkerd.io/default-inbound-policy: {word}}}}}\n"
            );
        }
        let mut taken = BTreeSet::new();
        for number in 0..1 + self.number(3) {
            let (own, (port, name)) = (self.party().own, self.port());
            // Of two servers of one port only one counts, which is an error.
            if taken.insert((own.clone(), port)) {
                text += &self.server(number, &own, port, &name);
            }
        }
        text
    }

    fn server(&mut self, number: usize, own: &str, port: u16, name: &str) -> String {
        let access = match self.number(6) {
            0 => "accessPolicy: all-unauthenticated".to_owned(),
            1 => "accessPolicy: all-authenticated".to_owned(),
            2 => "accessPolicy: audit".to_owned(),
            _ => String::new(),
        };
        let port = if self.rarely(2) { port.to_string() } else { name.to_owned() };
        // What is spoken there anyway.
        let protocol = match name {
            "http" => self.one(&["", "unknown", "HTTP/1"]),
            "tcp" => self.one(&["", "unknown", "opaque"]),
            _ => self.one(&["", "unknown"]),
        };
        let protocol = match protocol {
            "" => String::new(),
            protocol => format!("proxyProtocol: {protocol}"),
        };
        let selector = format!("podSelector: {{matchLabels: {{{own}}}}}");
        let spec = fields([selector, format!("port: {port}"), protocol, access]);
        let server = format!("server-{number}");
        let metadata = format!("name: {server}, namespace: default");
        let mut text = document(&format!("{GROUP}/v1beta3"), "Server", &metadata, &spec);
        let target = format!("group: {GROUP}, kind: Server, name: {server}");
        for one in 0..self.number(3) {
            text += &self.authorization(&format!("{server}-{one}"), &target);
        }
        if name == "http" && self.rarely(3) {
            text += &self.route(&server);
        }
        text
    }

    /// A route of a server, and whom it lets in.
    fn route(&mut self, server: &str) -> String {
        let matched = self.one(&["path: {value: /}", "path: {value: /x}", "method: GET"]);
        let parent = format!("parentRefs: [{{group: {GROUP}, kind: Server, name: {server}}}]");
        let spec = fields([parent, format!("rules: [{{matches: [{{{matched}}}]}}]")]);
        let name = format!("{server}-route");
        let metadata = format!("name: {name}, namespace: default");
        let route = document(&format!("{GROUP}/v1beta3"), "HTTPRoute", &metadata, &spec);
        route + &self.authorization(&name, &format!("group: {GROUP}, kind: HTTPRoute, name: {name}"))
    }

    /// Lets somebody call `target`.
    fn authorization(&mut self, name: &str, target: &str) -> String {
        let version = format!("{GROUP}/v1alpha1");
        let metadata = format!("name: {name}, namespace: default");
        let account = self.party().account;
        let by_account = format!("{{kind: ServiceAccount, name: {account}}}");
        let of = |kind: &str| format!("{{group: {GROUP}, kind: {kind}, name: {name}}}");
        let mut text = String::new();
        let mut required = Vec::new();
        match self.number(5) {
            0 => required.push(by_account.clone()),
            1 => {}
            _ => {
                let identity = match self.number(4) {
                    0 => "'*'".to_owned(),
                    1 => "'*.default.serviceaccount.identity.linkerd.cluster.local'".to_owned(),
                    2 => format!("'spiffe://cluster.local/ns/default/sa/{account}'"),
                    _ => format!("'{account}.default.serviceaccount.identity.linkerd.cluster.local'"),
                };
                let spec = format!("{{identities: [{identity}]}}");
                text += &document(&version, "MeshTLSAuthentication", &metadata, &spec);
                required.push(of("MeshTLSAuthentication"));
            }
        }
        if (required.is_empty() || self.rarely(3))
            && let (Some(cidr), Some(except)) = (self.network(), self.network())
        {
            let network = match self.rarely(2) {
                true => format!("{{cidr: {cidr}}}"),
                false => format!("{{cidr: 0.0.0.0/0, except: [{except}]}}"),
            };
            let spec = format!("{{networks: [{network}]}}");
            text += &document(&version, "NetworkAuthentication", &metadata, &spec);
            required.push(of("NetworkAuthentication"));
        }
        if required.is_empty() {
            required.push(by_account);
        }
        let required = required.join(", ");
        let spec = format!("{{targetRef: {{{target}}}, requiredAuthenticationRefs: [{required}]}}");
        text + &document(&version, "AuthorizationPolicy", &metadata, &spec)
    }
}
