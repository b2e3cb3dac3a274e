//! The SQL surface: text → AST → bound spec, and the expressions of `CREATE SINK … AS SELECT`.
//!
//! * [`parse`] turns text into statements. Each dialect has a module (`risingwave`); all share the lexer and the grammar
//!   of names, types and option lists, so that a further dialect adds a module and one line in [`parse`].
//! * [`bind_source`] and [`bind_sink`] check a statement against the connectors that exist and make the spec that the
//!   catalog stores. The coordinator's admin room calls them; they do no I/O.
//! * [`replace_source`] and [`replace_sink`] say what becomes of an object whose definition is said anew (`OR REPLACE`).
//! * [`Projection`] evaluates the `SELECT … WHERE` of a sink on batches. The worker calls it.
//! * [`source_ddl`] and [`sink_ddl`] print a spec back as a statement, secrets masked (I9).
//!
//! Errors carry the SQLSTATE, the place in the text and the nearest right name ([`Error`]).

pub mod access;
mod ast;
mod bind;
mod bounds;
mod credential;
mod dead_letter;
mod error;
mod excerpt;
mod grammar;
mod lexer;
mod print;
mod projection;
mod relation;
mod risingwave;

pub use ast::access::{AccessStatement, GrantOn, Granted, Name, Password};
pub use ast::{
    ColumnDef, CreateCredential, CreateSink, CreateSource, Encoding, FormatSpec, IncludeItem, InspectTarget,
    ObjectName, OptionEntry, Place, Schema, SinkChange, SinkInput, Statement,
};
pub use bind::{
    BoundSink, BoundSource, Replacement, alter_sink, alter_source, bind_sink, bind_source, check_name,
    columns_text, format_word, rebind_sink, replace_sink, replace_source,
};
pub use credential::{alter_credential, bind_credential, credential_ddl};
pub use dead_letter::{DeadLetterSink, dead_letter_columns, sink_dead_letters, source_dead_letters};
pub use error::{Code, Error, Result};
pub use excerpt::masked;
pub use grammar::data_type;
pub use print::{sink_ddl, source_ddl};
pub use projection::Projection;
pub use relation::{Relation, RowSet, select};
pub use risingwave::KEYWORDS;

/// One statement of a text, with the part of the text that it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// Where it begins.
    pub place: Place,
}

/// Parses statements separated by `;`. Nothing is returned unless all of them parse.
///
/// # Errors
/// The first place that does not parse, with its line and a caret.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    bounds::with_room(|| statements(text))
}

fn statements(text: &str) -> Result<Vec<Parsed>> {
    let mut cursor = lexer::Cursor::new(text)?;
    let mut statements = Vec::new();
    loop {
        while cursor.eat_token(&lexer::Token::SemiColon) {}
        if cursor.at_end() {
            return Ok(statements);
        }
        let place = cursor.place();
        let statement = risingwave::statement(&mut cursor)?;
        cursor.end_of_statement()?;
        statements.push(Parsed { statement, place });
    }
}
