//! The certificates that listeners and `BackendTLSPolicy`s name: which object holds one, whether it may be named, and
//! whether it can be shown.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use selvedge_model::gateway::{CertificateName, Hostname, ServerCertificate};

use super::Problems;
use crate::{
    problem::{DocumentName, Problem, Severity},
    resources::{
        ConfigMapSpec, Document, Resources, SecretSpec,
        gateway::ObjectRef,
        secret::{Authorities, Broken, KnownCertificate, Unreadable},
    },
};

/// The Secret with the mesh's CA, in the control plane's own namespace: `tls.crt`, `tls.key`, `ca.crt`.
pub const CA_SECRET: &str = "selvedge-ca";

/// Every object that holds certificates, by its namespace and name.
pub(super) struct Certificates<'a> {
    secrets: HashMap<(&'a str, &'a str), &'a Document<SecretSpec>>,
    config_maps: HashMap<(&'a str, &'a str), &'a Document<ConfigMapSpec>>,
    /// What is expired and what is not yet valid is told by this.
    now: SystemTime,
    /// The control plane's own namespace.
    own_namespace: &'a str,
}

/// Why an object that is named does not give what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// For whoever names it: what is wrong, and the remedy.
    pub(super) why: String,
    /// For whoever wrote it, if it is there.
    pub(super) at_object: Option<Box<Problem>>,
    /// Whether it is of a kind that does not give it.
    pub(super) is_kind: bool,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), at_object: None, is_kind: false }
    }

    fn unreadable<T>(document: &Document<T>, unreadable: &Unreadable) -> Self {
        let Unreadable { field, why } = unreadable;
        let problem = document.problem(Severity::Error, field, why.clone());
        Self {
            why: format!("{} cannot be used: {field} {why}", described(document)),
            at_object: Some(Box::new(problem)),
            is_kind: false,
        }
    }
}

/// A certificate that is shown.
pub(super) struct Found<'a> {
    /// It.
    pub(super) server: &'a Arc<ServerCertificate>,
    /// Whether clients may believe it by its dates.
    pub(super) is_valid: bool,
    /// What is to be done about it nevertheless.
    pub(super) remarks: Vec<Remark>,
}

/// The certificates of a listener.
#[derive(Default)]
pub(super) struct Shown(Vec<(bool, CertificateName)>);

impl Shown {
    /// Adds one, once; `tell` gets what is to be done about it.
    pub(super) fn add(&mut self, found: Found<'_>, tell: impl FnMut(Remark)) {
        let name = &found.server.name;
        if !self.0.iter().any(|(_, there)| there == name) {
            self.0.push((found.is_valid, name.clone()));
            found.remarks.into_iter().for_each(tell);
        }
    }

    /// Those that are valid first: of two for one host, clients then see the one that they believe.
    pub(super) fn names(mut self) -> Vec<CertificateName> {
        self.0.sort_by_key(|(is_valid, _)| !is_valid);
        self.0.into_iter().map(|(_, name)| name).collect()
    }
}

/// A Secret, its certificate with its key, and what is wrong if they are not its newest.
type Pair<'a> = (&'a Document<SecretSpec>, &'a KnownCertificate, Option<Remark>);

/// What is wrong with something that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    /// For whoever names it.
    pub(super) why: String,
    /// For whoever wrote it.
    pub(super) at_object: Option<Box<Problem>>,
}

impl Remark {
    /// Tells it at `field` of the document that names the object, and at the object.
    pub(super) fn report<T>(self, document: &Document<T>, field: &str, problems: &mut Problems) {
        problems.warning(document, field, self.why);
        self.at_object.into_iter().for_each(|problem| problems.add(*problem));
    }
}

/// The kinds that hold a certificate with its key.
pub(super) const OF_SERVERS: &[&str] = &["Secret"];
/// The kinds that hold certificates of authorities.
pub(super) const OF_AUTHORITIES: &[&str] = &["ConfigMap", "Secret"];

