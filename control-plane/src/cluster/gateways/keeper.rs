//! Makes one object as it is wanted, and puts it back when somebody has changed it.
//!
//! What is wanted is applied only where the object is new to us, or is not as it was after the last time. So a cluster in
//! which nothing changes is not written to, and fields that the API server fills in are nobody's change.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use selvedge_kubernetes::{
    Client, Error, Kind,
    objects::{Change, FIELD_MANAGER},
};
use serde_json::{Map, Value};

use super::live::{Live, Place};

/// Why an object is not as it is wanted.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Trouble {
    /// Somebody else's object has its name.
    #[error("{kind} {name} is there and is not this gateway's; it is left alone: rename or delete it")]
    Foreign {
        /// Its kind.
        kind: String,
        /// Its namespace and name.
        name: String,
    },
    /// The one that was there before is being deleted.
    #[error("{kind} {name} of an earlier gateway is still being deleted")]
    Going {
        /// Its kind.
        kind: String,
        /// Its namespace and name.
        name: String,
    },
    /// The API server does not answer, or refuses.
    #[error("{kind} {name}: {source}")]
    Refused {
        /// Its kind.
        kind: String,
        /// Its namespace and name.
        name: String,
        /// What the API server says.
        source: Error,
    },
}

/// Keeps objects.
#[derive(Debug)]
pub(super) struct Keeper {
    client: Client,
    kept: HashMap<Place, Kept>,
}

/// An object that we have applied.
#[derive(Debug)]
struct Kept {
    wanted: Value,
    /// What came of it.
    became: Value,
}

impl Keeper {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kept: HashMap::new() }
    }

    /// Forgets what is not at one of these places.
    pub(super) fn retain(&mut self, places: &HashSet<Place>) {
        self.kept.retain(|place, _| places.contains(place));
    }

    /// Has the object at `place`, of the owner with that uid, as it is `wanted`.
    ///
    /// # Errors
    /// If it is somebody else's, or the API server does not do it.
    pub(super) async fn keep(
        &mut self,
        place: &Place,
        kind: &Kind,
        mut wanted: Value,
        owner: Option<&Arc<str>>,
        live: &Live,
    ) -> Result<(), Trouble> {
        if let (Some(live), Some(kept)) = (live.get(place), self.kept.get(place))
            && kept.wanted == wanted
            && kept.became == essence(live)
        {
            return Ok(());
        }
        let (name, kind_name) = (format!("{}/{}", place.namespace, place.name), kind.kind.clone());
        let failed = |source| Trouble::Refused { kind: kind_name.clone(), name: name.clone(), source };
        let namespace = Some(&*place.namespace);
        let found = self.client.get(kind, namespace, &place.name).await.map_err(failed)?;
        let before = wanted.clone();
        wanted["apiVersion"] = kind.api_version().into();
        wanted["kind"] = kind.kind.clone().into();
        let change = match &found {
            // Whoever makes it at this moment keeps it.
            None => Change::Claim(&wanted),
            Some(found) if !is_ours(found, owner.map(AsRef::as_ref)) => {
                return Err(Trouble::Foreign { kind: kind_name, name });
            }
            Some(found) if found["metadata"]["deletionTimestamp"].is_string() => {
                return Err(Trouble::Going { kind: kind_name, name });
            }
            Some(found) => {
                wanted["metadata"]["uid"] = found["metadata"]["uid"].clone();
                Change::Apply(&wanted)
            }
        };
        let became = self.client.change(kind, namespace, &place.name, change).await.map_err(failed)?;
        let became = essence(&became);
        match &found {
            None => tracing::info!(kind = kind_name, name, "made for a gateway"),
            Some(found) if essence(found) != became => {
                tracing::info!(kind = kind_name, name, "changed to what its gateway wants");
            }
            Some(_) => {}
        }
        self.kept.insert(place.clone(), Kept { wanted: before, became });
        Ok(())
    }

    /// Removes the object at `place`, if it is still `found`.
    ///
    /// # Errors
    /// If the API server does not do it.
    pub(super) async fn remove(&mut self, place: &Place, kind: &Kind, found: &Value) -> Result<(), Error> {
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
        match self.client.delete_exactly(kind, Some(&place.namespace), &place.name, uid).await {
            Ok(true) => tracing::info!(
                kind = kind.kind,
                namespace = &*place.namespace,
                name = &*place.name,
                "removed, as no gateway wants it"
            ),
            // It is gone, or another one is there.
            Ok(false) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        self.kept.remove(place);
        Ok(())
    }
}

/// Whether `object` is that of the owner with this uid.
///
/// One that somebody has taken the owner from is still ours if we have applied it; one that another controller has is not.
fn is_ours(object: &Value, owner: Option<&str>) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let owners = list(&object["metadata"]["ownerReferences"]);
    if owners.iter().any(|reference| reference["uid"].as_str().is_some_and(|uid| Some(uid) == owner)) {
        return true;
    }
    let applied = list(&object["metadata"]["managedFields"])
        .iter()
        .any(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply");
    applied && !owners.iter().any(|reference| reference["controller"] == true)
}

/// What of an object is worth a look: not its status, and not what counts its changes.
fn essence(object: &Value) -> Value {
    let mut essence = Map::new();
    for field in ["labels", "annotations", "ownerReferences"] {
        essence.insert(field.to_owned(), object["metadata"][field].clone());
    }
    for field in ["spec", "automountServiceAccountToken"] {
        essence.insert(field.to_owned(), object[field].clone());
    }
    essence.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(owner: Option<(&str, bool)>, manager: Option<&str>) -> Value {
        let owners =
            owner.map(|(uid, controller)| json!({"kind": "Gateway", "uid": uid, "controller": controller}));
        let managers = manager.map(|manager| json!({"manager": manager, "operation": "Apply"}));
        json!({ "metadata": {
            "ownerReferences": owners.into_iter().collect::<Vec<_>>(),
            "managedFields": managers.into_iter().collect::<Vec<_>>(),
        } })
    }

    #[test]
    fn an_object_is_its_owners_or_that_of_who_applied_it() {
        for (owner, manager, ours) in [
            (Some(("one", true)), None, true),
            (Some(("one", true)), Some("kubectl"), true),
            (Some(("another", true)), Some("selvedge"), false),
            (Some(("another", false)), Some("selvedge"), true),
            (None, Some("selvedge"), true),
            (None, Some("kubectl"), false),
            (None, None, false),
        ] {
            assert_eq!(is_ours(&object(owner, manager), Some("one")), ours, "{owner:?} {manager:?}");
        }
        assert!(!is_ours(&object(Some(("one", true)), None), None));
        assert!(is_ours(&object(None, Some("selvedge")), None));
    }
}
