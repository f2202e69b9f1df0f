//! A node's way into typed structs.
//!
//! Its own serde deserializer, because three things must be known together that no generic format (nor
//! `serde_ignored` on top of one) offers: the line of every error, every field that a struct does not
//! name with its line, and Istio's snake_case spellings of camelCase fields.

mod access;
mod error;

use std::{borrow::Cow, cell::RefCell, collections::HashSet};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
    forward_to_deserialize_any,
};

use super::node::{Entry, Node, Pointer, Value};
use access::{Entries, Items, Word};
pub(crate) use error::FieldError;

/// Of so many fields, each is sooner compared with all others than looked up.
const FEW: usize = 16;
/// How many fields that nobody knows are noted of a document: of more nobody reads, and there may be a hundred thousand.
pub(crate) const MOST_UNKNOWN: usize = 100;

/// A field that a struct does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownField {
    /// Such as `spec.http[0].fault.delay`.
    pub(crate) field: String,
    pub(crate) line: u64,
}

/// Reads `node` into `T`, and collects every field that `T` does not name.
///
/// # Errors
/// The first field that is not what `T` asks for, with its line.
pub(crate) fn decode<T: de::DeserializeOwned>(node: &Node) -> Result<(T, Vec<UnknownField>), FieldError> {
    let unknown = RefCell::new(Vec::new());
    let at = NodeDeserializer { node, line: node.line, pointer: Pointer::Root, unknown: &unknown };
    let value = T::deserialize(at)?;
    Ok((value, unknown.into_inner()))
}

/// A field that is read over on purpose, or whose mere presence is all that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Present;

/// One node on its way into a typed value.
#[derive(Clone, Copy)]
struct NodeDeserializer<'de, 'p> {
    node: &'de Node,
    line: u64,
    pointer: Pointer<'p>,
    unknown: &'p RefCell<Vec<UnknownField>>,
}

impl<'de> NodeDeserializer<'de, '_> {
    /// Says where `error` happened, unless a node further in has said so.
    fn located(&self, mut error: FieldError) -> FieldError {
        if error.line.is_none() {
            error.line = Some(self.line);
            error.field = self.pointer.to_string();
        }
        error
    }

    fn expected(&self, what: &str) -> FieldError {
        self.located(de::Error::custom(format!("expected {what}, found {}", self.node.describe())))
    }

    /// Records this field, by its leaves, as one that nothing reads.
    fn record_unknown(&self) {
        match &self.node.value {
            Value::Null => {}
            Value::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    let pointer = Pointer::Key(&self.pointer, &entry.key);
                    let below = NodeDeserializer {
                        node: &entry.node,
                        line: entry.line,
                        pointer,
                        unknown: self.unknown,
                    };
                    below.record_unknown();
                }
            }
            _ => {
                let mut unknown = self.unknown.borrow_mut();
                if unknown.len() < MOST_UNKNOWN {
                    let field = self.pointer.to_string();
                    unknown.push(UnknownField { field, line: self.line });
                }
            }
        }
    }

    fn visit_map<V: Visitor<'de>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a map of fields"));
        };
        let mut list: Vec<(Cow<'de, str>, &'de Entry)> = Vec::with_capacity(entries.len());
        let mut seen = HashSet::new();
        for entry in entries {
            let mut key = Cow::Borrowed(entry.key.as_str());
            if let Some(fields) = fields {
                // Null means unset, as in Kubernetes and protobuf JSON.
                if entry.node.value == Value::Null {
                    continue;
                }
                if !fields.contains(&&*key) {
                    let camel = camel_case(&key);
                    if fields.contains(&camel.as_str()) {
                        key = Cow::Owned(camel);
                    }
                }
            }
            let is_met = match entries.len() {
                ..=FEW => list.iter().any(|(known, _)| *known == key),
                _ => !seen.insert(key.clone()),
            };
            if is_met {
                let mut error: FieldError =
                    de::Error::custom(format!("{key:?} is given twice; keep one of them"));
                error.line = Some(entry.line);
                error.field = self.pointer.to_string();
                return Err(error);
            }
            list.push((key, entry));
        }
        visitor
            .visit_map(Entries { at: self, list: list.into_iter(), value: None })
            .map_err(|error| self.located(error))
    }

    fn visit_list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let Value::List(items) = &self.node.value else {
            return Err(self.expected("a list"));
        };
        visitor.visit_seq(Items { at: self, items, next: 0 }).map_err(|error| self.located(error))
    }

    fn visit_text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text).map_err(|error| self.located(error)),
            Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => {
                let message = format!("expected a text, found {}; put it in quotes", self.node.describe());
                Err(self.located(de::Error::custom(message)))
            }
            _ => Err(self.expected("a text")),
        }
    }

    fn visit_number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.node.value {
            Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => self.deserialize_any(visitor),
            _ => Err(self.expected("a number")),
        }
    }
}

/// `max_connections` -> `maxConnections`.
pub(super) fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            self.visit_number(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de, '_> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => return self.visit_list(visitor),
            Value::Map(_) => return self.visit_map(None, visitor),
        }
        .map_err(|error| self.located(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.visit_map(Some(fields), visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_map(None, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_list(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let Value::Text(text) = &self.node.value else {
            return Err(self.expected("one word"));
        };
        visitor.visit_enum(Word(text)).map_err(|error| self.located(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match &self.node.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.visit_text(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self).map_err(|error| self.located(error))
    }

    /// Only [`Present`] is a unit struct: whatever stands here is passed over without being recorded.
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.record_unknown();
        visitor.visit_unit()
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit tuple_struct identifier
    }
}
