//! The few shapes our schemas are made of, in utoipa's types.

use serde_json::Value;
use utoipa::openapi::{
    Array, Object, ObjectBuilder, RefOr, Schema, Type,
    schema::{AdditionalProperties, AnyOfBuilder, SchemaType},
};

type Of = RefOr<Schema>;

pub(in crate::admin) fn of(kind: Type) -> Of {
    ObjectBuilder::new().schema_type(kind).into()
}

/// Anything.
pub(super) fn any() -> Of {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .into()
}

pub(in crate::admin) fn text() -> Of {
    of(Type::String)
}

pub(super) fn texts() -> Of {
    list(text())
}

/// A text that says something.
pub(super) fn name() -> Of {
    let object = ObjectBuilder::new().schema_type(Type::String);
    object.min_length(Some(1)).into()
}

/// A text of so many characters at most.
pub(super) fn short(most: usize) -> Of {
    let object = ObjectBuilder::new().schema_type(Type::String);
    object.max_length(Some(most)).into()
}

/// A text of this pattern.
pub(super) fn matching(pattern: &str) -> Of {
    let object = ObjectBuilder::new().schema_type(Type::String);
    object.pattern(Some(pattern)).into()
}

/// A whole number as text.
pub(in crate::admin) fn digits() -> Of {
    matching("^[0-9]+$")
}

pub(super) fn boolean() -> Of {
    of(Type::Boolean)
}

/// A whole number, 0 or more.
pub(super) fn count() -> Of {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0_u64))
        .into()
}

/// A whole number within bounds, both included.
pub(in crate::admin) fn integer(least: u64, most: u64) -> Of {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(most))
        .into()
}

fn either_kind(pattern: Option<&str>) -> Of {
    ObjectBuilder::new()
        .schema_type(
            [Type::String, Type::Integer]
                .into_iter()
                .collect::<SchemaType>(),
        )
        .minimum(Some(0_u64))
        .pattern(pattern)
        .into()
}

/// A text of this pattern, or a whole number.
pub(super) fn pattern(pattern: &str) -> Of {
    either_kind(Some(pattern))
}

/// A text, or a whole number.
pub(super) fn text_or_count() -> Of {
    either_kind(None)
}

/// One of these.
pub(in crate::admin) fn words<W: Into<Value>>(words: impl IntoIterator<Item = W>) -> Of {
    let object = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    object.enum_values(Some(words)).into()
}

/// This and nothing else.
pub(super) fn constant(value: bool) -> Of {
    words([value])
}

pub(super) fn or_null(kind: Type) -> Of {
    let kinds: SchemaType = [kind, Type::Null].into_iter().collect();
    ObjectBuilder::new().schema_type(kinds).into()
}

pub(super) fn list(of: Of) -> Of {
    Schema::Array(Array::new(of)).into()
}

/// So many at most.
pub(super) fn at_most(most: usize, of: Of) -> Of {
    let mut list = Array::new(of);
    list.max_items = Some(most);
    Schema::Array(list).into()
}

/// An object of any members.
pub(super) fn free() -> Of {
    of(Type::Object)
}

/// An object whose members, whatever their names, are of one kind.
pub(super) fn map(of: Of) -> Of {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(of))
        .into()
}

pub(super) fn any_of(of: impl IntoIterator<Item = Of>) -> Of {
    of.into_iter()
        .fold(AnyOfBuilder::new(), AnyOfBuilder::item)
        .into()
}

/// An object that has at least these members; more may come.
pub(super) fn object(members: impl IntoIterator<Item = (&'static str, Of)>) -> Of {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    members
        .into_iter()
        .fold(object, |object, (key, of)| {
            object.property(key, of).required(key)
        })
        .into()
}

/// An object that has some of these members; more may come.
pub(super) fn partial(members: impl IntoIterator<Item = (&'static str, Of)>) -> Of {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    members
        .into_iter()
        .fold(object, |object, (key, of)| object.property(key, of))
        .into()
}

/// An object of these members and no others, none of which must be there.
pub(super) fn strict(members: impl IntoIterator<Item = (&'static str, Of)>) -> Of {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    members
        .into_iter()
        .fold(object, |object, (key, of)| object.property(key, of))
        .into()
}

fn changed(mut of: Of, change: impl FnOnce(&mut Object)) -> Of {
    if let RefOr::T(Schema::Object(object)) = &mut of {
        change(object);
    }
    of
}

/// The same with one more member that may be absent.
pub(super) fn with(of: Of, key: &str, member: Of) -> Of {
    changed(of, |object| {
        object.properties.insert(key.to_owned(), member);
    })
}

/// The same with a member that must be there.
pub(super) fn required(of: Of, key: &str) -> Of {
    changed(of, |object| object.required.push(key.to_owned()))
}
