//! A stream of manifests. Documents with pods are changed, and all others pass unchanged.
//!
//! A document without changes is printed byte for byte. A changed document is written again: comments inside it are lost,
//! and its keys keep their order. The new text is read again and compared with what was meant, so that nothing else can
//! have changed.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use selvedge_control_plane::resources::chunks;
use serde_json::Value;

/// Where each kind that has pods has their template.
const TEMPLATES: [(&str, &str); 9] = [
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("PodTemplate", "/template"),
];

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeOutcome {
    /// It was changed.
    Changed,
    /// It is as it was, and why.
    Kept(String),
    /// What was asked of it cannot be done, and why.
    Refused(String),
}

/// Where manifests are read from.
#[derive(Debug, clap::Args)]
pub(crate) struct Input {
    /// A file of YAML or JSON documents; - is standard input; repeatable
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Does `change` to every pod and every template of pods in `input`, and prints all documents; says of each on
/// standard error what was done. `change` is given the namespace too.
///
/// # Errors
/// If something cannot be read, or a document is refused; then nothing is printed.
pub(crate) fn change(
    input: &Input,
    mut change: impl FnMut(&mut Value, &str) -> (ChangeOutcome, Vec<String>),
) -> anyhow::Result<()> {
    let mut stream = Stream { change: &mut change, told: Vec::new(), refused: 0 };
    let mut output = String::new();
    for file in &input.files {
        let text = read(file)?;
        let changed = stream.text(&text).with_context(|| file.display().to_string())?;
        join(&mut output, &changed);
    }
    for line in &stream.told {
        eprintln!("{line}");
    }
    let refused = stream.refused;
    anyhow::ensure!(refused == 0, "{refused} documents cannot be changed; nothing was printed");
    io::stdout().lock().write_all(output.as_bytes())?;
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// Adds `more` as further documents.
fn join(output: &mut String, more: &str) {
    if !output.is_empty() {
        if !output.ends_with('\n') {
            output.push('\n');
        }
        if !more.starts_with("---") {
            output.push_str("---\n");
        }
    }
    output.push_str(more);
}

/// What is done to each pod or template, and what came of it; given the namespace too.
type Change<'a> = dyn FnMut(&mut Value, &str) -> (ChangeOutcome, Vec<String>) + 'a;

struct Stream<'a> {
    change: &'a mut Change<'a>,
    told: Vec<String>,
    refused: usize,
}

impl Stream<'_> {
    fn text(&mut self, text: &str) -> anyhow::Result<String> {
        let mut output = String::new();
        for (lines_before, chunk) in chunks(text) {
            let read =
                parse(chunk).with_context(|| format!("the document from line {}", lines_before + 1))?;
            let changed = match read {
                Some(mut document) => self.document(&mut document).then(|| written(chunk, &document)),
                None => None,
            };
            match changed {
                Some(changed) => join(&mut output, &changed?),
                // Nothing but what stands between markers, or above the first.
                None if chunk.trim().is_empty() => {}
                None => join(&mut output, chunk),
            }
        }
        Ok(output)
    }

    /// Whether `document` was changed.
    fn document(&mut self, document: &mut Value) -> bool {
        let kind = document["kind"].as_str().unwrap_or_default().to_owned();
        if kind.ends_with("List")
            && let Some(items) = document.get_mut("items").and_then(Value::as_array_mut)
        {
            // Each of them, whatever became of those before.
            return items.iter_mut().fold(false, |changed, item| self.document(item) | changed);
        }
        let metadata = &document["metadata"];
        let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
        let what = format!("{kind} {}", name.unwrap_or("without a name"));
        let namespace = metadata["namespace"].as_str().unwrap_or("default").to_owned();
        let template = TEMPLATES.iter().find(|(known, _)| *known == kind).map(|(_, path)| *path);
        let (outcome, warnings) = match template.and_then(|path| document.pointer_mut(path)) {
            Some(template) => (self.change)(template, &namespace),
            None => (ChangeOutcome::Kept("it has no pods".to_owned()), Vec::new()),
        };
        let is_changed = outcome == ChangeOutcome::Changed;
        self.told.push(match outcome {
            ChangeOutcome::Changed => format!("{what}: changed"),
            ChangeOutcome::Kept(reason) => format!("{what}: not changed: {reason}"),
            ChangeOutcome::Refused(reason) => {
                self.refused += 1;
                format!("{what}: refused: {reason}")
            }
        });
        self.told.extend(warnings.iter().map(|warning| format!("{what}: warning: {warning}")));
        is_changed
    }
}