/// The kind of `reference`, which must be one of `kinds`.
pub(super) fn kind_of(
    reference: &ObjectRef,
    kinds: &'static [&'static str],
) -> Result<&'static str, Refused> {
    let is_core = matches!(reference.group.as_str(), "" | "core");
    let found = kinds.iter().copied().find(|kind| is_core && *kind == reference.kind);
    found.ok_or_else(|| {
        let why = format!("{} is not acted on here; name a {}", reference.kind, kinds.join(" or a "));
        Refused { is_kind: true, ..Refused::new(why) }
    })
}

fn described<T>(document: &Document<T>) -> String {
    match document.location.path {
        Some(_) => format!("{} ({})", document.name, document.location),
        None => document.name.to_string(),
    }
}

impl<'a> Certificates<'a> {
    pub(super) fn new(resources: &'a Resources, now: SystemTime, own_namespace: &'a str) -> Self {
        fn name(name: &DocumentName) -> (&str, &str) {
            (&name.namespace, &name.name)
        }
        let secrets = resources.secrets.iter().map(|one| (name(&one.name), &**one));
        let config_maps = resources.config_maps.iter().map(|one| (name(&one.name), &**one));
        Self { secrets: secrets.collect(), config_maps: config_maps.collect(), now, own_namespace }
    }

    /// The Secret `name` in `namespace`.
    pub(super) fn secret(&self, namespace: &str, name: &str) -> Option<&'a Document<SecretSpec>> {
        self.secrets.get(&(namespace, name)).copied()
    }

    /// The certificate of the Secret `name` in `namespace`, for a listener of `hostname`.
    pub(super) fn server(
        &self,
        namespace: &str,
        name: &str,
        hostname: &Hostname,
    ) -> Result<Found<'a>, Refused> {
        let (document, known, broken) = self.pair(namespace, name)?;
        let (what, facts) = (described(document), &known.facts);
        if !facts.names.iter().any(|certified| is_for(certified, hostname)) {
            let names = match facts.names.as_slice() {
                [] => "no name".to_owned(),
                names => names.join(", "),
            };
            let message = format!(
                "the certificate of {what} is for {names}, and not for {hostname}; name another Secret, or change the \
                 listener's hostname"
            );
            return Err(Refused::new(message));
        }
        Ok(self.found(&what, known, broken))
    }

    /// The certificate of the Secret `name` in `namespace`, for a client: it may be for any name, or for none.
    pub(super) fn client(&self, namespace: &str, name: &str) -> Result<Found<'a>, Refused> {
        let (document, known, broken) = self.pair(namespace, name)?;
        Ok(self.found(&described(document), known, broken))
    }

    /// The certificate of the Secret `name` in `namespace` with its key, and what is wrong if they are not its newest.
    fn pair(&self, namespace: &str, name: &str) -> Result<Pair<'a>, Refused> {
        // A gateway may run in that namespace, and whoever names a Secret by Istio's documents needs no permit. With this key
        // a gateway could be anybody.
        if namespace == self.own_namespace && name == CA_SECRET {
            let message = format!(
                "the Secret {namespace}/{name} is the control plane's own: no gateway gets its key; name another"
            );
            return Err(Refused::new(message));
        }
        let Some(document) = self.secret(namespace, name) else {
            let message = format!(
                "there is no Secret {namespace}/{name}; add one of the type kubernetes.io/tls, or correct the name"
            );
            return Err(Refused::new(message));
        };
        let Some(part) = &document.spec.certificate else {
            let what = described(document);
            return Err(Refused::new(format!("{what} has no certificate; add tls.crt and tls.key")));
        };
        let (known, broken) = in_use(document, part)?;
        Ok((document, known, broken))
    }

    fn found(&self, what: &str, known: &'a KnownCertificate, broken: Option<Remark>) -> Found<'a> {
        let KnownCertificate { server, facts } = known;
        let mut remarks: Vec<Remark> = broken.into_iter().collect();
        if let Some(advice) = facts.advice(self.now) {
            remarks.push(Remark { why: format!("the certificate of {what} {advice}"), at_object: None });
        }
        Found { server, is_valid: facts.is_valid(self.now), remarks }
    }

    /// The authorities in the `ca.crt` of the object that `reference` names, in `namespace` unless it says another.
    pub(super) fn named_authorities(
        &self,
        reference: &ObjectRef,
        namespace: &str,
    ) -> Result<(&'a Authorities, Option<Remark>), Refused> {
        let kind = kind_of(reference, OF_AUTHORITIES)?;
        self.authorities(kind, reference.namespace.as_deref().unwrap_or(namespace), &reference.name)
    }

    /// The authorities in the `ca.crt` of the object `name` in `namespace`.
    pub(super) fn authorities(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(&'a Authorities, Option<Remark>), Refused> {
        let known = match kind {
            "Secret" => {
                self.secrets.get(&(namespace, name)).map(|one| held(one, one.spec.authorities.as_ref()))
            }
            _ => self.config_maps.get(&(namespace, name)).map(|one| held(one, one.spec.authorities.as_ref())),
        };
        known.unwrap_or_else(|| {
            let message =
                format!("there is no {kind} {namespace}/{name}; add one with ca.crt, or correct the name");
            Err(Refused::new(message))
        })
    }
}

fn held<'a, T>(
    document: &Document<T>,
    authorities: Option<&'a Result<Authorities, Broken<Authorities>>>,
) -> Result<(&'a Authorities, Option<Remark>), Refused> {
    match authorities {
        None => Err(Refused::new(format!(
            "{} has no certificates of authorities; add ca.crt",
            described(document)
        ))),
        Some(part) => in_use(document, part),
    }
}

