//! Documents of workloads, and of what stands before them.

use serde_json::{Value, json};

use super::World;

impl World {
    pub(super) fn entry(&mut self, namespace: &str) -> Value {
        let mut labels = self.labels();
        if !self.one_in(4) {
            labels["security.istio.io/tlsMode"] = "istio".into();
        }
        let address = if self.is_odd() {
            self.word(&["x.example.com", "y.example.com"]).to_owned()
        } else {
            self.address()
        };
        let account = self.word(&["one", "two"]);
        let mut rest = json!({"spec": {"address": address, "labels": labels, "serviceAccount": account, "weight": self.random.u8(0..5)}});
        if self.one_in(3) {
            rest["spec"]["ports"] = json!({self.word(&["http", "other"]): self.random.u16(8080..8083)});
        }
        if self.one_in(5) {
            rest["spec"]["locality"] = self.word(&["r/z1", "r/z2", ""]).into();
        }
        let has_gateways = self.kinds.iter().any(|(kind, _)| *kind == "Gateway");
        if (has_gateways && self.one_in(4)) || self.is_odd() {
            let gateway = format!("{namespace}/edge");
            rest["metadata"]["annotations"] = json!({"config.selvedge.io/gateway": gateway});
            rest["spec"]["labels"]["security.istio.io/tlsMode"] = "disabled".into();
        } else if self.one_in(5) {
            rest["metadata"]["annotations"] = json!({"config.selvedge.io/inbound": "10.0.0.1:15006"});
        } else if self.is_odd() {
            let policy = self.word(&["deny", "nobody"]);
            rest["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": policy});
        } else if self.is_odd() {
            rest["spec"]["unknown"] = json!(1);
        }
        rest
    }

    pub(super) fn slice(&mut self) -> Value {
        let mut endpoints = Vec::new();
        for _ in 0..self.random.usize(0..4) {
            let mut endpoint = json!({"addresses": [self.address()], "conditions": {"ready": !self.one_in(3), "serving": true}});
            if self.one_in(2) {
                endpoint["targetRef"] = json!({"kind": "Pod", "name": self.word(&["p1", "p2", "p3"])});
            }
            if self.one_in(4) {
                endpoint["nodeName"] = self.word(&["n1", "n2"]).into();
            }
            if self.one_in(4) {
                endpoint["hints"] = json!({"forZones": [{"name": self.word(&["z1", "z2"])}]});
            }
            endpoints.push(endpoint);
        }
        let service = self.word(&["a", "b", "c", "a", "b", "nobody"]);
        json!({"addressType": "IPv4", "metadata": {"labels": {"kubernetes.io/service-name": service}},
               "endpoints": endpoints, "ports": [{"name": "http", "port": self.random.u16(8080..8082)}]})
    }

    pub(super) fn pod(&mut self) -> Value {
        let mut labels = self.labels();
        if !self.one_in(4) {
            labels["selvedge.io/sidecar"] = "injected".into();
        }
        let phase = if self.one_in(8) { "Succeeded" } else { "Running" };
        let ip = self.address();
        let annotations = match self.is_odd() {
            true => json!({"config.selvedge.io/skip-inbound-ports": self.word(&["8080", "8081"]),
                           "config.linkerd.io/default-inbound-policy": self.word(&["deny", "nobody"])}),
            false => json!({}),
        };
        json!({"metadata": {"labels": labels, "annotations": annotations},
               "spec": {"serviceAccountName": self.word(&["one", "two"]), "nodeName": self.word(&["n1", "n2"]),
                        "hostNetwork": self.is_odd(),
                        "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}]},
               "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]}})
    }

    pub(super) fn service(&mut self) -> Value {
        if self.is_odd() {
            let name = self.word(&["a.shop.svc.cluster.local", "outside.example.com", "10.0.0.1"]);
            return json!({"spec": {"type": "ExternalName", "externalName": name,
                                   "ports": [{"name": "http", "port": 80}]}});
        }
        let target = if self.one_in(3) { json!("http") } else { json!(8080) };
        let mut spec = json!({"ports": [{"name": "http", "port": 80, "targetPort": target}]});
        if !self.one_in(5) {
            spec["selector"] = self.labels();
        }
        if self.one_in(6) {
            spec["clusterIP"] = "None".into();
        } else if self.one_in(2) {
            spec["clusterIP"] =
                if self.is_odd() { self.address() } else { format!("10.96.0.{}", self.random.u8(1..9)) }
                    .into();
        }
        if self.one_in(4) {
            let other = json!({"name": "other", "port": 90, "appProtocol": self.word(&["tcp", "http"])});
            spec["ports"].as_array_mut().unwrap().push(other);
        }
        if self.one_in(5) {
            spec["trafficDistribution"] = "PreferSameZone".into();
        } else if self.one_in(8) {
            spec["internalTrafficPolicy"] = "Local".into();
        }
        json!({"spec": spec})
    }

    pub(super) fn service_entry(&mut self) -> Value {
        let is_plain = self.plain && !self.is_odd();
        let host = match is_plain {
            true if self.one_in(2) => format!("{}.outside", self.random.alphabetic()).to_ascii_lowercase(),
            true => self.word(&["one.outside", "two.outside", "x.example.com"]).to_owned(),
            false => self.word(&["x.example.com", "*.example.com", "z.example.com", "*.outside"]).to_owned(),
        };
        let location = self.word(&["MESH_INTERNAL", "MESH_INTERNAL", "MESH_EXTERNAL"]);
        let mut spec = json!({"hosts": [host], "resolution": "STATIC", "location": location,
                              "ports": [{"name": "http", "number": 80, "protocol": self.word(&["HTTP", "HTTP", "TCP"])}]});
        if self.one_in(4) {
            spec["ports"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "other", "number": 90, "protocol": "HTTP"}));
        }
        if self.one_in(3) {
            spec["exportTo"] = self.export_to();
        }
        if self.is_odd() {
            spec["hosts"] = json!([host, "four.outside"]);
        }
        match self.random.u8(0..if is_plain { 2 } else { 3 }) {
            0 => {
                let mut endpoint = json!({"address": self.address(), "ports": {"http": 8080}});
                if self.one_in(3) {
                    endpoint["labels"] = json!({"app": "a", "security.istio.io/tlsMode": "istio"});
                    endpoint["serviceAccount"] = self.word(&["one", "two"]).into();
                }
                spec["endpoints"] = json!([endpoint]);
            }
            1 => spec["workloadSelector"] = json!({"labels": self.labels()}),
            _ => {
                spec["resolution"] = self.word(&["DNS", "NONE"]).into();
                spec["ports"][0]["number"] = self.random.choice([80_u16, 8080]).unwrap().into();
            }
        }
        if self.one_in(3) {
            spec["addresses"] = json!([self.address()]);
        }
        json!({"spec": spec})
    }
}