/// The one document of `chunk`, as `kubectl` reads it: YAML 1.1, where `yes` is a boolean and `0644` octal.
fn parse(chunk: &str) -> anyhow::Result<Option<Value>> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    Ok(serde_saphyr::from_str_with_options(chunk, options)?)
}

/// `document` in the place of `chunk`, whose comments and markers above the first line stay.
fn written(chunk: &str, document: &Value) -> anyhow::Result<String> {
    let above = |line: &&str| {
        let line = line.trim();
        let marker = line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(" #"));
        line.is_empty() || line.starts_with(['#', '%']) || marker
    };
    let mut text: String = chunk.split_inclusive('\n').take_while(above).collect();
    let content = &chunk[text.len()..];
    if content.starts_with("---") {
        text.push_str("---\n");
    }
    let body = match content.trim_start().starts_with('{') {
        true => serde_json::to_string_pretty(document)? + "\n",
        false => yaml(document)?,
    };
    anyhow::ensure!(
        parse(&body)?.as_ref() == Some(document),
        "the changed document would not read back as it was meant: this is a bug of this command; please report it"
    );
    text.push_str(&body);
    Ok(text)
}

fn yaml(document: &Value) -> anyhow::Result<String> {
    let mut text = serde_saphyr::to_string(document)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> (String, Vec<String>) {
        let mut mark = |pod: &mut Value, namespace: &str| {
            if pod["spec"]["keep"] == true {
                return (ChangeOutcome::Kept("told to".to_owned()), Vec::new());
            }
            pod["spec"]["marked"] = namespace.into();
            (ChangeOutcome::Changed, vec!["a warning".to_owned()])
        };
        let mut stream = Stream { change: &mut mark, told: Vec::new(), refused: 0 };
        let output = stream.text(text).unwrap();
        (output, stream.told)
    }

    #[test]
    fn what_is_not_changed_comes_out_letter_by_letter() {
        let text =
            "# mine\nkind: Service # yes\nmetadata: {name: a}\n---\n\nkind:   Pod\nspec: {keep: true}\n";

        let (output, told) = marked(text);

        assert_eq!(output, text);
        assert_eq!(
            told,
            ["Service a: not changed: it has no pods", "Pod without a name: not changed: told to"]
        );
    }

    #[test]
    fn a_changed_document_keeps_its_order_its_head_and_its_neighbours() {
        let text = "# head\n---\nkind: Deployment\nmetadata:\n  namespace: shop\n  name: a\nspec:\n  z: 1\n  template:\n    \
                    spec:\n      b: 0644\n      a: \"yes\"\n      c: yes\n---\nkind: ConfigMap\n";

        let (output, told) = marked(text);

        assert_eq!(
            output,
            "# head\n---\nkind: Deployment\nmetadata:\n  namespace: shop\n  name: a\nspec:\n  z: 1\n  template:\n    \
             spec:\n      b: 420\n      a: \"yes\"\n      c: true\n      marked: shop\n---\nkind: ConfigMap\n"
        );
        assert_eq!(told[..2], ["Deployment a: changed", "Deployment a: warning: a warning"]);
    }

    #[test]
    fn lists_cron_jobs_and_json_are_opened() {
        let list = "kind: List\nitems:\n- kind: CronJob\n  spec:\n    jobTemplate:\n      spec:\n        template:\n          \
                    spec: {}\n- kind: Secret\n";
        assert!(marked(list).0.contains("marked: default"));
        assert_eq!(marked(list).1[2], "Secret without a name: not changed: it has no pods");

        let (json, _) = marked(r#"{"kind":"Pod","spec":{}}"#);
        assert_eq!(json, "{\n  \"kind\": \"Pod\",\n  \"spec\": {\n    \"marked\": \"default\"\n  }\n}\n");
    }

    #[test]
    fn several_inputs_make_one_stream() {
        let mut output = String::new();
        for text in ["a: 1", "b: 2\n", "---\nc: 3\n"] {
            join(&mut output, text);
        }
        assert_eq!(output, "a: 1\n---\nb: 2\n---\nc: 3\n");
    }
}
