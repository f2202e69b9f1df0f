//! Finds the most specific of many sets of host names that has a name.

use std::{collections::HashMap, sync::Arc};

use super::{HostPattern, Hostname};

/// Sets of host names by place. A look costs one hash for each label of the name, however many sets there are; of a name that
/// is in none of them, a look at each expression, too.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    exact: HashMap<Arc<str>, usize>,
    below: HashMap<Arc<str>, usize>,
    one_below: HashMap<Arc<str>, usize>,
    like: Vec<(HostPattern, usize)>,
    any: Option<usize>,
}

impl Hosts {
    /// Over `sets` in their order. Of two that are the same, the first counts.
    pub fn new<'a>(sets: impl IntoIterator<Item = &'a Hostname>) -> Self {
        let mut hosts = Self::default();
        for (place, set) in sets.into_iter().enumerate() {
            let (map, text) = match set {
                Hostname::Any => {
                    hosts.any.get_or_insert(place);
                    continue;
                }
                Hostname::Below(suffix) => (&mut hosts.below, suffix),
                Hostname::OneBelow(suffix) => (&mut hosts.one_below, suffix),
                Hostname::Exact(name) => (&mut hosts.exact, name),
                Hostname::Like(pattern) => {
                    hosts.like.push((pattern.clone(), place));
                    continue;
                }
            };
            map.entry(Arc::clone(text)).or_insert(place);
        }
        hosts
    }

    /// The place of the most specific set that has `name`, which is in lower case and has no port and no dot at its
    /// end. `None` as a name is in the set of all names alone.
    pub fn find(&self, name: Option<&str>) -> Option<usize> {
        let Some(name) = name else { return self.any };
        if let Some(place) = self.exact.get(name) {
            return Some(*place);
        }
        let suffixes = name.match_indices('.').filter(|(dot, _)| *dot > 0);
        let mut suffixes = suffixes.map(|(dot, _)| &name[dot + 1..]).enumerate();
        let found = suffixes.find_map(|(place, suffix)| {
            let one = (place == 0).then(|| self.one_below.get(suffix)).flatten();
            one.or_else(|| self.below.get(suffix)).copied()
        });
        let like = || self.like.iter().find(|(pattern, _)| pattern.is_in(name)).map(|(_, place)| *place);
        found.or_else(like).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names of few labels, so that sets and names meet.
    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..5)
            .prop_map(|labels| labels.join("."))
    }

    fn hostname() -> impl Strategy<Value = Hostname> {
        prop_oneof![
            1 => Just(Hostname::Any),
            4 => name().prop_map(|name| Hostname::Exact(name.into())),
            3 => name().prop_map(|name| Hostname::Below(name.into())),
            3 => name().prop_map(|name| Hostname::OneBelow(name.into())),
        ]
    }

    proptest! {
        #[test]
        fn the_most_specific_set_is_found(sets in prop::collection::vec(hostname(), 0..12), name in name()) {
            let found = Hosts::new(&sets).find(Some(&name)).map(|place| &sets[place]);

            let naive = sets.iter().filter(|set| set.contains(&name)).max_by(|a, b| a.rank().cmp(&b.rank()));
            prop_assert_eq!(found, naive);
        }

        #[test]
        fn an_intersection_has_the_names_that_both_have(one in hostname(), other in hostname(), name in name()) {
            let both = one.contains(&name) && other.contains(&name);
            let nested = one.intersection(&other);

            match nested {
                Some(set) => prop_assert_eq!(set.contains(&name), both),
                // `?.b` and `*.a.b` have no name in common, and neither has any other pair without an intersection.
                None => prop_assert!(!both),
            }
        }
    }

    #[test]
    fn an_expression_is_asked_when_no_name_and_no_wildcard_has_a_name_and_the_first_one_counts() {
        let like = |pattern: &str| Hostname::Like(HostPattern::new(pattern).unwrap());
        let sets = [
            Hostname::Any,
            like(r"^www\d+\."),
            like("www"),
            "*.org".parse().unwrap(),
            "www1.net".parse().unwrap(),
        ];
        let hosts = Hosts::new(&sets);

        for (name, place) in
            [("www1.net", 4), ("www1.example.org", 3), ("www1.com", 1), ("a.www.com", 2), ("a.com", 0)]
        {
            assert_eq!(hosts.find(Some(name)), Some(place), "{name}");
        }
        assert_eq!(hosts.find(None), Some(0));
        assert!(HostPattern::new("a)|(?:b").is_err(), "it stays by itself");
    }

    #[test]
    fn without_a_name_only_the_set_of_all_names_is_found() {
        let sets: Vec<Hostname> = vec!["*.com".parse().unwrap(), Hostname::Any];

        assert_eq!(Hosts::new(&sets).find(None), Some(1));
        assert_eq!(Hosts::new(&sets[..1]).find(None), None);
    }
}
