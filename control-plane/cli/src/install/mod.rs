//! `selvedge install`: the objects that make a mesh of a Kubernetes cluster, for `kubectl apply -f -`.
//!
//! It only prints: what is applied can be read, kept and compared first, and the rights to do it are the
//! caller's.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context;

use self::{chart::Release, values::Values};

pub mod chart;
pub mod values;

/// The namespace that the mesh is installed into, unless another is named.
pub const NAMESPACE: &str = "selvedge";

/// Print the objects to install on Kubernetes, for `kubectl apply -f -`
///
/// This changes nothing and asks no cluster. It renders the Helm chart in deploy/helm/selvedge. Values have the same
/// names as there. If several flags set a value, the last of this order counts: --ha, --values, --set, --image-….
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespace to install into
    #[arg(long, short, default_value = NAMESPACE, value_parser = namespace)]
    namespace: String,

    /// Run three replicas on different nodes, so that draining a node never stops all of them
    #[arg(long)]
    ha: bool,

    /// A file with values for the chart; repeatable
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,

    /// A value for the chart, as in controlPlane.replicas=3; repeatable
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// The tag of all images; default: this version
    #[arg(long, value_name = "TAG")]
    image_tag: Option<String>,

    /// The registry of all images, as in registry.example/mesh
    #[arg(long, value_name = "PREFIX")]
    image_registry: Option<String>,
}

/// Prints the manifests.
///
/// # Errors
/// If a value is unknown or cannot be used.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    let text = manifests(&args)?;
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn manifests(args: &Args) -> anyhow::Result<String> {
    let mut values = Values::defaults()?;
    // Who applies what is printed has no `--create-namespace`.
    values.set("createNamespace=true")?;
    if args.ha {
        values.add_ha()?;
    }
    for path in &args.values {
        let text = fs::read_to_string(path).with_context(|| format!("--values {}", path.display()))?;
        values.add_yaml(&text).with_context(|| format!("--values {}", path.display()))?;
    }
    for assignment in &args.set {
        values.set(assignment).context("--set")?;
    }
    if let Some(tag) = &args.image_tag {
        values.set(&format!("image.tag={tag}")).context("--image-tag")?;
    }
    if let Some(registry) = &args.image_registry {
        values.set(&format!("image.registry={registry}")).context("--image-registry")?;
    }
    chart::render(values.get(), Release { namespace: &args.namespace, service: "selvedge" })
}

/// Every object that an installation in `namespace` may have, whatever its values, in the order in which they are
/// applied.
///
/// # Errors
/// If the chart is broken.
pub fn every_object(namespace: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut values = Values::defaults()?;
    values.add_ha()?;
    values.set("createNamespace=true")?;
    let text = chart::render(values.get(), Release { namespace, service: "selvedge" })?;
    Ok(serde_saphyr::from_multiple(&text)?)
}

/// Reads the name of a namespace: a label of DNS, RFC 1123.
///
/// # Errors
/// If it cannot be one.
pub fn namespace(text: &str) -> Result<String, String> {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let is_name = (1..=63).contains(&text.len()) && text.chars().all(inner);
    if is_name && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err("a namespace has 1 to 63 lower-case letters, digits and hyphens, none of these at an end".to_owned())
}

#[cfg(test)]
mod tests;
