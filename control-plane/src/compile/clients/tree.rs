//! Selectors in a tree of their labels: those that select somebody are found without a look at the others, of which there may
//! be very many.

use std::collections::HashMap;

use super::Labels;

/// The places of things that selectors belong to. Each label that a selector asks for, in the order of their names, is a step
/// down; one that asks for nothing is at the top. Nothing here calls itself: a selector may have very many labels.
#[derive(Debug, Default)]
pub(in super::super) struct SelectorTree<'a> {
    /// The first is the top. There is none if nothing is in there.
    nodes: Vec<Node<'a>>,
}

#[derive(Debug)]
struct Node<'a> {
    /// The places that belong to the selector that asks for just the labels of the steps down to here, in order.
    places: Vec<usize>,
    /// The first place of all that are here and below.
    first: usize,
    /// The nodes that are one step further down.
    below: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> SelectorTree<'a> {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(in super::super) fn insert(&mut self, selector: &'a Labels, place: usize) {
        let mut at = self.reach(0, place);
        for (name, value) in selector {
            let new = self.nodes.len();
            let next = *self.nodes[at].below.entry((name.as_str(), value.as_str())).or_insert(new);
            at = self.reach(next, place);
        }
        let places = &mut self.nodes[at].places;
        let after = places.partition_point(|before| *before < place);
        places.insert(after, place);
    }

    /// All places whose selectors select `labels`, in no order.
    pub(in super::super) fn each(&self, labels: &Labels) -> Vec<usize> {
        let mut all = Vec::new();
        self.walk(labels, |node| {
            all.extend(node.places.iter().copied());
            true
        });
        all
    }

    /// The first place that `counts` of those whose selectors select `labels`.
    pub(in super::super) fn first(&self, labels: &Labels, counts: impl Fn(usize) -> bool) -> Option<usize> {
        let mut first: Option<usize> = None;
        self.walk(labels, |node| {
            if first.is_some_and(|first| first <= node.first) {
                return false;
            }
            let here = node.places.iter().copied().find(|place| counts(*place));
            first = first.into_iter().chain(here).min();
            true
        });
        first
    }

    /// Has the node `at` be on the way to `place`, and makes it if there is none; it is `at` that is returned.
    fn reach(&mut self, at: usize, place: usize) -> usize {
        match self.nodes.get_mut(at) {
            Some(node) => node.first = node.first.min(place),
            None => self.nodes.push(Node { places: Vec::new(), first: place, below: HashMap::new() }),
        }
        at
    }

    /// Has `visit` see each node that is reached by some of `labels`, and those below it if it says so.
    fn walk(&self, labels: &Labels, mut visit: impl FnMut(&Node<'a>) -> bool) {
        let mut ahead = vec![0];
        while let Some(node) = ahead.pop().and_then(|at| self.nodes.get(at)) {
            if !visit(node) {
                continue;
            }
            // Whichever are fewer.
            if node.below.len() <= labels.len() {
                for ((name, value), next) in &node.below {
                    if labels.get(*name).is_some_and(|own| own == *value) {
                        ahead.push(*next);
                    }
                }
            } else {
                for (name, value) in labels {
                    ahead.extend(node.below.get(&(name.as_str(), value.as_str())).copied());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::facts::selects;

    use super::*;

    /// All selectors with these names and two values of each, the empty one included.
    fn selectors() -> Vec<Labels> {
        let mut all = vec![Labels::new()];
        for name in ["d", "a", "c", "b"] {
            for before in all.clone() {
                for value in ["1", "2"] {
                    let mut more = before.clone();
                    more.insert(name.to_owned(), value.to_owned());
                    all.push(more);
                }
            }
        }
        all
    }

    #[test]
    fn those_that_select_somebody_are_found_and_no_others() {
        let all = selectors();
        for step in [1, 2, 5] {
            let mut tree = SelectorTree::default();
            assert!(tree.is_empty());
            assert_eq!((tree.each(&all[3]), tree.first(&all[3], |_| true)), (vec![], None));
            // Backwards, and each twice: the order is that of the places.
            for place in (0..2 * all.len()).rev().step_by(step) {
                tree.insert(&all[place % all.len()], place);
            }
            for labels in &all {
                let is_in = |place: &usize| (2 * all.len() - 1 - place).is_multiple_of(step);
                let selecting = |place: &usize| is_in(place) && selects(&all[*place % all.len()], labels);
                let expected: Vec<usize> = (0..2 * all.len()).filter(selecting).collect();

                let mut found = tree.each(labels);
                found.sort_unstable();
                assert_eq!(found, expected, "{labels:?}");
                let first = |counts: &dyn Fn(usize) -> bool| {
                    assert_eq!(
                        tree.first(labels, counts),
                        expected.iter().copied().find(|place| counts(*place)),
                        "{labels:?}"
                    );
                };
                first(&|_| true);
                first(&|place| place > 7);
                first(&|place| place % 3 == 1);
                first(&|_| false);
            }
        }
    }

    #[test]
    fn a_selector_may_have_very_many_labels() {
        let labels = |count: usize| -> Labels {
            (0..count).map(|number| (format!("l{number:06}"), "v".to_owned())).collect()
        };
        let (selector, fewer) = (labels(100_000), labels(99_999));
        let mut tree = SelectorTree::default();
        tree.insert(&selector, 0);

        assert_eq!(tree.each(&selector), [0]);
        assert_eq!(tree.first(&fewer, |_| true), None);
    }
}
