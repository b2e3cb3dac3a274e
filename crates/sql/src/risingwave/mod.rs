//! The RisingWave dialect: which statement begins here, and the statements that are short.

mod access;
mod format;
mod sink;
mod source;

use std::ops::ControlFlow;

use model::ObjectKind;
use sqlparser::ast::{
    Expr, ObjectNamePart, Query, UnaryOperator, Value, VisitMut, VisitorMut, visit_relations,
};

use crate::{
    Error, InspectTarget, ObjectName, Place, Result, SinkChange, Statement, credential,
    grammar::{object_name, option_list},
    lexer::{Cursor, Token},
};

/// The words of the statements, for completion.
pub const KEYWORDS: &[&str] = &[
    "ADMIN",
    "ALTER",
    "AS",
    "BYTES",
    "CASCADE",
    "CLUSTER",
    "CREATE",
    "CREDENTIAL",
    "CREDENTIALS",
    "DESCRIBE",
    "DROP",
    "ENCODE",
    "ERRORS",
    "EXISTS",
    "EXPLAIN",
    "FOR",
    "FORMAT",
    "FROM",
    "GRANT",
    "GRANT OPTION",
    "GRANTS",
    "IDENTITY",
    "IF",
    "INCLUDE",
    "JSON",
    "KEY",
    "LIKE",
    "LIMIT",
    "NOT",
    "OFFSET",
    "OPTIONS",
    "OR REPLACE",
    "ORDER BY",
    "PARTITION",
    "PASSWORD",
    "PAUSE",
    "PAYLOAD",
    "PLAIN",
    "PRIMARY KEY",
    "PRIVILEGES",
    "PROPERTY",
    "READ",
    "REBALANCE",
    "RESTRICT",
    "RESUME",
    "REVOKE",
    "ROLE",
    "ROLES",
    "SCALE",
    "SCHEMA",
    "SECRET",
    "SELECT",
    "SET",
    "SHOW",
    "SINK",
    "SINKS",
    "SOURCE",
    "SOURCES",
    "SPLITS",
    "SYSTEM_ADMIN",
    "SYSTEM_USER_ADMIN",
    "TEXT",
    "TIMESTAMP",
    "TO",
    "TYPE",
    "USER",
    "USERS",
    "WHERE",
    "WITH",
    "WORKERS",
];

/// What may begin a statement.
const STATEMENTS: &[&str] = &[
    "CREATE",
    "DROP",
    "ALTER",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "EXPLAIN",
    "GRANT",
    "REVOKE",
    "REBALANCE",
    "SELECT",
];

/// One statement, up to but without its `;`.
pub(crate) fn statement(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("create") {
        create(cursor)
    } else if cursor.eat("explain") {
        explain(cursor)
    } else if cursor.eat("rebalance") {
        Ok(Statement::Rebalance { explain: false })
    } else if cursor.eat("drop") {
        drop_object(cursor)
    } else if cursor.eat("alter") {
        alter(cursor)
    } else if cursor.eat("show") {
        show(cursor)
    } else if cursor.eat("describe") || cursor.eat("desc") {
        if at_credential(cursor) {
            cursor.take();
            return Ok(Statement::DescribeCredential { name: credential::one_or_all(cursor)? });
        }
        Ok(Statement::Describe { name: object_name(cursor)? })
    } else if cursor.at_keyword("select") {
        select(cursor)
    } else if cursor.eat("grant") {
        access::grant(cursor)
    } else if cursor.eat("revoke") {
        access::revoke(cursor)
    } else {
        Err(cursor.expected_keyword(
            "one of CREATE, DROP, ALTER, SHOW, DESCRIBE, EXPLAIN, GRANT, REVOKE, REBALANCE or SELECT at the beginning of a statement",
            STATEMENTS,
        ))
    }
}

fn explain(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("rebalance") {
        return Ok(Statement::Rebalance { explain: true });
    }
    if !cursor.eat("create") {
        return Err(
            cursor.expected_keyword("CREATE SINK or REBALANCE after EXPLAIN", &["CREATE SINK", "REBALANCE"])
        );
    }
    let or_replace = cursor.eat_all(&["or", "replace"]);
    cursor.expect("sink")?;
    Ok(Statement::Explain(Box::new(sink::create_sink(cursor, or_replace)?)))
}

