//! `credentialName` of a `DestinationRule`: at a gateway, what it means is in a Secret. And files that a rule names: at a gateway
//! they are the gateway's own.
//!
//! As in Istio, the Secret is in the namespace of the gateway's workload, whichever namespace the rule is in, and sidecars have
//! none. Its certificate is sent to the gateways that show it, and to nobody else. Unlike in Istio, a rule of another namespace,
//! that is not the root namespace, needs a `ReferenceGrant` there: otherwise whoever adds rules and routes could have requests of
//! his own sent with a partner's certificate. For the same reason a rule of another namespace may name no files at all.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    Backend, Credential, GivenAuthorities, TlsOrigination, Trusted, UpstreamTls, gateway::ServerCertificate,
};

use super::{
    super::{
        Problems,
        certificates::{Certificates, Refused},
        grants::{Grants, Named},
    },
    WantedFrom,
    istio::AUTHORITIES_SUFFIX,
    seats::Seat,
    terminate::WantedObject,
};
use crate::resources::{DestinationRuleSpec, Document, Resources, destination_rule::PolicyBlocks};

type Rule = Document<DestinationRuleSpec>;

/// The Secrets of one gateway's namespace.
pub(super) struct Credentials<'a> {
    namespace: &'a str,
    /// The namespace whose rules need no permit.
    root: &'a str,
    certificates: &'a Certificates<'a>,
    grants: &'a Grants<'a>,
    /// Whether there is a workload: without one nobody knows in which namespace the Secrets are.
    is_served: bool,
    /// Why what is named cannot be used, by the namespace of the rule and the name of the Secret or the file.
    refused: RefCell<BTreeMap<(Arc<str>, String), Refused>>,
}

/// What a Secret holds.
struct Held<'a> {
    trusted: Option<Trusted>,
    shown: Option<&'a Arc<ServerCertificate>>,
}

impl<'a> Credentials<'a> {
    pub(super) fn new(
        seat: &Seat<'a>,
        root: &'a str,
        certificates: &'a Certificates<'a>,
        grants: &'a Grants<'a>,
    ) -> Self {
        let (namespace, is_served) = (seat.workload_namespace, !seat.workloads.is_empty());
        Self { namespace, root, certificates, grants, is_served, refused: RefCell::default() }
    }

    /// Puts what the Secret holds that `backend` names in its place, and says what is shown. A backend whose Secret cannot be used
    /// is not called at all.
    pub(super) fn resolve(&self, backend: &mut Backend) -> Option<&'a Arc<ServerCertificate>> {
        let Some(UpstreamTls::Originate(settings)) = &mut backend.policy.tls else { return None };
        if let Some(by) = settings.files_named_by.take().filter(|by| self.is_served && !self.has(by)) {
            let file = first_file(settings).unwrap_or_default();
            let why = format!(
                "a rule of the namespace {by} cannot name files of a gateway in {}; write credentialName with a Secret there, or \
                 move the rule there or to the root namespace",
                self.namespace
            );
            // Nor is it looked for.
            (settings.client, settings.trusted) = (None, Trusted::System);
            backend.broken.get_or_insert_with(|| why.clone());
            self.refused.borrow_mut().entry((by, file)).or_insert_with(|| Refused::new(why));
            return None;
        }
        let credential = settings.credential.take().filter(|_| self.is_served)?;
        match self.find(&credential) {
            Ok(held) => {
                if let Some(trusted) = held.trusted {
                    settings.trusted = trusted;
                }
                // Files are those of sidecars.
                settings.client = None;
                settings.certificate = held.shown.map(|shown| shown.name.clone());
                held.shown
            }
            Err(refused) => {
                let why = format!("credentialName {}: {}", credential.secret, refused.why);
                backend.broken.get_or_insert(why);
                let Credential { named_by, secret, .. } = credential;
                self.refused.borrow_mut().entry((named_by, secret)).or_insert(refused);
                None
            }
        }
    }

    /// Whether the rules of `namespace` may have the gateway use what it has itself.
    fn has(&self, namespace: &str) -> bool {
        namespace == self.namespace || namespace == self.root
    }

    /// The authorities are in `ca.crt` of the Secret, or if it has none of the one beside it. If neither has, those of the
    /// operating system are believed.
    fn find(&self, credential: &Credential) -> Result<Held<'a>, Refused> {
        let name = credential.secret.as_str();
        permit(self.grants, self.root, credential, self.namespace)?;
        let shown = match credential.mutual {
            true => Some(self.certificates.client(self.namespace, name)?.server),
            false => None,
        };
        let (own, beside) = (name.to_owned(), format!("{name}{AUTHORITIES_SUFFIX}"));
        for secret in [own, beside] {
            match self.certificates.authorities("Secret", self.namespace, &secret) {
                Ok((authorities, _)) => {
                    let given = GivenAuthorities::from(Arc::clone(authorities));
                    return Ok(Held { trusted: Some(Trusted::Given(given)), shown });
                }
                Err(refused) if refused.at_object.is_some() => return Err(refused),
                Err(_) => {}
            }
        }
        match self.certificates.secret(self.namespace, name) {
            Some(_) => Ok(Held { trusted: None, shown }),
            None => Err(Refused::new(format!(
                "there is no Secret {}/{name}; add one with ca.crt, or correct the name",
                self.namespace
            ))),
        }
    }

    /// Tells whoever names a Secret that cannot be used.
    pub(super) fn report<'r>(&self, rules: impl Iterator<Item = &'r Rule>, problems: &mut Problems) {
        let refused = self.refused.borrow();
        if refused.is_empty() {
            return;
        }
        for rule in rules.filter(|rule| is_for(rule, self.namespace)) {
            for (field, named) in named(rule).into_iter().map(|(field, named)| (field, named.key())) {
                let Some(Refused { why, at_object, .. }) = refused.get(&named) else { continue };
                let told =
                    format!("{why} (so gateways in the namespace {} send nothing there)", self.namespace);
                problems.error(rule, &field, told);
                at_object.iter().for_each(|problem| problems.add((**problem).clone()));
            }
        }
    }
}

