//! Documents that say where requests go.

use serde_json::{Value, json};

use super::World;

impl World {
    pub(super) fn destination_rule(&mut self) -> Value {
        let host = self.word(&["a", "b", "c", "one.outside", "two.outside", "*.shop.svc.cluster.local"]);
        let policy = match self.random.u8(0..5) {
            0 => json!({"tls": {"mode": "ISTIO_MUTUAL"}}),
            1 => json!({"tls": {"mode": "DISABLE"}}),
            2 => json!({"connectionPool": {"tcp": {"connectTimeout": "2s"}}}),
            3 => {
                json!({"loadBalancer": {"localityLbSetting": {"distribute": [{"from": "r/z1", "to": {"r/z2": 100}}]}}})
            }
            _ => json!({"outlierDetection": {"consecutive5xxErrors": 3}}),
        };
        let policy = match self.one_in(6) {
            true => {
                let port = self.random.choice([80, 90, 91]).unwrap();
                json!({"portLevelSettings": [{"port": {"number": port}, "connectionPool": {"http": {"maxRetries": 1}}}]})
            }
            false => policy,
        };
        let subset = self.word(&["v1", "v1", "v2"]);
        let mut spec = json!({"host": host, "trafficPolicy": policy,
                              "subsets": [{"name": subset, "labels": {"version": subset}}]});
        if self.one_in(5) {
            spec["workloadSelector"] = json!({"matchLabels": self.labels()});
        } else {
            spec["exportTo"] = self.export_to();
        }
        json!({"metadata": self.size(), "spec": spec})
    }

    /// What says how large a document is.
    pub(super) fn size(&mut self) -> Value {
        let is_large = self.crowded && self.one_in(2);
        if is_large { json!({"annotations": {"size": "large"}}) } else { json!({}) }
    }

    /// Whose clients a document is for; mostly everybody's.
    pub(super) fn export_to(&mut self) -> Value {
        match self.random.u8(0..8) {
            0 => json!(["."]),
            1 => json!(["shop", "bank"]),
            2 if self.one_in(2) => json!(["shop", "nowhere"]),
            _ => json!(["*"]),
        }
    }

    pub(super) fn virtual_service(&mut self) -> Value {
        let hosts = [
            "a",
            "b",
            "x.example.com",
            "one.outside",
            "a.shop.svc.cluster.local",
            "*.shop.svc.cluster.local",
            "*.outside",
        ];
        let (host, other) =
            (self.word(&hosts), self.word(&["a", "b", "c", "nobody", "one.outside", "two.outside"]));
        let weight = self.random.u8(1..99);
        let to = if host.starts_with('*') { "a" } else { host };
        let mut spec = json!({"hosts": [host], "exportTo": self.export_to(), "http": [{"route": [
            {"destination": {"host": to}, "weight": weight},
            {"destination": {"host": other, "subset": "v1"}, "weight": 100 - weight}]}]});
        if self.one_in(8) {
            spec["tcp"] = json!([{"route": [{"destination": {"host": other, "port": {"number": 90}}}]}]);
        }
        if self.one_in(4) {
            let asked = match self.random.u8(0..4) {
                0 => json!({"port": self.random.choice([80, 90, 8080]).unwrap()}),
                1 => json!({"gateways": [self.word(&["mesh", "edge"])]}),
                2 => json!({"sourceLabels": self.labels(), "sourceNamespace": self.word(&["shop", "bank"])}),
                _ => json!({"sourceLabels": self.labels()}),
            };
            spec["http"][0]["match"] = json!([asked]);
        }
        if self.one_in(8) {
            spec["gateways"] = json!([self.word(&["mesh", "edge"]), "edge"]);
        } else if self.is_odd() {
            spec["http"] = json!([{"delegate": {"name": "delegate"}, "match": [{"uri": {"prefix": "/a"}}]}]);
        } else if self.is_odd() {
            spec["hosts"] = json!([]);
        }
        json!({"metadata": self.size(), "spec": spec})
    }

    pub(super) fn http_route(&mut self) -> Value {
        let has_gateways = self.kinds.iter().any(|(kind, _)| *kind == "Gateway");
        let parents = match self.is_odd() || (has_gateways && self.one_in(2)) {
            true => json!([{"name": "edge"}]),
            false => self.service_ref(),
        };
        let weight = self.random.u8(0..3);
        let backends = json!([{"name": self.word(&["a", "b", "c", "nobody"]), "port": 80, "weight": weight},
                              {"name": self.word(&["a", "b"]), "port": self.random.choice([80, 90]).unwrap()}]);
        json!({"spec": {"parentRefs": parents, "rules": [{"backendRefs": backends}]}})
    }

    pub(super) fn tcp_route(&mut self) -> Value {
        let mut parents = self.service_ref();
        if self.one_in(2) {
            parents[0]["port"] = 90.into();
        }
        let backends = json!([{"name": self.word(&["a", "b", "c"]), "port": 90}]);
        json!({"spec": {"parentRefs": parents, "rules": [{"backendRefs": backends}]}})
    }
}
