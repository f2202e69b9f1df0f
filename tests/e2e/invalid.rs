//! What every table of invalid documents is held to.

use std::{fs, process::Command};

use selvedge_control_plane::{compile::MeshSettings, inject::validate::validate, resources::Resources};
use serde_json::Value;

use crate::SELVEDGE;

/// What stands behind the line that is at fault.
const HERE: &str = "# <-";

/// Asserts that `selvedge check` and the validating webhook refuse each document with both words of its message, and that
/// `check` names its path and the line that ends with [`HERE`].
pub(crate) fn all_are_refused(documents: impl Iterator<Item = (String, [&'static str; 2])>) {
    let documents: Vec<_> = documents.collect();
    let said = checked(&documents);
    let mut passed = Vec::new();
    for (index, (text, words)) in documents.iter().enumerate() {
        let is_it = |told: &str| words.iter().all(|word| told.contains(word));
        let line = 1 + text.lines().position(|line| line.ends_with(HERE)).expect("a line is at fault");
        let place = format!("{}:{line}:", file(index));
        let told: Vec<&str> = said.lines().filter(|told| told.contains(&file(index))).collect();
        if !told.iter().any(|told| told.contains(&place) && is_it(told)) {
            passed.push(format!("check: {text}\n  expected {place} {words:?}, and it says {told:#?}"));
        }
        let object: Value = serde_saphyr::from_str(text).unwrap();
        let verdict = validate(object, "default", &Resources::default(), &MeshSettings::default(), &[]);
        if !verdict.errors.iter().any(|told| is_it(told)) {
            passed.push(format!("webhook: {text}\n  expected {words:?}, and it says {verdict:?}"));
        }
    }
    assert!(passed.is_empty(), "{} of {}:\n{}", passed.len(), documents.len(), passed.join("\n"));
}

fn file(index: usize) -> String {
    format!("row-{index:03}.yaml")
}

/// What `selvedge check` says of `documents`, each in a file of its own.
fn checked(documents: &[(String, [&str; 2])]) -> String {
    let directory = tempfile::tempdir().unwrap();
    for (index, (text, _)) in documents.iter().enumerate() {
        fs::write(directory.path().join(file(index)), text).unwrap();
    }
    let output =
        Command::new(SELVEDGE).args(["check", "--config-dir"]).arg(directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    said.into_owned()
}
