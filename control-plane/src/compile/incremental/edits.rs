//! What is different between two lists of documents.

use std::{collections::HashMap, ops::Range, sync::Arc};

use crate::{problem::DocumentName, resources::Document};

/// A document before and after: one of the two is missing if it is new, or has gone.
pub(super) type Pair<T> = (Option<Arc<Document<T>>>, Option<Arc<Document<T>>>);

/// What makes one list another.
#[derive(Debug)]
pub(super) struct Edits<T> {
    /// The part of the list that is replaced.
    range: Range<usize>,
    /// By what.
    by: Vec<Arc<Document<T>>>,
    /// Whether the other list has the same names in the same order.
    pub(super) is_in_place: bool,
    /// Whether documents that are in both have another order.
    pub(super) has_moved: bool,
    /// The documents in it that say something else.
    pub(super) changed: Vec<Pair<T>>,
}

impl<T: PartialEq> Edits<T> {
    /// What makes `old` say what `new` says. Documents of `old` that were read again and say the same are replaced at once, and
    /// told to `again`.
    pub(super) fn new(
        old: &mut [Arc<Document<T>>],
        new: &[Arc<Document<T>>],
        mut again: impl FnMut(&Arc<Document<T>>),
    ) -> Self {
        let mut same = |old: &mut Arc<Document<T>>, new: &Arc<Document<T>>| {
            if Arc::ptr_eq(old, new) {
                return true;
            }
            let same = **old == **new;
            if same {
                *old = Arc::clone(new);
                again(old);
            }
            same
        };
        let differing = old.iter_mut().zip(new).position(|(old, new)| !same(old, new));
        let start = differing.unwrap_or(old.len().min(new.len()));
        let (old_rest, new_rest) = (&mut old[start..], &new[start..]);
        let differing =
            old_rest.iter_mut().rev().zip(new_rest.iter().rev()).position(|(old, new)| !same(old, new));
        let end = differing.unwrap_or(old_rest.len().min(new_rest.len()));
        let range = start..start + old_rest.len() - end;
        let by = &new_rest[..new_rest.len() - end];
        let names =
            |list: &[Arc<Document<T>>]| -> Vec<_> { list.iter().map(|one| one.name.clone()).collect() };
        let is_in_place = names(&old[range.clone()]) == names(by);
        let (changed, has_moved) = changed(&mut old[range.clone()], by, same);
        Self { range, by: by.to_vec(), is_in_place, has_moved, changed }
    }

    /// Makes the list the other one.
    pub(super) fn apply(self, list: &mut Vec<Arc<Document<T>>>) -> Vec<Pair<T>> {
        list.splice(self.range, self.by);
        self.changed
    }
}

/// Those of `old` and `new` that are not in both, or that have another place among those that are; and whether there is one of
/// another place.
fn changed<T>(
    old: &mut [Arc<Document<T>>],
    new: &[Arc<Document<T>>],
    mut same: impl FnMut(&mut Arc<Document<T>>, &Arc<Document<T>>) -> bool,
) -> (Vec<Pair<T>>, bool) {
    let places: HashMap<DocumentName, usize> =
        old.iter().enumerate().map(|(place, document)| (document.name.clone(), place)).collect();
    let mut is_met = vec![false; old.len()];
    let mut changed = Vec::new();
    // What has not changed stands in the same order in both.
    let mut next = 0;
    let (mut furthest, mut has_moved) = (0, false);
    for document in new {
        let Some(place) = places.get(&document.name).copied().filter(|place| !is_met[*place]) else {
            changed.push((None, Some(Arc::clone(document))));
            continue;
        };
        is_met[place] = true;
        has_moved |= place < furthest;
        furthest = furthest.max(place);
        if place >= next && same(&mut old[place], document) {
            next = place + 1;
        } else {
            changed.push((Some(Arc::clone(&old[place])), Some(Arc::clone(document))));
        }
    }
    let gone = old.iter().zip(is_met).filter(|(_, is_met)| !is_met);
    changed.extend(gone.map(|(document, _)| (Some(Arc::clone(document)), None)));
    (changed, has_moved)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::resources::{DecodeOutcome, Resource, WorkloadEntrySpec, decode};

    fn entry(name: &str, weight: u32) -> Arc<Document<WorkloadEntrySpec>> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
             spec: {{address: 10.0.0.1, weight: {weight}}}\n"
        );
        let mut decoded = decode(&text, &Arc::from(Path::new("a.yaml")), "default");
        match decoded.remove(0).outcome {
            DecodeOutcome::Understood(Resource::WorkloadEntry(document)) => document,
            other => panic!("{other:?}"),
        }
    }

    fn list(text: &str) -> Vec<Arc<Document<WorkloadEntrySpec>>> {
        let one = |word: &str| {
            let (name, weight) = word.split_at(1);
            entry(name, weight.parse().unwrap())
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn what_changes_is_told_and_makes_the_other_list() {
        for (old, new, told) in [
            ("a1 b1 c1", "a1 b1 c1", ""),
            ("a1 b1 c1", "a1 b2 c1", "b1b2"),
            ("a1 b1 c1", "a1 b1 c1 d1", "-d1"),
            ("a1 b1 c1", "d1 a1 b1 c1", "-d1"),
            ("a1 b1 c1", "a1 c1", "b1-"),
            ("a1 b1 c1 d1", "a2 b1 c1 d2", "a1a2 d1d2"),
            ("a1 b1 c1 d1", "c1 a1 b1 d1", "a1a1 b1b1"),
            ("", "a1", "-a1"),
            ("a1", "", "a1-"),
            ("a1 b1", "b1 a1", "a1a1"),
            ("a1 b1", "b2 a2", "b1b2 a1a2"),
        ] {
            let (mut old, new) = (list(old), list(new));
            let mut again = 0;
            let edits = Edits::new(&mut old, &new, |_| again += 1);
            let word = |one: &Option<Arc<Document<WorkloadEntrySpec>>>| match one {
                Some(one) => format!("{}{}", one.name.name, one.spec.weight),
                None => "-".to_owned(),
            };
            let words: Vec<String> = edits.changed.iter().map(|(old, new)| word(old) + &word(new)).collect();
            assert_eq!(words.join(" "), told);
            let names =
                |list: &[Arc<Document<_>>]| -> Vec<_> { list.iter().map(|one| one.name.clone()).collect() };
            assert_eq!(edits.is_in_place, names(&old) == names(&new));
            let [old_names, new_names] = [names(&old), names(&new)];
            let both = |names: &[DocumentName], others: &[DocumentName]| -> Vec<_> {
                names.iter().filter(|name| others.contains(name)).cloned().collect()
            };
            assert_eq!(edits.has_moved, both(&old_names, &new_names) != both(&new_names, &old_names));
            assert_eq!(again, new.len() - words.iter().filter(|word| !word.ends_with('-')).count());
            edits.apply(&mut old);
            assert!(old.iter().zip(&new).all(|(one, other)| Arc::ptr_eq(one, other)));
            assert_eq!(old.len(), new.len());
        }
    }
}
