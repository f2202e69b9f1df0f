//! The connection that an answer arrives on. It is given back when the answer has ended.

use std::{fmt, rc::Rc, time::Instant};

use crate::error::Failure;

/// A connection that serves one request at a time.
pub trait Whole: fmt::Debug {
    /// Puts the connection back at `now`, to be used for another request.
    fn give_back(self: Box<Self>, now: Instant);

    /// Why nothing may come on it any more; `None`: it may.
    fn refusal(&self) -> Option<Failure>;
}

/// A connection that serves many requests at a time.
pub trait Shared: fmt::Debug {
    /// One of its requests is over.
    fn leave(&self);

    /// Why nothing may come on it any more; `None`: it may.
    fn refusal(&self) -> Option<Failure>;
}

/// A request in progress on a shared connection; when it is dropped there is room for another.
#[derive(Debug)]
pub struct PoolPlace(Rc<dyn Shared>);

impl PoolPlace {
    /// One that was taken on `connection`.
    pub fn on(connection: Rc<dyn Shared>) -> Self {
        Self(connection)
    }
}

impl Drop for PoolPlace {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A connection, or a place on one, that an answer arrives on.
#[derive(Debug)]
pub enum Lease {
    /// A connection of HTTP/1.1. Dropped: closed.
    Whole(Box<dyn Whole>),
    /// A stream of an HTTP/2 connection.
    PoolPlace(PoolPlace),
}

impl Lease {
    /// Gives it back at `now`, when the answer is over, to be used for another request.
    pub fn give_back(self, now: Instant) {
        match self {
            Self::Whole(connection) => connection.give_back(now),
            Self::PoolPlace(place) => drop(place),
        }
    }

    /// Why nothing may come on the connection any more, so that we have ended it; `None`: it may.
    pub fn refusal(&self) -> Option<Failure> {
        match self {
            Self::Whole(connection) => connection.refusal(),
            Self::PoolPlace(PoolPlace(connection)) => connection.refusal(),
        }
    }
}
