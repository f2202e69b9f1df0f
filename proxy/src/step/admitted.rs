//! The requests in progress that policy looked into when it let them in. A policy that comes into force later looks again.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::Conn;
use crate::{body::Admission, error::Failure};

/// So many may be over before they are looked for.
const FEW: usize = 64;

/// Those of one worker.
#[derive(Debug, Default)]
pub struct Admitted(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Some may be over.
    entries: Vec<Entry>,
    /// How many were in progress when that was last looked at.
    in_progress: usize,
}

/// One request. It holds neither its connection nor its answer open.
#[derive(Debug)]
struct Entry {
    conn: Weak<Conn>,
    head: http::Request<()>,
    admission: Weak<Admission>,
}

impl Admitted {
    /// One more, which came on `conn` with this `head`. It counts until what is returned is dropped.
    pub fn admit(&self, conn: &Rc<Conn>, head: http::Request<()>) -> Rc<Admission> {
        let admission = Rc::<Admission>::default();
        let mut known = self.0.borrow_mut();
        if known.entries.len() >= FEW + 2 * known.in_progress {
            known.entries.retain(|entry| entry.admission.strong_count() > 0);
            known.in_progress = known.entries.len();
        }
        known.entries.push(Entry { conn: Rc::downgrade(conn), head, admission: Rc::downgrade(&admission) });
        admission
    }

    /// Ends those that `refusal` says something about.
    pub fn review(&self, refusal: impl Fn(&Conn, &http::Request<()>) -> Option<Failure>) {
        // Taken out: who is woken may come back here.
        let mut entries = std::mem::take(&mut self.0.borrow_mut().entries);
        entries.retain(|Entry { conn, head, admission }| {
            let (Some(conn), Some(admission)) = (conn.upgrade(), admission.upgrade()) else { return false };
            let refused = refusal(&conn, head);
            let goes_on = refused.is_none();
            if let Some(failure) = refused {
                admission.end(failure);
            }
            goes_on
        });
        let mut known = self.0.borrow_mut();
        known.in_progress = entries.len();
        known.entries.append(&mut entries);
    }
}
