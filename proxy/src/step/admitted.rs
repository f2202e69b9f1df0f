//! The requests in progress that policy looked into when it let them in. A policy that comes into force later looks again.
//!
//! What it looks at is copied from each request, and nearly always for nothing. So the copy is made into memory that a
//! request before has left. Of what the request is made of it holds on to the URI alone, and to a token that was verified:
//! until another request takes the place, which the last that was left does first.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use super::{Conn, Head};
use crate::{
    body::{Admission, FreePlaces, Review},
    error::Failure,
};

/// So many places may be free, whatever is in progress.
const FEW: usize = 64;

/// Those of one worker.
#[derive(Debug, Default)]
pub struct Admitted {
    places: RefCell<Vec<Place>>,
    free: FreePlaces,
}

/// Where one request is kept. It holds neither its connection nor its answer open.
#[derive(Debug)]
struct Place {
    conn: Weak<Conn>,
    head: Head,
    review: Rc<Review>,
}

impl Admitted {
    /// One more, which came on `conn` and of which `copy` copies the head. It counts until what is returned is dropped.
    pub fn admit(&self, conn: &Rc<Conn>, copy: impl FnOnce(&mut Head)) -> Admission {
        let mut places = self.places.borrow_mut();
        let mut free = self.free.borrow_mut();
        if free.len() >= FEW + 2 * (places.len() - free.len()) {
            free.clear();
            places.retain(|place| !place.review.is_over());
            places.iter().enumerate().for_each(|(at, place)| place.review.move_to(at));
        }
        let at = free.pop().unwrap_or_else(|| {
            let review = Review::new(places.len(), &self.free);
            places.push(Place { conn: Weak::new(), head: Head::default(), review });
            places.len() - 1
        });
        let place = &mut places[at];
        place.conn = Rc::downgrade(conn);
        copy(&mut place.head);
        place.review.admit()
    }

    /// Ends those that `refusal` says something about.
    pub fn review(&self, refusal: impl Fn(&Conn, &http::Request<()>) -> Option<Failure>) {
        // Nothing is borrowed while it is asked: whoever is asked may come back here.
        let in_progress = |at: usize| {
            let places = self.places.borrow();
            let place = places.get(at)?;
            let conn = place.conn.upgrade().filter(|_| !place.review.is_over());
            Some(conn.map(|conn| (conn, place.head.request(), Rc::clone(&place.review))))
        };
        for place in (0..).map_while(in_progress) {
            let Some((conn, head, review)) = place else { continue };
            if let Some(failure) = refusal(&conn, &head) {
                review.end(failure);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        net::{Ipv4Addr, SocketAddr},
        task::{Context, Waker},
    };

    use http::{HeaderValue, Request};

    use super::*;
    use crate::{
        arrival::Arrival,
        error::Reason,
        step::{HttpVersion, Outbound, Side},
    };

    fn conn() -> Rc<Conn> {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        let arrival = Arrival { peer, via: None, original: None, upstream: None };
        Rc::new(Conn::new(arrival, HttpVersion::Http1, Side::Outbound(Outbound::default())))
    }

    fn get(path: &str) -> Request<()> {
        let request = Request::get(path)
            .header("x-own", "one")
            .header("accept", "a")
            .header("x-own", HeaderValue::from_bytes(b"two, \xe9").unwrap());
        request.body(()).unwrap()
    }

    fn admit(admitted: &Admitted, conn: &Rc<Conn>, path: &str) -> Admission {
        admitted.admit(conn, |head| head.copy(&get(path)))
    }

    /// The paths of those that are looked at again; none may go on.
    fn refused(admitted: &Admitted) -> Vec<String> {
        let paths = RefCell::new(Vec::new());
        admitted.review(|_, head| {
            assert_eq!(head.headers(), get("/").headers());
            paths.borrow_mut().push(head.uri().path().to_owned());
            Some(Failure::new(Reason::Policy, "not any more"))
        });
        paths.into_inner()
    }

    fn has_ended(admission: &Admission) -> bool {
        admission.poll_ended(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn those_in_progress_are_looked_at_again_and_no_others() {
        let (admitted, conn) = (Admitted::default(), conn());
        let [first, second, third] = ["/1", "/2", "/3"].map(|path| admit(&admitted, &conn, path));
        drop(second);
        let fourth = admit(&admitted, &conn, "/4");

        assert_eq!(refused(&admitted), ["/1", "/4", "/3"], "one that is over has left its place to another");
        for admission in [&first, &third, &fourth] {
            assert!(has_ended(admission) && admission.take().is_some());
        }
        drop((first, third, fourth));
        assert!(refused(&admitted).is_empty());
        assert!(!has_ended(&admit(&admitted, &conn, "/5")), "what was said of another is forgotten");
    }

    #[test]
    fn whoever_waits_is_woken() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let (admitted, conn) = (Admitted::default(), conn());
        let admission = admit(&admitted, &conn, "/");
        let woken = std::sync::Arc::new(Woken(false.into()));
        let waker = std::sync::Arc::clone(&woken).into();
        assert!(admission.poll_ended(&mut Context::from_waker(&waker)).is_pending());

        assert_eq!(refused(&admitted), ["/"]);

        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
    }

    #[test]
    fn one_whose_connection_is_gone_is_not_looked_at() {
        let admitted = Admitted::default();
        let _admission = admit(&admitted, &conn(), "/");

        assert!(refused(&admitted).is_empty());
    }

    #[test]
    fn who_asks_for_another_request_meanwhile_may() {
        let (admitted, conn) = (Admitted::default(), conn());
        let _admission = admit(&admitted, &conn, "/");
        let asked = Cell::new(0);

        admitted.review(|_, _| {
            asked.set(asked.get() + 1);
            drop(admit(&admitted, &conn, "/another"));
            None
        });

        assert_eq!(asked.get(), 1);
    }

    #[test]
    fn places_are_used_again_and_given_back_after_a_rush() {
        let (admitted, conn) = (Admitted::default(), conn());
        let mut lasting: Vec<Admission> = Vec::new();
        for number in 0..10_000 {
            let admission = admit(&admitted, &conn, &format!("/{number}"));
            if number % 1_000 == 0 {
                lasting.push(admission);
            }
        }
        assert_eq!(admitted.places.borrow().len(), 11, "one place for all that end at once");
        let rush: Vec<Admission> = (0..1_000).map(|_| admit(&admitted, &conn, "/rush")).collect();
        drop(rush);

        drop(admit(&admitted, &conn, "/after"));

        let places = admitted.places.borrow().len();
        assert!(places <= FEW + 3 * lasting.len() + 1, "{places}");
        let mut paths = refused(&admitted);
        paths.sort_unstable();
        assert_eq!(paths, (0..10).map(|number| format!("/{}", number * 1_000)).collect::<Vec<_>>());
        drop(lasting);
        let again: Vec<Admission> =
            (0..20).map(|number| admit(&admitted, &conn, &format!("/{number}"))).collect();
        assert_eq!(refused(&admitted).len(), again.len());
    }
}