/// Whether a rule may have gateways in `namespace` use the Secret that `credential` names there: one of that namespace, of the
/// `root` namespace, and one that a grant permits. The one beside it goes with it.
fn permit(grants: &Grants<'_>, root: &str, credential: &Credential, namespace: &str) -> Result<(), Refused> {
    let from = ("DestinationRule", &*credential.named_by);
    let named = Named { group: "", kind: "Secret", namespace, name: &credential.secret };
    match from.1 == root || grants.permit_kind(from, named) {
        true => Ok(()),
        false => Err(Refused::new(Grants::advice_for(from, named))),
    }
}

fn is_for(rule: &Rule, client: &str) -> bool {
    rule.spec.export_to.includes(&rule.name.namespace, Some(client))
}

/// Something of a gateway's that a rule names.
enum OfGateway<'r> {
    Secret(&'r Credential),
    /// The first file that is named in a place, and the namespace of the rule.
    File(String, &'r Arc<str>),
}

impl OfGateway<'_> {
    /// By what it is found why it cannot be used.
    fn key(&self) -> (Arc<str>, String) {
        match self {
            Self::Secret(credential) => (Arc::clone(&credential.named_by), credential.secret.clone()),
            Self::File(file, by) => (Arc::clone(by), file.clone()),
        }
    }
}

fn first_file(settings: &TlsOrigination) -> Option<String> {
    let of_client = settings.client.as_ref().map(|client| client.certificate.clone());
    of_client.or_else(|| match &settings.trusted {
        Trusted::File(file) => Some(file.clone()),
        Trusted::System | Trusted::Given(_) => None,
    })
}

/// Whether `rule` names Secrets.
pub(in super::super) fn names_secrets(rule: &Rule) -> bool {
    !named(rule).is_empty()
}

/// What `rule` names, and where.
fn named(rule: &Rule) -> Vec<(String, OfGateway<'_>)> {
    fn of_blocks<'r>(blocks: &'r PolicyBlocks, field: &str, all: &mut Vec<(String, OfGateway<'r>)>) {
        if let Some(UpstreamTls::Originate(settings)) = &blocks.tls {
            let credential = settings.credential.as_ref().map(OfGateway::Secret);
            all.extend(credential.map(|credential| (format!("{field}.tls.credentialName"), credential)));
            let name = if settings.client.is_some() { "clientCertificate" } else { "caCertificates" };
            if let Some((file, by)) = first_file(settings).zip(settings.files_named_by.as_ref()) {
                all.push((format!("{field}.tls.{name}"), OfGateway::File(file, by)));
            }
        }
        for of_port in blocks.ports.values() {
            of_blocks(of_port, &format!("{field}.portLevelSettings[{}]", of_port.place), all);
        }
    }
    let mut all = Vec::new();
    of_blocks(&rule.spec.policy, "spec.trafficPolicy", &mut all);
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        of_blocks(&subset.policy, &format!("spec.subsets[{index}].trafficPolicy"), &mut all);
    }
    all
}

/// Adds the Secrets that rules name and may name which gateways follow, each in the namespace of the workloads that do. Whether
/// there is the one beside it is not known before it is asked for.
pub(super) fn add_wanted<'a>(resources: &'a Resources, root: &str, all: &mut WantedFrom<'a>) {
    let secrets = |rule: &'a Rule| {
        let of_secret = |named: OfGateway<'a>| match named {
            OfGateway::Secret(credential) => Some(credential),
            OfGateway::File(..) => None,
        };
        named(rule).into_iter().filter_map(|(_, named)| of_secret(named)).collect::<Vec<_>>()
    };
    let rules: Vec<(&Rule, Vec<&Credential>)> = resources
        .destination_rules
        .iter()
        .map(|rule| (&**rule, secrets(rule)))
        .filter(|(_, named)| !named.is_empty())
        .collect();
    if rules.is_empty() {
        return;
    }
    let namespaces: BTreeSet<&str> =
        super::istio::workloads(resources).into_iter().map(|(namespace, _)| namespace).collect();
    let grants = Grants::new(resources);
    for namespace in namespaces {
        for (rule, credentials) in rules.iter().filter(|(rule, _)| is_for(rule, namespace)) {
            let is_permitted =
                |credential: &&&Credential| permit(&grants, root, credential, namespace).is_ok();
            let permitted: Vec<_> = credentials.iter().filter(is_permitted).collect();
            if permitted.is_empty() {
                continue;
            }
            let named = all.entry(&*rule.name.namespace).or_default();
            for credential in permitted {
                let beside = format!("{}{AUTHORITIES_SUFFIX}", credential.secret);
                named.extend([credential.secret.clone(), beside].map(|name| WantedObject {
                    kind: "Secret",
                    namespace: namespace.to_owned(),
                    name,
                }));
            }
        }
    }
}
