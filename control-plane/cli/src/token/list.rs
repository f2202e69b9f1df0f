//! `selvedge token list`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::serve::attestation::TokenRecord;
use serde::Serialize;

use super::place::PlaceArgs;
use crate::{
    cluster,
    output::OutputArgs,
    table::{new_table, trimmed},
};

/// List the join tokens that have not expired
///
/// It shows their ids and not the tokens: an id is no secret. A token that an older version made is not listed.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// One token.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    identity: String,
    workload: Option<String>,
    created: String,
    expires: String,
    /// The SHA-256 of the root by which its holder knows the control plane.
    root: String,
    state: &'static str,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let rows = cluster::runtime()?.block_on(crate::patience::patiently(rows(args)))?;
    let text =
        if args.output.is_json() { serde_json::to_string_pretty(&rows)? + "\n" } else { to_table(&rows) };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

async fn rows(args: &ListArgs) -> anyhow::Result<Vec<Row>> {
    let place = args.place.open().await?;
    let spent = place.spent()?;
    let all = place.records().all(SystemTime::now()).await?;
    Ok(all.into_iter().map(|record| Row::new(record, &spent)).collect())
}

impl Row {
    fn new(record: TokenRecord, spent: &BTreeSet<String>) -> Self {
        let state = match (record.revoked, record.once) {
            (Some(_), _) => "revoked",
            (None, true) if spent.contains(&record.id) => "used",
            (None, true) => "valid once",
            (None, false) => "valid",
        };
        Self {
            identity: record.identity.to_string(),
            workload: record.workload.as_ref().map(ToString::to_string),
            created: moment(record.created),
            expires: moment(record.expires),
            id: record.id,
            root: record.root,
            state,
        }
    }
}

fn to_table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "there is no join token that has not expired\n".to_owned();
    }
    let mut table = new_table(["ID", "IDENTITY", "WORKLOAD", "EXPIRES", "STATE"]);
    for row in rows {
        let workload = row.workload.as_deref().unwrap_or("any");
        table.add_row([&row.id, &row.identity, workload, &row.expires, row.state]);
    }
    trimmed(&table) + "\n"
}

fn moment(seconds: u64) -> String {
    Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_all_that_is_said_of_a_token() {
        let row = Row {
            id: "1".to_owned(),
            identity: "spiffe://td/ns/a/sa/b".to_owned(),
            workload: None,
            created: moment(1),
            expires: moment(2),
            root: "ab12".to_owned(),
            state: "valid",
        };
        crate::documented::is_documented("token list", &[row]);
    }
}
