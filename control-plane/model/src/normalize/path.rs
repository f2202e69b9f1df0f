//! One normal form for every path, so that a rule, a policy and the app all mean the same resource.
//!
//! Istio's BASE, which is Envoy's `normalize_path`: dot segments are resolved, also where the dots are
//! percent-encoded (RFC 3986, section 5.2.4), `\` counts as `/`, encoded unreserved characters are decoded
//! (section 6.2.2.2), and what may not stand in a path is encoded. As there, `%2F` stays encoded, several
//! slashes stay several, and the hex digits of what stays encoded keep their case: apps get what clients have sent, and whoever
//! compares paths takes them for the same ([`comparable`], [`Spellings`]). Stricter than there:
//! `%` without two hex digits is refused, as is an encoded control character, for apps decode both in ways
//! of their own.
//!
//! A gateway may go further ([`Slashes`]), for apps behind it differ in what they take for a slash.

use std::borrow::Cow;

/// Why a path has no normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin with a slash.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// A percent sign without two hex digits.
    #[error("the path has a % that two hex digits do not follow")]
    Percent,
    /// A control character, as it is or encoded: NUL, CR and LF among them.
    #[error("the path has a control character")]
    Control,
}

/// What becomes of slashes that one app reads otherwise than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slashes {
    /// `%2F` and several slashes stay: Istio's BASE.
    #[default]
    Kept,
    /// Several slashes become one: Istio's `MERGE_SLASHES`.
    Merged,
    /// `%2F` and `%5C` are decoded to `/`, and then several slashes become one: Istio's `DECODE_AND_MERGE_SLASHES`.
    Decoded,
}

/// What a byte of a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// May stand in a normal path anywhere.
    Plain,
    /// A slash: what follows it may be a dot segment.
    Slash,
    /// Needs a closer look.
    Special,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Special; 256];
    let plain = b"!$&'()*+,-.0123456789:;=@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~";
    let mut place = 0;
    while place < plain.len() {
        kinds[plain[place] as usize] = Kind::Plain;
        place += 1;
    }
    kinds[b'/' as usize] = Kind::Slash;
    kinds
};

/// The normal form of `path`, which has no query. `None`: it is `path` itself; nothing is allocated then.
///
/// # Errors
/// If it has none.
pub fn normalize(path: &str) -> Result<Option<String>, Malformed> {
    normalize_with(path, Slashes::Kept)
}

/// As [`normalize`], with what is to become of slashes.
///
/// # Errors
/// If it has none.
pub fn normalize_with(path: &str, slashes: Slashes) -> Result<Option<String>, Malformed> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') && bytes.first() != Some(&b'\\') {
        return Err(Malformed::NotAbsolute);
    }
    let merges = slashes != Slashes::Kept;
    if is_normal(bytes) && !(merges && path.contains("//")) {
        return Ok(None);
    }
    let mut decoded = decode(bytes, slashes == Slashes::Decoded)?;
    if merges {
        merge(&mut decoded);
    }
    Ok(Some(remove_dot_segments(&decoded)))
}

/// Which part of a path a rule or a policy writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// How it begins.
    Beginning,
    /// How it ends.
    End,
    /// Some of it, wherever that stands.
    Within,
}

/// Why no path of a request can be as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NeverAsked {
    /// A request whose path is written so is refused.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The query is compared by itself, and a fragment is not sent.
    #[error("the path has a ? or a #, which stand behind a path")]
    Query,
    /// `.` or `..` as a segment: requests have none any more when they are compared.
    #[error("the path has a segment . or .., which is resolved in requests")]
    DotSegment,
}

/// `text`, which is compared with `part` of a request's path, as requests have it that mean the same: in
/// [normal form](normalize). What is in that form already stays as it is. Not for regular expressions.
///
/// # Errors
/// If no path can be as it is written.
pub fn normalize_text(text: &str, part: Part) -> Result<String, NeverAsked> {
    if text.contains(['?', '#']) {
        return Err(NeverAsked::Query);
    }
    match part {
        Part::Whole => Ok(normalize(text)?.unwrap_or_else(|| text.to_owned())),
        Part::Beginning => {
            if !text.is_empty() && !text.starts_with(['/', '\\']) {
                return Err(Malformed::NotAbsolute.into());
            }
            let (text, begun) = split_begun(text);
            let decoded = decode(text.as_bytes(), false)?;
            // What follows the last slash may go on in the path.
            let last = decoded.rfind('/').map_or(0, |slash| slash + 1);
            let before = if last == 0 { String::new() } else { remove_dot_segments(&decoded[..last]) };
            Ok(format!("{before}{}{begun}", &decoded[last..]))
        }
        Part::End | Part::Within => {
            let (text, begun) = if part == Part::Within { split_begun(text) } else { (text, "") };
            let decoded = decode(text.as_bytes(), false)?;
            let mut segments: Vec<&str> = decoded.split('/').skip(1).collect();
            if part == Part::Within {
                segments.pop();
            }
            if segments.into_iter().any(|segment| matches!(segment, "." | "..")) {
                return Err(NeverAsked::DotSegment);
            }
            Ok(decoded + begun)
        }
    }
}

