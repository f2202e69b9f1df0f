//! A short queue in which those who wait take turns, so that none of them fills it for the others.

use std::net::IpAddr;

/// Items that wait, each for somebody. Whoever has several waits with the second until everybody had a turn.
#[derive(Debug)]
pub(super) struct Turns<T> {
    most: usize,
    /// In the order in which they came.
    waiting: Vec<Waiting<T>>,
    /// The turn of the last one that was taken.
    turn: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    whose: IpAddr,
    turn: u64,
    item: T,
}

impl<T> Turns<T> {
    /// An empty one for `most` items.
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: Vec::with_capacity(most + 1), turn: 0 }
    }

    /// Adds what waits for `whose`. If there are too many, the last of those is given back who have most.
    pub(super) fn add(&mut self, whose: IpAddr, item: T) -> Option<T> {
        let last = self.waiting.iter().filter(|waiting| waiting.whose == whose).map(|waiting| waiting.turn);
        let turn = last.max().unwrap_or(self.turn) + 1;
        self.waiting.push(Waiting { whose, turn, item });
        if self.waiting.len() <= self.most {
            return None;
        }
        let counts = self.waiting.iter().map(|waiting| self.count(waiting.whose)).collect::<Vec<_>>();
        let most = counts.iter().copied().max()?;
        let place = counts.iter().rposition(|count| *count == most)?;
        Some(self.waiting.remove(place).item)
    }

    fn count(&self, whose: IpAddr) -> usize {
        self.waiting.iter().filter(|waiting| waiting.whose == whose).count()
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<T> {
        let turns = self.waiting.iter().enumerate();
        let (place, _) = turns.min_by_key(|(_, waiting)| waiting.turn)?;
        let next = self.waiting.remove(place);
        self.turn = next.turn;
        Some(next.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn all(mut turns: Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn everybody_has_a_turn_before_somebody_has_a_second() {
        let mut turns = Turns::new(8);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(turns.add(client(1), item), None);
        }
        assert_eq!(turns.next(), Some("a1"));
        turns.add(client(2), "b1");
        turns.add(client(1), "a4");
        turns.add(client(3), "c1");
        turns.add(client(2), "b2");

        assert_eq!(all(turns), ["a2", "b1", "c1", "a3", "b2", "a4"]);
    }

    #[test]
    fn whoever_has_most_makes_room_for_others_and_not_they_for_him() {
        let mut turns = Turns::new(3);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(turns.add(client(1), item), None);
        }

        assert_eq!(turns.add(client(1), "a4"), Some("a4"));
        assert_eq!(turns.add(client(2), "b1"), Some("a3"));
        assert_eq!(turns.add(client(3), "c1"), Some("a2"));
        assert_eq!(turns.add(client(4), "d1"), Some("d1"), "each has one");
        assert_eq!(turns.add(client(1), "a5"), Some("a5"));
        assert_eq!(all(turns), ["a1", "b1", "c1"]);
    }
}
