//! Columns and their types, as users declare them, and the Arrow type that carries each.
//!
//! | SQL | Arrow | note |
//! |---|---|---|
//! | boolean, smallint, integer, bigint, real, double | Boolean, Int16/32/64, Float32/64 | |
//! | numeric | Utf8 + field metadata | canonical decimal text: up to 28 digits, `NaN`, `Infinity`; keeps `1.50` |
//! | character varying | Utf8 | |
//! | bytea | BinaryView | a payload becomes a column without a copy |
//! | date | Date32 | days since 1970-01-01 |
//! | time | Time64(µs) | |
//! | timestamp / timestamptz | Timestamp(µs) / Timestamp(µs, "UTC") | |
//! | interval | IntervalMonthDayNano | |
//! | jsonb | Utf8 + field metadata | compact JSON text |
//! | struct, T[], map | Struct, List, Map | |

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::datatypes::{DataType, Field as ArrowField, Fields, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

/// Key of the Arrow field metadata that says which SQL type a text column carries (`numeric`, `jsonb`).
const SQL_TYPE: &str = "shardwright.type";

/// A data type of the SQL surface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SqlType {
    Boolean,
    Smallint,
    Integer,
    Bigint,
    Real,
    Double,
    /// Precision and scale are accepted and ignored.
    Numeric,
    Varchar,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Jsonb,
    Struct(Vec<Field>),
    List(Box<SqlType>),
    Map(Box<SqlType>, Box<SqlType>),
}

/// A member of a struct.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: SqlType,
}

/// A column of a relation. Every column is nullable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// Its name, case kept.
    pub name: String,
    /// Its type.
    pub kind: SqlType,
}

impl Column {
    /// The Arrow field that carries it.
    #[must_use]
    pub fn arrow(&self) -> ArrowField {
        arrow_field(&self.name, &self.kind)
    }
}

fn arrow_field(name: &str, kind: &SqlType) -> ArrowField {
    let field = ArrowField::new(name, kind.arrow(), true);
    match kind {
        SqlType::Numeric => tagged(field, "numeric"),
        SqlType::Jsonb => tagged(field, "jsonb"),
        _ => field,
    }
}

fn tagged(field: ArrowField, kind: &str) -> ArrowField {
    field.with_metadata(HashMap::from([(SQL_TYPE.to_owned(), kind.to_owned())]))
}

/// The Arrow type that carries decimals inside expressions (text outside of them).
#[must_use]
pub fn numeric_arrow() -> DataType {
    DataType::Decimal128(38, 10)
}

impl SqlType {
    /// The Arrow type that carries it.
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Smallint => DataType::Int16,
            Self::Integer => DataType::Int32,
            Self::Bigint => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Numeric | Self::Varchar | Self::Jsonb => DataType::Utf8,
            Self::Bytea => DataType::BinaryView,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Struct(fields) => {
                DataType::Struct(fields.iter().map(|f| arrow_field(&f.name, &f.kind)).collect::<Fields>())
            }
            Self::List(item) => DataType::List(Arc::new(arrow_field("item", item))),
            Self::Map(key, value) => {
                let entries = Fields::from(vec![
                    ArrowField::new("key", key.arrow(), false),
                    arrow_field("value", value),
                ]);
                DataType::Map(Arc::new(ArrowField::new("entries", DataType::Struct(entries), false)), false)
            }
        }
    }

    /// The SQL type that an Arrow field carries (the inverse of [`Column::arrow`], and more generous: what expressions
    /// produce is mapped to its nearest type). `None` if users have no such type.
    #[must_use]
    pub fn of_arrow(field: &ArrowField) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::Smallint,
            DataType::Int32 | DataType::UInt16 => Self::Integer,
            DataType::Int64 | DataType::UInt32 => Self::Bigint,
            DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => Self::Numeric,
            DataType::Float16 | DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                match field.metadata().get(SQL_TYPE).map(String::as_str) {
                    Some("numeric") => Self::Numeric,
                    Some("jsonb") => Self::Jsonb,
                    _ => Self::Varchar,
                }
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytea,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            DataType::Struct(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|f| Some(Field { name: f.name().clone(), kind: Self::of_arrow(f)? }))
                    .collect::<Option<_>>()?,
            ),
            DataType::List(item) | DataType::LargeList(item) => Self::List(Box::new(Self::of_arrow(item)?)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(kv) if kv.len() == 2 => {
                    Self::Map(Box::new(Self::of_arrow(&kv[0])?), Box::new(Self::of_arrow(&kv[1])?))
                }
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// The canonical name, as `DESCRIBE` prints it.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Boolean => "boolean",
            Self::Smallint => "smallint",
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Real => "real",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Varchar => "character varying",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Timestamptz => "timestamp with time zone",
            Self::Interval => "interval",
            Self::Jsonb => "jsonb",
            Self::List(item) => return write!(f, "{item}[]"),
            Self::Map(key, value) => return write!(f, "map({key},{value})"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{} {}", field.name, field.kind)?;
                }
                return f.write_str(">");
            }
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_arrow() {
        let all = [
            SqlType::Boolean,
            SqlType::Smallint,
            SqlType::Integer,
            SqlType::Bigint,
            SqlType::Real,
            SqlType::Double,
            SqlType::Numeric,
            SqlType::Varchar,
            SqlType::Bytea,
            SqlType::Date,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::Timestamptz,
            SqlType::Interval,
            SqlType::Jsonb,
        ];
        let nested = SqlType::Struct(vec![
            Field { name: "a".into(), kind: SqlType::List(Box::new(SqlType::Numeric)) },
            Field {
                name: "b".into(),
                kind: SqlType::Map(Box::new(SqlType::Varchar), Box::new(SqlType::Jsonb)),
            },
        ]);
        for kind in all.into_iter().chain([nested]) {
            let column = Column { name: "c".into(), kind };
            assert_eq!(SqlType::of_arrow(&column.arrow()).as_ref(), Some(&column.kind));
        }
    }
}
