//! Documents with every condition that a status can have, and what their statuses say: in a cluster and in `selvedge
//! check` the same.

use serde_json::Value;

/// The documents.
pub const DOCUMENTS: &str = include_str!("statuses/documents.yaml");

/// What their statuses say, in the words of [`lines`].
///
/// # Panics
/// Never.
pub fn expected() -> Vec<&'static str> {
    sorted(include_str!("statuses/expected.txt").lines().collect())
}

/// What an object's status says: a line for each of our parents with its conditions, or one line with the conditions of an
/// object that has no parents. What others say of it is left out.
///
/// # Panics
/// If it is not a status.
pub fn lines(object: &Value) -> Vec<String> {
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{object}")).to_owned();
    let name =
        format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]));
    let said = |of: &Value| {
        let conditions = of["conditions"].as_array().into_iter().flatten();
        let condition = |one: &Value| ["type", "status", "reason"].map(|field| text(&one[field])).join(" ");
        conditions.map(condition).collect::<Vec<_>>().join(", ")
    };
    let listed = ["parents", "ancestors"].iter().find_map(|list| status[*list].as_array());
    let Some(parents) = listed else {
        return vec![format!("{name}: {}", said(status))];
    };
    let ours = parents.iter().filter(|parent| parent["controllerName"] == "selvedge.io/control-plane");
    let reference = |parent: &Value| {
        let found = ["parentRef", "ancestorRef"].into_iter().find(|field| parent[*field].is_object());
        text(&parent[found.unwrap_or("parentRef")]["name"])
    };
    ours.map(|parent| format!("{name} {}: {}", reference(parent), said(parent))).collect()
}

/// `lines` in an order that does not depend on where they come from.
pub fn sorted<T: Ord>(mut lines: Vec<T>) -> Vec<T> {
    lines.sort();
    lines
}
