//! The places of one address, and of one listener: who gets one, and who has to go for it.

use std::{
    rc::{Rc, Weak},
    sync::atomic::Ordering,
};

use super::{Client, LOOKS, Places, Reached, Seat, Stage, Whose};
use crate::arrival::Direction;

impl Places {
    /// A place at a gateway among those of `whose`. `listener`: the port that an address calls, if the gateway has
    /// several; the address then gets a share of what is free for that port alone. If `whose` has as many places as it
    /// may, one of its connections without a request in progress is closed for this one.
    ///
    /// # Errors
    /// If `whose` has as many as it may, and no such connection was found.
    pub fn seat(&self, whose: Whose, listener: Option<u16>) -> Result<Seat, Reached> {
        let places = self.clients.most_plain();
        let sit = || {
            let open = self.clients.open[Direction::Inbound as usize].load(Ordering::Relaxed);
            let free = places.saturating_sub(open);
            let room = listener.map_or(free, |port| self.clients.addresses.room(port, free));
            self.clients.addresses.seat(whose, places, room)
        };
        match sit() {
            Err(Reached::Connections | Reached::Listener) if self.dismiss_of(whose) => sit(),
            seat => seat,
        }
    }

    /// Closes a connection of `whose` that has no request in progress. `false`: none was found.
    fn dismiss_of(&self, whose: Whose) -> bool {
        let mut plain = self.plain.borrow_mut();
        let goes = |client: &Rc<Client>| client.may_go() && client.is_of(whose);
        let found = plain.iter().take(LOOKS).filter_map(Weak::upgrade).find(goes);
        if let Some(client) = &found {
            client.dismiss();
        }
        // Others are looked at the next time.
        let looks = LOOKS.min(plain.len());
        plain.rotate_left(looks);
        found.is_some()
    }
}

impl Client {
    /// It takes this place among those of its address or of its listener.
    pub fn sit(&self, seat: Seat) {
        if let Some(place) = self.seats.borrow_mut().iter_mut().find(|place| place.is_none()) {
            *place = Some(seat);
        }
    }

    /// It is no longer a newcomer.
    pub(super) fn finished(&self) {
        self.seats.borrow().iter().flatten().for_each(Seat::finished);
    }

    /// Whether it counts for `whose`.
    fn is_of(&self, whose: Whose) -> bool {
        self.seats.borrow().iter().flatten().any(|seat| seat.is_of(whose))
    }

    /// Whether nobody misses it: it has no request in progress.
    fn may_go(&self) -> bool {
        self.stage.get() == Stage::Plain && self.is_idle()
    }
}