fn create(cursor: &mut Cursor) -> Result<Statement> {
    let place = cursor.place();
    let or_replace = cursor.eat_all(&["or", "replace"]);
    if cursor.eat("credential") {
        return credential::create(cursor, or_replace);
    }
    if cursor.eat("source") {
        return Ok(Statement::CreateSource(Box::new(source::create_source(cursor, or_replace)?)));
    }
    if cursor.eat("sink") {
        return Ok(Statement::CreateSink(Box::new(sink::create_sink(cursor, or_replace)?)));
    }
    if or_replace {
        let what = "SOURCE, SINK or CREDENTIAL after CREATE OR REPLACE";
        return Err(cursor.expected_keyword(what, &["SOURCE", "SINK", "CREDENTIAL"]));
    }
    if let Some(kind) = access::kind(cursor) {
        return access::create(cursor, kind);
    }
    for later in ["table", "materialized", "data", "stream", "view"] {
        if cursor.at_keyword(later) {
            let what = format!("CREATE {}", later.to_ascii_uppercase());
            return Err(Error::unsupported(what)
                .at(place)
                .hint("this release has CREATE SOURCE and CREATE SINK"));
        }
    }
    Err(cursor.expected_keyword("SOURCE or SINK after CREATE", &["SOURCE", "SINK"]))
}

/// `IF NOT EXISTS`, which says the opposite of `OR REPLACE`.
fn if_not_exists(cursor: &mut Cursor, or_replace: bool) -> Result<bool> {
    let place = cursor.place();
    let found = cursor.eat_all(&["if", "not", "exists"]);
    if found && or_replace {
        return Err(cursor
            .wrong(place, "OR REPLACE and IF NOT EXISTS contradict each other")
            .hint("IF NOT EXISTS leaves what is there as it is, OR REPLACE changes it: say one of them"));
    }
    Ok(found)
}

fn kind(cursor: &mut Cursor, after: &str) -> Result<ObjectKind> {
    if cursor.eat("source") {
        Ok(ObjectKind::Source)
    } else if cursor.eat("sink") {
        Ok(ObjectKind::Sink)
    } else {
        Err(cursor.expected_keyword(&format!("SOURCE or SINK after {after}"), &["SOURCE", "SINK"]))
    }
}

/// Before `CREDENTIAL name | *`: a relation may have that name, too.
fn at_credential(cursor: &Cursor) -> bool {
    cursor.at_keyword("credential") && matches!(cursor.peek_nth(1), Token::Word(_) | Token::Mul)
}

fn drop_object(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("credential") {
        let if_exists = cursor.eat_all(&["if", "exists"]);
        return Ok(Statement::DropCredential { if_exists, name: credential::one_or_all(cursor)? });
    }
    if let Some(kind) = access::kind(cursor) {
        return access::drop_grantee(cursor, kind);
    }
    let kind = kind(cursor, "DROP")?;
    let if_exists = cursor.eat_all(&["if", "exists"]);
    let name = object_name(cursor)?;
    let cascade = cursor.eat("cascade");
    if !cascade {
        cursor.eat("restrict");
    }
    Ok(Statement::Drop { kind, if_exists, name, cascade })
}

fn alter(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("credential") {
        return credential::alter(cursor);
    }
    if cursor.eat("user") {
        return access::alter_user(cursor);
    }
    let kind = kind(cursor, "ALTER")?;
    let name = object_name(cursor)?;
    if cursor.eat("set") {
        let options = option_list(cursor)?;
        return Ok(match kind {
            ObjectKind::Source => Statement::AlterSource { name, options },
            _ => Statement::AlterSink { name, change: SinkChange::Set(options) },
        });
    }
    match kind {
        ObjectKind::Sink if cursor.eat("pause") => {
            Ok(Statement::AlterSink { name, change: SinkChange::Pause })
        }
        ObjectKind::Sink if cursor.eat("resume") => {
            Ok(Statement::AlterSink { name, change: SinkChange::Resume })
        }
        ObjectKind::Sink => Err(cursor
            .expected_keyword("PAUSE, RESUME or SET after ALTER SINK name", &["PAUSE", "RESUME", "SET"])),
        _ => Err(cursor.expected_keyword("SET after ALTER SOURCE name", &["SET"])),
    }
}

