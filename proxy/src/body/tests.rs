use super::*;
use crate::telemetry::records;

/// A connection on which nothing may come any more, for this reason.
#[derive(Debug)]
struct Ended(Option<Reason>);

impl Whole for Ended {
    fn give_back(self: Box<Self>, _now: Instant) {}

    fn refusal(&self) -> Option<Failure> {
        self.0.map(|reason| Failure::new(reason, "it was ended"))
    }
}

/// The body of an answer whose connection has failed, which we have ended for this reason, if we have.
fn failed(ended: Option<Reason>) -> Body {
    let mut body = Body::of(Kind::Failed("it broke".into()));
    body.end().lease = Some(Lease::Whole(Box::new(Ended(ended))));
    body
}

fn error_of(mut body: Body) -> BodyError {
    match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Err(error))) => error,
        other => panic!("{other:?}"),
    }
}

const ENDED: [(Option<Reason>, Reason); 4] = [
    (None, Reason::Reset),
    (Some(Reason::Policy), Reason::Policy),
    (Some(Reason::Identity), Reason::Identity),
    (Some(Reason::Overflow), Reason::Overflow),
];

#[test]
fn an_answer_that_fails_says_why_to_whoever_reads_it() {
    for (ended, reason) in ENDED {
        assert_eq!(reason_of(&error_of(failed(ended))), reason);
    }
    let cut = error_of_cut();
    assert_eq!((reason_of(&cut), cut.to_string()), (Reason::Timeout, "the answer took too long".to_owned()));
}

/// The error of an answer that we end because its time is over.
fn error_of_cut() -> BodyError {
    let mut body = Body::full("some of it");
    match body.ended_by_us(Reason::Timeout, "the answer took too long") {
        Err(error) => error,
        Ok(frame) => panic!("{frame:?}"),
    }
}

#[test]
fn an_answer_that_has_failed_counts_for_its_reason_although_nobody_asks_for_more_of_it() {
    for (ended, reason) in ENDED {
        let series = records::series();
        let mut record = records::begun(&series);
        record.answered(&http::Response::new(()), None, 0, None);
        let mut body = failed(ended);
        body.end().record = Some(record);

        drop(body);

        assert_eq!(records::only_reason(&series), Some(reason.word()));
    }
}

#[test]
fn a_requests_body_that_fails_is_left_to_whoever_carries_it() {
    let error = error_of(Body::of(Kind::Failed(Interrupted::Slow.into())));

    assert!(matches!(error.downcast_ref::<Interrupted>(), Some(Interrupted::Slow)), "{error}");
}
