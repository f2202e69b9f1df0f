//! Resources as they are sent: encoded once, and shared by every stream.
//!
//! The version of a resource is a hash of its encoded contents, so that any replica, and any later run,
//! gives equal contents the same version. A part of the mesh that kept its `Arc` is not encoded again. Of a large list of
//! endpoints only what has changed is sent to who has the list before ([`Encodings::shorten`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use prost::{Message, bytes::Bytes};
use selvedge_api::{
    ResourceName,
    delta::{self, Fingerprints},
    wire::{self, resource::Body},
};
use selvedge_certs::{CertificateDer, bundle::Bundle};
use selvedge_model::{
    Endpoints, Revocations, Service, Workload,
    gateway::{GatewayPort, ServerCertificate, UserList},
    policy::network::{PartName, SetPart},
    snapshot::{NamedAddresses, Shared},
};

use super::{deltas::Deltas, held::Stamp, named::Named};

/// How much of the hash a version keeps, in bytes: enough that two contents never meet.
const VERSION_BYTES: usize = 16;

/// See [`Encodings::forget_unused`].
const SELDOM: u32 = 16;

/// One resource, ready to be sent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Encoded(Arc<Resource>);

#[derive(Debug)]
struct Resource {
    stamp: Arc<Stamp>,
    bytes: Bytes,
    form: Form,
}

/// What is sent of a resource.
#[derive(Debug)]
enum Form {
    /// All of it.
    Whole,
    /// All endpoints of a list that is large enough to be told by what has changed.
    List { endpoints: Weak<Endpoints>, fingerprints: Arc<Fingerprints> },
    /// What has changed in a list of endpoints.
    Delta,
    /// All of a workload, of which only its own proxy is told, and mostly once: it is encoded when that happens, and not kept.
    Own(Arc<Workload>),
}

impl Encoded {
    /// Encodes one resource.
    pub fn new(name: ResourceName, body: Body) -> Self {
        let mut message = wire::Resource { name: name.to_string(), version: String::new(), body: Some(body) };
        let hash = digest(&SHA256, &message.encode_to_vec());
        message.version = hash.as_ref()[..VERSION_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = Bytes::from(message.encode_to_vec());
        let stamp = Arc::new(Stamp { name, version: Arc::from(message.version) });
        Self(Arc::new(Resource { stamp, bytes, form: Form::Whole }))
    }

    /// The resource `self` of `workload`.
    fn of_workload(workload: &Arc<Workload>) -> Self {
        let whole = Self::new(ResourceName::Own, Body::Self_((&**workload).into()));
        let (stamp, form) = (Arc::clone(whole.stamp()), Form::Own(Arc::clone(workload)));
        Self(Arc::new(Resource { stamp, bytes: Bytes::new(), form }))
    }

    /// Encodes the list of endpoints that this comes from.
    fn of_endpoints(endpoints: &Endpoints, origin: Option<&Arc<Endpoints>>) -> Self {
        let name = ResourceName::Endpoints(endpoints.key.clone());
        let mut message = wire::Endpoints::from(endpoints);
        let fingerprints = Fingerprints::of(&mut message);
        let version: Arc<str> = fingerprints.version(&name).into();
        let bytes = encoded(&name, &version, Body::Endpoints(message));
        let form = match origin.filter(|_| fingerprints.len() >= delta::FEWEST) {
            Some(origin) => {
                Form::List { endpoints: Arc::downgrade(origin), fingerprints: Arc::new(fingerprints) }
            }
            None => Form::Whole,
        };
        let stamp = Arc::new(Stamp { name, version });
        Self(Arc::new(Resource { stamp, bytes, form }))
    }

    /// What makes this list of endpoints of the one with the version `base`, if that is much shorter.
    pub(super) fn delta(&self, base: &str, before: &Fingerprints) -> Option<Self> {
        let Resource { stamp, bytes: whole, form } = &*self.0;
        let Form::List { endpoints, fingerprints } = form else { return None };
        let delta = delta::between(base, before, fingerprints, &*endpoints.upgrade()?)?;
        let bytes = encoded(&stamp.name, &stamp.version, Body::EndpointsDelta(delta));
        let (stamp, form) = (Arc::clone(stamp), Form::Delta);
        (bytes.len() <= whole.len() / 2).then(|| Self(Arc::new(Resource { stamp, bytes, form })))
    }

    /// What stands for each of these endpoints, if it is a list that may be told by what has changed.
    pub(super) fn fingerprints(&self) -> Option<&Arc<Fingerprints>> {
        if let Form::List { fingerprints, .. } = &self.0.form { Some(fingerprints) } else { None }
    }

    /// Whether it is only what has changed.
    pub fn is_delta(&self) -> bool {
        matches!(self.0.form, Form::Delta)
    }

    /// What it is called.
    pub fn name(&self) -> &ResourceName {
        &self.0.stamp.name
    }

    /// The hash of its contents.
    pub fn version(&self) -> &Arc<str> {
        &self.0.stamp.version
    }

    /// Both, for all who hold it. It does not keep the contents.
    pub fn stamp(&self) -> &Arc<Stamp> {
        &self.0.stamp
    }

    /// Whether nobody else holds it.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// A `selvedge.v1.Resource`, as it is written on the wire.
    pub fn bytes(&self) -> Bytes {
        let Resource { stamp, bytes, form } = &*self.0;
        match form {
            Form::Own(workload) => encoded(&stamp.name, &stamp.version, Body::Self_((&**workload).into())),
            Form::Whole | Form::List { .. } | Form::Delta => bytes.clone(),
        }
    }

    /// How often it holds what it was made from.
    fn holds(&self) -> usize {
        usize::from(matches!(self.0.form, Form::Own(_)))
    }
}

fn encoded(name: &ResourceName, version: &str, body: Body) -> Bytes {
    let (name, version) = (name.to_string(), version.to_owned());
    wire::Resource { name, version, body: Some(body) }.encode_to_vec().into()
}

/// What was encoded before, by the part of the mesh that it was made from.
#[derive(Debug, Default)]
pub struct Encodings {
    workloads: Parts<Workload>,
    services: Parts<Service>,
    endpoints: Parts<Endpoints>,
    named: Named,
    deltas: Deltas,
    revocations: Parts<Revocations>,
    sets: Parts<SetPart>,
    gateway_ports: Parts<GatewayPort>,
    certificates: Parts<ServerCertificate>,
    user_lists: Parts<UserList>,
    /// How many meshes there were.
    meshes: AtomicU32,
}

impl Encodings {
    /// The resource `self` of this workload.
    pub fn workload(&self, workload: &Arc<Workload>) -> Encoded {
        self.workloads.find_or(workload, |_| Encoded::of_workload(workload))
    }

