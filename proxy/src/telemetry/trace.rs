//! The trace that a request belongs to: its headers (W3C Trace Context, B3), and the spans that this proxy adds to it.
//!
//! A request that is not sampled passes through with its headers unchanged, unless we are the first to decide that.
//! Whoever was before has decided whether it is sampled; only where nobody has, we do, by the configured share.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use selvedge_model::{WorkloadName, telemetry::LONGEST_TAG};

use crate::{
    error::Reason,
    fields::{get_rare, remove_rare, shared},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The longest `tracestate` that a span repeats, in bytes (W3C Trace Context, 3.3.1.5).
const LONGEST_STATE: usize = 512;
/// The most attempts of one request that have spans.
const MOST_ATTEMPTS: usize = 32;

/// The name of a span.
pub type SpanId = [u8; 8];

/// What a request's headers say of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: [u8; 16],
    pub(super) span: SpanId,
    /// Whether it is sampled; `None`: nobody has decided.
    sampled: Option<bool>,
    forms: Forms,
}

impl Parent {
    /// The trace that a request with these headers belongs to, in hexadecimal.
    pub(super) fn trace_id(headers: &HeaderMap) -> Option<String> {
        let parent = parent(headers, Found::of(headers)?)?;
        let mut text = String::with_capacity(32);
        write_hex(&mut text, &parent.trace);
        Some(text)
    }
}

/// In which headers it is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Forms {
    w3c: bool,
    b3: bool,
    b3_multi: bool,
    /// B3's trace id has 64 bits.
    short: bool,
    /// B3 asks for everything to be kept.
    debug: bool,
    /// W3C: the trace id is random (level 2).
    random: bool,
}

/// A request's trace, as far as it is ours. Its attempts, which several places make, add their spans.
#[derive(Debug)]
pub struct Trace {
    /// The trace's id.
    pub id: [u8; 16],
    /// The span of the request.
    pub span: SpanId,
    /// The span that it is in; `None`: the trace begins here.
    pub parent: Option<SpanId>,
    /// `tracestate`, which is passed on as it is with the trace that it came with.
    pub state: Option<String>,
    forms: Forms,
    attempts: Mutex<Vec<AttemptSpan>>,
}

/// The span of one attempt.
#[derive(Debug, Clone)]
pub struct AttemptSpan {
    /// Its name.
    pub id: SpanId,
    /// When it began.
    pub began: Instant,
    /// When its answer's head came; `None`: there was none.
    pub answered: Option<Instant>,
    /// When it was over; `None`: with the request.
    pub ended: Option<Instant>,
    /// Where it went.
    pub endpoint: SocketAddr,
    /// The workload there.
    pub workload: Option<WorkloadName>,
    /// The answer's status.
    pub status: Option<u16>,
    /// Why there was none, or why a proxy made it.
    pub reason: Option<Reason>,
}

/// An attempt in progress. Its span is kept when this is dropped.
#[derive(Debug)]
pub struct Attempted {
    trace: Arc<Trace>,
    span: Option<AttemptSpan>,
}

/// What becomes of a request's trace here.
#[derive(Debug)]
pub(super) enum Decision {
    /// Its headers pass through.
    Pass,
    /// It is sampled.
    Sample(Arc<Trace>),
    /// We have decided that it is not, and say so to all that come behind us.
    Leave,
}

/// Decides about a request with these headers, where `share` of a million are sampled that nobody has decided about.
pub(super) fn decide(headers: &HeaderMap, share: u32) -> Decision {
    let (parent, decided) = match Found::of(headers) {
        None => (None, None),
        Some(found) => {
            let parent = parent(headers, found);
            let says = || if found.b3 || found.b3_multi { says(headers) } else { None };
            (parent, parent.and_then(|parent| parent.sampled).or_else(says))
        }
    };
    let is_sampled = decided.unwrap_or_else(|| share > 0 && fastrand::u32(0..1_000_000) < share);
    if !is_sampled {
        let is_first = parent.is_none() && decided.is_none() && share > 0;
        return if is_first { Decision::Leave } else { Decision::Pass };
    }
    let state = || text(headers, &TRACESTATE).filter(|state| state.len() <= LONGEST_STATE).map(str::to_owned);
    let trace = Trace {
        id: parent.map_or_else(new_trace, |parent| parent.trace),
        span: new_span(),
        parent: parent.map(|parent| parent.span),
        state: parent.filter(|parent| parent.forms.w3c).and_then(|_| state()),
        forms: parent.map_or(Forms { w3c: true, ..Forms::default() }, |parent| parent.forms),
        attempts: Mutex::default(),
    };
    Decision::Sample(Arc::new(trace))
}

