//! The YAML that nearly all documents are written in, read in one pass.
//!
//! All of a mesh is read at a start, and the whole of YAML takes twenty times as long. So this knows maps, lists and values that stand
//! on one line each, and gives up on everything else: anchors, tags, escapes, texts of several lines, numbers that are not whole,
//! null, whatever is not ASCII, and all that is malformed. What it does not give up on is read exactly as
//! [`super::Node::parse`] reads it otherwise; tests compare the two.

use super::{Entry, Node, Value};

/// Longer texts are left to those who keep count of what they take.
const LONGEST: usize = 64 << 10;
/// The same for nesting.
const DEEPEST: usize = 16;
/// The same for the fields of one map, each of which is compared with all others.
const MOST_FIELDS: usize = 64;

/// What the document `text` says; `None`: it takes more than this to know.
pub(super) fn parse(text: &str) -> Option<Node> {
    let is_plain = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
    if text.len() > LONGEST || !text.as_bytes().iter().all(is_plain) {
        return None;
    }
    let mut lines = Lines::new(text);
    if lines.now.is_some_and(|line| line.indent == 0 && line.text == "---") {
        lines.advance();
    }
    let root = lines.now.filter(|line| line.indent == 0 && field(line.text).is_some())?;
    let node = lines.block(root, 0)?;
    lines.now.is_none().then_some(node)
}

/// One line, or what is left of it.
#[derive(Clone, Copy)]
struct Line<'t> {
    /// From 1.
    number: u64,
    /// The spaces before `text`.
    indent: usize,
    /// Without spaces before and behind it.
    text: &'t str,
}

impl Line<'_> {
    fn is_item(&self) -> bool {
        self.text.starts_with("- ")
    }
}

/// The lines that say something, and the one that is being read.
struct Lines<'t> {
    rest: std::str::Split<'t, char>,
    number: u64,
    now: Option<Line<'t>>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let mut lines = Self { rest: text.split('\n'), number: 0, now: None };
        lines.advance();
        lines
    }

    /// Goes on to the next line that is neither empty nor a comment.
    fn advance(&mut self) {
        self.now = loop {
            let Some(line) = self.rest.next() else { break None };
            self.number += 1;
            let text = line.trim_start_matches(' ');
            if !text.is_empty() && !text.starts_with('#') {
                let indent = line.len() - text.len();
                break Some(Line { number: self.number, indent, text: text.trim_end_matches(' ') });
            }
        };
    }

    /// The map or the list that begins with the line `first`, which is the one being read.
    fn block(&mut self, first: Line<'t>, depth: usize) -> Option<Node> {
        if depth > DEEPEST {
            return None;
        }
        let value = match first.is_item() {
            true => Value::List(self.items(first.indent, depth)?),
            false => Value::Map(self.fields(first.indent, depth)?),
        };
        Some(Node { line: first.number, value })
    }

    /// The fields that stand at `indent`.
    fn fields(&mut self, indent: usize, depth: usize) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        while let Some(line) = self.now.filter(|line| line.indent >= indent) {
            if line.indent > indent {
                // It may go on with the value before it.
                return None;
            }
            let (key, value) = field(line.text)?;
            self.advance();
            let node = match without_comment(value) {
                Some("") => self.below(indent, depth)?,
                _ => Inline { line: line.number, depth }.whole(value)?,
            };
            add(&mut entries, Entry { key: key.to_owned(), line: line.number, node })?;
        }
        Some(entries)
    }

    /// The value of a field at `indent` that stands on the lines below it.
    fn below(&mut self, indent: usize, depth: usize) -> Option<Node> {
        let first = self.now?;
        let is_below = first.indent > indent || first.indent == indent && first.is_item();
        if is_below { self.block(first, depth + 1) } else { None }
    }

    /// The items whose dashes stand at `indent`.
    fn items(&mut self, indent: usize, depth: usize) -> Option<Vec<Node>> {
        let mut items = Vec::new();
        while let Some(line) = self.now.filter(|line| line.indent >= indent) {
            if line.indent > indent {
                return None;
            }
            if !line.is_item() {
                // The next field of the map that the list is in.
                break;
            }
            let text = line.text[1..].trim_start_matches(' ');
            if text.starts_with("- ") || without_comment(text) == Some("") {
                return None;
            }
            let item = Line { indent: indent + line.text.len() - text.len(), text, ..line };
            if field(text).is_some() {
                self.now = Some(item);
                items.push(self.block(item, depth + 1)?);
            } else {
                self.advance();
                items.push(Inline { line: line.number, depth }.whole(text)?);
            }
        }
        Some(items)
    }
}

/// The name of the field that `text` begins with, and its value without spaces before it.
fn field(text: &str) -> Option<(&str, &str)> {
    let (key, rest) = name(text)?;
    let value = rest.strip_prefix(':')?;
    let is_apart = value.is_empty() || value.starts_with(' ');
    is_apart.then(|| (key, value.trim_start_matches(' ')))
}

/// The word that `text` begins with and that can be nothing but a name, and what follows.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !is_of_word(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let begins = name.bytes().next()?;
    (begins.is_ascii_alphabetic() && !means_more(name)).then_some((name, rest))
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/')
}

