//! `selvedge check`: checks a cluster before and after installation, or a directory of documents before a control plane
//! uses it.

mod documents;
mod facts;
mod finding;
mod judge;

use std::{process::ExitCode, time::SystemTime};

use selvedge_control_plane::compile::MeshSettings;
use serde::Serialize;

pub(crate) use self::judge::certificates::{RENEWED_BEFORE, ROOT_RESERVE};
use self::{
    documents::Report,
    facts::{Facts, Ground},
    finding::{Finding, Findings, Verdict},
};
use crate::{
    cluster,
    documents::DocumentArgs,
    output::{OutputArgs, verdict},
};

/// Check a Kubernetes cluster, or with --config-dir a directory of documents
///
/// In a cluster it checks: what an installation needs, the installed objects, certificates, webhooks, sidecars and their
/// configuration, and every document. For each failed check it says what to do.
///
/// As JSON it is one object, with the status of each document as in a cluster.
///
/// Exit status: 0 without errors (warnings are allowed), 1 with errors, 2 if the directory cannot be read or the cluster
/// does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    documents: DocumentArgs,

    /// Check only what an installation needs: the cluster, and your permissions in it
    #[arg(long, conflicts_with = "config_dir")]
    pre: bool,

    #[command(flatten)]
    output: OutputArgs,

    /// Accept policies of kinds that are not enforced, instead of an error for each; use the value that the control plane has
    #[arg(long, env = "SELVEDGE_ALLOW_UNENFORCED")]
    allow_unenforced: bool,
}

/// What was found in a cluster.
#[derive(Debug, Serialize)]
struct OfCluster {
    passed: bool,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<Report>,
}

/// Checks; the exit status says what was found.
///
/// # Errors
/// If the report cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = MeshSettings { allow_unenforced: args.allow_unenforced, ..args.documents.settings() };
    let json = args.output.is_json();
    let checked = match &args.documents.config_dir {
        Some(_) => args.documents.load().and_then(|loaded| {
            let report = Report::of(&loaded, &settings);
            written(json, &report, report.passed, Report::to_text)
        }),
        None => cluster::runtime()?
            .block_on(crate::patience::patiently(of_cluster(&args, &settings)))
            .map_err(|error| format!("{error:#}; to check a directory of documents, give --config-dir"))
            .and_then(|report| written(json, &report, report.passed, OfCluster::to_text)),
    };
    let (text, passed) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            eprintln!("selvedge: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    verdict(&text, passed)
}

fn written<T: Serialize>(
    json: bool,
    report: &T,
    passed: bool,
    to_text: impl Fn(&T) -> String,
) -> Result<(String, bool), String> {
    if !json {
        return Ok((to_text(report), passed));
    }
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    Ok((text + "\n", passed))
}

async fn of_cluster(args: &Args, settings: &MeshSettings) -> anyhow::Result<OfCluster> {
    let client = args.documents.cluster.connect().await?;
    let namespace = &args.documents.cluster.namespace;
    let ground = Ground::ask(&client, namespace).await?;
    let mut findings = Findings::default();
    judge::ground(&ground, &mut findings);
    let mut documents = None;
    if !args.pre {
        let facts = Facts::ask(&client, namespace).await?;
        judge::installation(&facts, SystemTime::now(), &mut findings);
        findings.section("documents");
        match args.documents.of_cluster().await {
            Ok(loaded) => documents = Some(Report::of(&loaded, settings)),
            Err(error) => findings.warning(
                format!("the documents of the cluster are not checked: {error:#}"),
                "get permission to list and watch what the ClusterRole selvedge-control-plane lists",
            ),
        }
    }
    let passed = findings.count(Verdict::Error) == 0 && documents.as_ref().is_none_or(|report| report.passed);
    Ok(OfCluster { passed, findings: findings.list, documents })
}

impl OfCluster {
    fn to_text(&self) -> String {
        let mut text = finding::to_text(&self.findings);
        if let Some(report) = &self.documents {
            text += &report.problems_to_text();
            text += "documents: ";
            text += &report.counts();
        }
        text += if self.passed { "no errors\n" } else { "there are errors\n" };
        text
    }
}
