//! Who is meant by what Linkerd's policies ask of clients.

use ipnet::IpNet;
use selvedge_model::policy::{AddressSet, Asks, Condition, Rule, TextPattern, TextSet};

use crate::{
    compile::{MeshSettings, authorization::in_trust_domain},
    resources::linkerd_policy::{
        Named,
        access::{Access, cluster_networks},
        identity::Identity,
        networks::Network,
    },
};

/// Patterns of identities; any of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Identities {
    patterns: Vec<TextPattern>,
}

impl Identities {
    /// Those whom `identity` stands for.
    pub(super) fn add(&mut self, identity: &Identity, settings: &MeshSettings) {
        let own = settings.trust_domain.as_str();
        match identity {
            Identity::Of(pattern) => self.patterns.push(own_domain(pattern, own)),
            Identity::EndsWith(end) => {
                let all = format!(".serviceaccount.identity.linkerd.{own}");
                let cluster = ".serviceaccount.identity.linkerd.cluster.local";
                if [&*all, cluster].iter().any(|all| all.ends_with(&format!(".{end}"))) {
                    self.patterns.push(TextPattern::Prefix(format!("{own}/").into()));
                }
            }
            Identity::Nobody => {}
        }
    }

    /// A service account; `here` is the namespace of the document that names it.
    pub(super) fn add_account(&mut self, account: &Named, here: &str, settings: &MeshSettings) {
        let namespace = account.namespace.as_deref().unwrap_or(here);
        let text = format!("{}/ns/{namespace}/sa/{}", settings.trust_domain.as_str(), account.name);
        self.patterns.push(TextPattern::Exact(text.into()));
    }

    /// All service accounts of a namespace.
    pub(super) fn add_namespace(&mut self, namespace: &str, settings: &MeshSettings) {
        let text = format!("{}/ns/{namespace}/sa/", settings.trust_domain.as_str());
        self.patterns.push(TextPattern::Prefix(text.into()));
    }

    fn condition(&self) -> Condition {
        let set: TextSet = self.patterns.iter().cloned().collect();
        asked(Asks::Principal(set))
    }
}

/// `pattern` with the mesh's own trust domain in the place of `cluster.local`, which stands for it.
fn own_domain(pattern: &TextPattern, own: &str) -> TextPattern {
    let local = |text: &str| match text.strip_prefix("cluster.local/") {
        Some(rest) => format!("{own}/{rest}"),
        None => text.to_owned(),
    };
    match pattern {
        TextPattern::Exact(_) => in_trust_domain(pattern, own),
        other => other.map(local),
    }
}

/// The alternatives of a rule that asks for these identities (`None`: for none) at these networks (none: any).
pub(super) fn alternatives(identities: Option<&Identities>, networks: &[Network]) -> Vec<Vec<Condition>> {
    let identity = identities.map(Identities::condition);
    let with = |mut conditions: Vec<Condition>| {
        conditions.splice(0..0, identity.clone());
        conditions
    };
    if networks.is_empty() {
        return identity.is_some().then(|| with(Vec::new())).into_iter().collect();
    }
    let whole: Vec<IpNet> = networks.iter().filter(|one| one.except.is_empty()).map(|one| one.all).collect();
    let whole = (!whole.is_empty()).then(|| with(vec![asked(Asks::Source(AddressSet::new(whole)))]));
    let parts = networks.iter().filter(|one| !one.except.is_empty()).map(|one| {
        let except = Asks::Source(AddressSet::new(one.except.iter().copied()));
        let all = asked(Asks::Source(AddressSet::new([one.all])));
        with(vec![all, Condition { asks: except, negated: true }])
    });
    whole.into_iter().chain(parts).collect()
}

/// What `access` lets in by itself; `None`: nobody, or everybody with a note.
pub(super) fn rule_of_access(access: Access, name: &str) -> Option<Rule> {
    if matches!(access, Access::Deny | Access::Audit) {
        return None;
    }
    let everyone = Identities { patterns: vec![TextPattern::Present] };
    let cluster = cluster_networks().map(|all| Network { all, except: Vec::new() });
    let cluster: Vec<Network> = cluster.filter(|_| access.asks_cluster()).collect();
    let from = alternatives(access.asks_identity().then_some(&everyone), &cluster);
    Some(Rule { from, ..Rule::everything(name) })
}

fn asked(asks: Asks) -> Condition {
    Condition { asks, negated: false }
}
