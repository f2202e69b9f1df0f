//! A request body that can be sent again.
//!
//! The body stays in one place, [`Original`]'s; each attempt reads it through a [`Replay`], which first
//! gives what earlier attempts have read and then goes on with the rest, keeping up to [`REPLAY_LIMIT`]
//! bytes of it. So nothing has to be handed back when an attempt ends half way: hyper may still hold the
//! body of an attempt that was given up, and then that body gives an error, because the frames now belong
//! to its successor.
//!
//! Costs nothing for a request without a body, and one allocation for one with a body. For one thread:
//! a connection lives and dies on its worker.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::budget::{Action, Budget};

/// Bytes of a body that are kept. A longer body is sent once.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// Frames of a body that are kept: each holds on to the whole buffer that it was read into, so a body of
/// very many tiny ones could hold far more than [`REPLAY_LIMIT`].
const FRAME_LIMIT: usize = 1024;

/// Why a body could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The original body failed: its client is gone, most likely.
    #[error(transparent)]
    Original(E),
    /// Another attempt reads the body now; whoever still reads this one can stop.
    #[error("another attempt already sends the request body")]
    TakenOver,
}

/// A request's body as it arrives, from which each attempt gets one [`Replay`].
///
/// Dropping it says that there will be no further attempt: from then on nothing more is kept.
pub struct Original<B> {
    /// `None`: there is no body.
    shared: Option<Rc<RefCell<Shared<B>>>>,
}

/// The body of one attempt.
pub struct Replay<B> {
    shared: Option<Rc<RefCell<Shared<B>>>>,
    attempt: u32,
}

struct Shared<B> {
    body: B,
    /// The attempt that may read; 0 = none yet.
    attempt: u32,
    keeping: Keeping,
    /// What `kept_bytes` are drawn on, as long as they are kept.
    budget: Arc<Budget>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// What the current attempt gives next.
    next: Next,
    /// The body has been read to its end.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// Everything that was read is kept.
    All,
    /// No more: too long to keep, failed, or there will be no further attempt.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The kept frame with this index; the body's own next frame once they are all given.
    Frame(usize),
    /// Nothing: the trailers have been given.
    End,
}

impl<B: Body<Data = Bytes> + Unpin> Original<B> {
    /// A body that has not been read, and what is kept of it draws on `budget`.
    pub fn new(body: B, budget: &Arc<Budget>) -> Self {
        if body.is_end_stream() {
            return Self { shared: None };
        }
        Self { shared: Some(Rc::new(RefCell::new(Shared::new(body, Arc::clone(budget))))) }
    }

    /// The body for the next attempt, from its first byte; the attempt before can read no more.
    ///
    /// `None`: it cannot be sent again ([`Self::can_replay`]).
    pub fn attempt(&self) -> Option<Replay<B>> {
        let Some(shared) = &self.shared else { return Some(Replay { shared: None, attempt: 1 }) };
        let mut state = shared.borrow_mut();
        if !state.can_replay() {
            return None;
        }
        state.attempt += 1;
        state.next = Next::Frame(0);
        Some(Replay { shared: Some(Rc::clone(shared)), attempt: state.attempt })
    }

    /// Whether another attempt could send the same bytes: none were too many, and the body has not failed.
    pub fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.borrow().can_replay())
    }
}

impl<B> Drop for Original<B> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.borrow_mut().stop_keeping();
        }
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        self.budget.remove(self.kept_bytes as u64);
    }
}

impl<B> Shared<B> {
    fn new(body: B, budget: Arc<Budget>) -> Self {
        Self {
            body,
            attempt: 0,
            keeping: Keeping::All,
            budget,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            next: Next::Frame(0),
            ended: false,
        }
    }

    fn can_replay(&self) -> bool {
        self.keeping == Keeping::All
    }

    /// The next kept frame of the current attempt.
    fn next_kept(&mut self) -> Option<Frame<Bytes>> {
        let Next::Frame(index) = self.next else { return None };
        if let Some(data) = self.kept.get_mut(index) {
            let data = if self.keeping == Keeping::All { data.clone() } else { std::mem::take(data) };
            self.next = Next::Frame(index + 1);
            return Some(Frame::data(data));
        }
        let trailers =
            if self.keeping == Keeping::All { self.trailers.clone() } else { self.trailers.take() }?;
        self.next = Next::End;
        Some(Frame::trailers(trailers))
    }

    /// Keeps a frame that the current attempt has just read.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.keeping == Keeping::Nothing {
            return;
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.next = Next::End;
        } else if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
            self.kept_bytes += data.len();
            self.budget.add(data.len() as u64);
            if self.budget.is_exhausted() {
                self.budget.acted(Action::ForgottenBody);
                self.stop_keeping();
            } else if self.kept_bytes > REPLAY_LIMIT || self.kept.len() == FRAME_LIMIT {
                self.stop_keeping();
            } else {
                self.kept.push(data.clone());
                self.next = Next::Frame(self.kept.len());
            }
        }
    }

    /// Forgets what has been kept, except what the current attempt has yet to give.
    fn stop_keeping(&mut self) {
        self.keeping = Keeping::Nothing;
        self.budget.remove(std::mem::take(&mut self.kept_bytes) as u64);
        match self.next {
            Next::Frame(index) if index < self.kept.len() => {
                self.kept.drain(..index);
                self.next = Next::Frame(0);
            }
            Next::Frame(_) => {
                self.kept = Vec::new();
                self.next = Next::Frame(0);
            }
            Next::End => {
                self.kept = Vec::new();
                self.trailers = None;
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Shared<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.next_kept() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.ended = frame.is_trailers();
                self.keep(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.ended = true;
                self.stop_keeping();
                Some(Err(error))
            }
            None => {
                self.ended = true;
                None
            }
        })
    }

    /// Bytes that the current attempt has yet to give of those kept.
    fn unread(&self) -> &[Bytes] {
        match self.next {
            Next::Frame(index) => self.kept.get(index..).unwrap_or_default(),
            Next::End => &[],
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next == Next::End
            || self.unread().is_empty()
                && self.trailers.is_none()
                && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let unread = SizeHint::with_exact(self.unread().iter().map(|data| data.len() as u64).sum());
        if self.ended { unread } else { unread + self.body.size_hint() }
    }
}

impl<B> Replay<B> {
    /// What `look` finds in the body itself; `None`: there is none.
    pub fn look<T>(&self, look: impl FnOnce(&B) -> T) -> Option<T> {
        self.shared.as_ref().map(|shared| look(&shared.borrow().body))
    }

    /// Whether this attempt is the one that may read.
    fn is_current(&self, shared: &Shared<B>) -> bool {
        shared.attempt == self.attempt
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Replay<B> {
    type Data = Bytes;
    type Error = ReplayError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(shared) = &self.shared else { return Poll::Ready(None) };
        let mut shared = shared.borrow_mut();
        if !self.is_current(&shared) {
            return Poll::Ready(Some(Err(ReplayError::TakenOver)));
        }
        shared.poll_frame(cx).map_err(ReplayError::Original)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = shared.borrow();
        self.is_current(&shared) && shared.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(0) };
        let shared = shared.borrow();
        if self.is_current(&shared) { shared.size_hint() } else { SizeHint::default() }
    }
}

// By hand: what people send does not belong in logs.
impl<B> fmt::Debug for Original<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original").field("body", &self.shared.is_some()).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("attempt", &self.attempt)
            .field("body", &self.shared.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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
}