    /// The resource of this service, as one class of clients sees it.
    pub fn service(&self, service: &Arc<Service>) -> Encoded {
        self.services.find_or(service, |service| {
            Encoded::new(ResourceName::Service(service.key.clone()), Body::Service(service.into()))
        })
    }

    /// The resource of these endpoints.
    pub fn endpoints(&self, endpoints: &Arc<Endpoints>) -> Encoded {
        self.endpoints.find_or(endpoints, |_| {
            let encoded = Encoded::of_endpoints(endpoints, Some(endpoints));
            self.deltas.keep(&encoded);
            encoded
        })
    }

    /// The resource of all that is known by name and may be at `port`: the same for all who ask for an address there.
    pub fn named(&self, named: &Shared<NamedAddresses>, port: u16) -> Encoded {
        self.named.find_or(named, port, || encode_endpoints(&named.at(port)))
    }

    /// Puts what has changed in place of each list of endpoints, where that is known of what a proxy holds: it is made once
    /// for all who hold the same. `held` says what version that has.
    pub fn shorten<'a>(&self, resources: &mut [Encoded], held: impl Fn(&ResourceName) -> Option<&'a str>) {
        for resource in resources.iter_mut().filter(|resource| resource.fingerprints().is_some()) {
            let delta = held(resource.name()).and_then(|base| self.deltas.find_or_make(base, resource));
            if let Some(delta) = delta {
                *resource = delta;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    /// The resource `revocations`.
    pub fn revocations(&self, revocations: &Arc<Revocations>) -> Encoded {
        self.revocations.find_or(revocations, |revocations| {
            Encoded::new(ResourceName::Revocations, Body::Revocations(revocations.into()))
        })
    }

    /// The resource of this part of a set.
    pub fn set_part(&self, name: &PartName, part: &Arc<SetPart>) -> Encoded {
        self.sets.find_or(part, |part| {
            Encoded::new(ResourceName::SetPart(name.clone()), Body::SetPart(part.into()))
        })
    }

    /// The resource of what a gateway serves on this port.
    pub fn gateway_port(&self, served: &Arc<GatewayPort>) -> Encoded {
        self.gateway_ports.find_or(served, |served| {
            Encoded::new(ResourceName::GatewayPort(served.port), Body::GatewayPort(served.into()))
        })
    }

    /// The resource of this certificate.
    pub fn certificate(&self, certificate: &Arc<ServerCertificate>) -> Encoded {
        self.certificates.find_or(certificate, |certificate| {
            let name = ResourceName::Certificate(certificate.name.clone());
            Encoded::new(name, Body::Certificate(certificate.into()))
        })
    }

    /// The resource of these users.
    pub fn users(&self, users: &Arc<UserList>) -> Encoded {
        self.user_lists.find_or(users, |users| {
            Encoded::new(ResourceName::Users(users.name.clone()), Body::Users(users.into()))
        })
    }

    /// Lets go of what no mesh holds any more, as a new one is there. There may be very many workloads and services, of which
    /// most changes change none or few: these are looked through every [`SELDOM`] meshes.
    pub(super) fn forget_unused(&self) {
        if self.meshes.fetch_add(1, Ordering::Relaxed).is_multiple_of(SELDOM) {
            self.workloads.forget_unused();
            self.services.forget_unused();
        }
        self.endpoints.forget_unused();
        self.named.forget_unused();
        self.revocations.forget_unused();
        self.sets.forget_unused();
        self.gateway_ports.forget_unused();
        self.certificates.forget_unused();
        self.user_lists.forget_unused();
    }
}

/// The resource of endpoints that are not part of a mesh, such as an empty list.
pub(super) fn encode_endpoints(endpoints: &Endpoints) -> Encoded {
    Encoded::of_endpoints(endpoints, None)
}

/// By address; the part that is kept beside makes sure that no other part gets the same address.
#[derive(Debug)]
struct Parts<T>(Mutex<HashMap<usize, (Arc<T>, Encoded)>>);

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Parts<T> {
    fn find_or(&self, part: &Arc<T>, encode: impl FnOnce(&T) -> Encoded) -> Encoded {
        let address = Arc::as_ptr(part).addr();
        if let Some((_, encoded)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return encoded.clone();
        }
        // Without the lock: two that meet here do the same work, and one result stays.
        let encoded = encode(part);
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.entry(address).or_insert_with(|| (Arc::clone(part), encoded)).1.clone()
    }

    fn forget_unused(&self) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|_, (part, encoded)| Arc::strong_count(part) > 1 + encoded.holds());
    }
}

/// Trust roots as the wire carries them.
pub(crate) fn bundle_to_wire(bundle: &Bundle) -> wire::Bundle {
    let ders = |roots: &[CertificateDer<'_>]| roots.iter().map(|root| root.to_vec().into()).collect();
    wire::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        roots: ders(&bundle.roots),
        workload_roots: ders(&bundle.workload_roots),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::ServiceKey;

    use super::*;
    use crate::testing;

    fn endpoints(host: &str) -> Arc<Endpoints> {
        Arc::new(Endpoints::new(ServiceKey::new(host, 80), Vec::new()))
    }

    #[test]
    fn the_version_is_that_of_the_contents() {
        let encodings = Encodings::default();
        let (one, same, other) = (endpoints("a"), endpoints("a"), endpoints("b"));

        let version = encodings.endpoints(&one).version().clone();

        assert_eq!(encodings.endpoints(&same).version(), &version);
        assert_ne!(encodings.endpoints(&other).version(), &version);
        let sent = wire::Resource::decode(encodings.endpoints(&one).bytes()).unwrap();
        assert_eq!((sent.name.as_str(), sent.version.as_str()), ("endpoints/a:80", &*version));
    }

    #[test]
    fn what_only_one_is_told_is_not_kept_as_it_is_sent() {
        let encodings = Encodings::default();
        let mut mesh = testing::mesh();
        testing::add_workload(&mut mesh, "shop/a", "a");
        let name: selvedge_model::WorkloadName = "shop/a".parse().unwrap();
        let workload = mesh.workloads.get(&name).unwrap();

        let own = encodings.workload(workload);

        assert!(own.0.bytes.is_empty());
        let whole = Encoded::new(ResourceName::Own, Body::Self_((&**workload).into()));
        assert_eq!((own.version(), own.bytes()), (whole.version(), whole.bytes()));
    }

    #[test]
    fn what_there_is_most_of_is_let_go_after_some_meshes() {
        let encodings = Encodings::default();
        encodings.forget_unused();
        let mut mesh = testing::mesh();
        testing::add_workload(&mut mesh, "shop/a", "a");
        mesh.workloads.values().for_each(|workload| drop(encodings.workload(workload)));
        drop(mesh);

        for _ in 0..SELDOM {
            encodings.forget_unused();
        }

        assert!(encodings.workloads.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_part_is_encoded_once_and_let_go_with_its_mesh() {
        let encodings = Encodings::default();
        let part = endpoints("a");

        let first = encodings.endpoints(&part);
        assert!(Arc::ptr_eq(&first.0, &encodings.endpoints(&part).0));

        encodings.forget_unused();
        assert!(Arc::ptr_eq(&first.0, &encodings.endpoints(&part).0), "the part is still in use");

        drop(part);
        encodings.forget_unused();
        assert!(encodings.endpoints.0.lock().unwrap().is_empty());
    }
}