/// Writes into `headers` that nobody has to decide again: the request is not sampled.
pub(super) fn leave(headers: &mut HeaderMap) {
    remove_rare(headers, &TRACESTATE);
    insert_w3c(headers, &new_trace(), &new_span(), 0);
}

/// Which headers may say something of a trace.
#[derive(Debug, Clone, Copy, Default)]
struct Found<'h> {
    /// `traceparent`, where there is one and no other.
    w3c: Option<&'h HeaderValue>,
    b3: bool,
    b3_multi: bool,
}

impl<'h> Found<'h> {
    /// Those of `headers`. Asked once: most requests that a proxy is the first to see have none, and most others have one.
    fn of(headers: &'h HeaderMap) -> Option<Self> {
        let (mut found, mut parents) = (Self::default(), 0);
        for (name, value) in headers {
            let name = name.as_str();
            // Most names are of another length.
            match name.len() {
                11 if name == "traceparent" => {
                    parents += 1;
                    found.w3c = Some(value);
                }
                2 => found.b3 |= name == "b3",
                6.. => found.b3_multi |= name.starts_with("x-b3-"),
                _ => {}
            }
        }
        if parents > 1 {
            found.w3c = None;
        }
        (parents > 0 || found.b3 || found.b3_multi).then_some(found)
    }
}

/// What `headers` say. What is malformed says nothing, as the standards have it.
fn parent(headers: &HeaderMap, found: Found<'_>) -> Option<Parent> {
    let w3c = found.w3c.and_then(w3c);
    let single = if found.b3 { single(headers) } else { None };
    let multi = if found.b3_multi { multi(headers) } else { None };
    let first = w3c.or(single).or(multi)?;
    let forms = Forms {
        w3c: w3c.is_some(),
        b3: single.is_some(),
        b3_multi: multi.is_some(),
        short: [single, multi].into_iter().flatten().any(|one| one.forms.short),
        debug: [single, multi].into_iter().flatten().any(|one| one.forms.debug),
        random: first.forms.random,
    };
    Some(Parent { forms, ..first })
}

/// The value of the one field called `name`.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    get_rare(headers, name)?.to_str().ok()
}

/// The trace in `traceparent`, if that is kept. Of most it is not, and then no more is read than the end of its flags.
pub(super) fn kept(headers: &HeaderMap) -> Option<[u8; 16]> {
    let flags = get_rare(headers, &TRACEPARENT)?.as_bytes().get(W3C - 1)?;
    if !matches!(flags, b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f') {
        return None;
    }
    let parent = Found::of(headers)?.w3c.and_then(w3c);
    parent.filter(|parent| parent.sampled == Some(true)).map(|parent| parent.trace)
}

/// What a `traceparent` says. Every request behind one that has decided has such a field: so it is read by its places.
fn w3c(value: &HeaderValue) -> Option<Parent> {
    let (said, more) = value.as_bytes().split_first_chunk::<W3C>()?;
    let [version] = hex::<1>(&said[..2])?;
    // Of a later version more may follow; of the one that we know nothing may.
    let may_follow = more.is_empty() || (version != 0 && more[0] == b'-');
    if version == 0xff || !may_follow || [said[2], said[35], said[52]] != [b'-'; 3] {
        return None;
    }
    let [flags] = hex::<1>(&said[53..])?;
    let forms = Forms { random: flags & 2 != 0, ..Forms::default() };
    Some(Parent {
        trace: not_zero(hex(&said[3..35])?)?,
        span: not_zero(hex(&said[36..52])?)?,
        sampled: Some(flags & 1 != 0),
        forms,
    })
}

