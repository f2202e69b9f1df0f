//! Matrices of the lesson's exercise 3 and of policies of Istio; what changes refuse; and the commands' exit status.

mod changes;
mod matrix;
mod seen;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use tempfile::TempDir;

use super::{Args, MatrixArgs, TryArgs, matrix_of, run, trying};
use crate::testing::{BY_SERVICE_ACCOUNT, EXERCISE_3, LINKERD, STRICT, meshed, plain, vault};

const STRICT_BUT_ONE_PORT: &str = include_str!("../../../../examples/policies/strict-except-one-port.yaml");

/// Denies everything to the workloads of `app`.
const DENY_ALL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing}
spec: {selector: {matchLabels: {app: vault}}}
";

fn tiers() -> String {
    let http = "{http: 8080}";
    [
        meshed("frontend", 1, http),
        meshed("backend", 2, http),
        meshed("database", 3, "{tcp: 5432}"),
        plain("legacy", 4),
    ]
    .concat()
}

/// A vault with two ports, a client that its policies let in, another one, and one without a sidecar.
/// A directory with these documents, and beside it a file with a change.
struct Files {
    directory: TempDir,
    change: PathBuf,
}

impl Files {
    fn new(documents: &[&str], change: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("mesh.yaml"), documents.join("\n---\n")).unwrap();
        let file = directory.path().join("change.yaml");
        fs::write(&file, change).unwrap();
        Self { directory, change: file }
    }

    fn line(&self, words: &[&str]) -> Vec<String> {
        let config = self.directory.path().join("config").display().to_string();
        let words = words.iter().map(|word| (*word).to_owned());
        ["authz".to_owned()].into_iter().chain(words).chain(["--config-dir".to_owned(), config]).collect()
    }

    fn change(&self) -> &str {
        self.change.to_str().unwrap()
    }
}

#[derive(Parser)]
struct Matrix {
    #[command(flatten)]
    args: MatrixArgs,
}

#[derive(Parser)]
struct Try {
    #[command(flatten)]
    args: TryArgs,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn matrix(documents: &[&str], format: &str) -> String {
    let files = Files::new(documents, "");
    matrix_of(&Matrix::try_parse_from(files.line(&["-o", format])).unwrap().args).unwrap()
}

/// What a change comes to, and whether it breaks something.
fn tried(documents: &[&str], change: &str, more: &[&str]) -> Result<(String, bool), String> {
    let files = Files::new(documents, change);
    let file = if change.is_empty() { Vec::new() } else { vec!["-f", files.change()] };
    trying::answer(&Try::try_parse_from(files.line(&[&file, more].concat())).unwrap().args)
}

fn status(files: &Files, words: &[&str]) -> ExitCode {
    run(Line::try_parse_from(files.line(words)).unwrap().args).unwrap()
}

/// The matrix as JSON, with `more` on the command line.
fn filtered(documents: &[&str], more: &[&str]) -> Result<String, String> {
    let files = Files::new(documents, "");
    let line = files.line(&[&["-o", "json"], more].concat());
    matrix_of(&Matrix::try_parse_from(line).map_err(|error| error.to_string())?.args)
}
