//! How the body of a request goes on after its answer has begun: an answer that breaks off may do so because of it.
//!
//! A request whose body fails is ended by us, and its answer with it; that says nothing about the endpoint. Nor does it if the
//! endpoint itself gives up a request of which a stranger sends the rest as slowly as he likes: else he could have every endpoint
//! ejected that others need.

use std::rc::Rc;

use super::Pace;
use crate::telemetry::{Coming, Received};

/// What tells how a request's body goes on. It holds nothing of the body.
#[derive(Debug)]
pub enum Sending {
    /// There is none, or it was there from the beginning.
    Whole,
    /// Its pace does.
    Paced(Rc<Pace>),
    /// What counts it does.
    Counted(Rc<Received>),
    /// Nothing does.
    Unknown,
}

impl Sending {
    /// Whether it may be because of it that its answer has just broken off, or that it has got none.
    pub fn may_have_broken_its_answer(&self, is_strangers: bool) -> bool {
        let coming = match self {
            Self::Whole => Coming::Whole,
            Self::Paced(pace) => pace.coming.get(),
            Self::Counted(received) => received.coming.get(),
            Self::Unknown => Coming::Failed,
        };
        match coming {
            Coming::Whole => false,
            Coming::More => is_strangers,
            Coming::Failed => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_have_broken_its_answer_if_it_failed_or_a_stranger_keeps_it_waiting() {
        for (coming, ours, strangers) in
            [(Coming::More, false, true), (Coming::Whole, false, false), (Coming::Failed, true, true)]
        {
            let received = Rc::new(Received::default());
            received.coming.set(coming);
            let sending = Sending::Counted(received);

            assert_eq!(sending.may_have_broken_its_answer(false), ours, "{coming:?}");
            assert_eq!(sending.may_have_broken_its_answer(true), strangers, "{coming:?}");
        }
        assert!(!Sending::Whole.may_have_broken_its_answer(true));
        assert!(Sending::Unknown.may_have_broken_its_answer(false));
    }
}