fn single(headers: &HeaderMap) -> Option<Parent> {
    let mut parts = text(headers, &B3)?.split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let (trace, short) = b3_trace(trace)?;
    let (sampled, debug) = match parts.next() {
        None => (None, false),
        Some("1") => (Some(true), false),
        Some("d") => (Some(true), true),
        Some("0") => (Some(false), false),
        Some(_) => return None,
    };
    let forms = Forms { short, debug, ..Forms::default() };
    Some(Parent { trace, span: not_zero(hex(span)?)?, sampled, forms })
}

fn multi(headers: &HeaderMap) -> Option<Parent> {
    let (trace, short) = b3_trace(text(headers, &B3_TRACE)?)?;
    let span = not_zero(hex(text(headers, &B3_SPAN)?)?)?;
    let (sampled, debug) = multi_says(headers);
    Some(Parent { trace, span, sampled, forms: Forms { short, debug, ..Forms::default() } })
}

/// Whether B3's several fields say that the request is sampled, and whether they ask for everything to be kept.
fn multi_says(headers: &HeaderMap) -> (Option<bool>, bool) {
    let debug = text(headers, &B3_FLAGS) == Some("1");
    let sampled = match text(headers, &B3_SAMPLED) {
        _ if debug => Some(true),
        Some("1" | "true") => Some(true),
        Some("0" | "false") => Some(false),
        _ => None,
    };
    (sampled, debug)
}

/// Whether B3 says without naming a trace that the request is sampled; `None`: it says nothing.
fn says(headers: &HeaderMap) -> Option<bool> {
    match text(headers, &B3) {
        Some("0") => Some(false),
        Some("1" | "d") => Some(true),
        _ => multi_says(headers).0,
    }
}

fn b3_trace(text: &str) -> Option<([u8; 16], bool)> {
    if text.len() == 16 {
        let mut trace = [0; 16];
        trace[8..].copy_from_slice(&hex::<8>(text)?);
        return Some((not_zero(trace)?, true));
    }
    Some((not_zero(hex(text)?)?, false))
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: impl AsRef<[u8]>) -> Option<[u8; N]> {
    let text = text.as_ref();
    if text.len() != 2 * N {
        return None;
    }
    let (mut bytes, mut all) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| DIGIT[usize::from(digit)]);
        all |= high | low;
        *byte = (high << 4) | low;
    }
    (all < 16).then_some(bytes)
}

/// What a digit of lower-case hexadecimal is worth; of anything else, more than any.
const DIGIT: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

fn not_zero<const N: usize>(bytes: [u8; N]) -> Option<[u8; N]> {
    (bytes != [0; N]).then_some(bytes)
}

/// `bytes` in hexadecimal.
pub(super) fn write_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.extend(digits(*byte).map(char::from));
    }
}

/// The two digits of `byte` in hexadecimal.
fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

fn new_trace() -> [u8; 16] {
    fastrand::u128(1..).to_be_bytes()
}

fn new_span() -> SpanId {
    fastrand::u64(1..).to_be_bytes()
}

/// How long a `traceparent` of version 00 is.
const W3C: usize = 55;

/// Every request that we are the first to decide about has one of these: so it is written in place.
fn insert_w3c(headers: &mut HeaderMap, trace: &[u8; 16], span: &SpanId, flags: u8) {
    let mut text: [u8; W3C] = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in text[at..].chunks_exact_mut(2).zip(bytes) {
            place.copy_from_slice(&digits(*byte));
        }
    };
    put(3, trace);
    put(36, span);
    put(53, &[flags]);
    if let Ok(value) = shared(text) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Puts `text` into the field called `name`, instead of what is there.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(text) {
        headers.insert(name, value);
    }
}

