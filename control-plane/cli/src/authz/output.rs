//! The matrix as a table, as JSON, and as a picture.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::matrix::{Cell, Outcome, Pair};
use crate::table::{new_table, trimmed};

/// In which form a matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A table, for people.
    Table,
    /// One JSON object.
    Json,
    /// A graph, for Graphviz.
    Dot,
}

/// One pair and what becomes of it.
#[derive(Debug, Serialize)]
pub(super) struct Row<'m> {
    #[serde(flatten)]
    pair: &'m Pair,
    #[serde(flatten)]
    cell: &'m Cell,
}

#[derive(Debug, Serialize)]
struct Rows<'m> {
    pairs: Vec<Row<'m>>,
}

pub(super) fn written(matrix: &BTreeMap<Pair, Cell>, format: Format) -> Result<String, String> {
    match format {
        Format::Table => Ok(table(matrix)),
        Format::Json => {
            let pairs = matrix.iter().map(|(pair, cell)| Row { pair, cell }).collect();
            json(&Rows { pairs })
        }
        Format::Dot => Ok(dot(matrix)),
    }
}

pub(super) fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn table(matrix: &BTreeMap<Pair, Cell>) -> String {
    if matrix.is_empty() {
        return "there are no two workloads of which one has a sidecar and one has a port to call\n"
            .to_owned();
    }
    let mut table = new_table(["FROM", "TO", "PORT", "MUTUAL TLS", "VERDICT", "BY"]);
    for (Pair { from, to, port }, cell) in matrix {
        let tls = if cell.mutual_tls { "yes" } else { "no" };
        table.add_row([from, to, &port.to_string(), tls, cell.outcome().word(), &cell.by()]);
    }
    trimmed(&table) + "\n"
}

/// A graph of what is not denied.
fn dot(matrix: &BTreeMap<Pair, Cell>) -> String {
    let mut text = "digraph authz {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (Pair { from, to, port }, cell) in matrix {
        let style = match cell.outcome() {
            Outcome::Denied => continue,
            Outcome::Allowed => "solid",
            Outcome::DependsOnTheRequest => "dashed",
        };
        let (from, to, rule) = (quoted(from), quoted(to), quoted(&cell.by()));
        // Writing to a text cannot fail.
        let _ =
            writeln!(text, "  \"{from}\" -> \"{to}\" [label=\"{port}\", style={style}, tooltip=\"{rule}\"];");
    }
    text + "}\n"
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
