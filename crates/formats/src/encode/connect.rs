//! Connect schemas: what `schemas.enable` wraps around key and value. Members sorted by name, `fields` in column order.

use model::{Column, SinkSpec, SqlType};

use super::modes::{Modes, TimestamptzMode};
use crate::json::write_text;

/// What stands before and after the payload.
pub(super) fn wrapping(spec: &SinkSpec, columns: &[usize], modes: &Modes) -> (Vec<u8>, Vec<u8>) {
    // A sink of a query is named after itself, else after what it reads.
    let relation = if spec.query.is_some() { &spec.name } else { &spec.source_name };
    let mut after = b",\"schema\":{\"fields\":[".to_vec();
    for (i, index) in columns.iter().enumerate() {
        if i > 0 {
            after.push(b',');
        }
        let Column { name, kind } = &spec.columns[*index];
        write_schema(Some(name), kind, modes, &mut after);
    }
    after.extend_from_slice(b"],\"name\":");
    write_text(&format!("dev.{relation}"), &mut after);
    after.extend_from_slice(b",\"optional\":false,\"type\":\"struct\"}}");
    (b"{\"payload\":".to_vec(), after)
}

fn write_schema(name: Option<&str>, kind: &SqlType, modes: &Modes, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(name) = name {
        out.extend_from_slice(b"\"field\":");
        write_text(name, out);
        out.push(b',');
    }
    match kind {
        SqlType::Struct(fields) => {
            out.extend_from_slice(b"\"fields\":[");
            for (i, field) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_schema(Some(&field.name), &field.kind, modes, out);
            }
            out.extend_from_slice(b"],");
        }
        SqlType::List(item) => {
            out.extend_from_slice(b"\"items\":");
            write_schema(None, item, modes, out);
            out.push(b',');
        }
        _ => {}
    }
    out.extend_from_slice(b"\"optional\":true,\"type\":\"");
    out.extend_from_slice(type_name(kind, modes).as_bytes());
    out.extend_from_slice(b"\"}");
}

fn type_name(kind: &SqlType, modes: &Modes) -> &'static str {
    match kind {
        SqlType::Boolean => "boolean",
        SqlType::Smallint => "int16",
        SqlType::Integer | SqlType::Date => "int32",
        SqlType::Bigint | SqlType::Time | SqlType::Timestamp => "int64",
        SqlType::Timestamptz => match modes.timestamptz {
            TimestamptzMode::UtcString | TimestamptzMode::UtcWithoutSuffix => "string",
            TimestamptzMode::Milli | TimestamptzMode::Micro => "int64",
        },
        SqlType::Real => "float",
        SqlType::Double => "double",
        SqlType::Bytea => "bytes",
        SqlType::Struct(_) => "struct",
        SqlType::List(_) => "array",
        SqlType::Map(..) => "map",
        SqlType::Numeric | SqlType::Varchar | SqlType::Interval | SqlType::Jsonb => "string",
    }
}
