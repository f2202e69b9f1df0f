//! Which `VirtualService` clients follow for a host or pattern, found by their namespace: there may be very many of both.

use std::collections::HashMap;

use super::VirtualService;
use crate::resources::export_to::{Closeness, ExportTo};

/// A document, and its place among those of its host.
type Placed<'a> = (usize, &'a VirtualService);

/// The `VirtualService`s of one host or pattern.
#[derive(Debug, Default)]
pub(super) struct Followers<'a> {
    /// All of them, the first first.
    pub(super) list: Vec<&'a VirtualService>,
    /// The first that is for everybody.
    everybody: Option<Placed<'a>>,
    /// The first that is in a namespace and says so, and the first that names it.
    namespaces: HashMap<String, [Option<Placed<'a>>; 2]>,
}

impl<'a> Followers<'a> {
    /// Adds a document that has this reach.
    pub(super) fn add(&mut self, document: &'a VirtualService, reach: &ExportTo) {
        let own = &*document.name.namespace;
        let placed = (self.list.len(), document);
        self.list.push(document);
        if reach.is_everywhere() {
            self.everybody.get_or_insert(placed);
            return;
        }
        for namespace in reach.namespaces(own) {
            let index = match reach.closeness(own, Some(namespace)) {
                Some(Closeness::Own) => 0,
                Some(Closeness::Named) => 1,
                Some(Closeness::Everybody) | None => continue,
            };
            // Most are named again and again.
            if !self.namespaces.contains_key(namespace) {
                self.namespaces.insert(namespace.to_owned(), [None, None]);
            }
            if let Some(firsts) = self.namespaces.get_mut(namespace) {
                firsts[index].get_or_insert(placed);
            }
        }
    }

    /// The one that is closest to clients in `client`.
    pub(super) fn closest(&self, client: Option<&str>) -> Option<(Closeness, &'a VirtualService)> {
        self.firsts(client).next().map(|(closeness, (_, document))| (closeness, document))
    }

    /// The first of those that are as close to clients in `client` as this, or closer.
    pub(super) fn first_within(
        &self,
        client: Option<&str>,
        closeness: Closeness,
    ) -> Option<&'a VirtualService> {
        let within = self.firsts(client).filter(|(one, _)| *one <= closeness);
        within.map(|(_, placed)| placed).min_by_key(|(place, _)| *place).map(|(_, document)| document)
    }

    /// The first of each closeness to clients in `client`, the closest first.
    fn firsts(&self, client: Option<&str>) -> impl Iterator<Item = (Closeness, Placed<'a>)> {
        let [own, named] = client.and_then(|client| self.namespaces.get(client)).copied().unwrap_or_default();
        let own = own.map(|placed| (Closeness::Own, placed));
        let named = named.map(|placed| (Closeness::Named, placed));
        let everybody = self.everybody.map(|placed| (Closeness::Everybody, placed));
        [own, named, everybody].into_iter().flatten()
    }
}
