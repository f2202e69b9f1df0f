//! `NetworkPolicy`, and Calico's policies.

use std::collections::BTreeSet;

use super::{Draw, document, fields};

const CALICO: &str = "projectcalico.org/v3";

impl Draw<'_> {
    pub(super) fn network_policy(&mut self, number: usize) -> String {
        let selector = format!("podSelector: {}", self.selector());
        let types = self.one(&["Ingress", "Egress", "Ingress", "Ingress, Egress"]);
        let mut all = vec![selector, format!("policyTypes: [{types}]")];
        if types.contains("Ingress") {
            all.push(self.rules("ingress", "from"));
        }
        if types.contains("Egress") {
            all.push(self.rules("egress", "to"));
        }
        let metadata = format!("name: np-{number}, namespace: default");
        document("networking.k8s.io/v1", "NetworkPolicy", &metadata, &fields(all))
    }

    fn rules(&mut self, direction: &str, word: &str) -> String {
        let rules: Vec<String> = (0..self.number(3)).map(|_| self.network_rule(word)).collect();
        format!("{direction}: [{}]", rules.join(", "))
    }

    fn network_rule(&mut self, word: &str) -> String {
        let peers = match self.rarely(6) {
            true => String::new(),
            false => {
                let peers: Vec<String> = (0..1 + self.number(2)).map(|_| self.peer()).collect();
                format!("{word}: [{}]", peers.join(", "))
            }
        };
        let (port, name) = self.port();
        let ports = match self.number(5) {
            0 => format!("ports: [{{port: {port}}}]"),
            1 => format!("ports: [{{port: {name}}}]"),
            2 => format!("ports: [{{port: {}, endPort: {port}}}, {{protocol: UDP}}]", port - 20),
            _ => String::new(),
        };
        fields([peers, ports])
    }

    fn peer(&mut self) -> String {
        match (self.number(6), self.network(), self.network()) {
            (0, Some(network), _) => format!("{{ipBlock: {{cidr: {network}}}}}"),
            (1, Some(_), Some(except)) => format!("{{ipBlock: {{cidr: 0.0.0.0/0, except: [{except}]}}}}"),
            (2, ..) => {
                let namespaces = self.one(&["{}", "{matchLabels: {kubernetes.io/metadata.name: default}}"]);
                format!("{{namespaceSelector: {namespaces}, podSelector: {}}}", self.selector())
            }
            _ => format!("{{podSelector: {}}}", self.selector()),
        }
    }

    /// Some policies of Calico's, of either kind and in any tier, and a set of addresses that they may select.
    pub(super) fn calico(&mut self) -> String {
        let mut text = self.labelled_accounts();
        if let Some(network) = self.network() {
            let spec = format!("{{nets: [{network}]}}");
            text += &document(CALICO, "GlobalNetworkSet", "name: set, labels: {set: some}", &spec);
        }
        let tiers = self.number(3);
        for number in 0..tiers {
            text += &self.tier(number);
        }
        for number in 0..1 + self.number(2) + tiers {
            text += &self.calico_policy(number, tiers);
        }
        text
    }

    /// The accounts of all workloads, each with its name as a label.
    fn labelled_accounts(&self) -> String {
        let accounts: BTreeSet<&str> = self.parties.iter().map(|party| &*party.account).collect();
        let labelled = |account: &str| {
            format!(
                "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: default, labels: \
                 {{account: {account}}}}}\n"
            )
        };
        accounts.into_iter().map(labelled).collect()
    }

    fn tier(&mut self, number: usize) -> String {
        let order = match self.one(&["10", "100", "none"]) {
            "none" => String::new(),
            order => format!("order: {order}"),
        };
        // A tier that refuses what it does not know lets hardly anybody reach the next one.
        let otherwise = match self.one(&["Pass", "Pass", "Deny", "none"]) {
            "none" => String::new(),
            action => format!("defaultAction: {action}"),
        };
        document(CALICO, "Tier", &format!("name: tier-{number}"), &fields([order, otherwise]))
    }

    /// One in the default tier, or in one of the first `tiers`.
    fn calico_policy(&mut self, number: usize, tiers: usize) -> String {
        let is_global = self.rarely(2);
        let tier = match self.number(tiers + 1) {
            0 => String::new(),
            tier => format!("tier: tier-{}", tier - 1),
        };
        let direction = self.one(&["Ingress", "Ingress", "Egress"]);
        let rules: Vec<String> = (0..1 + self.number(3)).map(|_| self.calico_rule(direction)).collect();
        let accounts = match self.rarely(4) {
            true => format!("serviceAccountSelector: \"{}\"", self.of_accounts()),
            false => String::new(),
        };
        let namespaces = match is_global && self.rarely(4) {
            true => format!("namespaceSelector: \"{}\"", self.of_namespaces()),
            false => String::new(),
        };
        let spec = fields([
            tier,
            format!("order: {}", self.one(&["10", "100", "2000"])),
            format!("selector: \"{}\"", self.expression()),
            accounts,
            namespaces,
            format!("types: [{direction}]"),
            format!("{}: [{}]", direction.to_lowercase(), rules.join(", ")),
        ]);
        let (kind, metadata) = match is_global {
            true => ("GlobalNetworkPolicy", format!("name: gnp-{number}")),
            false => ("NetworkPolicy", format!("name: cnp-{number}, namespace: default")),
        };
        document(CALICO, kind, &metadata, &spec)
    }

    /// A selector of accounts.
    fn of_accounts(&mut self) -> String {
        let (one, other) = (self.party().account, self.party().account);
        match self.number(4) {
            0 => format!("account != '{one}'"),
            1 => format!("account in {{'{one}', '{other}'}}"),
            2 => "has(account)".to_owned(),
            _ => format!("account == '{one}'"),
        }
    }

    /// A selector of namespaces: of the one in which all workloads are, or of others.
    fn of_namespaces(&mut self) -> String {
        let all =
            ["all()", "kubernetes.io/metadata.name == 'default'", "kubernetes.io/metadata.name != 'default'"];
        self.one(&all).to_owned()
    }

    fn calico_rule(&mut self, direction: &str) -> String {
        let action = self.one(&["Allow", "Allow", "Deny", "Pass", "Log"]);
        let peer = self.entity();
        let port = self.port().0;
        let ports = match self.number(4) {
            0 => format!("ports: [{port}]"),
            1 => format!("notPorts: [{port}]"),
            _ => String::new(),
        };
        let (source, destination) = match direction {
            "Ingress" => (fields([peer]), fields([ports])),
            _ => ("{}".to_owned(), fields([peer, ports])),
        };
        let said = |word: &str, entity: String| match &*entity {
            "{}" => String::new(),
            entity => format!("{word}: {entity}"),
        };
        fields([
            format!("action: {action}"),
            "protocol: TCP".to_owned(),
            said("source", source),
            said("destination", destination),
        ])
    }

    /// Who is at the other end, as a field.
    fn entity(&mut self) -> String {
        match (self.number(9), self.network()) {
            (7, _) => format!("serviceAccounts: {{selector: \"{}\"}}", self.of_accounts()),
            (8, _) => {
                let namespaces = self.of_namespaces();
                format!("namespaceSelector: \"{namespaces}\", selector: \"{}\"", self.expression())
            }
            (0, Some(network)) => format!("nets: [{network}]"),
            (1, Some(network)) => format!("notNets: [{network}]"),
            (2, Some(_)) => "selector: \"set == 'some'\"".to_owned(),
            (3, _) => format!("serviceAccounts: {{names: [{}]}}", self.party().account),
            (4, _) => format!("notSelector: \"{}\"", self.expression()),
            (5, _) => String::new(),
            _ => format!("selector: \"{}\"", self.expression()),
        }
    }

    /// A selector in Calico's language.
    fn expression(&mut self) -> String {
        let (one, other) = (self.label(), self.label());
        let split =
            |label: &str| label.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (key, value) = split(&one).unwrap_or_default();
        let (_, other) = split(&other).unwrap_or_default();
        match self.number(6) {
            0 => "all()".to_owned(),
            1 => format!("{key} != '{value}'"),
            2 => format!("{key} in {{'{value}', '{other}'}}"),
            3 => format!("has({key}) && !({key} == '{value}')"),
            _ => format!("{key} == '{value}'"),
        }
    }
}
