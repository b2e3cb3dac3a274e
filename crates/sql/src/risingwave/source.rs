//! `CREATE SOURCE` (docs/sql.md, CREATE SOURCE).

use crate::{
    CreateSource, IncludeItem, Result,
    grammar::{object_name, option_list, parse_type, schema},
    lexer::{Cursor, Token},
    risingwave::{format, if_not_exists},
};

/// Behind `CREATE [OR REPLACE] SOURCE`.
pub(super) fn create_source(cursor: &mut Cursor, or_replace: bool) -> Result<CreateSource> {
    let if_not_exists = if_not_exists(cursor, or_replace)?;
    let name = object_name(cursor)?;
    let schema = if cursor.peek() == &Token::LParen { Some(schema(cursor)?) } else { None };
    let mut include = Vec::new();
    while cursor.eat("include") {
        include.push(include_item(cursor)?);
        cursor.eat_token(&Token::Comma);
    }
    let options = if cursor.eat("with") { Some(option_list(cursor)?) } else { None };
    let format = format::source_format(cursor)?;
    Ok(CreateSource { or_replace, if_not_exists, name, schema, include, options, format })
}

/// Behind `INCLUDE`. `SHARD` and `SEQUENCE NUMBER` are synonyms of `PARTITION` and `OFFSET`.
fn include_item(cursor: &mut Cursor) -> Result<IncludeItem> {
    let place = cursor.place();
    let kind = if cursor.eat_all(&["sequence", "number"]) {
        "offset".to_owned()
    } else {
        match cursor.ident()?.as_str() {
            "shard" => "partition".to_owned(),
            other => other.to_owned(),
        }
    };
    let mut item = IncludeItem { kind, inner: None, inner_kind: None, alias: None, place };
    if matches!(cursor.peek(), Token::SingleQuotedString(_)) {
        item.inner = Some(cursor.string()?);
        if matches!(cursor.peek(), Token::Word(_)) && !CLAUSES.iter().any(|word| cursor.at_keyword(word)) {
            item.inner_kind = Some(parse_type(cursor)?);
        }
    }
    if cursor.eat("as") {
        item.alias = Some(cursor.ident()?);
    }
    Ok(item)
}

/// What may follow an `INCLUDE` item.
const CLAUSES: &[&str] = &["as", "include", "with", "format", "row"];
