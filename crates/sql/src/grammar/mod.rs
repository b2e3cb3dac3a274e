//! The grammar that the dialects share: names, option lists, column lists, types.

mod types;

use std::fmt;

use crate::{
    Error, ObjectName, OptionEntry, Result,
    ast::{ColumnDef, Schema},
    lexer::{Cursor, Token, folded},
};

pub use types::data_type;
pub(crate) use types::parse_type;

/// `[schema.]name`
pub(crate) fn object_name(cursor: &mut Cursor) -> Result<ObjectName> {
    let place = cursor.place();
    let first = cursor.ident()?;
    if !cursor.eat_token(&Token::Period) {
        return Ok(ObjectName { schema: None, name: first, place });
    }
    Ok(ObjectName { schema: Some(first), name: cursor.ident()?, place })
}

/// `( name = value, … [,] )`, the opening parenthesis included.
pub(crate) fn option_list(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    cursor.expect_token(&Token::LParen)?;
    let mut options = Vec::new();
    loop {
        if cursor.eat_token(&Token::RParen) {
            return Ok(options);
        }
        let place = cursor.place();
        let name = option_name(cursor)?;
        cursor.expect_token(&Token::Eq)?;
        let value = option_value(cursor)?;
        options.push(OptionEntry { name, value, place });
        if !cursor.eat_token(&Token::Comma) {
            cursor.expect_token(&Token::RParen)?;
            return Ok(options);
        }
    }
}

/// Dotted words, case kept. Reserved words may be among them.
fn option_name(cursor: &mut Cursor) -> Result<String> {
    let mut name = option_word(cursor)?;
    while cursor.eat_token(&Token::Period) {
        name.push('.');
        name.push_str(&option_word(cursor)?);
    }
    Ok(name)
}

fn option_word(cursor: &mut Cursor) -> Result<String> {
    match cursor.peek() {
        Token::Word(word) => {
            let name = word.value.clone();
            cursor.take();
            Ok(name)
        }
        _ => Err(cursor.expected("option name")),
    }
}

pub(crate) fn option_value(cursor: &mut Cursor) -> Result<String> {
    const WANTED: &str = "option value: a string, a number, true or false";
    match cursor.peek().clone() {
        Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) => cursor.string(),
        Token::Minus => {
            cursor.take();
            match cursor.peek().clone() {
                Token::Number(digits, _) => {
                    cursor.take();
                    Ok(format!("-{digits}"))
                }
                _ => Err(cursor.expected("number")),
            }
        }
        Token::Number(digits, _) => {
            cursor.take();
            Ok(digits)
        }
        Token::Word(word) if matches!(folded(&word).as_str(), "true" | "false") => {
            cursor.take();
            Ok(folded(&word))
        }
        Token::Word(word) if folded(&word) == "secret" => {
            Err(Error::unsupported("SECRET values in option lists").at(cursor.place()))
        }
        _ => Err(cursor.expected(WANTED)),
    }
}

/// `( column type …, PRIMARY KEY ( … ), * [,] )`, the opening parenthesis included.
pub(crate) fn schema(cursor: &mut Cursor) -> Result<Schema> {
    cursor.expect_token(&Token::LParen)?;
    let mut schema = Schema::default();
    loop {
        if cursor.eat_token(&Token::RParen) {
            return Ok(schema);
        }
        if cursor.eat_token(&Token::Mul) {
            schema.wildcard = true;
        } else if cursor.at_keywords(&["primary", "key"]) && cursor.peek_nth(2) == &Token::LParen {
            cursor.eat_all(&["primary", "key"]);
            schema.primary_keys.push(ident_list(cursor)?);
        } else {
            schema.columns.push(column_def(cursor)?);
        }
        if !cursor.eat_token(&Token::Comma) {
            cursor.expect_token(&Token::RParen)?;
            return Ok(schema);
        }
    }
}

fn ident_list(cursor: &mut Cursor) -> Result<Vec<String>> {
    cursor.expect_token(&Token::LParen)?;
    let mut names = vec![cursor.ident()?];
    while cursor.eat_token(&Token::Comma) {
        names.push(cursor.ident()?);
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(names)
}

fn column_def(cursor: &mut Cursor) -> Result<ColumnDef> {
    let place = cursor.place();
    let name = cursor.ident()?;
    let kind = parse_type(cursor)?;
    let mut column = ColumnDef { name, kind, primary_key: false, not_null: false, place };
    loop {
        if cursor.eat_all(&["primary", "key"]) {
            column.primary_key = true;
        } else if cursor.eat_all(&["not", "null"]) {
            column.not_null = true;
        } else if !cursor.eat("null") {
            return Ok(column);
        }
    }
}

/// `[schema.]name`, as users read it.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", crate::print::ident(schema))?;
        }
        f.write_str(&crate::print::ident(&self.name))
    }
}
