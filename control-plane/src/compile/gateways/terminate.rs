//! How TLS ends at a listener of a `Gateway`: with which certificates, and which its clients must show. And which one the
//! gateway itself shows to backends.

use std::collections::{BTreeSet, HashMap};

use selvedge_model::gateway::{CertificateName, ClientValidation, Hostname, Termination};

use super::{
    super::{
        Problems,
        certificates::{
            Certificates, Found, OF_AUTHORITIES, OF_SERVERS, Refused, Remark, Shown, kind_of, usable,
        },
        grants::{Grants, Named},
    },
    WantedFrom,
    draft::Draft,
    holders::{Holder, Holders},
};
use crate::{
    problem::{DocumentName, Fault, ListenerFault},
    resources::{
        Document, GatewaySpec, Resources, SecretSpec,
        backend_tls_policy::AuthoritiesSpec,
        gateway::{ClientsSpec, ListenerProtocol, ListenerSpec, ObjectRef},
        secret::Authorities,
    },
};

/// A listener, the document that has it, and its gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending<'a> {
    pub(super) holder: Holder<'a>,
    pub(super) gateway: &'a Document<GatewaySpec>,
    pub(super) listener: &'a ListenerSpec,
}

/// An object that must be fetched by its name, because nobody lists its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WantedObject {
    /// `Secret` or `ConfigMap`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The certificate that `gateway` shows to backends that ask for one. One that cannot be shown is reported: such backends
/// are called without.
pub(super) fn to_backends(
    gateway: &Document<GatewaySpec>,
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) -> Option<CertificateName> {
    let reference = gateway.spec.to_backends.as_ref()?;
    let found = permitted(&gateway.name, reference, OF_SERVERS, draft.grants);
    let found = found.map_err(|NotPermitted { is_kind, refused }| (is_kind, refused));
    let found = found.and_then(|(_, namespace)| {
        draft.client_certificate(namespace, &reference.name).map_err(|refused| (true, refused))
    });
    match found {
        Ok(found) => {
            let tell = |remark: Remark| remark.report(gateway, &reference.field, problems);
            found.remarks.into_iter().for_each(tell);
            Some(found.server.name.clone())
        }
        Err((is_permitted, Refused { why, at_object, .. })) => {
            let told = format!("{why} (so no certificate is shown to backends)");
            problems.fault(gateway, &reference.field, told, Fault::ToBackends { is_permitted });
            at_object.into_iter().for_each(|problem| problems.add(*problem));
            None
        }
    }
}

/// Adds the Secrets and ConfigMaps that a listener names to `all`, without those that no ReferenceGrant permits it to name.
fn add_wanted<'a>(ending: Ending<'a>, grants: &Grants<'_>, all: &mut WantedFrom<'a>) {
    let Ending { holder, listener, .. } = ending;
    if !listener.ends_tls() {
        return;
    }
    let mut add = |from: &'a DocumentName, reference: &ObjectRef, kinds| {
        if let Ok((kind, namespace)) = permitted(from, reference, kinds, grants) {
            let (namespace, name) = (namespace.to_owned(), reference.name.clone());
            all.entry(&*from.namespace).or_default().insert(WantedObject { kind, namespace, name });
        }
    };
    listener.tls.certificates.iter().for_each(|one| add(holder.name(), one, OF_SERVERS));
    if let Some((of, clients)) = ending.clients() {
        clients.authorities.iter().for_each(|one| add(of.name(), one, OF_AUTHORITIES));
    }
}

impl<'a> Ending<'a> {
    /// Whom it asks for a certificate, and the document that says so.
    fn clients(self) -> Option<(Holder<'a>, &'a ClientsSpec)> {
        let Self { holder, gateway, listener } = self;
        let own = listener.tls.clients.as_ref().map(|clients| (holder, clients));
        own.or_else(|| Some((Holder::Gateway(gateway), gateway.spec.clients.at(listener.port)?)))
    }
}

/// Why an object cannot be named.
struct NotPermitted {
    /// Whether it is of a kind that holds no such thing; otherwise no grant permits it.
    is_kind: bool,
    refused: Refused,
}

