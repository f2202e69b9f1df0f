//! Where an answer's body ends (RFC 9112, section 6).

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// What an answer's `Transfer-Encoding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// `chunked`, once and alone.
    Chunked,
    /// `identity`, alone: the word of RFC 2616 for none. The body ends with the connection.
    Identity,
    /// Anything else: its body would have to be decoded (section 7.4: nobody may send such without being asked).
    Other,
}

impl Coding {
    /// Whether we can tell where the body ends. `sized`: there is a Content-Length, too. Beside `identity` some readers
    /// use the length, and others wait for the connection's end.
    pub(super) fn can_be_read(self, sized: bool) -> bool {
        match self {
            Self::Chunked => true,
            Self::Identity => !sized,
            Self::Other => false,
        }
    }
}

/// The coding that `headers` name; `None`: they name none.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).into_iter();
    let (first, second) = (lines.next()?, lines.next());
    Some(match first.as_bytes().trim_ascii() {
        _ if second.is_some() => Coding::Other,
        word if word.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        word if word.eq_ignore_ascii_case(b"identity") => Coding::Identity,
        _ => Coding::Other,
    })
}

/// Leaves one valid Content-Length, or none (RFC 9110, section 8.6). Equal ones become one. An invalid one is removed,
/// and so is one where there must be none.
pub(super) fn settle(headers: &mut HeaderMap, status: StatusCode) {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lines = headers.get_all(CONTENT_LENGTH).into_iter();
    let is_one = lines.next().is_some_and(|line| number(line.as_bytes()).is_some()) && lines.next().is_none();
    if is_one {
        return;
    }
    match stated(headers) {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// The length that a message states, the same in all its lines and lists. `None`: it states none, or none that can be
/// believed.
pub fn stated(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(CONTENT_LENGTH).into_iter();
    let mut words = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let first = number(words.next()?.trim_ascii())?;
    words.all(|word| number(word.trim_ascii()) == Some(first)).then_some(first)
}

fn number(digits: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and nothing is as long.
    let valid = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}
