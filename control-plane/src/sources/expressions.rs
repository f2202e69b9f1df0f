//! What the regular expressions of a namespace may cost together.
//!
//! Each document is bounded when it is read, their sum is bounded here. What is in use and has not changed comes first:
//! nobody's change takes the room of another's routes. Then the rest, oldest first. A document that has no room any more
//! keeps the version that is in use.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use selvedge_model::expression::{self, Expression, NAMESPACE_LIMIT};

use super::consequence;
use crate::{
    problem::{DocumentName, Problem},
    resources::{Resource, Resources, unusable},
};

/// The documents with expressions that are in use.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    in_use: BTreeMap<DocumentName, Resource>,
}

/// What is spent in one namespace.
#[derive(Debug, Default)]
struct Spent<'a> {
    /// How many documents ask for each.
    asked: HashMap<&'a Expression, usize>,
    cost: usize,
}

impl Budgets {
    /// Replaces those documents of `resources` that there is no room for, and says so.
    pub(super) fn apply(&mut self, resources: &mut Resources, problems: &mut Vec<Problem>) {
        let mut namespaces: BTreeMap<Arc<str>, Vec<Resource>> = BTreeMap::new();
        for document in resources.with_expressions() {
            namespaces.entry(Arc::clone(&document.name().namespace)).or_default().push(document);
        }
        let before = std::mem::take(&mut self.in_use);
        for documents in namespaces.into_values() {
            let refused = refused(&documents, &before);
            for (document, is_refused) in documents.iter().zip(refused) {
                if is_refused {
                    let good = before.get(document.name());
                    problems.push(no_room(document, good));
                    replace(resources, document, good);
                    self.in_use.extend(good.map(|good| (good.name().clone(), good.clone())));
                } else {
                    self.in_use.insert(document.name().clone(), document.clone());
                }
            }
        }
    }
}

/// Whether there is no room for each of `documents`, which are those of one namespace.
fn refused(documents: &[Resource], before: &BTreeMap<DocumentName, Resource>) -> Vec<bool> {
    if expression::cost(documents.iter().flat_map(Resource::expressions)) <= NAMESPACE_LIMIT {
        return vec![false; documents.len()];
    }
    let mut spent = Spent::default();
    // What is in use had room together.
    let mut in_use = documents.iter().filter_map(|document| before.get(document.name()));
    in_use.by_ref().for_each(|document| spent.add(document));
    documents
        .iter()
        .map(|document| {
            let good = before.get(document.name());
            good.into_iter().for_each(|good| spent.remove(good));
            spent.add(document);
            let refused = spent.cost > NAMESPACE_LIMIT;
            if refused {
                spent.remove(document);
                good.into_iter().for_each(|good| spent.add(good));
            }
            refused
        })
        .collect()
}

impl<'a> Spent<'a> {
    fn add(&mut self, document: &'a Resource) {
        for expression in document.expressions() {
            let times = self.asked.entry(expression).or_default();
            *times += 1;
            self.cost += if *times == 1 { expression.cost() } else { 0 };
        }
    }

    fn remove(&mut self, document: &'a Resource) {
        for expression in document.expressions() {
            let Some(times) = self.asked.get_mut(expression) else { continue };
            *times -= 1;
            if *times == 0 {
                self.asked.remove(expression);
                self.cost -= expression.cost();
            }
        }
    }
}

fn no_room(document: &Resource, good: Option<&Resource>) -> Problem {
    let own = expression::cost(document.expressions());
    let stand_in = unusable::of_route(document);
    document.error_between(format!(
        "its regular expressions cost {} KiB, and with them those of its namespace cost more than {} MiB; use fewer or simpler ones{}",
        own.div_ceil(1 << 10),
        NAMESPACE_LIMIT >> 20,
        consequence(good, stand_in.as_ref())
    ))
}

fn replace(resources: &mut Resources, document: &Resource, good: Option<&Resource>) {
    match (good, unusable::of_route(document)) {
        (Some(good), _) => resources.put(good.clone()),
        (None, Some(stand_in)) => resources.put(stand_in.resource),
        (None, None) => resources.remove(document),
    }
}

#[cfg(test)]
mod tests;