/// What may follow `SHOW`.
const SHOWN: &[&str] = &[
    "SOURCES",
    "SINKS",
    "CREDENTIALS",
    "WORKERS",
    "SPLITS",
    "SCALE",
    "USERS",
    "ROLES",
    "GRANTS",
    "PRIVILEGES",
    "ERRORS",
    "CREATE",
];

fn show(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("credential") {
        return Ok(Statement::ShowCredential { name: credential::one_or_all(cursor)? });
    }
    if cursor.eat("create") {
        let kind = match cursor.eat("credential") {
            true => ObjectKind::Credential,
            false => kind(cursor, "SHOW CREATE")?,
        };
        return Ok(Statement::ShowCreate { kind, name: object_name(cursor)? });
    }
    if cursor.eat("errors") {
        cursor.expect("for")?;
        return Ok(Statement::ShowErrors { name: object_name(cursor)? });
    }
    if let Some(shown) = access::show(cursor)? {
        return Ok(shown);
    }
    let target = if cursor.eat("sources") {
        InspectTarget::Sources
    } else if cursor.eat("sinks") {
        InspectTarget::Sinks
    } else if cursor.eat("workers") {
        InspectTarget::Workers
    } else if cursor.eat("splits") {
        InspectTarget::Splits
    } else if cursor.eat("credentials") {
        InspectTarget::Credentials
    } else if cursor.eat("scale") {
        return Ok(Statement::Show { target: InspectTarget::Scale, from: None, like: None });
    } else {
        return Err(cursor.expected_keyword(
            "SOURCES, SINKS, CREDENTIALS, WORKERS, SPLITS, SCALE, USERS, ROLES, GRANTS, PRIVILEGES, ERRORS or CREATE after SHOW",
            SHOWN,
        ));
    };
    let from = if cursor.eat("from") { Some(object_name(cursor)?) } else { None };
    let like = if cursor.eat("like") { Some(cursor.string()?) } else { None };
    Ok(Statement::Show { target, from, like })
}

fn select(cursor: &mut Cursor) -> Result<Statement> {
    let place = cursor.place();
    let query = cursor.query(|_, _| false)?;
    let mut relations: Vec<ObjectName> = Vec::new();
    _ = visit_relations(&query, |relation| {
        if let Some(name) = relation_name(relation, place)
            && !relations.contains(&name)
        {
            relations.push(name);
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(Statement::Select { text: printed(query), relations, place })
}

/// The text of a query, which parses to the same query.
fn printed(mut query: Query) -> String {
    _ = query.visit(&mut Printable);
    query.to_string()
}

/// Mends what sqlparser prints otherwise than it reads it.
struct Printable;

impl VisitorMut for Printable {
    type Break = ();

    /// It prints a quote beside a quote or behind a backslash as it is, and what is read again is another text.
    fn pre_visit_value(&mut self, value: &mut Value) -> ControlFlow<()> {
        if let Value::SingleQuotedString(text) = value
            && (text.contains("''") || text.contains("\\'"))
        {
            *value = Value::EscapedStringLiteral(std::mem::take(text));
        }
        ControlFlow::Continue(())
    }

    /// It prints no blank between two signs: `- -a` would be a comment.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { op, expr: inner } = expr
            && *op != UnaryOperator::Not
            && matches!(**inner, Expr::UnaryOp { .. })
        {
            let unsigned = std::mem::replace(&mut **inner, Expr::Value(Value::Null.into()));
            **inner = Expr::Nested(Box::new(unsigned));
        }
        ControlFlow::Continue(())
    }
}

/// The name of a relation inside a query, folded; `None` if it is more than `schema.name`.
pub(crate) fn relation_name(name: &sqlparser::ast::ObjectName, place: Place) -> Option<ObjectName> {
    let mut parts = name.0.iter().map(|part| match part {
        ObjectNamePart::Identifier(ident) => {
            let start = ident.span.start;
            let place = if start.line > 0 { Place { line: start.line, column: start.column } } else { place };
            let text =
                if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
            Some((text, place))
        }
        ObjectNamePart::Function(_) => None,
    });
    let (first, place) = parts.next()??;
    match parts.next() {
        None => Some(ObjectName { schema: None, name: first, place }),
        Some(second) => {
            let (second, _) = second?;
            parts.next().is_none().then_some(ObjectName { schema: Some(first), name: second, place })
        }
    }
}
