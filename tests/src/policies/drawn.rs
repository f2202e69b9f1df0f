//! Random policies of all kinds, so that what is said of connections can be compared with what they come to.

mod istio;
mod linkerd;
mod network;

use std::{fmt, net::IpAddr};

/// A workload of namespace `default`, as policies may name it.
#[derive(Debug, Clone)]
pub struct Party {
    /// A label that it alone has, such as `app: one`.
    pub own: String,
    /// A label that it may share with others.
    pub shared: String,
    /// Its service account, in namespace `default`.
    pub account: String,
    /// The address that it is known by; `None`: no policy names it.
    pub address: Option<IpAddr>,
}

/// What is drawn from: the workloads, their ports, and chance.
pub struct Draw<'a> {
    /// The workloads.
    pub parties: &'a [Party],
    /// Ports that all of them have, with their names.
    pub ports: &'a [(u16, &'a str)],
    /// Gives a number below the one that it is given.
    pub below: &'a mut dyn FnMut(usize) -> usize,
}

impl fmt::Debug for Draw<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Draw").field("parties", &self.parties).finish_non_exhaustive()
    }
}

impl Draw<'_> {
    /// Istio's policies and those of Kubernetes' networks.
    pub fn istio_and_kubernetes(&mut self) -> String {
        let mut text = String::new();
        // What requests decide is rare otherwise.
        text += &self.readers();
        for number in 0..1 + self.number(3) {
            text += &self.peer_authentication(number);
        }
        for number in 0..1 + self.number(4) {
            text += &self.authorization_policy(number);
        }
        for number in 0..self.number(3) {
            text += &self.network_policy(number);
        }
        text
    }

    /// Policies of every kind; not all of them each time, because together they would let hardly anybody in.
    pub fn all(&mut self) -> String {
        let mut text = self.one(&["", "STRICT", "PERMISSIVE"]).to_owned();
        if !text.is_empty() {
            text = istio::mesh_wide(&text);
        }
        // Those of `istio_and_kubernetes` are called 0 to 2.
        for number in 3..3 + self.number(3) {
            text += &self.peer_authentication(number);
        }
        match self.number(4) {
            0 => text += &self.istio_and_kubernetes(),
            1 => {
                text += &self.readers();
                text += &self.calico();
            }
            2 => text += &self.linkerd(),
            _ => {
                text += &self.network_policy(0);
                text += &self.calico();
                text += &self.authorization_policy(0);
                text += &self.linkerd();
            }
        }
        text
    }

    fn number(&mut self, below: usize) -> usize {
        (self.below)(below)
    }

    /// Once in `times`.
    fn rarely(&mut self, times: usize) -> bool {
        self.number(times) == 0
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.number(of.len())]
    }

    fn party(&mut self) -> Party {
        self.parties[self.number(self.parties.len())].clone()
    }

    /// A label of some workload.
    fn label(&mut self) -> String {
        let party = self.party();
        if self.rarely(3) { party.shared } else { party.own }
    }

    fn port(&mut self) -> (u16, String) {
        let (port, name) = self.ports[self.number(self.ports.len())];
        (port, name.to_owned())
    }

    /// A network with one workload, or with a few; `None`: no addresses may be named.
    fn network(&mut self) -> Option<String> {
        let address = self.party().address?;
        let length = if address.is_ipv6() { 128 } else { 32 };
        Some(format!("{address}/{}", if self.rarely(3) { length - 1 } else { length }))
    }

    /// The selector of some workloads, or of all.
    fn selector(&mut self) -> String {
        if self.rarely(6) { "{}".to_owned() } else { format!("{{matchLabels: {{{}}}}}", self.label()) }
    }
}

/// One document of a list.
fn document(version: &str, kind: &str, metadata: &str, spec: &str) -> String {
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n")
}

/// The fields that there are, as YAML has them in one line.
fn fields(all: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = all.into_iter().filter(|field| !field.is_empty()).collect();
    format!("{{{}}}", all.join(", "))
}
