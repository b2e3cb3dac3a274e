//! `CREATE SINK` (docs/sql.md, CREATE SINK).

use sqlparser::ast::{Query, SetExpr, TableFactor};

use crate::{
    CreateSink, Error, Place, Result, SinkInput,
    grammar::{object_name, option_list},
    lexer::{Cursor, Token},
    risingwave::{format, if_not_exists, printed, relation_name},
};

/// Behind `CREATE [OR REPLACE] SINK`.
pub(super) fn create_sink(cursor: &mut Cursor, or_replace: bool) -> Result<CreateSink> {
    let if_not_exists = if_not_exists(cursor, or_replace)?;
    let name = object_name(cursor)?;
    let input = if cursor.eat("from") {
        SinkInput::From(object_name(cursor)?)
    } else if cursor.eat("as") {
        query_input(cursor)?
    } else {
        return Err(cursor.expected_keyword("FROM or AS after CREATE SINK sink_name", &["FROM", "AS"]));
    };
    cursor.expect("with")?;
    let options = option_list(cursor)?;
    let format = if cursor.at_keyword("format") { Some(format::sink_format(cursor)?) } else { None };
    Ok(CreateSink { or_replace, if_not_exists, name, input, options, format })
}

/// `SELECT …`, up to the `WITH (` of the sink's options.
fn query_input(cursor: &mut Cursor) -> Result<SinkInput> {
    let place = cursor.place();
    let query = cursor.query(|token, next| {
        matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("with"))
            && next == &Token::LParen
    })?;
    let query = bare(query);
    let from = from_of(&query, place)?;
    Ok(SinkInput::Query { text: printed(query), from, place })
}

/// `(SELECT …)` is the same as `SELECT …`.
fn bare(mut query: Query) -> Query {
    loop {
        match *query.body {
            SetExpr::Query(inner) if says_no_more(&query) => query = *inner,
            _ => return query,
        }
    }
}

fn says_no_more(query: &Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty()
}

/// The one relation that the query reads. What else it may not say is the projection's business.
fn from_of(query: &Query, place: Place) -> Result<crate::ObjectName> {
    let not_one = || Error::unsupported("a sink's query reads exactly one source").at(place);
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Err(Error::unsupported("UNION, VALUES and the like in a sink's query").at(place));
    };
    let [table] = select.from.as_slice() else { return Err(not_one()) };
    if !table.joins.is_empty() {
        return Err(Error::unsupported("joins in a sink's query").at(place));
    }
    match &table.relation {
        TableFactor::Table { name, .. } => relation_name(name, place).ok_or_else(not_one),
        _ => Err(Error::unsupported("subqueries in a sink's query").at(place)),
    }
}
