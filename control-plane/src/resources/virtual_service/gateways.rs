//! `gateways`: who follows a `VirtualService`, or one of its matches.

use crate::resources::{document::wrong, typed::FieldError};

/// The gateway that means "every sidecar".
const MESH: &str = "mesh";

/// Who follows a document, or one of its matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedBy {
    /// Whether sidecars do.
    pub sidecars: bool,
    /// The gateways that do.
    pub gateways: Vec<GatewayRef>,
}

/// A gateway that is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRef {
    /// Its place in the list.
    pub index: usize,
    /// The namespace of its `Gateway`.
    pub namespace: String,
    /// The name of its `Gateway`.
    pub name: String,
}

/// One who may follow a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follower<'a> {
    /// A sidecar.
    Sidecar,
    /// What serves the `Gateway` of this namespace and name.
    Gateway(&'a str, &'a str),
}

impl Default for FollowedBy {
    /// As if nothing were said.
    fn default() -> Self {
        Self { sidecars: true, gateways: Vec::new() }
    }
}

impl FollowedBy {
    /// Whether `follower` is one of those.
    pub fn includes(&self, follower: Follower<'_>) -> bool {
        match follower {
            Follower::Sidecar => self.sidecars,
            Follower::Gateway(namespace, name) => {
                self.gateways.iter().any(|own| own.namespace == namespace && own.name == name)
            }
        }
    }

    /// Whether all of `others` are of these, too.
    pub fn include_all(&self, others: &Self) -> bool {
        let has = |one: &GatewayRef| self.includes(Follower::Gateway(&one.namespace, &one.name));
        (self.sidecars || !others.sidecars) && others.gateways.iter().all(has)
    }
}

/// The list `names`, which stands at `field` of a document in `namespace`; `None` if it says nothing.
pub(super) fn read(
    names: Option<&[String]>,
    field: &str,
    namespace: &str,
) -> Result<Option<FollowedBy>, FieldError> {
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(None) };
    let mut followed = FollowedBy { sidecars: false, gateways: Vec::new() };
    for (index, text) in names.iter().enumerate() {
        if text == MESH {
            followed.sidecars = true;
            continue;
        }
        let (namespace, name) = split(text, namespace);
        if selvedge_model::WorkloadName::new(namespace, name).is_err() {
            let message = format!("{text:?} names no gateway; write namespace/name, a name, or mesh");
            return Err(wrong(format!("{field}[{index}]"), message));
        }
        followed.gateways.push(GatewayRef { index, namespace: namespace.to_owned(), name: name.to_owned() });
    }
    Ok(Some(followed))
}

/// The namespace and the name in `text`: `namespace/name`, `./name`, `name`, or as Istio once wrote it `name.namespace`
/// with more behind it.
fn split<'t>(text: &'t str, own: &'t str) -> (&'t str, &'t str) {
    match text.split_once('/') {
        Some((".", name)) => (own, name),
        Some(both) => both,
        None => match text.split_once('.') {
            Some((name, rest)) => (rest.split('.').next().unwrap_or(rest), name),
            None => (own, text),
        },
    }
}
