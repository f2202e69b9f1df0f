//! `PeerAuthentication` and `AuthorizationPolicy`.

use super::{Draw, document, fields};

const VERSION: &str = "security.istio.io/v1";

/// A mode for the whole mesh.
pub(super) fn mesh_wide(mode: &str) -> String {
    let metadata = "name: mesh, namespace: istio-system";
    document(VERSION, "PeerAuthentication", metadata, &format!("{{mtls: {{mode: {mode}}}}}"))
}

impl Draw<'_> {
    /// A policy that only requests decide.
    pub(super) fn readers(&mut self) -> String {
        let own = self.party().own;
        let spec = format!(
            "{{selector: {{matchLabels: {{{own}}}}}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}"
        );
        document(VERSION, "AuthorizationPolicy", "name: readers, namespace: default", &spec)
    }

    pub(super) fn peer_authentication(&mut self, number: usize) -> String {
        let modes = ["STRICT", "PERMISSIVE", "PERMISSIVE", "DISABLE"];
        let mode = self.one(&modes);
        let selector = format!("selector: {{matchLabels: {{{}}}}}", self.label());
        let at_port = match self.rarely(3) {
            true => format!("portLevelMtls: {{{}: {{mode: {}}}}}", self.port().0, self.one(&modes)),
            false => String::new(),
        };
        let spec = fields([selector, format!("mtls: {{mode: {mode}}}"), at_port]);
        document(VERSION, "PeerAuthentication", &format!("name: pa-{number}, namespace: default"), &spec)
    }

    pub(super) fn authorization_policy(&mut self, number: usize) -> String {
        let rules: Vec<String> = (0..self.number(3)).map(|_| self.rule()).collect();
        let action = match rules.is_empty() {
            true => "ALLOW",
            false => self.one(&["ALLOW", "ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]),
        };
        let namespace = if self.rarely(4) { "istio-system" } else { "default" };
        let dry = if self.rarely(5) { ", annotations: {istio.io/dry-run: 'true'}" } else { "" };
        let selector = match self.rarely(8) {
            true => String::new(),
            false => format!("selector: {{matchLabels: {{{}}}}}", self.label()),
        };
        let spec = fields([selector, format!("action: {action}"), format!("rules: [{}]", rules.join(", "))]);
        let metadata = format!("name: ap-{number}, namespace: {namespace}{dry}");
        document(VERSION, "AuthorizationPolicy", &metadata, &spec)
    }

    fn rule(&mut self) -> String {
        let from = match self.rarely(4) {
            true => String::new(),
            false => {
                let sources: Vec<String> =
                    (0..1 + self.number(2)).map(|_| format!("{{source: {}}}", self.source())).collect();
                format!("from: [{}]", sources.join(", "))
            }
        };
        let to = match self.number(2) {
            0 => String::new(),
            _ => format!("to: [{{operation: {}}}]", self.operation()),
        };
        let when = if self.rarely(4) { format!("when: [{}]", self.condition()) } else { String::new() };
        fields([from, to, when])
    }

    fn source(&mut self) -> String {
        let account = self.party().account;
        let network = self.network();
        let negated = self.rarely(3);
        let name = |word: &str| match negated {
            true => format!("not{}{}", word[..1].to_uppercase(), &word[1..]),
            false => word.to_owned(),
        };
        match (self.number(6), network) {
            (0, _) => format!("{{{}: [default]}}", name("namespaces")),
            (1, _) => format!("{{{}: ['*']}}", name("principals")),
            (2, _) => format!("{{{}: [cluster.local/ns/default/sa/{account}]}}", name("principals")),
            (3, Some(network)) => format!("{{{}: [{network}]}}", name("ipBlocks")),
            (4, Some(network)) => format!("{{{}: [{network}]}}", name("remoteIpBlocks")),
            // In the root namespace an account without one would be of that.
            _ => format!("{{{}: [default/{account}]}}", name("serviceAccounts")),
        }
    }

    fn operation(&mut self) -> String {
        let port = self.port().0;
        match self.number(7) {
            0 => "{methods: [GET]}".to_owned(),
            1 => "{notMethods: [GET]}".to_owned(),
            2 => format!("{{notPorts: ['{port}']}}"),
            3 => "{paths: ['/no*']}".to_owned(),
            4 => format!("{{methods: [DELETE], ports: ['{port}']}}"),
            _ => format!("{{ports: ['{port}']}}"),
        }
    }

    fn condition(&mut self) -> String {
        let word = self.one(&["values", "values", "notValues"]);
        let (key, value) = match (self.number(4), self.network()) {
            (0, _) => ("source.principal", format!("cluster.local/ns/default/sa/{}", self.party().account)),
            (1, _) => ("request.headers[x-role]", "admin".to_owned()),
            (2, Some(network)) => ("source.ip", network),
            _ => ("destination.port", format!("'{}'", self.port().0)),
        };
        format!("{{key: '{key}', {word}: [{value}]}}")
    }
}
