//! Which settings a type has: asked of its `Deserialize`, so that the type is the only list there is.
//!
//! A probe poses as the data. A struct tells it its fields; for each field a new probe walks there and sees what is asked
//! for. Each walk ends with an error on purpose: nothing is built.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

/// What a setting's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Text, also one of some words.
    Text,
    /// A list; as a variable or a flag its parts are separated by commas.
    List,
    /// Something of its own.
    Other,
}

/// A setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Where it stands in the file: `["worker", "capacity"]`.
    pub path: Vec<&'static str>,
    /// What its value is.
    pub kind: Kind,
}

impl Setting {
    /// The dotted key: `worker.capacity`.
    #[must_use]
    pub fn key(&self) -> String {
        self.path.join(".")
    }

    /// The variable: `SHARDWRIGHT_WORKER_CAPACITY`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{}{}", super::ENV_PREFIX, self.path.join("_").to_ascii_uppercase())
    }
}

/// All settings of a type, in the order of its fields.
#[must_use]
pub fn settings<T: DeserializeOwned>() -> Vec<Setting> {
    let mut all = Vec::new();
    walk::<T>(&mut Vec::new(), &mut all);
    all
}

fn walk<T: DeserializeOwned>(path: &mut Vec<&'static str>, all: &mut Vec<Setting>) {
    let mut found = None;
    // Always an error; what matters is what it found on the way.
    T::deserialize(Probe { path, found: &mut found }).err();
    match found {
        Some(Found::Struct(fields)) => {
            for field in fields {
                path.push(field);
                walk::<T>(path, all);
                path.pop();
            }
        }
        Some(Found::Value(kind)) => all.push(Setting { path: path.clone(), kind }),
        None => {}
    }
}

enum Found {
    Struct(&'static [&'static str]),
    Value(Kind),
}

struct Probe<'a> {
    path: &'a [&'static str],
    found: &'a mut Option<Found>,
}

impl Probe<'_> {
    fn value<T>(self, kind: Kind) -> Result<T, Seen> {
        if self.path.is_empty() {
            *self.found = Some(Found::Value(kind));
        }
        Err(Seen)
    }
}

/// Ends a walk.
#[derive(Debug)]
struct Seen;

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seen")
    }
}

impl std::error::Error for Seen {}

impl serde::de::Error for Seen {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

macro_rules! values {
    ($($method:ident => $kind:expr),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Seen> { self.value($kind) })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Seen;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Seen> {
        match self.path.split_first() {
            None => {
                *self.found = Some(Found::Struct(fields));
                Err(Seen)
            }
            Some((first, rest)) => visitor
                .visit_map(OneField { name: Some(first), inner: Probe { path: rest, found: self.found } }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Seen> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Seen> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Seen> {
        self.value(Kind::Text)
    }

    values! {
        deserialize_bool => Kind::Boolean,
        deserialize_u8 => Kind::Integer,
        deserialize_u16 => Kind::Integer,
        deserialize_u32 => Kind::Integer,
        deserialize_u64 => Kind::Integer,
        deserialize_i8 => Kind::Integer,
        deserialize_i16 => Kind::Integer,
        deserialize_i32 => Kind::Integer,
        deserialize_i64 => Kind::Integer,
        deserialize_f32 => Kind::Number,
        deserialize_f64 => Kind::Number,
        deserialize_str => Kind::Text,
        deserialize_string => Kind::Text,
        deserialize_char => Kind::Text,
        deserialize_seq => Kind::List,
        deserialize_any => Kind::Other,
    }

    forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

/// A table with one field.
struct OneField<'a> {
    name: Option<&'static str>,
    inner: Probe<'a>,
}

impl<'de> MapAccess<'de> for OneField<'_> {
    type Error = Seen;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Seen> {
        let Some(name) = self.name.take() else { return Ok(None) };
        let name: StrDeserializer<'_, Seen> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Seen> {
        seed.deserialize(Probe { path: self.inner.path, found: self.inner.found })
    }
}
