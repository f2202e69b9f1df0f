//! How much the documents of one namespace may come to for the clients of all services.
//!
//! A document counts at each port of each host that it is for, and each namespace that it names may see each of them in its own
//! way. So a few large documents would be a thousand times their size.

use std::collections::BTreeMap;

use selvedge_model::{Backend, Service, route::Rule};

/// How much more than itself the `VirtualService`s of one namespace may come to at ports of services, and for namespaces that
/// they name, in bytes; and the same of its `DestinationRule`s.
const MOST: usize = 256 << 20;
/// About what one namespace takes that sees a port in its own way, in bytes. Namespaces that follow the same documents share what
/// they see.
const OF_NAMESPACE: usize = 128;
/// About what clients take that a rule selects by their labels, and that see a port in their own way, besides what the rule says,
/// in bytes: a service with one rule and one backend.
const OF_CLIENTS: usize = size_of::<Service>() + size_of::<Rule>() + size_of::<Backend>();

/// What the documents of each namespace have taken of [`MOST`].
#[derive(Debug, Default)]
pub(super) struct Room<'a>(BTreeMap<&'a str, usize>);

/// Where a document decides, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// At how many ports.
    pub(super) ports: usize,
    /// For how many namespaces that it names.
    pub(super) namespaces: usize,
    /// For how many clients of its namespace, whom it selects by their labels; `None`: it does not select them so.
    pub(super) clients: Option<usize>,
}

impl<'a> Room<'a> {
    /// Takes room for a document in `namespace` of `size` bytes.
    ///
    /// # Errors
    /// If there is none left: why, and what to do.
    pub(super) fn take(&mut self, namespace: &'a str, size: usize, reach: Reach) -> Result<(), String> {
        let Reach { ports, namespaces, clients } = reach;
        let used = self.0.entry(namespace).or_default();
        // Each of those clients may see each port in its own way.
        let seen = ports.saturating_mul(clients.unwrap_or(1).max(1));
        let copies = size.saturating_mul(seen.saturating_sub(1));
        let of_each = match clients {
            Some(_) => OF_CLIENTS,
            None => OF_NAMESPACE.saturating_mul(namespaces),
        };
        let needed = copies.saturating_add(of_each.saturating_mul(seen));
        if needed > MOST - *used {
            let (whom, fewer) = match clients {
                Some(clients) => (format!("{clients} sorts of clients whom rules tell apart"), "labels"),
                None => (format!("{namespaces} namespaces that it names"), "namespaces"),
            };
            return Err(format!(
                "at {ports} ports, for {whom}, it would take {} MiB, and the namespace {namespace} has {} of {} MiB left for that; \
                 name fewer hosts or {fewer}, or split it",
                needed.div_ceil(1 << 20),
                (MOST - *used) >> 20,
                MOST >> 20,
            ));
        }
        *used += needed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(ports: usize, namespaces: usize) -> Reach {
        Reach { ports, namespaces, clients: None }
    }

    #[test]
    fn a_namespace_has_so_much_room_and_takes_none_from_others() {
        let mut room = Room::default();

        room.take("a", 1 << 20, named(1, 0)).unwrap();
        room.take("a", 1 << 20, named(200, 0)).unwrap();
        let why = room.take("a", 1 << 20, named(200, 0)).unwrap_err();
        assert!(why.contains("the namespace a has 57 of 256 MiB left"), "{why}");
        room.take("b", 1 << 20, named(200, 0)).unwrap();
        let why = room.take("c", 100, named(1_000, 10_000)).unwrap_err();
        assert!(
            why.starts_with("at 1000 ports, for 10000 namespaces that it names, it would take 1221 MiB"),
            "{why}"
        );
        assert!(room.take("c", usize::MAX, named(usize::MAX, usize::MAX)).is_err());
    }

    #[test]
    fn selected_clients_take_what_they_see_of_each_port() {
        let mut room = Room::default();
        let selected = |ports, clients| Reach { ports, namespaces: 1, clients: Some(clients) };

        // A small rule comes to more than what it says.
        let many = MOST / OF_CLIENTS / 10;
        room.take("a", 1, selected(9, many)).unwrap();
        let why = room.take("a", 1, selected(2, many)).unwrap_err();
        let told = format!("at 2 ports, for {many} sorts of clients whom rules tell apart, it would take");
        assert!(why.starts_with(&told), "{why}");
        room.take("b", 1, selected(0, many)).unwrap();
        room.take("b", 1, selected(9, 0)).unwrap();
        assert!(room.take("c", usize::MAX, selected(usize::MAX, usize::MAX)).is_err());
    }
}