/// As [`normalize_text`], with the hex digits [in capitals](in_capitals): what stands in a rule is compared with all
/// [spellings](Spellings) of a request's path in this form. What is in it already stays as it is.
///
/// # Errors
/// If no path can be as it is written.
pub fn comparable(text: &str, part: Part) -> Result<String, NeverAsked> {
    let normal = normalize_text(text, part)?;
    Ok(match in_capitals(&normal) {
        Cow::Borrowed(_) => normal,
        Cow::Owned(capitals) => capitals,
    })
}

/// Whether the byte at `at` is one of the two hex digits of an encoded character.
fn is_encoded(path: &[u8], at: usize) -> bool {
    let before = |places: usize| at.checked_sub(places).is_some_and(|start| path[start] == b'%');
    before(1) || before(2)
}

/// `path` with those bytes changed that are hex digits of encoded characters.
fn with_digits(path: &str, change: fn(&char) -> char) -> String {
    let bytes = path.as_bytes();
    let letters = path.char_indices();
    letters.map(|(at, letter)| if is_encoded(bytes, at) { change(&letter) } else { letter }).collect()
}

/// `path` with the hex digits of encoded characters in capitals (RFC 3986, section 6.2.2.1). Allocates only where that differs.
pub fn in_capitals(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let is_small = |at: usize| matches!(bytes[at], b'a'..=b'f') && is_encoded(bytes, at);
    if !bytes.contains(&b'%') || !(0..bytes.len()).any(is_small) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(with_digits(path, char::to_ascii_uppercase))
}

/// The ways to write a path that mean the same: as it came, and with the hex digits of encoded characters in capitals and in small
/// letters (RFC 3986, section 6.2.2.1). All are as long as it. A regular expression is asked for each of them, for nobody can
/// tell in which of them it is written.
#[derive(Debug)]
pub struct Spellings<'p> {
    came: &'p str,
    others: Option<Box<[String; 2]>>,
}

impl<'p> Spellings<'p> {
    /// Those of `path`. Allocates only if there are several.
    pub fn of(path: &'p str) -> Self {
        let bytes = path.as_bytes();
        let is_letter = |at: usize| bytes[at].is_ascii_alphabetic() && is_encoded(bytes, at);
        let are_several = bytes.contains(&b'%') && (0..bytes.len()).any(is_letter);
        let both = [char::to_ascii_uppercase, char::to_ascii_lowercase];
        let others = are_several.then(|| Box::new(both.map(|change| with_digits(path, change))));
        Self { came: path, others }
    }

    /// Whether there are others than it came in.
    pub fn are_several(&self) -> bool {
        self.others.is_some()
    }

    /// Each of them; first as it came.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        let others = self.others.iter().flat_map(|others| others.iter().map(String::as_str));
        std::iter::once(self.came).chain(others)
    }
}

/// `text` without an encoded character at its end that is not complete, and what is there of that.
fn split_begun(text: &str) -> (&str, &str) {
    let begun = text.rfind('%').filter(|percent| {
        let digits = &text[percent + 1..];
        digits.len() < 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    text.split_at(begun.unwrap_or(text.len()))
}

/// Makes one slash of several.
fn merge(path: &mut String) {
    let mut before = '\0';
    path.retain(|character| {
        let again = character == '/' && before == '/';
        before = character;
        !again
    });
}

/// Whether `path` has nothing special and no dot segment. May say no of a path that is normal.
fn is_normal(path: &[u8]) -> bool {
    let mut before = Kind::Plain;
    path.iter().all(|&byte| {
        let kind = KINDS[usize::from(byte)];
        let hidden = before == Kind::Slash && byte == b'.';
        before = kind;
        kind != Kind::Special && !hidden
    })
}

/// Decodes what need not be encoded (slashes too if `slashes`), encodes what must be, and turns backslashes round.
fn decode(path: &[u8], slashes: bool) -> Result<String, Malformed> {
    let mut decoded = String::with_capacity(path.len() + 8);
    let mut rest = path.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = rest.next().zip(rest.next());
                let value = digits.and_then(|(high, low)| Some(hex(high)? << 4 | hex(low)?));
                let ((high, low), value) = digits.zip(value).ok_or(Malformed::Percent)?;
                match value {
                    _ if value.is_ascii_control() => return Err(Malformed::Control),
                    b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(value)),
                    b'/' | b'\\' if slashes => decoded.push('/'),
                    _ if value.is_ascii_alphanumeric() => decoded.push(char::from(value)),
                    _ => decoded.extend(['%', char::from(high), char::from(low)]),
                }
            }
            b'\\' => decoded.push('/'),
            _ if byte.is_ascii_control() => return Err(Malformed::Control),
            _ if KINDS[usize::from(byte)] != Kind::Special => decoded.push(char::from(byte)),
            _ => decoded.extend(['%', upper_hex(byte >> 4), upper_hex(byte & 15)]),
        }
    }
    Ok(decoded)
}

