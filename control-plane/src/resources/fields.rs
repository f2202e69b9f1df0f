//! Which fields are acted on, as the decoder itself knows them: so that nobody forgets to prove what a new one does.

use std::cell::RefCell;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

use super::typed::FieldError;

/// One field that a kind's decoder knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownField {
    /// Such as `spec.http[].match[].headers.*.exact`.
    pub path: String,
    /// What it may say, if that is one of a few words.
    pub words: Vec<&'static str>,
    /// Whether only its being there is looked at: it is reported, or nothing to a mesh.
    pub unread: bool,
}

/// Every field of the YAML that `T` is read from.
pub(super) fn of<T: for<'de> Deserialize<'de>>() -> Vec<KnownField> {
    let found = RefCell::new(Vec::new());
    // What is made of it does not matter, nor whether it could be: the decoder has asked for all its fields by then.
    let _ = T::deserialize(FieldCollector { path: String::new(), found: &found });
    let mut found = found.into_inner();
    found.sort();
    found.dedup();
    found
}

/// Whatever is asked for is here, and is noted.
struct FieldCollector<'a> {
    path: String,
    found: &'a RefCell<Vec<KnownField>>,
}

impl FieldCollector<'_> {
    fn below(&self, part: &str) -> Self {
        Self { path: format!("{}{part}", self.path), found: self.found }
    }

    fn note(&self, words: &'static [&'static str], unread: bool) {
        let path = self.path.trim_start_matches('.').to_owned();
        self.found.borrow_mut().push(KnownField { path, words: words.to_vec(), unread });
    }
}

macro_rules! leaves {
    ($($method:ident $visit:ident $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
            self.note(&[], false);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for FieldCollector<'_> {
    type Error = FieldError;

    // Durations, and ports by name or number, take a text whatever they are.
    leaves! {
        deserialize_any visit_str "1s";
        deserialize_str visit_str "1";
        deserialize_string visit_str "1";
        deserialize_bool visit_bool true;
        deserialize_u8 visit_u8 1;
        deserialize_u16 visit_u16 1;
        deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1;
        deserialize_i32 visit_i32 1;
        deserialize_i64 visit_i64 1;
        deserialize_f64 visit_f64 1.0;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_map(Entries { at: self, keys: fields, next: 0, dot: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(Entries { at: self, keys: &["*"], next: 0, dot: true })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_seq(Entries { at: self, keys: &["[]"], next: 0, dot: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.note(variants, false);
        let first: StrDeserializer<'_, FieldError> = variants[0].into_deserializer();
        visitor.visit_enum(first)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.note(&[], true);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char bytes byte_buf unit tuple tuple_struct identifier ignored_any
    }
}

/// The entries of a struct, of a map or of a list, one for each key.
struct Entries<'a> {
    at: FieldCollector<'a>,
    keys: &'static [&'static str],
    next: usize,
    dot: bool,
}

impl<'a> Entries<'a> {
    fn value(&self) -> FieldCollector<'a> {
        let key = self.keys[self.next - 1];
        self.at.below(&if self.dot { format!(".{key}") } else { key.to_owned() })
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        let Some(key) = self.keys.get(self.next) else { return Ok(None) };
        self.next += 1;
        let key: StrDeserializer<'_, FieldError> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FieldError> {
        seed.deserialize(self.value())
    }
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        if self.next == self.keys.len() {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(self.value()).map(Some)
    }
}
