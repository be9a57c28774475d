//! Rows as typed structs on one side and as plain columns on the other.
//!
//! [`rows!`](crate::rows) writes both from one list of fields, so that a projection's Rust type and
//! its table cannot drift apart. Two kinds of column are enough everywhere: 64-bit integers (also
//! for times, in microseconds) and text; they sort and compare alike in all three databases.

use serde::Serialize;

use crate::clock::Timestamp;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A 64-bit integer.
    Int,
    /// Text, compared byte by byte.
    Text,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name in every database.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether it may be null.
    pub nullable: bool,
}

/// One table of a projection, without the slot in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name, which is also the name of the stable view.
    pub name: &'static str,
    /// All columns; the first [`Table::key_len`] are the primary key, and the very first is text.
    pub columns: &'static [Column],
    /// How many columns the primary key has.
    pub key_len: usize,
}

impl Table {
    /// The key of a row.
    #[must_use]
    pub fn key_of(&self, row: &[Value]) -> Key {
        row.iter().take(self.key_len).cloned().collect()
    }
}

/// One cell; in JSON it is null, a number or text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// SQL null.
    Null,
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
}

impl Value {
    /// Text, with U+0000 shown as U+FFFD: PostgreSQL cannot hold it, and one provider's odd answer
    /// must not stop a projection.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Text(if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text })
    }
}

/// The primary key of a row.
pub type Key = Vec<Value>;

/// A typed row of one table.
pub trait Row: Sized {
    /// Its table.
    const TABLE: &'static Table;

    /// The row's cells in column order.
    fn into_values(self) -> Vec<Value>;

    /// The row from its cells; a cell of the wrong kind reads as nothing, zero or empty.
    fn from_values(values: Vec<Value>) -> Self;
}

/// A Rust type that is one column.
pub trait Field: Sized {
    /// What its column holds.
    const KIND: ColumnKind;
    /// Whether its column may be null.
    const NULLABLE: bool = false;

    /// As a cell.
    fn into_value(self) -> Value;

    /// From a cell.
    fn from_value(value: Value) -> Self;
}

impl Field for i64 {
    const KIND: ColumnKind = ColumnKind::Int;

    fn into_value(self) -> Value {
        Value::Int(self)
    }

    fn from_value(value: Value) -> Self {
        if let Value::Int(number) = value { number } else { 0 }
    }
}

impl Field for bool {
    const KIND: ColumnKind = ColumnKind::Int;

    fn into_value(self) -> Value {
        Value::Int(i64::from(self))
    }

    fn from_value(value: Value) -> Self {
        value == Value::Int(1)
    }
}

impl Field for Timestamp {
    const KIND: ColumnKind = ColumnKind::Int;

    fn into_value(self) -> Value {
        Value::Int(self.as_micros())
    }

    fn from_value(value: Value) -> Self {
        Self::from_micros(i64::from_value(value))
    }
}

impl Field for String {
    const KIND: ColumnKind = ColumnKind::Text;

    fn into_value(self) -> Value {
        Value::text(self)
    }

    fn from_value(value: Value) -> Self {
        if let Value::Text(text) = value { text } else { Self::new() }
    }
}

impl<T: Field> Field for Option<T> {
    const KIND: ColumnKind = T::KIND;
    const NULLABLE: bool = true;

    fn into_value(self) -> Value {
        self.map_or(Value::Null, T::into_value)
    }

    fn from_value(value: Value) -> Self {
        if value == Value::Null { None } else { Some(T::from_value(value)) }
    }
}

/// Defines row structs: `rows! { /// … struct InboxItem in "inbox_items", key 1 { /// … pub id: String, … } }`.
///
/// Each becomes a struct with these fields and its [`Row`] implementation; `key n` says that the first
/// n fields are the primary key.
#[macro_export]
macro_rules! rows {
    ($(
        $(#[$doc:meta])*
        struct $row:ident in $table:literal, key $key:literal {
            $( $(#[$field_doc:meta])* $field:ident: $kind:ty, )*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $row {
            $( $(#[$field_doc])* pub $field: $kind, )*
        }

        impl $crate::projection::row::Row for $row {
            const TABLE: &'static $crate::projection::row::Table = &$crate::projection::row::Table {
                name: $table,
                columns: &[ $( $crate::projection::row::Column {
                    name: stringify!($field),
                    kind: <$kind as $crate::projection::row::Field>::KIND,
                    nullable: <$kind as $crate::projection::row::Field>::NULLABLE,
                }, )* ],
                key_len: $key,
            };

            fn into_values(self) -> Vec<$crate::projection::row::Value> {
                vec![ $( $crate::projection::row::Field::into_value(self.$field), )* ]
            }

            fn from_values(values: Vec<$crate::projection::row::Value>) -> Self {
                let mut values = values.into_iter();
                let mut next = || values.next().unwrap_or($crate::projection::row::Value::Null);
                Self { $( $field: $crate::projection::row::Field::from_value(next()), )* }
            }
        }
    )*};
}

/// Defines columns that hold one of a few words: `words! { /// … enum Colour { /// … Red = "red", } }`.
///
/// Each becomes an enum with its [`Field`] implementation; text that is none of the words reads as
/// the first of them.
#[macro_export]
macro_rules! words {
    ($(
        $(#[$doc:meta])*
        enum $name:ident { $( $(#[$word_doc:meta])* $variant:ident = $word:literal, )* }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$word_doc])* $variant, )* }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The word as stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }

            /// The one that `word` stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::projection::row::Field for $name {
            const KIND: $crate::projection::row::ColumnKind = $crate::projection::row::ColumnKind::Text;

            fn into_value(self) -> $crate::projection::row::Value {
                $crate::projection::row::Value::Text(self.as_str().to_owned())
            }

            fn from_value(value: $crate::projection::row::Value) -> Self {
                let word = <String as $crate::projection::row::Field>::from_value(value);
                Self::from_word(&word).unwrap_or(Self::ALL[0])
            }
        }
    )*};
}