/// The kind and the namespace of the object that `reference` in the document `from` names, if it is one of `kinds` and may
/// be named.
fn permitted<'r>(
    from: &'r DocumentName,
    reference: &'r ObjectRef,
    kinds: &'static [&'static str],
    grants: &Grants<'_>,
) -> Result<(&'static str, &'r str), NotPermitted> {
    let kind = kind_of(reference, kinds).map_err(|refused| NotPermitted { is_kind: true, refused })?;
    let namespace = reference.namespace.as_deref().unwrap_or(&from.namespace);
    let named = Named { group: "", kind, namespace, name: &reference.name };
    if !grants.permit(from, named) {
        let refused = Refused::new(Grants::advice(from, named));
        return Err(NotPermitted { is_kind: false, refused });
    }
    Ok((kind, namespace))
}

/// All Secrets, by their namespaces and names.
pub(super) type Secrets<'a> = HashMap<(&'a str, &'a str), &'a SecretSpec>;

/// The names of the certificates that `listener` of `holder` shows and may name. One that is broken, and others that are not
/// there, are nothing here.
pub(super) fn permitted_certificates(
    holder: Holder<'_>,
    listener: &ListenerSpec,
    secrets: &Secrets<'_>,
    grants: &Grants<'_>,
) -> Vec<Hostname> {
    let references = listener.tls.certificates.iter().filter(|_| listener.ends_tls());
    let permitted = references.filter_map(|reference| {
        let (_, namespace) = permitted(holder.name(), reference, OF_SERVERS, grants).ok()?;
        secrets.get(&(namespace, reference.name.as_str()))?.certificate.as_ref()
    });
    let names = permitted.filter_map(usable).flat_map(|known| &known.facts.names);
    names.filter_map(|name| Hostname::of_ingress(name).ok()).collect()
}

/// How TLS ends at a listener. Certificates that cannot be shown are reported; without any, nobody is served.
pub(super) fn termination(ending: Ending<'_>, draft: &mut Draft<'_>, problems: &mut Problems) -> Termination {
    let Ending { holder, listener, .. } = ending;
    let mut certificates = Shown::default();
    for reference in &listener.tls.certificates {
        match certificate(holder, reference, &listener.hostname, draft) {
            Ok(found) => certificates.add(found, |remark| holder.tell(&reference.field, remark, problems)),
            Err((why, refused)) => {
                let outcome = certificates_left_out(listener);
                report(holder, &reference.field, why, refused, outcome, problems);
            }
        }
    }
    if listener.tls.certificates.is_empty() {
        let list = format!("spec.listeners[{}].tls.certificateRefs", listener.index);
        let message = "names no Secret, so nobody is served here; name one of the type kubernetes.io/tls";
        problems.add(holder.error(&list, message, ListenerFault::Certificate));
    }
    let clients = ending.clients();
    let clients =
        clients.map(|(of, clients)| validation(of, clients, draft.certificates, draft.grants, problems));
    let http = listener.protocol == ListenerProtocol::Https;
    Termination { certificates: certificates.names(), clients, tls12: true, http }
}

/// What becomes of a listener one of whose certificates cannot be shown.
fn certificates_left_out(listener: &ListenerSpec) -> &'static str {
    match listener.tls.certificates.len() {
        1 => "so nobody is served here",
        _ => "so it is not shown here",
    }
}

fn certificate<'a>(
    holder: Holder<'_>,
    reference: &ObjectRef,
    hostname: &Hostname,
    draft: &mut Draft<'a>,
) -> Result<Found<'a>, (ListenerFault, Refused)> {
    let found = permitted(holder.name(), reference, OF_SERVERS, draft.grants);
    let (_, namespace) = found.map_err(|NotPermitted { is_kind, refused }| {
        (if is_kind { ListenerFault::Certificate } else { ListenerFault::NotPermitted }, refused)
    })?;
    let certificate = draft.certificate(namespace, &reference.name, hostname);
    certificate.map_err(|refused| (ListenerFault::Certificate, refused))
}

