//! Holds what commands print for programs to the guide that says it: `control-plane/json.md`.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

const GUIDE: &str = include_str!("../../json.md");
/// What several commands have.
const SHARED: &str = "Parts that several commands have";
/// Fields whose own fields are names of something, or what Kubernetes says.
const FREE: [&str; 5] = ["hosts", "left_out", "reasons", "status", "unknown"];

/// The sections, by their titles.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    GUIDE.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'))
}

/// The words that stand as code in the section of `title`.
fn words(title: &str) -> BTreeSet<&'static str> {
    let found = sections().find(|(name, _)| *name == title);
    let (_, text) = found.unwrap_or_else(|| panic!("json.md has no section {title}"));
    text.split('`').skip(1).step_by(2).collect()
}

/// All names of fields in `value`.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                found.insert(name.clone());
                if !FREE.contains(&name.as_str()) {
                    fields(value, found);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

/// Asserts that the guide names every field of what `selvedge COMMAND` prints.
#[track_caller]
pub(crate) fn is_documented(command: &str, printed: &impl Serialize) {
    let mut found = BTreeSet::new();
    fields(&serde_json::to_value(printed).expect("plain data"), &mut found);
    let (own, shared) = (words(&format!("selvedge {command}")), words(SHARED));
    let is_missing = |name: &&String| !own.contains(name.as_str()) && !shared.contains(name.as_str());
    let missing: Vec<&String> = found.iter().filter(is_missing).collect();
    assert!(!found.is_empty() && missing.is_empty(), "json.md, selvedge {command}, lacks {missing:?}");
}
