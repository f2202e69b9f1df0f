//! Copies of bodies that pass.

use std::pin::pin;

use http_body_util::BodyExt;
use proptest::prelude::*;

use super::*;

/// An original of which frames pass, and the context in which they do.
#[derive(Debug)]
struct Original {
    copies: Copies,
    budget: Arc<Budget>,
}

impl Original {
    fn new() -> Self {
        Self { copies: Copies::default(), budget: Arc::new(Budget::new(1 << 20)) }
    }

    fn copy(&mut self, length: Option<u64>) -> (Copied, CopyWatch) {
        let length = length.map(SizeHint::with_exact).unwrap_or_default();
        self.copies.add(&length, &self.budget)
    }

    /// Has `data` pass, in as many pieces as it does; `between` comes before each.
    fn pass(&mut self, data: &[u8], mut between: impl FnMut(&mut Copies)) -> Vec<u8> {
        let mut passed = Vec::new();
        let mut frame = Some(self.copies.pass(Frame::data(Bytes::copy_from_slice(data))));
        while let Some(piece) = frame {
            passed.extend_from_slice(piece.data_ref().expect("data"));
            between(&mut self.copies);
            frame = self.copies.next_piece();
        }
        passed
    }
}

fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What can be read of a copy by now, and whether that is all.
fn read(copy: &mut Copied) -> (Vec<u8>, Option<HeaderMap>, bool) {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    loop {
        match now(copy.frame()) {
            None => return (bytes, trailers, false),
            Some(None) => return (bytes, trailers, true),
            Some(Some(frame)) => match frame.expect("the copy goes on").into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

proptest! {
    #[test]
    fn a_copy_that_is_read_gets_every_byte_and_the_trailers_whatever_the_frames(
        frames in proptest::collection::vec((any::<u8>(), 0..3 * PIECE), 0..6),
        with_trailers in any::<bool>(),
        knows_its_length in any::<bool>(),
    ) {
        let fill = |(byte, length)| std::iter::repeat_n(byte, length).collect::<Vec<u8>>();
        let frames: Vec<_> = frames.into_iter().map(fill).collect();
        let whole = frames.concat();
        let mut original = Original::new();
        let length = knows_its_length.then_some(whole.len() as u64);
        let (mut copy, watch) = original.copy(length);
        prop_assert_eq!(copy.size_hint().exact(), length);

        let (mut passed, mut copied, mut left) = (Vec::new(), Vec::new(), length);
        for frame in &frames {
            passed.extend(original.pass(frame, |_| copied.extend(read(&mut copy).0)));
            left = left.map(|left| left - frame.len() as u64);
            prop_assert_eq!(copy.size_hint().exact(), left);
        }
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from(7))]);
        if with_trailers {
            original.copies.pass(Frame::trailers(trailers.clone()));
        }
        prop_assert!(now(watch.ended()).is_none());
        original.copies.end(true);

        prop_assert_eq!(&passed, &whole);
        prop_assert_eq!(&copied, &whole);
        prop_assert_eq!(read(&mut copy), (Vec::new(), with_trailers.then_some(trailers), true));
        prop_assert_eq!((now(watch.ended()), original.budget.held()), (Some(Ending::Whole), 0));
    }
}

#[test]
fn a_copy_that_nobody_reads_is_dropped_at_the_limit_and_the_original_passes() {
    let mut original = Original::new();
    let (mut hanging, watch) = original.copy(None);
    let (mut read_on, other) = original.copy(None);
    let data = vec![b'x'; 4 * COPY_LIMIT];

    let (mut most, mut copied, budget) = (0, 0, Arc::clone(&original.budget));
    let passed = original.pass(&data, |_| {
        copied += read(&mut read_on).0.len();
        most = most.max(budget.held());
    });

    assert_eq!((passed.len(), copied), (data.len(), data.len()));
    assert!(most <= COPY_LIMIT as u64, "{most} bytes were held");
    assert_eq!(now(watch.ended()), Some(Ending::Dropped(Dropped::Behind)));
    assert!(now(hanging.frame()).is_some_and(|frame| frame.is_some_and(|frame| frame.is_err())));
    assert_eq!((now(other.ended()), original.budget.held()), (None, 0));
}

#[test]
fn very_many_tiny_frames_are_not_kept() {
    let mut original = Original::new();
    let (_copy, watch) = original.copy(None);
    for _ in 0..FRAME_LIMIT {
        original.pass(b"x", |_| {});
    }
    assert_eq!(now(watch.ended()), None);

    original.pass(b"x", |_| {});
    assert_eq!(now(watch.ended()), Some(Ending::Dropped(Dropped::Behind)));
}

#[test]
fn while_too_much_is_buffered_copies_are_dropped() {
    let mut original = Original::new();
    let (_copy, watch) = original.copy(None);
    original.budget.add(1 << 20);

    original.pass(b"more", |_| {});

    assert_eq!(now(watch.ended()), Some(Ending::Dropped(Dropped::BufferBudget)));
    assert_eq!(original.budget.held(), 1 << 20);
}

#[test]
fn others_have_one_turn_before_each_piece_while_a_copy_is_far_behind_and_none_when_it_is_gone() {
    let mut original = Original::new();
    let (copy, _watch) = original.copy(None);
    let cx = Context::from_waker(Waker::noop());

    original.pass(&[0; COPY_LIMIT / 4], |copies| assert!(!copies.should_wait(&cx)));
    original.pass(&[0; COPY_LIMIT / 4], |_| {});
    assert!(original.copies.should_wait(&cx) && !original.copies.should_wait(&cx), "once for each piece");
    original.pass(&[0; COPY_LIMIT / 4], |_| {});
    assert!(original.copies.should_wait(&cx) && !original.copies.should_wait(&cx));

    drop(copy);
    assert!(!original.copies.should_wait(&cx), "nobody reads it");
    original.pass(&[0; 2 * COPY_LIMIT], |_| {});
    assert!(original.copies.is_done() && original.budget.held() == 0);
}

#[test]
fn a_copy_ends_as_its_original_does() {
    for (length, passes, whole, expected) in [
        (None, 3, true, Ending::Whole),
        (None, 3, false, Ending::Broken),
        (Some(3), 3, false, Ending::Whole),
        (Some(4), 3, false, Ending::Broken),
    ] {
        let mut original = Original::new();
        let (mut copy, watch) = original.copy(length);
        original.pass(&[7; 3][..passes], |_| {});
        original.copies.end(whole);

        assert_eq!(now(watch.ended()), Some(expected), "{length:?} {whole}");
        let frame = now(copy.frame()).flatten().expect("a frame");
        assert_eq!(frame.is_ok(), expected == Ending::Whole);
    }
}

#[test]
fn what_takes_no_more_of_its_copy_still_hears_when_it_has_ended() {
    let mut original = Original::new();
    let (copy, watch) = original.copy(None);
    drop(copy);
    assert_eq!(now(watch.ended()), Some(Ending::Whole));
}

#[test]
fn what_nobody_waits_for_any_more_ends() {
    for whole in [false, true] {
        let mut original = Original::new();
        let (mut copy, watch) = original.copy(None);
        original.pass(b"abc", |_| {});
        if whole {
            original.copies.end(true);
        }

        drop(watch);

        assert_eq!(original.budget.held(), 0);
        assert!(now(copy.frame()).flatten().is_some_and(|frame| frame.is_err()));
        original.pass(b"def", |_| {});
        assert!(original.copies.is_done());
    }
}