/// Whom listeners of `clients`, which stands in `holder`, serve.
fn validation(
    holder: Holder<'_>,
    clients: &ClientsSpec,
    certificates: &Certificates<'_>,
    grants: &Grants<'_>,
    problems: &mut Problems,
) -> ClientValidation {
    let mut roots: Vec<Vec<u8>> = Vec::new();
    for reference in &clients.authorities {
        match authorities(holder, reference, certificates, grants) {
            Ok((authorities, remark)) => {
                roots.extend(authorities.iter().cloned());
                remark.into_iter().for_each(|remark| holder.tell(&reference.field, remark, problems));
            }
            Err((why, refused)) => {
                let outcome = "so clients of its authorities are refused";
                report(holder, &reference.field, why, refused, outcome, problems);
            }
        }
    }
    if roots.is_empty() {
        let field = format!("{}.caCertificateRefs", clients.field);
        let message = match clients.authorities.len() {
            0 => "is empty, so nobody is served; name a ConfigMap with ca.crt",
            _ => "has none that can be used, so no client's certificate is believed; repair one of them",
        };
        problems.add(holder.error(&field, message, ListenerFault::NoAuthority));
    }
    ClientValidation { roots, optional: clients.optional, subject_alt_names: Vec::new() }
}

fn authorities<'c>(
    holder: Holder<'_>,
    reference: &ObjectRef,
    certificates: &Certificates<'c>,
    grants: &Grants<'_>,
) -> Result<(&'c Authorities, Option<Remark>), (ListenerFault, Refused)> {
    let found = permitted(holder.name(), reference, OF_AUTHORITIES, grants);
    let (kind, namespace) = found.map_err(|NotPermitted { is_kind, refused }| {
        (if is_kind { ListenerFault::AuthorityKind } else { ListenerFault::NotPermitted }, refused)
    })?;
    let found = certificates.authorities(kind, namespace, &reference.name);
    found.map_err(|refused| (ListenerFault::Authority, refused))
}

/// Tells whoever names an object why it is no use, and whoever wrote it.
fn report(
    holder: Holder<'_>,
    field: &str,
    why: ListenerFault,
    refused: Refused,
    outcome: &str,
    problems: &mut Problems,
) {
    let Refused { why: words, at_object, .. } = refused;
    problems.add(holder.error(field, format!("{words} ({outcome})"), why));
    at_object.into_iter().for_each(|problem| problems.add(*problem));
}

/// Adds everything that the listeners of `holders` name, may name, and that nobody lists.
pub(super) fn add_all_wanted<'a>(holders: &Holders<'a>, resources: &Resources, all: &mut WantedFrom<'a>) {
    let grants = Grants::new(resources);
    for list in holders.gateways.values() {
        let Some(Holder::Gateway(gateway)) = list.first().copied() else { continue };
        let to_backends = gateway.spec.to_backends.as_ref();
        if let Some(reference) = to_backends
            && let Ok((kind, namespace)) = permitted(&gateway.name, reference, OF_SERVERS, &grants)
        {
            let (namespace, name) = (namespace.to_owned(), reference.name.clone());
            let here = all.entry(&*gateway.name.namespace).or_default();
            here.insert(WantedObject { kind, namespace, name });
        }
        for holder in list {
            for listener in holder.listeners() {
                add_wanted(Ending { holder: *holder, gateway, listener }, &grants, all);
            }
        }
    }
}

/// What policies name that say whose certificates backends must show.
pub(super) fn of_backend_policies(resources: &Resources) -> BTreeSet<WantedObject> {
    let each = resources.backend_tls_policies.iter().flat_map(|policy| {
        let objects = match &policy.spec.authorities {
            AuthoritiesSpec::Objects(objects) => objects.as_slice(),
            AuthoritiesSpec::System => &[],
        };
        objects.iter().map(move |object| (&policy.name.namespace, object))
    });
    let wanted = each.filter_map(|(namespace, object)| {
        let kind = kind_of(object, OF_AUTHORITIES).ok()?;
        Some(WantedObject { kind, namespace: namespace.to_string(), name: object.name.clone() })
    });
    wanted.collect()
}
