//! The RisingWave dialect: which statement begins here, and the statements that are short.

mod format;
mod sink;
mod source;

use std::ops::ControlFlow;

use model::ObjectKind;
use sqlparser::ast::{ObjectNamePart, visit_relations};

use crate::{
    Error, InspectTarget, ObjectName, Place, Result, SinkChange, Statement,
    grammar::{object_name, option_list},
    lexer::Cursor,
};

/// The words of the statements, for completion.
pub const KEYWORDS: &[&str] = &[
    "ALTER",
    "AS",
    "BYTES",
    "CASCADE",
    "CREATE",
    "DESCRIBE",
    "DROP",
    "ENCODE",
    "ERRORS",
    "EXISTS",
    "EXPLAIN",
    "FOR",
    "FORMAT",
    "FROM",
    "IF",
    "INCLUDE",
    "JSON",
    "KEY",
    "LIKE",
    "LIMIT",
    "NOT",
    "OFFSET",
    "ORDER BY",
    "PARTITION",
    "PAUSE",
    "PAYLOAD",
    "PLAIN",
    "PRIMARY KEY",
    "REBALANCE",
    "RESTRICT",
    "RESUME",
    "SCALE",
    "SELECT",
    "SET",
    "SHOW",
    "SINK",
    "SINKS",
    "SOURCE",
    "SOURCES",
    "SPLITS",
    "TEXT",
    "TIMESTAMP",
    "WHERE",
    "WITH",
    "WORKERS",
];

/// What may begin a statement.
const STATEMENTS: &[&str] =
    &["CREATE", "DROP", "ALTER", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "REBALANCE", "SELECT"];

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
        Ok(Statement::Describe { name: object_name(cursor)? })
    } else if cursor.at_keyword("select") {
        select(cursor)
    } else {
        Err(cursor.expected_keyword(
            "one of CREATE, DROP, ALTER, SHOW, DESCRIBE, EXPLAIN, REBALANCE or SELECT at the beginning of a statement",
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
    cursor.expect("sink")?;
    Ok(Statement::Explain(Box::new(sink::create_sink(cursor)?)))
}

fn create(cursor: &mut Cursor) -> Result<Statement> {
    let place = cursor.place();
    if cursor.eat("source") {
        return Ok(Statement::CreateSource(Box::new(source::create_source(cursor)?)));
    }
    if cursor.eat("sink") {
        return Ok(Statement::CreateSink(Box::new(sink::create_sink(cursor)?)));
    }
    for later in ["table", "materialized", "data", "credential", "stream", "user", "role", "view"] {
        if cursor.at_keyword(later) {
            let what = format!("CREATE {}", later.to_ascii_uppercase());
            return Err(Error::unsupported(what)
                .at(place)
                .hint("this release has CREATE SOURCE and CREATE SINK"));
        }
    }
    Err(cursor.expected_keyword("SOURCE or SINK after CREATE", &["SOURCE", "SINK"]))
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

fn drop_object(cursor: &mut Cursor) -> Result<Statement> {
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
    let kind = kind(cursor, "ALTER")?;
    let name = object_name(cursor)?;
    if cursor.eat("set") {
        let options = option_list(cursor)?;
        return Ok(match kind {
            ObjectKind::Source => Statement::AlterSource { name, options },
            ObjectKind::Sink => Statement::AlterSink { name, change: SinkChange::Set(options) },
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
        ObjectKind::Source => Err(cursor.expected_keyword("SET after ALTER SOURCE name", &["SET"])),
    }
}

fn show(cursor: &mut Cursor) -> Result<Statement> {
    if cursor.eat("create") {
        let kind = kind(cursor, "SHOW CREATE")?;
        return Ok(Statement::ShowCreate { kind, name: object_name(cursor)? });
    }
    if cursor.eat("errors") {
        cursor.expect("for")?;
        return Ok(Statement::ShowErrors { name: object_name(cursor)? });
    }
    let target = if cursor.eat("sources") {
        InspectTarget::Sources
    } else if cursor.eat("sinks") {
        InspectTarget::Sinks
    } else if cursor.eat("workers") {
        InspectTarget::Workers
    } else if cursor.eat("splits") {
        InspectTarget::Splits
    } else if cursor.eat("scale") {
        return Ok(Statement::Show { target: InspectTarget::Scale, from: None, like: None });
    } else {
        return Err(cursor.expected_keyword(
            "SOURCES, SINKS, WORKERS, SPLITS, SCALE, ERRORS or CREATE after SHOW",
            &["SOURCES", "SINKS", "WORKERS", "SPLITS", "SCALE", "ERRORS", "CREATE"],
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
    Ok(Statement::Select { text: query.to_string(), relations, place })
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