impl Trace {
    /// Says in the request that whoever gets it is called from the span of the request.
    pub(super) fn settle<B>(self: &Arc<Self>, request: &mut http::Request<B>) {
        if self.parent.is_none() {
            // It tells of another trace, or of none (W3C Trace Context, 4.2 and 4.3).
            remove_rare(request.headers_mut(), &TRACESTATE);
        }
        self.write(request.headers_mut(), &self.span, self.parent.as_ref());
        request.extensions_mut().insert(Arc::clone(self));
    }

    /// Says in `headers` that whoever gets them is called from `span`, in the headers that the client used.
    fn write(&self, headers: &mut HeaderMap, span: &SpanId, parent: Option<&SpanId>) {
        let Forms { w3c, b3, b3_multi, short, debug, random } = self.forms;
        let mut text = String::new();
        if w3c {
            insert_w3c(headers, &self.id, span, 1 | (u8::from(random) << 1));
        }
        let id = if short { &self.id[8..] } else { &self.id[..] };
        if b3 {
            write_hex(&mut text, id);
            text.push('-');
            write_hex(&mut text, span);
            text.push_str(if debug { "-d" } else { "-1" });
            if let Some(parent) = parent {
                text.push('-');
                write_hex(&mut text, parent);
            }
            insert(headers, B3, text.as_bytes());
        }
        if b3_multi {
            let mut put = |name: HeaderName, bytes: &[u8]| {
                text.clear();
                write_hex(&mut text, bytes);
                insert(headers, name, text.as_bytes());
            };
            put(B3_TRACE, id);
            put(B3_SPAN, span);
            match parent {
                Some(parent) => put(B3_PARENT, parent),
                None => drop(headers.remove(B3_PARENT)),
            }
            if !debug {
                headers.insert(B3_SAMPLED, HeaderValue::from_static("1"));
            }
        }
    }

    /// How many attempts there were.
    pub(super) fn tried(&self) -> usize {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The spans of attempts, as far as they were over by now, in the order in which they began.
    pub fn attempts(&self) -> Vec<AttemptSpan> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        attempts.sort_by_key(|span| span.began);
        attempts
    }

    /// The trace's id in hexadecimal.
    #[cfg(test)]
    fn id_text(&self) -> String {
        let mut text = String::with_capacity(32);
        write_hex(&mut text, &self.id);
        text
    }
}

/// Begins the span of an attempt at `request` to `endpoint`, and says in the request that it is called from there. `None`:
/// it is not traced.
pub fn attempt<B>(
    request: &mut http::Request<B>,
    endpoint: SocketAddr,
    workload: Option<&WorkloadName>,
    began: Instant,
) -> Option<Box<Attempted>> {
    let trace = of(request.extensions())?;
    let trace = Arc::clone(trace);
    let id = new_span();
    trace.write(request.headers_mut(), &id, Some(&trace.span));
    let workload = workload.cloned();
    let (answered, ended, status, reason) = (None, None, None, None);
    let span = AttemptSpan { id, began, answered, ended, endpoint, workload, status, reason };
    Some(Box::new(Attempted { trace, span: Some(span) }))
}

/// Has attempts at `request`, which is a copy of another, make no spans: they are no attempts at that other one.
pub fn forget<B>(request: &mut http::Request<B>) {
    if of(request.extensions()).is_some() {
        request.extensions_mut().remove::<Arc<Trace>>();
    }
}

fn of(extensions: &Extensions) -> Option<&Arc<Trace>> {
    if extensions.is_empty() { None } else { extensions.get() }
}

impl Attempted {
    /// The attempt has come to this. An answer may still be on its way: then it is over with the request, unless another
    /// attempt follows.
    pub fn ended(mut self, status: Option<u16>, reason: Option<Reason>) {
        if let Some(span) = &mut self.span {
            (span.status, span.reason) = (status, reason);
            let now = Some(Instant::now());
            if status.is_none() {
                span.ended = now;
            } else {
                span.answered = now;
            }
        }
    }
}

