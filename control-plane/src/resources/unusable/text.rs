//! A text that is not even YAML: what it seems to hold.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    super::{
        Location,
        kinds::{self, GROUPS_OF_POLICIES},
        linkerd_policy,
    },
    AUTHENTICATION, AUTHORIZATION, NETWORK, SERVER, STRICTEST, StandIn, backend_tls, is_namespace,
    strict::{Whom, refused_host, strict},
    unnamed,
};
use crate::problem::DocumentName;

/// The stand-in of a text that is not even YAML, which seems to hold a document called `name`.
pub(in super::super) fn of_text(
    text: &str,
    name: Option<&DocumentName>,
    path: &Arc<Path>,
    line: u64,
    default_namespace: &str,
) -> Option<StandIn> {
    let location = Location { path: Some(Arc::clone(path)), index: 0, line, lines: None };
    let text = text.to_ascii_lowercase();
    let mentions = |word: &str| text.contains(&word.to_ascii_lowercase());
    if kinds::policies().chain(GROUPS_OF_POLICIES.iter().copied()).any(mentions) {
        // Only where the text names one namespace and no other is it surely that.
        let said: BTreeSet<_> = values(&text, "namespace").collect();
        let is_there = |name: &&DocumentName| said.iter().eq([&&*name.namespace]);
        let known =
            name.filter(|name| kinds::policies().any(|policy| policy == &*name.kind)).filter(is_there);
        let kind = [NETWORK, AUTHORIZATION, AUTHENTICATION]
            .into_iter()
            .find(|kind| mentions(kind))
            .unwrap_or(STRICTEST);
        return Some(strict(known.cloned().unwrap_or_else(|| unnamed(kind)), &location, Whom::Anybody));
    }
    if mentions(linkerd_policy::GROUP) && values(&text, "kind").any(|kind| kind == "server") {
        let said: BTreeSet<_> = values(&text, "namespace").collect();
        let known = name.filter(|name| &*name.kind == SERVER && said.iter().eq([&&*name.namespace]));
        return Some(strict(known.cloned().unwrap_or_else(|| unnamed(SERVER)), &location, Whom::Anybody));
    }
    if name.is_some_and(|name| &*name.kind == backend_tls::KIND)
        || name.is_none() && values(&text, "kind").any(|kind| kind.eq_ignore_ascii_case(backend_tls::KIND))
    {
        let name = name.cloned().unwrap_or_else(|| DocumentName {
            namespace: default_namespace.into(),
            ..unnamed(backend_tls::KIND)
        });
        return Some(backend_tls::refused(name, &location, Vec::new()));
    }
    let seems = match name {
        Some(name) => &*name.kind == "DestinationRule",
        None => mentions("DestinationRule"),
    };
    (seems && mentions("tls")).then(|| {
        let only = |key: &str| {
            let values: BTreeSet<_> = values(&text, key).collect();
            (values.len() == 1).then(|| values.into_iter().next()).flatten()
        };
        let namespace = only("namespace").filter(|namespace| is_namespace(namespace));
        let name = name.cloned().unwrap_or_else(|| DocumentName {
            namespace: namespace.unwrap_or(default_namespace).into(),
            ..unnamed("DestinationRule")
        });
        refused_host(name, &location, only("host").unwrap_or("*").to_owned(), None)
    })
}

/// What a text that is not even YAML (or JSON) seems to say of each field `key`.
fn values<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let after = text.match_indices(key).filter_map(|(at, key)| {
        let stands_alone =
            !text[..at].ends_with(|before: char| before.is_alphanumeric() || "-_./".contains(before));
        let rest = &text[at + key.len()..];
        let rest = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':')?;
        stands_alone.then_some(rest)
    });
    let value = |rest: &'t str| rest.split(['\n', ',', '}', ']']).next().unwrap_or(rest);
    let values = after.map(value).map(|value| value.split(" #").next().unwrap_or(value));
    values.map(|value| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
}
