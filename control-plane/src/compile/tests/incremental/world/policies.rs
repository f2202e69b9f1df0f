//! Documents of policies.

use serde_json::{Value, json};

use super::World;

impl World {
    pub(super) fn server(&mut self) -> Value {
        let port = if self.one_in(2) { json!("http") } else { json!(8080) };
        json!({"spec": {"podSelector": {"matchLabels": self.labels()}, "port": port,
                        "proxyProtocol": self.word(&["HTTP/1", "opaque"])}})
    }

    /// A Service that a policy is for.
    pub(super) fn service_ref(&mut self) -> Value {
        json!([{"kind": "Service", "group": "", "name": self.word(&["a", "b", "c"])}])
    }

    pub(super) fn rate_limit(&mut self) -> Value {
        let key = self.word(&["clientAddress", "clientIdentity"]);
        let mut spec = json!({"limits": [{"requests": self.random.u8(1..4), "per": "1s", "key": key}]});
        let of_gateways = |kind: &str, name: &str| json!([{"group": "gateway.networking.k8s.io", "kind": kind, "name": name}]);
        match self.random.u8(0..6) {
            0 | 1 => spec["targetRefs"] = self.service_ref(),
            2 => spec["targetRefs"] = of_gateways("HTTPRoute", "route"),
            3 => spec["targetRefs"] = of_gateways("Gateway", "edge"),
            4 => {}
            _ => spec["selector"] = json!({"matchLabels": self.labels()}),
        }
        if self.one_in(3) {
            let servers = ["a:80", "b:90", "shop/a:80", "x.example.com:80", "10.96.0.1:80", "nobody:80"];
            let descriptors = json!([{"entries": [{"from": "clientAddress"}]}]);
            spec["global"] =
                json!({"service": self.word(&servers), "domain": "d", "descriptors": descriptors});
        }
        json!({"spec": spec})
    }

    pub(super) fn network_policy(&mut self) -> Value {
        let everybody = json!({});
        let selector = if self.one_in(2) { json!({"matchLabels": self.labels()}) } else { everybody };
        let mut spec = json!({"podSelector": selector});
        for (direction, list) in [("ingress", "from"), ("egress", "to")] {
            if direction == "egress" && !self.one_in(3) {
                continue;
            }
            let mut rule = json!({});
            rule[list] = match self.random.u8(0..4) {
                0 => json!([{"ipBlock": {"cidr": "10.0.0.0/30"}}]),
                1 => json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": self.labels()}}]),
                _ => json!([{"podSelector": {"matchLabels": self.labels()}}]),
            };
            match self.random.u8(0..4) {
                0 => rule["ports"] = json!([{"port": "http"}]),
                1 => rule["ports"] = json!([{"port": 8080}, {"port": 8081, "endPort": 8090}]),
                _ => {}
            }
            spec[direction] = json!([rule]);
        }
        if self.is_odd() {
            spec["unknown"] = json!(1);
        }
        json!({"spec": spec})
    }

    pub(super) fn calico_policy(&mut self) -> Value {
        let of = |app: &str| format!("app == '{app}'");
        let (app, other) = (self.word(&["a", "b", "c"]), self.word(&["a", "b", "c"]));
        let action = self.word(&["Allow", "Deny", "Pass"]);
        let mut rule = json!({"action": action, "source": {"selector": of(other)}});
        if self.one_in(3) {
            rule["source"] = json!({"serviceAccounts": {"names": [self.word(&["one", "two"])]}});
        }
        let mut spec = json!({"order": self.random.u16(1..2_000), "selector": of(app), "ingress": [rule]});
        if self.is_odd() {
            spec["tier"] = "nobodys".into();
        }
        json!({"spec": spec})
    }

    pub(super) fn policy(&mut self, kind: &str) -> (&'static str, Value) {
        let mut spec = json!({});
        if kind != "PeerAuthentication" && self.one_in(5) {
            spec["targetRefs"] = self.service_ref();
        } else if !self.one_in(3) {
            spec["selector"] = json!({"matchLabels": self.labels()});
        }
        let version = match kind {
            "PeerAuthentication" => {
                spec["mtls"] = json!({"mode": self.word(&["STRICT", "PERMISSIVE", "DISABLE"])});
                "security.istio.io/v1"
            }
            "AuthorizationPolicy" => {
                let account = format!("cluster.local/ns/shop/sa/{}", self.word(&["one", "two"]));
                let to =
                    json!([{"operation": {"ports": [self.word(&["8080", "8081"])], "methods": ["GET"]}}]);
                spec["rules"] = json!([{"from": [{"source": {"principals": [account]}}], "to": to}]);
                if self.one_in(4) {
                    spec["rules"][0]["when"] = json!([{"key": "request.auth.claims[a]", "values": ["b"]}]);
                }
                "security.istio.io/v1"
            }
            "RequestAuthentication" => {
                spec["jwtRules"] = json!([{"issuer": "me", "jwks": "{\"keys\":[]}"}]);
                "security.istio.io/v1"
            }
            "Telemetry" => {
                spec["accessLogging"] =
                    json!([{"providers": [{"name": "envoy"}], "disabled": self.one_in(2)}]);
                "telemetry.istio.io/v1"
            }
            other => panic!("{other}"),
        };
        if self.is_odd() {
            spec["unknown"] = json!(1);
        }
        (version, json!({"spec": spec}))
    }
}
