//! `selvedge token revoke`.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use anyhow::{Context, bail};
use selvedge_certs::facts::Utc;
use selvedge_control_plane::serve::attestation::{self, TokenKey, TokenRecord, TokenRecords};

use super::place::PlaceArgs;
use crate::cluster;

/// The shortest beginning of an id that is taken for it.
const SHORTEST: usize = 8;

/// Revoke join tokens: every control plane refuses them from now on
///
/// A certificate that was issued for a token stays valid, and is renewed. To refuse its holder too, use
/// `selvedge revoke`; the file certificates.jsonl in the data directory says which certificates a token was used for.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The ids of the tokens, as `selvedge token list` prints them (8 characters are enough), or the tokens themselves
    #[arg(required = true, value_name = "ID")]
    tokens: Vec<String>,

    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(args: &RevokeArgs) -> anyhow::Result<()> {
    let revoked =
        cluster::runtime()?.block_on(crate::patience::patiently(revoke(args, SystemTime::now())))?;
    let mut out = io::stdout().lock();
    for record in revoked {
        let ends = Utc(record.ends_at());
        writeln!(out, "revoked {} of {}, which would have ended at {ends}", record.id, record.identity)?;
    }
    Ok(())
}

async fn revoke(args: &RevokeArgs, now: SystemTime) -> anyhow::Result<Vec<TokenRecord>> {
    let place = args.place.open().await?;
    let (records, key) = (place.records(), place.key().await?);
    let mut found = Vec::new();
    for asked in &args.tokens {
        found.push(find(&records, &key, asked.trim(), now).await?);
    }
    let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    for record in &mut found {
        record.revoked.get_or_insert(at);
        records.write(record, now).await?;
    }
    Ok(found)
}

/// The record of the token that `asked` is, or is the id of.
async fn find(
    records: &TokenRecords,
    key: &TokenKey,
    asked: &str,
    now: SystemTime,
) -> anyhow::Result<TokenRecord> {
    if asked.contains('.') {
        let record = attestation::record_of(key, asked)?;
        return Ok(records.read(&record.id).await?.unwrap_or(record));
    }
    if asked.len() < SHORTEST {
        bail!("{asked:?} is too short for an id; give at least {SHORTEST} characters of it");
    }
    let all = records.all(now).await?;
    let mut found = all.into_iter().filter(|record| record.id.starts_with(asked));
    let record = found.next().with_context(|| {
        format!(
            "no join token that is still valid has the id {asked}; `selvedge token list` shows the ids. \
             Give the token itself if an older version made it"
        )
    })?;
    if found.next().is_some() {
        bail!("several join tokens have ids that begin with {asked}; give more of it");
    }
    Ok(record)
}