/// What is in use of a part of `document`: the last good version if this one cannot be used, which is told then.
fn in_use<'a, D, T>(
    document: &Document<D>,
    part: &'a Result<T, Broken<T>>,
) -> Result<(&'a T, Option<Remark>), Refused> {
    match part {
        Ok(good) => Ok((good, None)),
        Err(Broken { why, last_good: None }) => Err(Refused::unreadable(document, why)),
        Err(Broken { why, last_good: Some(good) }) => {
            let mut told = Refused::unreadable(document, why);
            let stays = "the last good version stays in use";
            if let Some(problem) = &mut told.at_object {
                problem.message = format!("{} ({stays})", problem.message);
            }
            let Refused { why, at_object, .. } = told;
            Ok((good, Some(Remark { why: format!("{why} ({stays})"), at_object })))
        }
    }
}

/// `part`, or the last good version if it cannot be used.
pub(super) fn usable<T>(part: &Result<T, Broken<T>>) -> Option<&T> {
    part.as_ref().map_or_else(|broken| broken.last_good.as_ref(), Some)
}

/// The next moment after `now` at which something else is to be said of a certificate's dates.
pub fn next_advice(resources: &Resources, now: SystemTime) -> Option<SystemTime> {
    let parts = resources.secrets.iter().filter_map(|secret| secret.spec.certificate.as_ref());
    parts.filter_map(usable).filter_map(|known| known.facts.next_advice(now)).min()
}

/// Whether a certificate for `certified` is one for some name of `hostname`. To clients, a wildcard is one label. Of a wildcard
/// nobody can say which of its names an expression finds: it may be some.
fn is_for(certified: &str, hostname: &Hostname) -> bool {
    match Hostname::of_ingress(certified) {
        Ok(Hostname::OneBelow(_)) if matches!(hostname, Hostname::Like(_)) => true,
        Ok(certified) => certified.intersection(hostname).is_some(),
        // An address, or what nobody can call.
        Err(_) => *hostname == Hostname::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_a_listener_if_they_have_a_name_in_common() {
        for (certified, hostname, is) in [
            ("shop.example.com", "shop.example.com", true),
            ("Shop.Example.com", "shop.example.com", true),
            ("*.example.com", "shop.example.com", true),
            ("*.example.com", "a.shop.example.com", false),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "example.com", false),
            ("a.example.com", "*.example.com", true),
            ("a.example.org", "*.example.com", false),
            ("a.example.org", "", true),
            ("*", "a.example.org", true),
            ("127.0.0.1", "", true),
            ("127.0.0.1", "a.example.org", false),
        ] {
            assert_eq!(is_for(certified, &hostname.parse().unwrap()), is, "{certified} {hostname}");
        }
    }
}
