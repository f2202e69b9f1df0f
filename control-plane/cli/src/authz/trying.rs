//! `selvedge authz try`: the matrix before a change and after it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use selvedge_control_plane::{
    compile::{MeshSettings, compile},
    problem::{Problem, Severity},
    resources::{DecodeOutcome, Resources, decode},
};
use selvedge_model::{Mesh, Workload, WorkloadName};
use serde::Serialize;

use super::{
    TryArgs,
    matrix::{self, Cell, Outcome, Pair},
    output::json,
    seen::{Comparison, Traffic},
    told::words,
};
use crate::replicas::PlaceArgs;

/// What changes for one pair.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    #[serde(flatten)]
    pub(super) pair: Pair,
    pub(super) before: Cell,
    pub(super) after: Cell,
}

/// What a change comes to.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// What becomes of those who talk now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<Comparison>,
    /// Why nobody knows who talks now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_seen: Option<String>,
    /// Pairs that lose something.
    pub(super) refused: Vec<Change>,
    /// Pairs whose requests decide before and after, by policies that are not the same: some may be refused.
    pub(super) judged_anew: Vec<Change>,
    /// Pairs that gain something.
    pub(super) let_in: Vec<Change>,
}

impl Difference {
    /// Whether something that is let in now would not be, or perhaps not.
    pub(super) fn breaks(&self) -> bool {
        let talking = self.seen.as_ref().is_some_and(Comparison::breaks);
        talking || !self.refused.is_empty() || !self.judged_anew.is_empty()
    }
}

/// What a change does to one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It loses something.
    Refused,
    /// Its requests decide before and after, by policies that are not the same.
    JudgedAnew,
    /// It gains something.
    LetIn,
    /// Nothing.
    None,
}

/// What becomes of a pair; `changed`: what its server lets in is not the same.
pub(super) fn effect(before: &Cell, after: &Cell, changed: bool) -> Effect {
    match rank(after.outcome()).cmp(&rank(before.outcome())) {
        Ordering::Less => Effect::Refused,
        Ordering::Greater => Effect::LetIn,
        Ordering::Equal if after.outcome() == Outcome::DependsOnTheRequest && changed => Effect::JudgedAnew,
        Ordering::Equal => Effect::None,
    }
}

/// The answer, and whether somebody would be refused.
pub(super) fn answer(args: &TryArgs) -> Result<(String, bool), String> {
    let loaded = args.documents.load()?;
    let settings = args.documents.settings();
    let mut after = loaded.resources.clone();
    for file in &args.files {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if put(&mut after, &text, file, &settings)? == 0 {
            return Err(format!("{}: holds no document of a kind that Selvedge acts on", file.display()));
        }
    }
    if args.strict {
        turn_strict(&mut after, &settings)?;
    }
    let difference = difference(&loaded.resources, &after, &settings, traffic(args))?;
    let text = if args.output.is_json() { json(&difference)? } else { words(&difference) };
    Ok((text, difference.breaks()))
}

/// Who talks now; or why nobody knows.
fn traffic(args: &TryArgs) -> Result<Traffic, String> {
    match (args.admin, &args.documents.config_dir) {
        (None, Some(_)) => Err("no control plane was asked (--admin names one)".to_owned()),
        (admin, _) => Traffic::of(&PlaceArgs { cluster: args.documents.cluster.clone(), admin }),
    }
}

/// Puts a policy that asks for mutual TLS in the place of those that are for the whole mesh.
pub(super) fn turn_strict(resources: &mut Resources, settings: &MeshSettings) -> Result<(), String> {
    let root = &settings.root_namespace;
    resources
        .peer_authentications
        .retain(|one| one.unusable || *one.name.namespace != **root || !one.spec.selector.is_empty());
    let strict = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: strict, namespace: '{root}'}}\n\
         spec: {{mtls: {{mode: STRICT}}}}\n"
    );
    put(resources, &strict, Path::new("--strict"), settings).map(drop)
}

/// Puts the documents of `text` in the places of those that have their names; says how many.
pub(super) fn put(
    resources: &mut Resources,
    text: &str,
    path: &Path,
    settings: &MeshSettings,
) -> Result<usize, String> {
    let mut count = 0;
    for document in decode(text, &Arc::from(path), &settings.default_namespace) {
        if let Some(error) = errors(&document.problems).next() {
            return Err(format!("{error}; correct it first"));
        }
        match document.outcome {
            DecodeOutcome::Understood(resource) => {
                resources.put(resource);
                count += 1;
            }
            DecodeOutcome::NotActedOn => {}
            DecodeOutcome::Failed => return Err(format!("{}: it cannot be read", path.display())),
        }
        for problem in &document.problems {
            eprintln!("selvedge: {problem}");
        }
    }
    Ok(count)
}

fn errors(problems: &[Problem]) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(|problem| problem.severity == Severity::Error)
}

/// What becomes of each pair that is there before and after.
///
/// # Errors
/// If the change has an error that the documents before did not have: then nobody knows what it means.
pub(super) fn difference(
    before: &Resources,
    after: &Resources,
    settings: &MeshSettings,
    traffic: Result<Traffic, String>,
) -> Result<Difference, String> {
    let (before, problems) = compile(before, settings, &Mesh::default());
    let (after, new_problems) = compile(after, settings, &Mesh::default());
    let old: BTreeSet<String> = problems.iter().map(ToString::to_string).collect();
    for problem in new_problems.iter().filter(|problem| !old.contains(&problem.to_string())) {
        if problem.severity == Severity::Error {
            return Err(format!("{problem}; correct it first"));
        }
        // Such as that it selects nothing: then nobody is refused, and not because all is well.
        eprintln!("selvedge: {problem}");
    }
    Ok(compared(&before, &after, traffic))
}

fn compared(before: &Mesh, after: &Mesh, traffic: Result<Traffic, String>) -> Difference {
    let changed = changed_policies(before, after);
    let mut difference = Difference::default();
    match traffic {
        Ok(traffic) => difference.seen = Some(traffic.compared(before, after, &changed)),
        Err(why) => difference.not_seen = Some(why),
    }
    let mut later = matrix::of(after);
    for (pair, before) in matrix::of(before) {
        let Some(after) = later.remove(&pair) else { continue };
        let list = match effect(&before, &after, changed.contains(&pair.to)) {
            Effect::Refused => &mut difference.refused,
            Effect::LetIn => &mut difference.let_in,
            Effect::JudgedAnew => &mut difference.judged_anew,
            Effect::None => continue,
        };
        list.push(Change { pair, before, after });
    }
    difference
}

/// The workloads that do not let in the same after as before.
fn changed_policies(before: &Mesh, after: &Mesh) -> BTreeSet<String> {
    let after: BTreeMap<WorkloadName, Workload> =
        matrix::known(after).into_iter().map(|workload| (workload.name.clone(), workload)).collect();
    let same = |one: &Workload| after.get(&one.name).is_some_and(|other| other.policy == one.policy);
    matrix::known(before).iter().filter(|one| !same(one)).map(|one| one.name.to_string()).collect()
}

fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Denied => 0,
        Outcome::DependsOnTheRequest => 1,
        Outcome::Allowed => 2,
    }
}
