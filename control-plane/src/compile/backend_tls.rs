//! `BackendTLSPolicy`: which services' servers speak TLS, and whose certificates they must show.
//!
//! A policy is for gateways and sidecars alike, and counts more than a `DestinationRule`: it is the word of those who run
//! the service. One that cannot be used has nothing sent to its service, because plaintext is what it forbids.

use std::collections::HashMap;

use selvedge_model::{Endpoints, GivenAuthorities, TlsOrigination, Trusted, UpstreamTls};

use super::{
    Problems,
    certificates::{Certificates, Refused},
    policy_targets::{Target, Targets, key, target},
    services::{Catalog, KnownHost},
};
use crate::{
    problem::{Fault, PolicyFault},
    resources::{
        BackendTlsPolicySpec, Document, Resources, backend_tls_policy::AuthoritiesSpec,
        policy_target::PolicyTarget,
    },
};

type Policy = Document<BackendTlsPolicySpec>;

/// How a service's servers are called, or why they cannot be.
pub(super) type Asked = Result<TlsOrigination, String>;

/// Every policy, by what it is for.
#[derive(Debug)]
pub(super) struct BackendTls<'a> {
    /// By the document that defines a host. Of each, the oldest of each section.
    by_target: HashMap<Target<'a>, Vec<Attached<'a>>>,
    /// Those that cannot be used and may be for any service of a namespace.
    anywhere: HashMap<&'a str, (&'a Policy, Asked)>,
}

#[derive(Debug)]
struct Attached<'a> {
    policy: &'a Policy,
    /// The port that it is for; `None` = every one.
    section: Option<&'a str>,
    asked: Asked,
}

impl<'a> BackendTls<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        catalog: &Catalog<'_>,
        certificates: &Certificates<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut all = Self { by_target: HashMap::new(), anywhere: HashMap::new() };
        if resources.backend_tls_policies.is_empty() {
            return all;
        }
        let known = Targets::new(catalog);
        for policy in &resources.backend_tls_policies {
            let policy: &Policy = policy;
            let asked = asked(policy, certificates, problems);
            if policy.unusable && policy.spec.targets.is_empty() {
                all.anywhere.entry(&policy.name.namespace).or_insert((policy, asked));
                continue;
            }
            for wanted in &policy.spec.targets {
                if let Some(message) = known.missing(&policy.name.namespace, wanted) {
                    let field = format!("spec.targetRefs[{}]", wanted.index);
                    problems.fault(policy, &field, message, Fault::Policy(PolicyFault::NoTarget));
                    continue;
                }
                all.attach(policy, wanted, asked.clone(), problems);
            }
        }
        all
    }

    fn attach(
        &mut self,
        policy: &'a Policy,
        wanted: &'a PolicyTarget,
        asked: Asked,
        problems: &mut Problems,
    ) {
        let here = self.by_target.entry(key(&policy.name.namespace, wanted)).or_default();
        let section = wanted.section.as_deref();
        match here.iter().find(|other| other.section == section) {
            None => here.push(Attached { policy, section, asked }),
            Some(first) => {
                let message = format!(
                    "has no effect: {} ({}) is older and is for the same; keep one, or give each a sectionName",
                    first.policy.name, first.policy.location
                );
                problems.overruled(policy, &format!("spec.targetRefs[{}]", wanted.index), message);
            }
        }
    }

    /// What is asked of the servers of `port` of `known`.
    pub(super) fn find<'s>(&'s self, known: &'s KnownHost<'_>, port: u16) -> Option<&'s Asked> {
        self.attached(known, port).map(|(_, asked)| asked)
    }

    fn attached<'s>(&'s self, known: &'s KnownHost<'_>, port: u16) -> Option<(&'s Policy, &'s Asked)> {
        if self.by_target.is_empty() && self.anywhere.is_empty() {
            return None;
        }
        if let Some((policy, asked)) = self.anywhere.get(known.namespace) {
            return Some((policy, asked));
        }
        let here = self.by_target.get(&target(known.document()))?;
        let name = known.port_name(port);
        let of_port = here.iter().find(|one| one.section.is_some() && one.section == name);
        let found = of_port.or_else(|| here.iter().find(|one| one.section.is_none()))?;
        Some((found.policy, &found.asked))
    }

    /// Reports a policy for servers that have sidecars.
    pub(super) fn report(&self, known: &KnownHost<'_>, endpoints: &Endpoints, problems: &mut Problems) {
        let Some((policy, Ok(asked))) = self.attached(known, endpoints.key.port) else { return };
        let tls = UpstreamTls::Originate(asked.clone());
        if let Some(message) =
            super::destination_rules::conflict(&tls, &std::collections::BTreeMap::new(), endpoints)
        {
            problems.warning(policy, "spec.targetRefs", message);
        }
    }
}

/// What `policy` asks of the servers that it is for.
fn asked(policy: &Policy, certificates: &Certificates<'_>, problems: &mut Problems) -> Asked {
    if policy.unusable {
        return Err(refusal(policy, "cannot be used"));
    }
    let BackendTlsPolicySpec { authorities, hostname, names, .. } = &policy.spec;
    let trusted = match authorities {
        AuthoritiesSpec::System => Trusted::System,
        AuthoritiesSpec::Objects(objects) => {
            let mut given: Vec<Vec<u8>> = Vec::new();
            for object in objects {
                match certificates.named_authorities(object, &policy.name.namespace) {
                    Ok((authorities, remark)) => {
                        given.extend(authorities.iter().cloned());
                        remark.into_iter().for_each(|one| one.report(policy, &object.field, problems));
                    }
                    Err(refused) => report(policy, &object.field, refused, problems),
                }
            }
            if given.is_empty() {
                let message =
                    "has no usable certificate, so nothing is sent to the Service (5xx); repair one of them";
                let field = "spec.validation.caCertificateRefs";
                problems.fault(policy, field, message, Fault::Policy(PolicyFault::NoAuthority));
                return Err(refusal(policy, "names no usable certificate of an authority"));
            }
            Trusted::Given(GivenAuthorities::new(given))
        }
    };
    Ok(TlsOrigination {
        sni: Some(hostname.clone()),
        subject_alt_names: names.clone(),
        trusted,
        policy: Some(policy.name.to_string().into()),
        ..TlsOrigination::default()
    })
}

fn refusal(policy: &Policy, why: &str) -> String {
    format!("{} {why}, so nothing is sent there", policy.name)
}

fn report(policy: &Policy, field: &str, refused: Refused, problems: &mut Problems) {
    let Refused { why, at_object, is_kind } = refused;
    let message = format!("{why} (servers with certificates of its authorities are not believed)");
    problems.fault(policy, field, message, Fault::Policy(PolicyFault::Authority { is_kind }));
    at_object.into_iter().for_each(|problem| problems.add(*problem));
}
