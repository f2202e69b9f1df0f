//! What the reasons of failures mean, as the guide of proxies says it: whoever sees one on a page need not look it up.

use std::{collections::BTreeMap, sync::LazyLock};

/// The guide, which a test of proxies keeps in step with the reasons that there are.
const GUIDE: &str = include_str!("../../../../proxy/errors.md");

/// What a reason means, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) what: String,
    pub(super) remedy: String,
}

static ALL: LazyLock<BTreeMap<&'static str, Meaning>> =
    LazyLock::new(|| GUIDE.lines().filter_map(row).collect());

/// What the reason `word` means; `None`: nobody knows, as of one that a newer proxy gives.
pub(super) fn meaning(word: &str) -> Option<&'static Meaning> {
    ALL.get(word)
}

/// A row of the guide's table: the reason, the status over HTTP and of gRPC, what it means, and what to do.
fn row(line: &'static str) -> Option<(&'static str, Meaning)> {
    let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split('|').map(str::trim).collect();
    let [word, _, _, what, remedy] = cells[..] else { return None };
    Some((word.strip_suffix('`')?, Meaning { what: words(what), remedy: words(remedy) }))
}

/// `markdown` without what marks code and links: `[text](where)` is its text.
fn words(markdown: &str) -> String {
    let mut words = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        words.push_str(before);
        let found = link.split_once("](").filter(|(text, _)| !text.contains(']'));
        let found = found.and_then(|(text, place)| Some((text, place.split_once(')')?.1)));
        let (text, after) = found.unwrap_or(("[", link));
        words.push_str(text);
        rest = after;
    }
    words.push_str(rest);
    words.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_guide_has_a_meaning_in_plain_words() {
        let reset = meaning("reset").expect("it is in the guide");
        assert_eq!(reset.what, "the connection broke before the answer had come to its end");
        assert!(reset.remedy.starts_with("look at the app's log"), "{reset:?}");
        let told = "reason | status | gRPC status | what it means | what to do";
        let rows = GUIDE.lines().skip_while(|line| !line.contains(told)).skip(2);
        let rows = rows.take_while(|line| line.starts_with("| `")).count();
        assert_eq!(ALL.len(), rows, "{:?}", ALL.keys());
        for (word, Meaning { what, remedy }) in ALL.iter() {
            assert!(!what.is_empty() && !remedy.is_empty(), "{word}");
            assert!(
                !what.contains("](") && !remedy.contains("](") && !remedy.contains('`'),
                "{word}: {remedy}"
            );
        }
        assert_eq!(meaning("newer"), None);
    }

    #[test]
    fn words_of_a_link_stay() {
        assert_eq!(words("one of `a[0]`, [a limit](x.md#y) or two"), "one of a[0], a limit or two");
    }
}
