//! Other addresses of the name that a target was found by. A connection that is not made to the target itself in time goes to
//! one of them (RFC 8305).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use super::Permit;

/// One of them.
#[derive(Debug, Clone)]
pub struct Other {
    /// Where to connect.
    pub dial: SocketAddr,
    /// Whether network policies let us call it; `None`: they are not asked.
    pub permit: Option<Arc<Permit>>,
}

/// All of them. They follow DNS, and the target stays the same.
#[derive(Debug, Default)]
pub struct Others {
    list: ArcSwapOption<Vec<Other>>,
    /// The place at which connections begin: 0 is the target's own address, and 1 the first of the others.
    first: AtomicUsize,
}

impl Others {
    /// These are the others from now on.
    pub fn set(&self, dials: &[SocketAddr], permit: impl Fn(SocketAddr) -> Option<Arc<Permit>>) {
        let list = self.list.load();
        let known = list.as_deref().map_or(&[][..], Vec::as_slice);
        if known.iter().map(|other| other.dial).eq(dials.iter().copied()) {
            return;
        }
        let list: Vec<_> = dials.iter().map(|&dial| Other { dial, permit: permit(dial) }).collect();
        self.first.store(0, Ordering::Relaxed);
        self.list.store((!list.is_empty()).then(|| Arc::new(list)));
    }

    /// The others; `None`: there are none.
    pub fn list(&self) -> Option<Arc<Vec<Other>>> {
        self.list.load_full()
    }

    /// The place at which the next connection begins.
    pub fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// A connection was made at this place, so the next one begins there.
    pub fn connected(&self, place: usize) {
        self.first.store(place, Ordering::Relaxed);
    }
}
