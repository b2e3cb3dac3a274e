//! How deep a query may become. A parser guards against nesting, but `1 + 1 + …` is a loop there and a tree as deep as it is
//! long; everything behind it (planner, simplifier, evaluation, drop) recurses, and a stack that overflows ends the process.
//! `lexer` asks here before any token of a query reaches the parser.

use std::{panic::resume_unwind, thread};

use sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use crate::{Code, Error, Result};

/// The most of what deepens a tree in one expression. A test holds it against the stack of a thread in a debug build.
const OPERATORS_MAX: usize = 250;

/// Calls within calls: the parser reads the arguments of each twice, so that one more doubles the time.
const CALLS_MAX: usize = 12;

/// A type of many dimensions costs more than an operator.
const DIMENSION: usize = 8;

/// Stack of what parses and plans: a level of the tree takes up to 100 KiB of it in a debug build. What is not touched costs
/// nothing.
const STACK: usize = 64 << 20;

/// Parses and plans where there is room for it. What comes of it is evaluated and dropped on the caller's stack, which
/// [`OPERATORS_MAX`] is small enough for.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let begun = thread::Builder::new().name("sql".to_owned()).stack_size(STACK).spawn_scoped(scope, work);
        let begun = begun.map_err(|e| Error::new(Code::State, format!("no thread for the query: {e}")))?;
        begun.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Refuses what is too deep, before a parser sees it.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<(), String> {
    let depth = depth(tokens);
    if depth.operators > OPERATORS_MAX {
        let found = depth.operators;
        return Err(format!(
            "the query is too deep: {found} operators in one expression, at most {OPERATORS_MAX}"
        ));
    }
    if depth.calls > CALLS_MAX {
        let found = depth.calls;
        return Err(format!("the query is too deep: {found} calls within each other, at most {CALLS_MAX}"));
    }
    Ok(())
}

/// No tree of some tokens is deeper than this.
#[derive(Default)]
struct Depth {
    operators: usize,
    calls: usize,
}

/// One pair of brackets, or the whole.
#[derive(Default)]
struct Level {
    /// Operators of the list item at hand.
    here: usize,
    /// Of the deepest item before it.
    deepest: usize,
    /// Behind `WITH` and `FROM` a list is no list of siblings: relations are planned one on top of the other.
    chained: bool,
    /// Calls that it is within.
    calls: usize,
}

impl Level {
    fn most(&self) -> usize {
        self.here.max(self.deepest)
    }
}

/// Everything counts but names, literals and what only separates; items of a list stand beside each other.
fn depth(tokens: &[TokenWithSpan]) -> Depth {
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut calls = 0;
    let mut before = &Token::EOF;
    for token in tokens.iter().map(|t| &t.token) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let called = matches!((before, token), (Token::Word(_), Token::LParen));
                let inner = Level { calls: level.calls + usize::from(called), ..Level::default() };
                calls = calls.max(inner.calls);
                outer.push(std::mem::replace(&mut level, inner));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let dimension = matches!((before, token), (Token::LBracket, Token::RBracket));
                let inner = level.most() + if dimension { DIMENSION } else { 1 };
                level = outer.pop().unwrap_or_default();
                level.here += inner;
            }
            Token::Comma if !level.chained => {
                level.deepest = level.most();
                level.here = 0;
            }
            Token::Word(word) if word.quote_style.is_none() => {
                level.chained |= matches!(word.keyword, Keyword::WITH | Keyword::FROM);
                level.here += usize::from(deepens(word.keyword));
            }
            Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) => {}
            _ => level.here += 1,
        }
        before = token;
    }
    while let Some(mut parent) = outer.pop() {
        parent.here += level.most() + 1;
        level = parent;
    }
    Depth { operators: level.most(), calls }
}

/// Whether this word may put a node on top of others. Of the words that the parser knows, those that only separate do not.
fn deepens(word: Keyword) -> bool {
    !matches!(
        word,
        Keyword::NoKeyword
            | Keyword::AS
            | Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::END
            | Keyword::NULL
            | Keyword::TRUE
            | Keyword::FALSE
    )
}