impl Drop for Attempted {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        if span.answered.is_none() && span.ended.is_none() {
            // Its time was over, the client has left, or another attempt was answered first.
            span.ended = Some(Instant::now());
        }
        let mut attempts = self.trace.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was answered, and tried again all the same; not one that was under way at the same time.
        let is_before = |before: &AttemptSpan| before.answered.is_some_and(|at| at <= span.began);
        for before in attempts.iter_mut().filter(|before| before.ended.is_none() && is_before(before)) {
            before.ended = Some(span.began);
        }
        if attempts.len() < MOST_ATTEMPTS {
            attempts.push(span);
        }
    }
}

/// As much of `text` as a tag may have.
pub(super) fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TAG)].to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn request(fields: &[(&str, &str)]) -> http::Request<()> {
        let mut request = http::Request::new(());
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn sampled(fields: &[(&str, &str)], share: u32) -> Option<(Arc<Trace>, http::Request<()>)> {
        let mut request = request(fields);
        match decide(request.headers(), share) {
            Decision::Sample(trace) => {
                trace.settle(&mut request);
                Some((trace, request))
            }
            Decision::Leave | Decision::Pass => None,
        }
    }

    fn said(request: &http::Request<()>, name: &str) -> String {
        request.headers().get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn who_was_before_decides_in_each_of_the_headers() {
        let (trace, span) = (ID, SPAN);
        let short = "8448eb211c80319c";
        for (fields, expected) in [
            (vec![("traceparent", format!("00-{trace}-{span}-01"))], true),
            (vec![("traceparent", format!("00-{trace}-{span}-00"))], false),
            (vec![("traceparent", format!("cc-{trace}-{span}-01-more"))], true),
            (vec![("b3", format!("{trace}-{span}-1"))], true),
            (vec![("b3", format!("{short}-{span}-d"))], true),
            (vec![("b3", format!("{trace}-{span}-0-{span}"))], false),
            (vec![("b3", "0".to_owned())], false),
            (
                vec![
                    ("x-b3-traceid", trace.to_owned()),
                    ("x-b3-spanid", span.to_owned()),
                    ("x-b3-sampled", "1".to_owned()),
                ],
                true,
            ),
            (
                vec![
                    ("x-b3-traceid", short.to_owned()),
                    ("x-b3-spanid", span.to_owned()),
                    ("x-b3-flags", "1".to_owned()),
                ],
                true,
            ),
            (
                vec![
                    ("x-b3-traceid", trace.to_owned()),
                    ("x-b3-spanid", span.to_owned()),
                    ("x-b3-sampled", "0".to_owned()),
                ],
                false,
            ),
            (vec![("x-b3-sampled", "0".to_owned())], false),
            (vec![("b3", "1".to_owned())], true),
            (vec![("b3", "d".to_owned())], true),
            (vec![("x-b3-sampled", "1".to_owned())], true),
            (vec![("x-b3-flags", "1".to_owned())], true),
        ] {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            for share in [0, 1_000_000] {
                assert_eq!(sampled(&fields, share).is_some(), expected, "{fields:?} {share}");
            }
        }
    }

    #[test]
    fn what_is_malformed_begins_a_new_trace_if_the_share_says_so() {
        for value in [
            "00-short-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "nonsense",
            "",
        ] {
            assert!(sampled(&[("traceparent", value)], 0).is_none(), "{value}");
            let (trace, _) = sampled(&[("traceparent", value)], 1_000_000).unwrap();
            assert!(trace.parent.is_none() && trace.id_text() != ID, "{value}");
        }
        let twice = format!("00-{ID}-{SPAN}-01");
        assert!(sampled(&[("traceparent", &twice), ("traceparent", &twice)], 0).is_none());
    }

    #[test]
    fn the_state_of_another_trace_does_not_go_on_with_one_that_begins_here() {
        for parent in ["00-short-b7ad6b7169203331-01", ""] {
            let fields = [("traceparent", parent), ("tracestate", "a=b")];
            let (trace, request) = sampled(&fields, 1_000_000).unwrap();
            assert_eq!((trace.state.as_deref(), said(&request, "tracestate")), (None, String::new()));
        }

        let mut left = request(&[("tracestate", "a=b")]);
        leave(left.headers_mut());
        assert_eq!(said(&left, "tracestate"), "");
    }

    #[test]
    fn the_parent_is_replaced_in_those_headers_that_the_client_used() {
        let w3c = format!("00-{ID}-{SPAN}-03");
        let (trace, request) =
            sampled(&[("traceparent", &w3c), ("tracestate", "a=b"), ("b3", &format!("{ID}-{SPAN}-1"))], 0)
                .unwrap();
        let mut own = String::new();
        write_hex(&mut own, &trace.span);

        assert_eq!(said(&request, "traceparent"), format!("00-{ID}-{own}-03"));
        assert_eq!(said(&request, "b3"), format!("{ID}-{own}-1-{SPAN}"));
        assert_eq!((said(&request, "tracestate"), trace.state.as_deref()), ("a=b".to_owned(), Some("a=b")));
        assert_eq!(said(&request, "x-b3-traceid"), "");

        let multi = [("x-b3-traceid", "8448eb211c80319c"), ("x-b3-spanid", SPAN), ("x-b3-sampled", "true")];
        let (trace, request) = sampled(&multi, 0).unwrap();
        let mut own = String::new();
        write_hex(&mut own, &trace.span);
        assert_eq!(said(&request, "x-b3-traceid"), "8448eb211c80319c");
        assert_eq!(
            [said(&request, "x-b3-spanid"), said(&request, "x-b3-parentspanid")],
            [own, SPAN.to_owned()]
        );
        assert_eq!(said(&request, "traceparent"), "");
    }

    #[test]
    fn attempts_are_called_from_the_request_and_each_is_a_span() {
        let (trace, mut request) = sampled(&[], 1_000_000).unwrap();
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 80));
        let began = Instant::now();

        let first = attempt(&mut request, endpoint, None, began).unwrap();
        let seen_first = said(&request, "traceparent");
        first.ended(Some(503), None);
        let second = attempt(&mut request, endpoint, None, Instant::now()).unwrap();
        let seen_second = said(&request, "traceparent");
        drop(second);

        let attempts = trace.attempts();
        let [first, second] = attempts.as_slice() else { panic!("{attempts:?}") };
        for (span, seen) in [(first, seen_first), (second, seen_second)] {
            let mut id = String::new();
            write_hex(&mut id, &span.id);
            assert!(seen.contains(&id), "{seen} {id}");
        }
        assert!(first.ended.is_some() && first.status == Some(503) && second.status.is_none());
        assert!(attempt(&mut http::Request::new(()), endpoint, None, began).is_none());
    }

    #[test]
    fn an_attempt_that_was_given_up_for_another_does_not_end_it() {
        let (trace, mut request) = sampled(&[], 1_000_000).unwrap();
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 80));
        let began = Instant::now();
        let slow = attempt(&mut request, endpoint, None, began).unwrap();
        let quick = attempt(&mut request, endpoint, None, began + Duration::from_nanos(1)).unwrap();

        quick.ended(Some(200), None);
        drop(slow);

        let attempts = trace.attempts();
        let [slow, quick] = attempts.as_slice() else { panic!("{attempts:?}") };
        assert!(slow.ended.is_some() && slow.status.is_none());
        assert!(quick.ended.is_none() && quick.status == Some(200));
        forget(&mut request);
        assert!(attempt(&mut request, endpoint, None, Instant::now()).is_none());
    }

    #[test]
    fn a_decision_not_to_sample_is_told_to_those_behind() {
        let request = request(&[]);
        assert!(matches!(decide(request.headers(), 0), Decision::Pass));
        let mut left = 0;
        for _ in 0..200 {
            left += u32::from(matches!(decide(request.headers(), 1), Decision::Leave));
        }
        assert!(left > 190, "{left}");

        let mut headers = HeaderMap::new();
        leave(&mut headers);
        assert!(matches!(decide(&headers, 1_000_000), Decision::Pass));
    }
}
