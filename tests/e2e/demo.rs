//! The demo, as a program runs it: every step is seen to pass, and nothing is left behind.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::SELVEDGE;

#[test]
fn every_step_of_the_demo_passes() {
    let directory = tempfile::tempdir().unwrap();

    let output = Command::new(SELVEDGE)
        .args(["demo", "--json", "--requests", "2000"])
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();

    let progress = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "one object and nothing else:\n{stdout}\n{progress}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let steps = summary["steps"].as_array().unwrap();
    for step in steps {
        assert_eq!(step["passed"], true, "{step:#}");
    }
    assert_eq!(steps.len(), 7, "{progress}");
    assert_eq!(summary["passed"], true, "{summary:#}");
    assert!(summary["requests"].as_u64().unwrap() > 2000);
    assert_eq!(summary["requests"], summary["succeeded"]);
    assert!(summary["pair"]["p50_us"].as_u64().unwrap() > 0);
    assert!(output.status.success(), "{progress}");
    assert_eq!(leftovers(directory.path()), Vec::<String>::new());
}

fn leftovers(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
