//! Random documents, and random changes of them.

mod policies;
mod routes;
mod workloads;

use std::{path::Path, sync::Arc};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::resources::{DecodeOutcome, Resource, Resources, decode, decode_value};

/// Kinds of documents, and how often there is one among ten; those that have to do with everything are in few worlds.
const KINDS: [(&str, usize, u32); 19] = [
    ("WorkloadEntry", 8, 100),
    ("EndpointSlice", 3, 70),
    ("Pod", 4, 50),
    ("Service", 4, 100),
    ("ServiceEntry", 4, 50),
    ("DestinationRule", 2, 40),
    ("VirtualService", 2, 40),
    ("HTTPRoute", 2, 30),
    ("TCPRoute", 1, 15),
    ("Gateway", 2, 30),
    ("PeerAuthentication", 2, 40),
    ("AuthorizationPolicy", 2, 40),
    ("RequestAuthentication", 1, 30),
    ("Telemetry", 2, 25),
    ("NetworkPolicy", 2, 35),
    ("GlobalNetworkPolicy", 1, 15),
    ("RateLimit", 2, 35),
    ("Server", 1, 20),
    ("Node", 2, 30),
];

/// Documents that have a part in the same things, as far as that can be in so few.
pub(super) struct World {
    random: Rng,
    kinds: Vec<(&'static str, usize)>,
    pub(super) documents: Vec<(Value, Resource)>,
    /// How many documents were made.
    made: usize,
    /// Whether documents may stand in files.
    in_files: bool,
    /// How many of a hundred documents do something unusual.
    odd: u32,
    /// Whether all `ServiceEntry`s are called at addresses and by names of their own, as far as nothing unusual is done.
    plain: bool,
    /// Whether some documents are so large that others of their namespace have no room.
    crowded: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut kinds = Vec::new();
        for (kind, weight, there) in KINDS {
            if random.u32(0..100) < there {
                kinds.push((kind, weight));
            }
        }
        let (in_files, odd) = (random.u32(0..4) > 0, random.choice([0, 3, 15]).unwrap());
        let (crowded, plain) = (random.u32(0..5) == 0, random.u32(0..3) > 0);
        let mut world = Self { random, kinds, documents: Vec::new(), made: 0, in_files, odd, plain, crowded };
        for _ in 0..world.random.usize(5..30) {
            world.add();
        }
        world
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.u32(0..many) == 0
    }

    fn is_odd(&mut self) -> bool {
        self.random.u32(0..100) < self.odd
    }

