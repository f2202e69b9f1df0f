//! What a mapping, a list or a word of a document gives to serde, one part after the other.

use std::borrow::Cow;

use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor, value::StrDeserializer,
};

use super::{
    super::node::{Entry, Node, Pointer},
    NodeDeserializer,
    error::FieldError,
};

pub(super) struct Entries<'de, 'p> {
    pub(super) at: NodeDeserializer<'de, 'p>,
    pub(super) list: std::vec::IntoIter<(Cow<'de, str>, &'de Entry)>,
    pub(super) value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        let Some((key, entry)) = self.list.next() else { return Ok(None) };
        self.value = Some(entry);
        let key: StrDeserializer<'_, FieldError> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FieldError> {
        let entry = self.value.take().expect("serde asks for a value after its key");
        let pointer = Pointer::Key(&self.at.pointer, &entry.key);
        let below =
            NodeDeserializer { node: &entry.node, line: entry.line, pointer, unknown: self.at.unknown };
        seed.deserialize(below).map_err(|error| below.located(error))
    }
}

pub(super) struct Items<'de, 'p> {
    pub(super) at: NodeDeserializer<'de, 'p>,
    pub(super) items: &'de [Node],
    pub(super) next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let pointer = Pointer::Index(&self.at.pointer, self.next);
        self.next += 1;
        let below = NodeDeserializer { node, line: node.line, pointer, unknown: self.at.unknown };
        seed.deserialize(below).map(Some).map_err(|error| below.located(error))
    }
}

pub(super) struct Word<'a>(pub(super) &'a str);

impl<'a> EnumAccess<'a> for Word<'a> {
    type Error = FieldError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), FieldError> {
        let word: StrDeserializer<'_, FieldError> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'a> VariantAccess<'a> for Word<'a> {
    type Error = FieldError;

    fn unit_variant(self) -> Result<(), FieldError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, _seed: T) -> Result<T::Value, FieldError> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"a word with a value"))
    }

    fn tuple_variant<V: Visitor<'a>>(self, _len: usize, _visitor: V) -> Result<V::Value, FieldError> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"a word with values"))
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, FieldError> {
        Err(de::Error::invalid_type(Unexpected::UnitVariant, &"a word with fields"))
    }
}