/// RFC 3986, section 5.2.4, for a path that begins with a slash: `..` at the root stays at the root.
fn remove_dot_segments(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => kept.truncate(kept.rfind('/').unwrap_or(0)),
            _ => {
                kept.push('/');
                kept.push_str(segment);
                continue;
            }
        }
        // A dot segment names a directory.
        if last {
            kept.push('/');
        }
    }
    kept
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn upper_hex(value: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(value & 15)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_normal_form() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/.b/..c/...", "/a/.b/..c/..."),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            (r"/a\..\b", "/b"),
            (r"\a", "/a"),
            ("//a", "//a"),
            ("/a//../b", "/a/b"),
            ("////../..", "//"),
            ("/%61dmin", "/admin"),
            ("/%7euser%2dx%5F", "/~user-x_"),
            ("/a%2fb", "/a%2fb"),
            ("/a%2Fb%5c", "/a%2Fb%5c"),
            ("/%2561", "/%2561"),
            ("/a%20b", "/a%20b"),
            ("/a{b}|\"é", "/a%7Bb%7D%7C%22%C3%A9"),
            ("/a;b=c,d:e@f!$&'()*+[]", "/a;b=c,d:e@f!$&'()*+[]"),
        ] {
            let normal = normalize(path).unwrap();
            assert_eq!(normal.as_deref().unwrap_or(path), expected, "{path}");
        }
    }

    #[test]
    fn a_gateway_has_one_reading_of_slashes() {
        for (path, merged, decoded) in [
            ("/a/b/", "/a/b/", "/a/b/"),
            ("//a", "/a", "/a"),
            ("/a//../b", "/b", "/b"),
            ("///", "/", "/"),
            ("/a%2Fb", "/a%2Fb", "/a/b"),
            ("/x/..%2fadmin", "/x/..%2fadmin", "/admin"),
            ("/%2f%2Fadmin", "/%2f%2Fadmin", "/admin"),
            ("/x%5c..%5Cadmin", "/x%5c..%5Cadmin", "/admin"),
            ("/a%252fb", "/a%252fb", "/a%252fb"),
        ] {
            for (slashes, expected) in [(Slashes::Merged, merged), (Slashes::Decoded, decoded)] {
                let normal = normalize_with(path, slashes).unwrap();
                assert_eq!(normal.as_deref().unwrap_or(path), expected, "{path} {slashes:?}");
            }
        }
    }

    #[test]
    fn what_a_rule_writes_is_as_requests_are() {
        use Part::{Beginning, End, Whole, Within};
        for (text, part, expected) in [
            ("/%7Ejohn", Whole, "/~john"),
            ("/café", Whole, "/caf%C3%A9"),
            ("/my app/../x", Whole, "/x"),
            ("/my app/", Beginning, "/my%20app/"),
            ("/a/../%62/%2e", Beginning, "/b/."),
            ("/a/..", Beginning, "/a/.."),
            ("/a%", Beginning, "/a%"),
            ("/a%E", Beginning, "/a%E"),
            ("/%2561%2", Beginning, "/%2561%2"),
            (r"\a", Beginning, "/a"),
            ("", Beginning, ""),
            ("%2Esecret", End, ".secret"),
            ("..", End, ".."),
            ("my%2Dapp", Within, "my-app"),
            ("/a%C", Within, "/a%C"),
            ("/..", Within, "/.."),
        ] {
            assert_eq!(normalize_text(text, part).as_deref(), Ok(expected), "{text} {part:?}");
        }
    }

    #[test]
    fn the_case_of_hex_digits_means_nothing_where_paths_are_compared() {
        for (text, part, expected) in [
            ("/caf%c3%a9", Part::Whole, "/caf%C3%A9"),
            ("/caf%c3%a", Part::Beginning, "/caf%C3%A"),
            ("/abc%7e", Part::Whole, "/abc~"),
        ] {
            assert_eq!(comparable(text, part).as_deref(), Ok(expected), "{text}");
        }
        for (path, expected) in [
            ("/cafe", vec!["/cafe"]),
            ("/a%20b", vec!["/a%20b"]),
            ("/%c3%A9a", vec!["/%c3%A9a", "/%C3%A9a", "/%c3%a9a"]),
        ] {
            let spellings = Spellings::of(path);
            assert_eq!(spellings.each().collect::<Vec<_>>(), expected);
            assert_eq!(spellings.are_several(), expected.len() > 1);
        }
    }

    #[test]
    fn what_no_path_is_like_is_told() {
        use Part::{Beginning, End, Whole, Within};
        for (text, part, expected) in [
            ("admin", Beginning, Malformed::NotAbsolute.into()),
            ("admin", Whole, Malformed::NotAbsolute.into()),
            ("/100%/", Beginning, Malformed::Percent.into()),
            ("/a%4", Whole, Malformed::Percent.into()),
            ("%4", End, Malformed::Percent.into()),
            ("/a%00", Beginning, Malformed::Control.into()),
            ("/a?b", Whole, NeverAsked::Query),
            ("#b", End, NeverAsked::Query),
            ("a/%2E.", End, NeverAsked::DotSegment),
            ("/./", Within, NeverAsked::DotSegment),
        ] {
            assert_eq!(normalize_text(text, part), Err(expected), "{text} {part:?}");
        }
    }

    #[test]
    fn what_apps_would_read_in_ways_of_their_own_is_refused() {
        for (path, expected) in [
            ("", Malformed::NotAbsolute),
            ("a", Malformed::NotAbsolute),
            ("*", Malformed::NotAbsolute),
            ("%2fa", Malformed::NotAbsolute),
            ("/%", Malformed::Percent),
            ("/%4", Malformed::Percent),
            ("/%4g", Malformed::Percent),
            ("/%%20", Malformed::Percent),
            ("/%+1", Malformed::Percent),
            ("/a%00", Malformed::Control),
            ("/a%0d%0aset-cookie:x", Malformed::Control),
            ("/a%7F", Malformed::Control),
            ("/a\0", Malformed::Control),
            ("/a\r\nb", Malformed::Control),
        ] {
            assert_eq!(normalize(path), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn a_normal_path_costs_no_allocation() {
        for path in ["/", "/reviews/0", "/a.b/c-d_e~f", "//a/b:c@d"] {
            assert_eq!(normalize(path), Ok(None), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in r"/(\.|/|\\|%2[eEfF]|%5c|%61|[a-z%~|{\x80-\u{ff}]){0,24}") {
            if let Ok(Some(normal)) = normalize(&path) {
                prop_assert_eq!(normalize(&normal).map(|again| again.unwrap_or(normal.clone())), Ok(normal));
            }
        }

        #[test]
        fn how_a_path_is_written_to_begin_and_to_end_is_how_its_normal_form_does(
            pieces in proptest::collection::vec(r"[a-z]|%7e|%C3%A9|%20| |é|\\|/", 0..12),
            at in 0_usize..12,
        ) {
            let (before, after) = pieces.split_at(at.min(pieces.len()));
            let (before, after) = (format!("/{}", before.concat()), after.concat());
            let path = format!("{before}{after}");
            let normal = normalize(&path).unwrap().unwrap_or(path);
            for (text, part) in [(before, Part::Beginning), (after, Part::End)] {
                let text = normalize_text(&text, part).unwrap();
                let is_so = if part == Part::End { normal.ends_with(&text) } else { normal.starts_with(&text) };
                prop_assert!(is_so, "{normal} {text}");
                prop_assert_eq!(normalize_text(&text, part), Ok(text.clone()));
            }
        }

        #[test]
        fn what_a_gateway_passes_on_is_read_in_one_way(path in r"/(\.|/|\\|%2[eEfF]|%5c|[a;]){0,24}") {
            let normal = normalize_with(&path, Slashes::Decoded).unwrap().unwrap_or(path);
            prop_assert!(!normal.contains("//") && !normal.contains(['%', '\\']), "{}", normal);
            prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."), "{}", normal);
            let again = normalize_with(&normal, Slashes::Decoded).unwrap();
            prop_assert_eq!(again.unwrap_or(normal.clone()), normal);
        }

        #[test]
        fn no_path_leaves_its_root(path in r"/(\.|/|\\|%2[eE]|a){0,24}") {
            let normal = normalize(&path).unwrap().unwrap_or(path);
            prop_assert!(normal.starts_with('/'));
            prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."), "{}", normal);
        }

        #[test]
        fn nothing_is_a_panic(path in any::<String>()) {
            let _ = normalize(&path);
            let _ = normalize(&format!("/{path}"));
        }
    }
}
