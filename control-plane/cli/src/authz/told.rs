//! What a change comes to, in words and tables.

use std::time::Duration;

use selvedge_ops::plain;

use super::{
    matrix::Pair,
    seen::{Comparison, Talking},
    trying::{Change, Difference},
};
use crate::table::{new_table, trimmed};

pub(super) fn words(difference: &Difference) -> String {
    let seen = match (&difference.seen, &difference.not_seen) {
        (Some(seen), _) => of_seen(seen),
        (None, why) => {
            let why = why.as_deref().unwrap_or("nobody was asked");
            format!("only who could call whom was compared, and not who talks now: {}\n", plain(why))
        }
    };
    seen + &part("would be refused, or only some requests let in", &difference.refused)
        + &part("requests would be judged by a changed policy", &difference.judged_anew)
        + &part("would be let in, or some requests", &difference.let_in)
}

/// What becomes of those who talk now, and how much is known of them.
fn of_seen(seen: &Comparison) -> String {
    let mut text = talking("talks now, and would be refused or only some requests let in", &seen.refused)
        + &talking("talks now, and requests would be judged by a changed policy", &seen.judged_anew);
    if !seen.refused_calls.is_empty() {
        text += &talking("was to be called and refused by the caller's own sidecar", &seen.refused_calls);
    }
    let watched = humantime::format_duration(Duration::from_secs(seen.watched_seconds));
    let so_far = if seen.watched_seconds < 3600 {
        format!("; some have watched for only {watched}")
    } else {
        String::new()
    };
    let callers =
        if seen.compared == 1 { "1 caller".to_owned() } else { format!("{} callers", seen.compared) };
    text += &format!("compared with {callers} that sidecars have seen in the last hour{so_far}\n");
    for (workload, count) in &seen.left_out {
        text += &format!(
            "{workload} has had {count} connections more, of more callers or to more ports than are kept\n"
        );
    }
    for workload in &seen.silent {
        text += &format!("{workload} has told nothing: its sidecar is not connected, or older\n");
    }
    for (replica, why) in &seen.unknown {
        text += &format!("replica {} does not answer: {}\n", plain(replica), plain(why));
    }
    text
}

fn talking(title: &str, all: &[Talking]) -> String {
    if all.is_empty() {
        return format!("{title}: none\n");
    }
    let mut table = new_table(["FROM", "TO", "PORT", "SEEN", "BEFORE", "AFTER", "BY"]);
    for Talking { change: Change { pair: Pair { from, to, port }, before, after }, seconds_ago } in all {
        let ago = format!("{} ago", humantime::format_duration(Duration::from_secs(*seconds_ago)));
        let (port, by) = (port.to_string(), after.by());
        table.add_row([from, to, &port, &ago, before.outcome().word(), after.outcome().word(), &by]);
    }
    format!("{title}: {}\n{}\n", all.len(), trimmed(&table))
}

fn part(title: &str, changes: &[Change]) -> String {
    if changes.is_empty() {
        return format!("{title}: none\n");
    }
    let mut table = new_table(["FROM", "TO", "PORT", "BEFORE", "AFTER", "BY"]);
    for Change { pair: Pair { from, to, port }, before, after } in changes {
        let by = after.by();
        table.add_row([from, to, &port.to_string(), before.outcome().word(), after.outcome().word(), &by]);
    }
    format!("{title}: {}\n{}\n", changes.len(), trimmed(&table))
}
