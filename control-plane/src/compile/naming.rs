//! Which objects must be read by their names, because their kinds are not followed: for a cluster's source.

use super::wanted_objects;
use crate::{problem::DocumentName, sources::kubernetes::Naming};

/// The objects that documents name and may name, in a mesh with this root namespace.
pub fn naming(root_namespace: String) -> Naming {
    Naming::new(move |resources| {
        let wanted = wanted_objects(resources, &root_namespace).into_iter();
        let name = |one: super::WantedObject| DocumentName {
            kind: one.kind.into(),
            namespace: one.namespace.into(),
            name: one.name.into(),
        };
        wanted.map(name).collect()
    })
}