    fn word<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.random.usize(0..words.len())]
    }

    fn kind(&mut self) -> &'static str {
        let all: usize = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut place = self.random.usize(0..all);
        let kinds = self.kinds.iter();
        let mut kinds = kinds.skip_while(|(_, weight)| {
            let is_before = place >= *weight;
            place = place.saturating_sub(*weight);
            is_before
        });
        kinds.next().unwrap().0
    }

    fn address(&mut self) -> String {
        match self.is_odd() {
            true if self.one_in(4) => "127.0.0.9".to_owned(),
            true => format!("10.96.0.{}", self.random.u8(1..4)),
            false => format!("10.0.0.{}", self.random.u8(1..9)),
        }
    }

    fn labels(&mut self) -> Value {
        let mut labels = json!({"app": self.word(&["a", "b", "c"])});
        if self.one_in(3) {
            labels["version"] = self.word(&["v1", "v2"]).into();
        }
        labels
    }

    /// Another document of this kind and name.
    fn document(&mut self, kind: &str, namespace: &str, name: &str) -> Value {
        let mut document = json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}});
        let (version, rest) = match kind {
            "WorkloadEntry" => ("networking.istio.io/v1", self.entry(namespace)),
            "EndpointSlice" => ("discovery.k8s.io/v1", self.slice()),
            "Pod" => ("v1", self.pod()),
            "Service" => ("v1", self.service()),
            "ServiceEntry" => ("networking.istio.io/v1", self.service_entry()),
            "DestinationRule" => ("networking.istio.io/v1", self.destination_rule()),
            "VirtualService" => ("networking.istio.io/v1", self.virtual_service()),
            "HTTPRoute" => ("gateway.networking.k8s.io/v1", self.http_route()),
            "TCPRoute" => ("gateway.networking.k8s.io/v1alpha2", self.tcp_route()),
            "Server" => ("policy.linkerd.io/v1beta3", self.server()),
            "Gateway" if self.one_in(2) => {
                let listener = json!({"name": "http", "port": self.random.choice([80, 8080]).unwrap(), "protocol": "HTTP"});
                let spec = json!({"gatewayClassName": "any", "listeners": [listener]});
                ("gateway.networking.k8s.io/v1", json!({"spec": spec}))
            }
            "Gateway" => {
                let port = json!({"number": self.random.choice([80, 8080]).unwrap(), "name": "http", "protocol": "HTTP"});
                let servers = json!([{"port": port, "hosts": ["*"]}]);
                let spec = json!({"selector": {"app": self.word(&["a", "b"])}, "servers": servers});
                ("networking.istio.io/v1", json!({"spec": spec}))
            }
            "NetworkPolicy" => ("networking.k8s.io/v1", self.network_policy()),
            "GlobalNetworkPolicy" => ("projectcalico.org/v3", self.calico_policy()),
            "RateLimit" => ("selvedge.io/v1alpha1", self.rate_limit()),
            "Node" => {
                let zone = self.word(&["z1", "z2"]);
                let labels =
                    json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone});
                ("v1", json!({"metadata": {"labels": labels}}))
            }
            policy => self.policy(policy),
        };
        document["apiVersion"] = version.into();
        json_patch::merge(&mut document, &rest);
        document
    }

    /// What `document` means; `None`: nothing.
    fn resource(&self, document: &Value) -> Option<Resource> {
        let is_clusters = matches!(document["kind"].as_str(), Some("Pod" | "Node"));
        let decoded = match is_clusters || !self.in_files {
            true => decode_value(document.clone(), "default"),
            false => {
                let (kind, namespace, name) =
                    (&document["kind"], &document["metadata"]["namespace"], &document["metadata"]["name"]);
                let path = format!("{kind}-{namespace}-{name}.yaml").replace('"', "");
                let mut decoded = decode(&document.to_string(), &Arc::from(Path::new(&path)), "default");
                decoded.remove(0)
            }
        };
        let mut resource = match (decoded.outcome, decoded.stand_in) {
            (DecodeOutcome::Understood(resource), _) => Some(resource),
            (_, stand_in) => stand_in.map(|stand_in| stand_in.resource),
        };
        // About half of what a namespace's documents may come to at a second port.
        let large = 150 << 20;
        if document["metadata"]["annotations"]["size"] == "large" {
            match &mut resource {
                Some(Resource::VirtualService(document)) => Arc::make_mut(document).size = large,
                Some(Resource::DestinationRule(document)) => Arc::make_mut(document).size = large,
                _ => {}
            }
        }
        resource
    }

    fn add(&mut self) {
        self.made += 1;
        let kind = self.kind();
        let namespace = self.word(&["shop", "shop", "bank"]);
        let name = match kind {
            "Service" => self.word(&["a", "b", "c"]).to_owned(),
            "Pod" => self.word(&["p1", "p2", "p3", "p4"]).to_owned(),
            "Node" => self.word(&["n1", "n2"]).to_owned(),
            "WorkloadEntry" if self.is_odd() => "p1".to_owned(),
            "VirtualService" if self.is_odd() => "delegate".to_owned(),
            "Gateway" => "edge".to_owned(),
            "HTTPRoute" if self.one_in(2) => "route".to_owned(),
            _ => format!("d{}", self.made),
        };
        let document = self.document(kind, namespace, &name);
        let is_same = |other: &Value| {
            (&other["kind"], &other["metadata"]["namespace"], &other["metadata"]["name"])
                == (&document["kind"], &document["metadata"]["namespace"], &document["metadata"]["name"])
        };
        self.documents.retain(|(other, _)| !is_same(other));
        if let Some(resource) = self.resource(&document) {
            let place = if self.one_in(4) {
                self.random.usize(0..=self.documents.len())
            } else {
                self.documents.len()
            };
            self.documents.insert(place, (document, resource));
        }
    }

    /// A document, one of workloads or endpoints more often than not, and often one of routes.
    fn some(&mut self) -> Option<usize> {
        let wanted = self.random.u8(0..24);
        let is_one = |(document, _): &(Value, Resource)| {
            let kind = document["kind"].as_str().unwrap_or_default();
            match wanted {
                0 | 1 => true,
                2..8 => matches!(kind, "VirtualService" | "DestinationRule" | "HTTPRoute" | "TCPRoute"),
                8 => kind == "Service",
                9 | 22 | 23 => kind == "ServiceEntry",
                10..12 => {
                    matches!(
                        kind,
                        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" | "RateLimit"
                    )
                }
                12..14 => matches!(kind, "NetworkPolicy" | "GlobalNetworkPolicy"),
                _ => matches!(kind, "WorkloadEntry" | "Pod" | "EndpointSlice"),
            }
        };
        let places: Vec<usize> =
            (0..self.documents.len()).filter(|place| is_one(&self.documents[*place])).collect();
        self.random.choice(places)
    }

    pub(super) fn change(&mut self) {
        for _ in 0..=self.random.usize(0..3) / 2 {
            let Some(place) = self.some() else {
                self.add();
                continue;
            };
            let mut document = self.documents[place].0.clone();
            match self.random.u8(0..10) {
                0 => self.add(),
                1 => drop(self.documents.remove(place)),
                2 => {
                    let removed = self.documents.remove(place);
                    let to = self.random.usize(0..=self.documents.len());
                    self.documents.insert(to, removed);
                }
                // Read again, and the same.
                3 => self.replace(place, document),
                4..=6 if document["kind"] == "WorkloadEntry" => {
                    document["spec"]["weight"] = self.random.u8(0..9).into();
                    self.replace(place, document);
                }
                4..=6 if document["kind"] == "EndpointSlice" => {
                    let endpoint = json!({"addresses": [self.address()]});
                    let endpoints = document["endpoints"].as_array_mut().unwrap();
                    if endpoints.len() > 1 && self.random.bool() {
                        endpoints.remove(0);
                    } else {
                        endpoints.push(endpoint);
                    }
                    self.replace(place, document);
                }
                4 | 5 if document["spec"]["endpoints"].is_array() => {
                    let endpoint = json!({"address": self.address(), "ports": {"http": 8080}});
                    let endpoints = document["spec"]["endpoints"].as_array_mut().unwrap();
                    if endpoints.len() > 1 && self.random.bool() {
                        endpoints.remove(0);
                    } else {
                        endpoints.push(endpoint);
                    }
                    self.replace(place, document);
                }
                _ => {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let (kind, metadata) = (text(&document["kind"]), &document["metadata"]);
                    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
                    let document = self.document(&kind, &namespace, &name);
                    self.replace(place, document);
                }
            }
        }
    }

    fn replace(&mut self, place: usize, document: Value) {
        match self.resource(&document) {
            Some(resource) => self.documents[place] = (document, resource),
            None => drop(self.documents.remove(place)),
        }
    }

    pub(super) fn resources(&self) -> Resources {
        let mut resources = Resources::default();
        self.documents.iter().for_each(|(_, resource)| resources.push(resource.clone()));
        resources
    }
}
