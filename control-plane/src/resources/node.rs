//! A parsed document as a tree whose every node knows its line.
//!
//! A tree, and not structs straight from the text, because a document is read twice (which kind is it,
//! then as that kind) and because lines are asked for long after the text is gone.

mod simple;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::typed::{FieldError, camel_case};
use crate::problem::Fault;

/// Limits for one document; far above any real one, far below what would hurt.
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 64;
const MAX_REPLAYED_EVENTS: usize = 100_000;

/// A value and the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) value: Value,
}

/// What YAML and JSON can say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field; `line` is its key's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u64,
    pub(crate) node: Node,
}

impl Node {
    /// Parses one YAML (or JSON) document; `None` if it is empty.
    ///
    /// # Errors
    /// If it is malformed, repeats a key, or exceeds the limits on size, depth and aliases.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, FieldError> {
        match simple::parse(text) {
            Some(node) => Ok(Some(node)),
            None => Self::parse_any(text),
        }
    }

    /// The same by all the rules of YAML.
    fn parse_any(text: &str) -> Result<Option<Self>, FieldError> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS },
        };
        serde_saphyr::from_str_with_options::<Option<Self>>(text, options).map_err(|error| {
            let words = error.to_string();
            // The position is relative to the document; the caller knows the file's lines.
            let words = words.split(" at line ").next().unwrap_or(&words);
            let words = words.split(", set DuplicateKeyPolicy").next().unwrap_or(words);
            FieldError {
                field: String::new(),
                line: error.location().map(|location| location.line()).filter(|line| *line > 0),
                message: format!("not valid YAML: {}", words.trim()),
                fault: Fault::Unusable,
            }
        })
    }

    /// The documents that it consists of: those of a list, opened, or it alone.
    pub(crate) fn documents(&self) -> Vec<&Self> {
        let mut documents = Vec::new();
        self.open(&mut documents);
        documents
    }

    fn open<'n>(&'n self, documents: &mut Vec<&'n Self>) {
        match self.field("items").map(|items| &items.node.value) {
            Some(Value::List(items)) if self.text("kind").is_some_and(is_list) => {
                items.iter().for_each(|item| item.open(documents));
            }
            _ => documents.push(self),
        }
    }

    /// What came from a program and not from a text: it has no lines.
    pub(crate) fn without_lines(value: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Value::Unsigned(number),
                (None, Some(number)) => Value::Signed(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text),
            Json::Array(items) => Value::List(items.into_iter().map(Self::without_lines).collect()),
            Json::Object(fields) => {
                let entry = |(key, value)| Entry { key, line: 0, node: Self::without_lines(value) };
                Value::Map(fields.into_iter().map(entry).collect())
            }
        };
        Self { line: 0, value }
    }

    /// About how much memory is taken by what is made of it, in bytes.
    pub(crate) fn size(&self) -> usize {
        let inner = match &self.value {
            Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            Value::Null | Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => 0,
        };
        size_of::<Self>() + inner
    }

    /// The same without lines.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Signed(value) => (*value).into(),
            Value::Unsigned(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()
            }
        }
    }

    /// The field `key`, if this is a map that has it and it is not null.
    pub(crate) fn field(&self, key: &str) -> Option<&Entry> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key && entry.node.value != Value::Null)
    }

    /// The text of the field `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.field(key)?.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this or anything below is a map with the field `key`, and that not null.
    pub(crate) fn has_field(&self, key: &str) -> bool {
        match &self.value {
            Value::Map(entries) => {
                self.field(key).is_some() || entries.iter().any(|entry| entry.node.has_field(key))
            }
            Value::List(items) => items.iter().any(|item| item.has_field(key)),
            _ => false,
        }
    }

    /// Takes out the field at `path`, as errors name it, or if it is not there the nearest that holds it; which one
    /// that was.
    pub(crate) fn take_out(&mut self, path: &str) -> Option<String> {
        let taken = self.take_out_below(path, true)?;
        Some(path[..taken].to_owned())
    }

    /// How much of `path` names what was taken out.
    fn take_out_below(&mut self, path: &str, root: bool) -> Option<usize> {
        let named = |shown: String| {
            let after = path.strip_prefix(&shown)?;
            (after.is_empty() || after.starts_with(['.', '['])).then_some(shown.len())
        };
        match &mut self.value {
            Value::Map(entries) => {
                let lengths = entries.iter().enumerate().filter_map(|(place, entry)| {
                    let as_camel = named(shown(&camel_case(&entry.key), root));
                    Some((named(shown(&entry.key, root)).or(as_camel)?, place))
                });
                let (length, place) = lengths.max()?;
                let below = entries[place].node.take_out_below(&path[length..], false);
                if below.is_none() {
                    entries.remove(place);
                }
                Some(length + below.unwrap_or(0))
            }
            Value::List(items) => {
                let lengths =
                    (0..items.len()).filter_map(|place| Some((named(format!("[{place}]"))?, place)));
                let (length, place) = lengths.max()?;
                let below = items[place].take_out_below(&path[length..], false);
                if below.is_none() {
                    items.remove(place);
                }
                Some(length + below.unwrap_or(0))
            }
            _ => None,
        }
    }

    /// Adds `by` to the line of this node and all below.
    pub(crate) fn shift_lines(&mut self, by: u64) {
        self.line += by;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift_lines(by)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.line += by;
                    entry.node.shift_lines(by);
                }
            }
            _ => {}
        }
    }

    /// What it is, for an error message.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Signed(value) => format!("the number {value}"),
            Value::Unsigned(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) => format!("the text {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// Whether `kind` is that of a list of documents.
pub(super) fn is_list(kind: &str) -> bool {
    kind.to_ascii_lowercase().ends_with("list")
}

/// How a path names the field `key`.
fn shown(key: &str, root: bool) -> String {
    match key {
        key if key.contains(['.', '[', '/']) => format!("[{key}]"),
        key if root => key.to_owned(),
        key => format!(".{key}"),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push(Entry { key: key.value, line, node: map.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}

/// Where in a document: a chain on the stack, written out only when something is reported.
#[derive(Clone, Copy)]
pub(super) enum Pointer<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

/// How much of a key is shown, in bytes: it has a part in the pointers of all that is inside.
const LONGEST_KEY: usize = 253;

fn shortened(key: &str) -> Cow<'_, str> {
    match key.len() > LONGEST_KEY {
        true => Cow::Owned(format!("{}…", &key[..key.floor_char_boundary(LONGEST_KEY)])),
        false => Cow::Borrowed(key),
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => match (shortened(key), parent) {
                (key, _) if key.contains(['.', '[', '/']) => write!(f, "{parent}[{key}]"),
                (key, Self::Root) => f.write_str(&key),
                (key, _) => write!(f, "{parent}.{key}"),
            },
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
