//! Data types (docs/sql.md, Data types).

use model::{Field, SqlType};

use crate::{
    Error, Result,
    lexer::{Cursor, Token},
};

/// How deep a type may nest; a bound for the recursion.
const DEPTH_MAX: usize = 32;

/// Parses a type by itself.
///
/// # Errors
/// A text that is not exactly one type.
pub fn data_type(text: &str) -> Result<SqlType> {
    let mut cursor = Cursor::new(text)?;
    let kind = parse_type(&mut cursor)?;
    if cursor.at_end() { Ok(kind) } else { Err(cursor.expected("end of type")) }
}

/// A type at the cursor.
pub(crate) fn parse_type(cursor: &mut Cursor) -> Result<SqlType> {
    let mut closed = 0;
    let kind = nested(cursor, 0, &mut closed)?;
    if closed == 0 { Ok(kind) } else { Err(cursor.expected("one > less before this")) }
}

/// `>>` closes two structs at once: what it closes beyond the innermost is counted in `closed`.
fn nested(cursor: &mut Cursor, depth: usize, closed: &mut usize) -> Result<SqlType> {
    if depth > DEPTH_MAX {
        return Err(cursor.expected("a type that nests less deeply"));
    }
    let mut kind = match cursor.peek() {
        Token::Word(word) if word.quote_style.is_none() => {
            let word = word.value.to_ascii_uppercase();
            match word.as_str() {
                "STRUCT" => structure(cursor, depth, closed)?,
                "MAP" => map(cursor, depth)?,
                _ => scalar(cursor, &word)?,
            }
        }
        _ => return Err(cursor.expected("data type")),
    };
    while *closed == 0 && cursor.eat_token(&Token::LBracket) {
        cursor.expect_token(&Token::RBracket)?;
        kind = SqlType::List(Box::new(kind));
    }
    Ok(kind)
}

fn scalar(cursor: &mut Cursor, word: &str) -> Result<SqlType> {
    let kind = match word {
        "BOOLEAN" | "BOOL" => SqlType::Boolean,
        "SMALLINT" | "INT2" => SqlType::Smallint,
        "INT" | "INTEGER" | "INT4" => SqlType::Integer,
        "BIGINT" | "INT8" => SqlType::Bigint,
        "REAL" | "FLOAT4" => SqlType::Real,
        "DOUBLE" | "FLOAT8" | "FLOAT" => SqlType::Double,
        "NUMERIC" | "DECIMAL" => SqlType::Numeric,
        "VARCHAR" | "CHARACTER" | "TEXT" | "STRING" => SqlType::Varchar,
        "BYTEA" => SqlType::Bytea,
        "DATE" => SqlType::Date,
        "TIME" => SqlType::Time,
        "TIMESTAMP" => SqlType::Timestamp,
        "TIMESTAMPTZ" => SqlType::Timestamptz,
        "INTERVAL" => SqlType::Interval,
        "JSONB" => SqlType::Jsonb,
        "SERIAL" => return Err(Error::unsupported("columns of type serial").at(cursor.place())),
        _ => return Err(cursor.expected_keyword("data type", TYPES)),
    };
    cursor.take();
    match word {
        "DOUBLE" => _ = cursor.eat("precision"),
        "CHARACTER" => cursor.expect("varying")?,
        "NUMERIC" | "DECIMAL" => precision(cursor)?,
        "TIME" => _ = cursor.eat_all(&["without", "time", "zone"]),
        "TIMESTAMP" if cursor.eat_all(&["with", "time", "zone"]) => return Ok(SqlType::Timestamptz),
        "TIMESTAMP" => _ = cursor.eat_all(&["without", "time", "zone"]),
        _ => {}
    }
    Ok(kind)
}

/// Names that a typing error is compared with.
const TYPES: &[&str] = &[
    "BOOLEAN",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "REAL",
    "DOUBLE",
    "FLOAT",
    "NUMERIC",
    "DECIMAL",
    "VARCHAR",
    "CHARACTER",
    "TEXT",
    "STRING",
    "BYTEA",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "INTERVAL",
    "JSONB",
    "STRUCT",
    "MAP",
];

/// `(10, 2)`: accepted and ignored.
fn precision(cursor: &mut Cursor) -> Result<()> {
    if !cursor.eat_token(&Token::LParen) {
        return Ok(());
    }
    number(cursor)?;
    if cursor.eat_token(&Token::Comma) {
        number(cursor)?;
    }
    cursor.expect_token(&Token::RParen)
}

fn number(cursor: &mut Cursor) -> Result<()> {
    match cursor.peek() {
        Token::Number(..) => {
            cursor.take();
            Ok(())
        }
        _ => Err(cursor.expected("number")),
    }
}

fn map(cursor: &mut Cursor, depth: usize) -> Result<SqlType> {
    cursor.take();
    cursor.expect_token(&Token::LParen)?;
    let mut closed = 0;
    let key = nested(cursor, depth + 1, &mut closed)?;
    cursor.expect_token(&Token::Comma)?;
    let value = nested(cursor, depth + 1, &mut closed)?;
    if closed > 0 {
        return Err(cursor.expected(")"));
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(SqlType::Map(Box::new(key), Box::new(value)))
}

fn structure(cursor: &mut Cursor, depth: usize, closed: &mut usize) -> Result<SqlType> {
    cursor.take();
    cursor.expect_token(&Token::Lt)?;
    let mut fields = Vec::new();
    let mut inner = 0;
    loop {
        let name = cursor.ident()?;
        let kind = nested(cursor, depth + 1, &mut inner)?;
        fields.push(Field { name, kind });
        if inner > 0 {
            *closed = inner - 1;
            return Ok(SqlType::Struct(fields));
        }
        if cursor.eat_token(&Token::Comma) {
            continue;
        }
        match closing(cursor.peek()) {
            0 => return Err(cursor.expected(">")),
            n => {
                cursor.take();
                *closed = n - 1;
                return Ok(SqlType::Struct(fields));
            }
        }
    }
}

/// How many `>` a token is.
fn closing(token: &Token) -> usize {
    match token {
        Token::Gt => 1,
        Token::ShiftRight => 2,
        Token::CustomBinaryOperator(op) if op.chars().all(|c| c == '>') => op.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_type_is_understood() {
        for (text, printed) in [
            ("bool", "boolean"),
            ("int2", "smallint"),
            ("INT", "integer"),
            ("int8", "bigint"),
            ("float4", "real"),
            ("double precision", "double precision"),
            ("double", "double precision"),
            ("numeric(10, 2)", "numeric"),
            ("character varying", "character varying"),
            ("string", "character varying"),
            ("time without time zone", "time without time zone"),
            ("timestamp", "timestamp without time zone"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("int[][]", "integer[][]"),
            ("map(varchar, int[])", "map(character varying,integer[])"),
            (
                "struct<a int, b struct<c varchar, d struct<e int>>>",
                "struct<a integer, b struct<c character varying, d struct<e integer>>>",
            ),
            ("struct<a struct<b int>[]>[]", "struct<a struct<b integer>[]>[]"),
            ("struct<a struct<b int>>[]", "struct<a struct<b integer>>[]"),
        ] {
            assert_eq!(data_type(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_names_the_nearest() {
        let error = data_type("varchr").unwrap_err();
        assert!(error.message.starts_with("sql parser error: expected data type, found: varchr"), "{error}");
        assert_eq!(error.hint.as_deref(), Some("did you mean `VARCHAR`?"));
        for wrong in ["struct<a int", "struct<a int>>", "int[", "map(int)", "struct<>", "character"] {
            assert!(data_type(wrong).is_err(), "{wrong}");
        }
    }
}
