//! What filters do, in words.

use bytes::Bytes;
use http::StatusCode;
use selvedge_model::filter::{Fraction, HeaderChange, HeaderChanges, Piece};

/// The most letters of a body that are shown.
const SHOWN: usize = 60;

/// What `changes` do.
pub(super) fn changes(changes: &HeaderChanges) -> String {
    let value = |change: &HeaderChange| plain_value(change).unwrap_or_else(|| "?".to_owned());
    let removed = changes.remove.iter().map(|name| format!("removes {name}"));
    let set = changes.set.iter().map(|change| format!("sets {}: {}", change.name, value(change)));
    let added = changes.add.iter().map(|change| format!("adds {}: {}", change.name, value(change)));
    removed.chain(set).chain(added).collect::<Vec<_>>().join(", ")
}

/// The value that `change` sets, if it depends on no request.
pub(super) fn plain_value(change: &HeaderChange) -> Option<String> {
    match change.value.pieces() {
        [Piece::Text(text)] => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}

/// That a share of requests `does` something; `drawn`: whether this one does.
pub(super) fn chance(fraction: Fraction, does: &str, drawn: Option<bool>) -> String {
    let of_all = format!("{} % of requests {does}", percent(fraction));
    match (certain(fraction), drawn) {
        (None, Some(true)) => format!("{of_all}; this one is drawn for it"),
        (None, Some(false)) => format!("{of_all}; this one is not drawn for it"),
        _ => of_all,
    }
}

/// Whether all requests are meant, or none; `None`: some.
pub(super) fn certain(fraction: Fraction) -> Option<bool> {
    match fraction {
        Fraction::ALL => Some(true),
        Fraction::NONE => Some(false),
        _ => None,
    }
}

pub(super) fn percent(fraction: Fraction) -> f64 {
    f64::from(fraction.parts()) / 10_000.0
}

/// What a fixed answer says.
pub(super) fn direct(status: StatusCode, body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let shown: String = text.chars().take(SHOWN).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    match body.len() {
        0 => format!("answers {} without a body", status.as_u16()),
        length => format!("answers {} with {length} bytes: {shown:?}{rest}", status.as_u16()),
    }
}
