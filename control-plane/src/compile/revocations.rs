//! `Revocation` to the list of who is refused.
//!
//! A document in the root namespace, or in the control plane's own, is for the whole mesh. One in any other namespace
//! affects only that namespace's own identities, workloads and certificates. Otherwise the authors of one namespace could
//! revoke any workload of the mesh.

use std::sync::Arc;

use selvedge_certs::control_plane_identity;
use selvedge_model::{Revocation, Revocations, Revoked, SpiffeId, WorkloadName};

use super::{MeshSettings, Problems};
use crate::resources::{Document, Resources, RevocationSpec, revocation::RevokedIdentity};

type Doc = Document<RevocationSpec>;

/// The list that all documents make together.
pub(super) fn revocations(
    resources: &Resources,
    settings: &MeshSettings,
    problems: &mut Problems,
) -> Revocations {
    let mut list = Vec::new();
    for document in &resources.revocations {
        Reader { document, settings }.read(&mut list, problems);
    }
    Revocations::new(list)
}

struct Reader<'a> {
    document: &'a Doc,
    settings: &'a MeshSettings,
}

impl Reader<'_> {
    fn read(&self, list: &mut Vec<Revocation>, problems: &mut Problems) {
        let spec = &self.document.spec;
        let mut revoked = Vec::new();
        for (place, identity) in &spec.identities {
            let found = self.identity(identity).map(Revoked::Identity);
            self.add(found, &format!("spec.identities[{place}]"), &mut revoked, problems);
        }
        for (place, name) in &spec.workloads {
            let found = self.workload(name).map(Revoked::Workload);
            self.add(found, &format!("spec.workloads[{place}]"), &mut revoked, problems);
        }
        let namespace = (!self.is_for_all()).then(|| Arc::clone(&self.document.name.namespace));
        revoked.extend(
            spec.serials
                .iter()
                .map(|serial| Revoked::Serial { serial: serial.clone(), namespace: namespace.clone() }),
        );
        let name: Arc<str> = Arc::from(self.document.name.to_string());
        let reason: Option<Arc<str>> = spec.reason.as_deref().map(Arc::from);
        list.extend(revoked.into_iter().map(|revoked| Revocation {
            revoked,
            document: Arc::clone(&name),
            reason: reason.clone(),
            until: spec.until,
        }));
    }

    fn add(
        &self,
        found: Result<Revoked, String>,
        field: &str,
        revoked: &mut Vec<Revoked>,
        problems: &mut Problems,
    ) {
        match found {
            Ok(found) => revoked.push(found),
            Err(why) => problems.error_alone(self.document, field, why),
        }
    }

    /// Whether the document counts for the whole mesh.
    fn is_for_all(&self) -> bool {
        let namespace = &*self.document.name.namespace;
        namespace == self.settings.root_namespace || namespace == self.settings.own_namespace
    }

    fn reaches(&self, namespace: &str) -> Result<(), String> {
        if self.is_for_all() || namespace == &*self.document.name.namespace {
            return Ok(());
        }
        Err(format!(
            "has no effect: a Revocation in namespace {} revokes nobody in namespace {namespace}; one in {} or {} does",
            self.document.name.namespace, self.settings.own_namespace, self.settings.root_namespace
        ))
    }

    fn identity(&self, named: &RevokedIdentity) -> Result<SpiffeId, String> {
        let trust_domain = &self.settings.trust_domain;
        let identity = match named {
            RevokedIdentity::Id(identity) => identity.clone(),
            RevokedIdentity::Account { namespace, service_account } => {
                let namespace = namespace.as_deref().unwrap_or(&self.document.name.namespace);
                SpiffeId::new(trust_domain, namespace, service_account).map_err(|error| error.to_string())?
            }
        };
        if identity.trust_domain() != trust_domain.as_str() {
            return Err(format!(
                "has no effect: {identity} is not in this mesh, whose trust domain is {trust_domain}"
            ));
        }
        if identity == control_plane_identity(trust_domain) {
            return Err(format!(
                "has no effect: {identity} is the control plane, which cannot be revoked; replace it"
            ));
        }
        self.reaches(identity.namespace())?;
        Ok(identity)
    }

    fn workload(&self, name: &str) -> Result<WorkloadName, String> {
        let (namespace, name) = name.split_once('/').unwrap_or((&self.document.name.namespace, name));
        let workload = WorkloadName::new(namespace, name).map_err(|error| error.to_string())?;
        self.reaches(workload.namespace())?;
        Ok(workload)
    }
}
