//! When a record begins and ends, and what reads it then.
//!
//! The outermost step begins it when the request comes, adds the answer, and hangs it on the answer's body. It is
//! finished once: when that body has ended or was given up, or when the client has left before there was an answer.
//! Then each consumer reads it: [`Series`](super::Series) for metrics, [`access_log`] for the access log that the log has,
//! [`Watched`](super::Watched) for the access log and the traces that configuration asks for. A further
//! consumer is one more call in `Record::tell`.

use std::{rc::Rc, time::Instant};

use super::{ClientConnection, OnPath, Record, access_log, record::Head};
use crate::{arrival::Direction, error::Reason};

impl Record {
    /// The record of `request`, which has come from `client` at `began`.
    pub fn begin<B>(
        path: Rc<OnPath>,
        request: &mut http::Request<B>,
        client: Rc<dyn ClientConnection>,
        began: Instant,
    ) -> Self {
        let tapped = path.tap.note(request, path.direction);
        let noted = path.watched.note(request, path.direction);
        let is_needed =
            tapped.is_some() || noted.traced.is_some() || noted.may_be_line || access_log::by_filter();
        let mut head = is_needed.then(|| Box::new(Head::of(request, tapped, noted)));
        if let Some(head) = head.as_mut().filter(|_| path.watched.is_gateway()) {
            head.forget_claims();
        }
        if let Some(head) = head.as_mut().filter(|_| path.direction == Direction::Outbound) {
            head.follow();
        }
        Self::new(path, request, head, client, began)
    }

    /// The answer is over at `now`. `whole`: its body came to its end.
    pub fn finish(mut self, whole: bool, now: Instant) {
        self.reason = self.reason.or((!whole).then_some(Reason::Reset));
        self.tell(now);
    }

    /// The client left at `now`, before there was an answer.
    pub fn cancel(mut self, now: Instant) {
        self.unanswered();
        self.tell(now);
    }

    /// Reports the request to metrics and to the access log.
    fn tell(&mut self, now: Instant) {
        self.duration = now.duration_since(self.began);
        if !self.is_counted() {
            self.series().ended(self.worker(), &self.ended());
        }
        access_log::write(self);
        self.tap().show(self, now);
        if self.is_shown() {
            self.watched().tell(self, now);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