/// Whether YAML or one of its older versions takes `word` for something else than a text.
fn means_more(word: &str) -> bool {
    const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    word.len() <= 5 && WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Adds `entry`, unless there is one of its name.
fn add(entries: &mut Vec<Entry>, entry: Entry) -> Option<()> {
    if entries.len() == MOST_FIELDS || entries.iter().any(|known| known.key == entry.key) {
        return None;
    }
    entries.push(entry);
    Some(())
}

/// `text` up to the comment that it ends with; `None`: a comment begins in the middle of a word.
fn without_comment(text: &str) -> Option<&str> {
    match text.find('#') {
        None => Some(text),
        Some(0) => Some(""),
        Some(at) => text[..at].ends_with(' ').then(|| text[..at].trim_end_matches(' ')),
    }
}

/// Where a value stands that is on one line.
#[derive(Clone, Copy)]
struct Inline {
    line: u64,
    depth: usize,
}

impl Inline {
    fn node(self, value: Value) -> Node {
        Node { line: self.line, value }
    }

    /// The value that `text` is, up to the end of the line.
    fn whole(self, text: &str) -> Option<Node> {
        if text.starts_with(['{', '[', '"', '\'']) {
            let (node, rest) = self.enclosed(text)?;
            let is_all = rest.is_empty() || rest.starts_with(' ') && without_comment(rest) == Some("");
            return is_all.then_some(node);
        }
        let text = without_comment(text)?;
        if text.contains(": ") || text.ends_with(':') {
            return None;
        }
        Some(self.node(scalar(text)?))
    }

    /// The value in brackets or in quotes that `text` begins with, and what follows.
    fn enclosed(self, text: &str) -> Option<(Node, &str)> {
        let inner = &text[1..];
        let (value, rest) = match text.as_bytes()[0] {
            b'{' => self.map(inner)?,
            b'[' => self.list(inner)?,
            quote => {
                let ends = |byte: u8| byte == quote || byte == b'\\' && quote == b'"';
                let (value, rest) = inner.split_at(inner.bytes().position(ends)?);
                let rest = rest.strip_prefix(char::from(quote))?;
                if rest.starts_with(char::from(quote)) {
                    // Two of them are one in a text in single quotes.
                    return None;
                }
                (Value::Text(value.to_owned()), rest)
            }
        };
        Some((self.node(value), rest))
    }

    fn map(self, text: &str) -> Option<(Value, &str)> {
        let mut entries = Vec::new();
        let rest = all(text, b'}', |text| {
            let (key, value) = field(text)?;
            let (node, rest) = self.among_others(value)?;
            add(&mut entries, Entry { key: key.to_owned(), line: self.line, node })?;
            Some(rest)
        })?;
        Some((Value::Map(entries), rest))
    }

    fn list(self, text: &str) -> Option<(Value, &str)> {
        let mut items = Vec::new();
        let rest = all(text, b']', |text| {
            let (node, rest) = self.among_others(text)?;
            items.push(node);
            Some(rest)
        })?;
        Some((Value::List(items), rest))
    }

    /// The value within brackets that `text` begins with, and what follows.
    fn among_others(self, text: &str) -> Option<(Node, &str)> {
        if text.starts_with(['{', '[', '"', '\'']) {
            let depth = self.depth + 1;
            return if depth > DEEPEST { None } else { Self { depth, ..self }.enclosed(text) };
        }
        let bytes = text.as_bytes();
        // Within a word, a colon is as good as a letter.
        let is_inside = |at: usize| {
            is_of_word(bytes[at])
                || bytes[at] == b':' && bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric)
        };
        let end = (0..bytes.len()).find(|at| !is_inside(*at)).unwrap_or(bytes.len());
        let (word, rest) = text.split_at(end);
        Some((self.node(scalar(word)?), rest))
    }
}

/// Has `each` take what stands between commas from the beginning of `text`, up to the bracket that `closes`; what follows that.
fn all<'t>(text: &'t str, closes: u8, mut each: impl FnMut(&'t str) -> Option<&'t str>) -> Option<&'t str> {
    let mut text = text.trim_start_matches(' ');
    if text.as_bytes().first() == Some(&closes) {
        return Some(&text[1..]);
    }
    loop {
        text = each(text)?.trim_start_matches(' ');
        match *text.as_bytes().first()? {
            byte if byte == closes => return Some(&text[1..]),
            b',' => text = text[1..].trim_start_matches(' '),
            _ => return None,
        }
    }
}

/// What `text` without quotes means.
fn scalar(text: &str) -> Option<Value> {
    let bytes = text.as_bytes();
    match bytes.first()? {
        b'0'..=b'9' => number(text),
        b'/' | b'_' => Some(Value::Text(text.to_owned())),
        byte if !byte.is_ascii_alphabetic() => None,
        _ if text == "true" => Some(Value::Bool(true)),
        _ if text == "false" => Some(Value::Bool(false)),
        _ if means_more(text) => None,
        _ => Some(Value::Text(text.to_owned())),
    }
}

/// What `text` means, which begins with a digit.
fn number(text: &str) -> Option<Value> {
    let bytes = text.as_bytes();
    if bytes.iter().all(u8::is_ascii_digit) {
        let is_short = bytes.len() <= 18 && (bytes[0] != b'0' || bytes.len() == 1);
        return is_short.then(|| text.parse().ok()).flatten().map(Value::Unsigned);
    }
    // All that numbers of any kind are written with.
    let is_of_number = |byte: &u8| byte.is_ascii_hexdigit() || b".+-_xXoO".contains(byte);
    let dots = bytes.iter().filter(|byte| **byte == b'.').count();
    let is_text = dots > 1 || !bytes.iter().all(is_of_number);
    is_text.then(|| Value::Text(text.to_owned()))
}

#[cfg(test)]
mod tests;
