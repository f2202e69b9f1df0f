use std::{collections::VecDeque, task::Waker};

use proptest::prelude::*;

use super::*;

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(u64::MAX))
}

/// A body that gives these steps, one per poll.
#[derive(Debug, Default)]
struct Scripted {
    steps: VecDeque<Step>,
    knows_its_length: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Wait,
    Data(Bytes),
    Trailers(HeaderMap),
    Fail,
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the client is gone")]
struct Gone;

impl Body for Scripted {
    type Data = Bytes;
    type Error = Gone;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Gone>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err(Gone)),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_length && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.knows_its_length {
            return SizeHint::default();
        }
        let length = |step: &Step| if let Step::Data(data) = step { data.len() as u64 } else { 0 };
        SizeHint::with_exact(self.steps.iter().map(length).sum())
    }
}

fn chunked(steps: impl IntoIterator<Item = Step>) -> Scripted {
    Scripted { steps: steps.into_iter().collect(), knows_its_length: false }
}

fn data(text: &'static str) -> Step {
    Step::Data(Bytes::from_static(text.as_bytes()))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), http::HeaderValue::from(7))])
}

/// What an attempt has read.
#[derive(Debug, Default, PartialEq)]
struct Read {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Reads up to `frames` frames, or to the end.
fn read<B>(replay: &mut Replay<B>, frames: usize) -> Result<Read, ReplayError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut read = Read::default();
    let mut cx = Context::from_waker(Waker::noop());
    let mut left = frames;
    while left > 0 {
        let Poll::Ready(frame) = Pin::new(&mut *replay).poll_frame(&mut cx) else { continue };
        let Some(frame) = frame.transpose()? else {
            read.ended = true;
            break;
        };
        match frame.into_data() {
            Ok(data) => read.bytes.extend_from_slice(&data),
            Err(frame) => read.trailers = frame.into_trailers().ok(),
        }
        left -= 1;
    }
    Ok(read)
}

fn read_all<B>(replay: &mut Replay<B>) -> Read
where
    B: Body<Data = Bytes, Error = Gone> + Unpin,
{
    read(replay, usize::MAX).expect("the body does not fail")
}

fn next<B: Body<Data = Bytes> + Unpin>(original: &Original<B>) -> Replay<B> {
    original.attempt().expect("the body can be sent again")
}

#[test]
fn a_request_without_a_body_costs_no_allocation_and_can_always_be_sent_again() {
    let original = Original::new(Scripted { steps: VecDeque::new(), knows_its_length: true }, &budget());
    assert!(original.shared.is_none());

    for _ in 0..3 {
        let mut replay = next(&original);
        assert!(replay.is_end_stream());
        assert_eq!(replay.size_hint().exact(), Some(0));
        assert_eq!(read_all(&mut replay), Read { ended: true, ..Read::default() });
    }
}

#[test]
fn an_attempt_that_was_cut_at_any_frame_is_sent_again_whole() {
    let steps = [data("one "), Step::Wait, data("two "), data("three"), Step::Trailers(trailers())];
    let whole = Read { bytes: b"one two three".into(), trailers: Some(trailers()), ended: true };

    for first_cut in 0..=5 {
        for second_cut in 0..=5 {
            let original = Original::new(chunked(steps.clone()), &budget());
            read(&mut next(&original), first_cut).expect("no failure");
            read(&mut next(&original), second_cut).expect("no failure");

            assert_eq!(read_all(&mut next(&original)), whole, "cut at {first_cut}, {second_cut}");
            assert_eq!(read_all(&mut next(&original)), whole, "once more");
        }
    }
}

#[test]
fn an_attempt_that_is_still_held_somewhere_loses_the_body_to_the_next() {
    let original = Original::new(chunked([data("one "), data("two")]), &budget());
    let mut first = next(&original);
    read(&mut first, 1).expect("it is the only one");

    let mut second = next(&original);
    assert!(matches!(read(&mut first, 1), Err(ReplayError::TakenOver)));
    assert!(!first.is_end_stream());
    assert_eq!(read_all(&mut second).bytes, b"one two");
}

#[test]
fn the_length_is_told_for_every_attempt() {
    let steps = [data("one "), data("two")].into_iter().collect();
    let original = Original::new(Scripted { steps, knows_its_length: true }, &budget());
    let mut first = next(&original);

    assert_eq!(first.size_hint().exact(), Some(7));
    read(&mut first, 1).expect("no failure");
    assert_eq!(first.size_hint().exact(), Some(3));
    assert!(!first.is_end_stream());

    let mut second = next(&original);
    assert_eq!(second.size_hint().exact(), Some(7));
    read(&mut second, 2).expect("no failure");
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(second.is_end_stream());
    assert!(!next(&original).is_end_stream());
}

