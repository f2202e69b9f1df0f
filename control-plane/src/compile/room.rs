//! How much the documents of one namespace may come to for the clients of all services.
//!
//! A document counts at each port of each host that it is for, and each namespace that it names may see each of them in its own
//! way. So a few large documents would be a thousand times their size.

use std::collections::BTreeMap;

/// How much more than itself the `VirtualService`s of one namespace may come to at ports of services, and for namespaces that
/// they name, in bytes; and the same of its `DestinationRule`s.
const MOST: usize = 256 << 20;
/// About what one namespace takes that sees a port in its own way, in bytes.
const OF_NAMESPACE: usize = 128;

/// What the documents of each namespace have taken of [`MOST`].
#[derive(Debug, Default)]
pub(super) struct Room<'a>(BTreeMap<&'a str, usize>);

impl<'a> Room<'a> {
    /// Takes room for a document in `namespace` of `size` bytes that decides at as many `ports`, for all clients and for as many
    /// `namespaces` that it names.
    ///
    /// # Errors
    /// If there is none left: why, and what to do.
    pub(super) fn take(
        &mut self,
        namespace: &'a str,
        size: usize,
        ports: usize,
        namespaces: usize,
    ) -> Result<(), String> {
        let used = self.0.entry(namespace).or_default();
        let copies = size.saturating_mul(ports.saturating_sub(1));
        let seen = OF_NAMESPACE.saturating_mul(ports).saturating_mul(namespaces);
        let needed = copies.saturating_add(seen);
        if needed > MOST - *used {
            return Err(format!(
                "at {ports} ports, for {namespaces} namespaces that it names, it would take {} MiB, and the namespace {namespace} \
                 has {} of {} MiB left for that; name fewer hosts or namespaces, or split it",
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

    #[test]
    fn a_namespace_has_so_much_room_and_takes_none_from_others() {
        let mut room = Room::default();

        room.take("a", 1 << 20, 1, 0).unwrap();
        room.take("a", 1 << 20, 200, 0).unwrap();
        let why = room.take("a", 1 << 20, 200, 0).unwrap_err();
        assert!(why.contains("the namespace a has 57 of 256 MiB left"), "{why}");
        room.take("b", 1 << 20, 200, 0).unwrap();
        let why = room.take("c", 100, 1_000, 10_000).unwrap_err();
        assert!(
            why.starts_with("at 1000 ports, for 10000 namespaces that it names, it would take 1221 MiB"),
            "{why}"
        );
        assert!(room.take("c", usize::MAX, usize::MAX, usize::MAX).is_err());
    }
}