#[test]
fn a_body_up_to_the_limit_can_be_sent_again_and_a_longer_one_only_once() {
    let chunk = Step::Data(Bytes::from(vec![b'x'; REPLAY_LIMIT / 4]));
    let exactly = Original::new(chunked(vec![chunk.clone(); 4]), &budget());
    assert_eq!(read_all(&mut next(&exactly)).bytes.len(), REPLAY_LIMIT);
    assert_eq!(read_all(&mut next(&exactly)).bytes.len(), REPLAY_LIMIT);

    let mut steps = vec![chunk; 4];
    steps.extend([data("!"), data("?"), Step::Trailers(trailers())]);
    let longer = Original::new(chunked(steps), &budget());
    let mut first = next(&longer);
    read(&mut first, 4).expect("no failure");
    assert!(longer.can_replay());
    let rest = read_all(&mut first);
    assert_eq!(rest, Read { bytes: b"!?".into(), trailers: Some(trailers()), ended: true });
    assert!(!longer.can_replay());
    assert!(longer.attempt().is_none());
}

#[test]
fn an_attempt_that_passes_the_limit_half_way_through_its_own_replay_goes_on() {
    let original = Original::new(
        chunked([Step::Data(Bytes::from(vec![b'x'; REPLAY_LIMIT])), data("more"), data("still more")]),
        &budget(),
    );
    read(&mut next(&original), 1).expect("no failure");

    let second = read_all(&mut next(&original));
    assert_eq!(second.bytes.len(), REPLAY_LIMIT + 14);
    assert!(second.ended);
    assert!(!original.can_replay());
}

#[test]
fn very_many_tiny_frames_are_not_kept() {
    let original = Original::new(chunked(vec![data("x"); FRAME_LIMIT + 1]), &budget());
    let mut first = next(&original);

    read(&mut first, FRAME_LIMIT).expect("no failure");
    assert!(original.can_replay());
    read(&mut first, 1).expect("no failure");
    assert!(!original.can_replay());
}

#[test]
fn a_body_that_failed_is_not_sent_again() {
    let original = Original::new(chunked([data("one"), Step::Fail]), &budget());
    let mut first = next(&original);

    assert!(matches!(read(&mut first, 2), Err(ReplayError::Original(Gone))));
    assert!(original.attempt().is_none());
}

#[test]
fn once_no_further_attempt_can_come_nothing_is_kept() {
    let steps = [data("one "), data("two "), data("three"), Step::Trailers(trailers())];
    for cut in 0..=4 {
        let original = Original::new(chunked(steps.clone()), &budget());
        read(&mut next(&original), cut).expect("no failure");
        let mut last = next(&original);
        read(&mut last, 1).expect("no failure");
        drop(original);

        let rest = read_all(&mut last);
        assert_eq!(rest.bytes, b"two three");
        assert_eq!(rest.trailers, Some(trailers()), "cut at {cut}");
        let shared = last.shared.as_ref().expect("there is a body").borrow();
        assert!(shared.kept.iter().all(Bytes::is_empty));
        assert!(shared.trailers.is_none());
    }
}

proptest! {
    #[test]
    fn however_attempts_are_cut_the_last_one_sends_every_byte(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        with_trailers in any::<bool>(),
        knows_its_length in any::<bool>(),
        cuts in proptest::collection::vec(0_usize..25, 0..5),
    ) {
        let whole: Vec<u8> = frames.concat();
        let mut steps: VecDeque<Step> =
            frames.into_iter().flat_map(|frame| [Step::Wait, Step::Data(frame.into())]).collect();
        steps.extend(with_trailers.then(|| Step::Trailers(trailers())));
        let original = Original::new(Scripted { steps, knows_its_length }, &budget());

        for cut in cuts {
            let read = read(&mut next(&original), cut).expect("the body does not fail");
            prop_assert!(whole.starts_with(&read.bytes));
        }
        let mut last = next(&original);
        if knows_its_length {
            prop_assert_eq!(last.size_hint().exact(), Some(whole.len() as u64));
        }
        let last = read_all(&mut last);
        prop_assert_eq!(last.bytes, whole);
        prop_assert_eq!(last.trailers, with_trailers.then(trailers));
    }
}
