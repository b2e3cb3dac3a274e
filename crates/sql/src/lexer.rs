//! Text to tokens, and a cursor over them that every grammar module walks.
//!
//! The tokens are sqlparser's (PostgreSQL dialect), so that a query inside a statement can be handed to its parser without
//! lexing again. Bare names are folded to lower case, quoted ones keep their case.

use sqlparser::{
    ast::Query,
    dialect::PostgreSqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Location, Span, TokenWithSpan, Tokenizer, Word},
};

pub(crate) use sqlparser::tokenizer::Token;

use crate::{Code, Error, Place, Result, bounds};

/// A walk over the tokens of one text.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    tokens: Vec<TokenWithSpan>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Lexes `text`; comments and blanks are dropped.
    pub(crate) fn new(text: &'a str) -> Result<Self> {
        let mut tokens =
            Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().map_err(|e| {
                let place = Place { line: e.location.line, column: e.location.column };
                syntax_error(text, place, &lower_first(&e.message))
            })?;
        tokens.retain(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
        let tokens = split_signs(tokens);
        Ok(Self { text, tokens, at: 0 })
    }

    /// The token `n` ahead; `EOF` beyond the last.
    pub(crate) fn peek_nth(&self, n: usize) -> &Token {
        self.tokens.get(self.at + n).map_or(&Token::EOF, |t| &t.token)
    }

    /// The next token.
    pub(crate) fn peek(&self) -> &Token {
        self.peek_nth(0)
    }

    /// Takes the next token.
    pub(crate) fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    /// Where the next token begins; at the end, one past the last character.
    pub(crate) fn place(&self) -> Place {
        self.tokens.get(self.at).map_or_else(|| end_of(self.text), |t| place_of(t.span.start))
    }

    /// True beyond the last token.
    pub(crate) fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// True before a bare word that is this keyword.
    pub(crate) fn at_keyword(&self, keyword: &str) -> bool {
        is_keyword(self.peek(), keyword)
    }

    /// True before this run of keywords.
    pub(crate) fn at_keywords(&self, keywords: &[&str]) -> bool {
        keywords.iter().enumerate().all(|(n, keyword)| is_keyword(self.peek_nth(n), keyword))
    }

    /// Takes the keyword if it is next.
    pub(crate) fn eat(&mut self, keyword: &str) -> bool {
        let found = self.at_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    /// Takes the run of keywords if all of it is next.
    pub(crate) fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let found = self.at_keywords(keywords);
        if found {
            self.at += keywords.len();
        }
        found
    }

    /// Takes the keyword or says that it was expected.
    pub(crate) fn expect(&mut self, keyword: &str) -> Result<()> {
        if self.eat(keyword) {
            return Ok(());
        }
        let keyword = keyword.to_uppercase();
        Err(self.expected_keyword(&keyword, &[&keyword]))
    }

    /// Takes the punctuation if it is next.
    pub(crate) fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    /// Takes the punctuation or says that it was expected.
    pub(crate) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&token.to_string())) }
    }

    /// A name, folded.
    pub(crate) fn ident(&mut self) -> Result<String> {
        match self.peek() {
            Token::Word(word) => {
                let name = folded(word);
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.expected("identifier")),
        }
    }

    /// A string literal.
    pub(crate) fn string(&mut self) -> Result<String> {
        match self.peek() {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => {
                let s = s.clone();
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.expected("literal string")),
        }
    }

    /// The error `expected WHAT, found: …` at the next token.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = shown(self.peek());
        syntax_error(self.text, self.place(), &format!("expected {what}, found: {found}"))
    }

    /// What was said at `place` cannot be said.
    pub(crate) fn wrong(&self, place: Place, text: &str) -> Error {
        syntax_error(self.text, place, text)
    }

    /// The same where keywords were possible; the hint names the one that was nearly typed.
    pub(crate) fn expected_keyword(&self, what: &str, keywords: &[&str]) -> Error {
        let error = self.expected(what);
        let Token::Word(word) = self.peek() else { return error };
        match connector::nearest(&word.value.to_uppercase(), keywords.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    }

    /// Requires `;` or the end of the text.
    pub(crate) fn end_of_statement(&mut self) -> Result<()> {
        if self.at_end() || matches!(self.peek(), Token::SemiColon) {
            Ok(())
        } else {
            Err(self.expected("end of statement"))
        }
    }

    /// Cuts the tokens up to the first one at depth 0 for which `stop` holds (given the token and its successor), or up to
    /// the end of the statement, and parses them as a query.
    pub(crate) fn query(&mut self, stop: impl Fn(&Token, &Token) -> bool) -> Result<Query> {
        let from = self.at;
        let mut depth = 0_usize;
        while !self.at_end() {
            let token = self.peek();
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::SemiColon if depth == 0 => break,
                _ if depth == 0 && stop(token, self.peek_nth(1)) => break,
                _ => {}
            }
            self.at += 1;
        }
        let end = self.place();
        let tokens = &self.tokens[from..self.at];
        // Without its line, which is as long as it is deep.
        bounds::check(tokens).map_err(|text| Error::new(Code::Syntax, text))?;
        let mut tokens = tokens.to_vec();
        let eof = Location { line: end.line, column: end.column };
        tokens.push(TokenWithSpan { token: Token::EOF, span: Span::new(eof, eof) });
        let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(tokens);
        let query = parser.parse_query().map_err(|e| self.foreign(e, end))?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            let place = place_of(rest.span.start);
            return Err(syntax_error(
                self.text,
                place,
                &format!("expected end of query, found: {}", shown(&rest.token)),
            ));
        }
        Ok(*query)
    }

    /// An error of sqlparser in our form: its text carries the place.
    fn foreign(&self, error: ParserError, end: Place) -> Error {
        let text = match error {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
            ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
        };
        let (text, place) = match text.rsplit_once(" at Line: ") {
            Some((text, place)) => (text.to_owned(), parse_place(place).unwrap_or(end)),
            None => (text, end),
        };
        let mut text = text.replacen("Expected: ", "expected ", 1);
        if let Some(at) = text.find("found: ")
            && text[at..].contains(['\'', '"', '$'])
        {
            text.replace_range(at.., "found: a literal string");
        }
        syntax_error(self.text, place, &lower_first(&text))
    }
}

/// A token as errors name it. What a literal says may be a secret, and so may a name that should have been one.
fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_some() => "a quoted name".to_owned(),
        token if token.to_string().contains(['\'', '"', '$']) => "a literal string".to_owned(),
        token => token.to_string(),
    }
}

/// The name of a word: bare ones folded to lower case.
pub(crate) fn folded(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

fn is_keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(keyword))
}

/// `=-1` and `->-1` lex as one operator; PostgreSQL reads an operator and a sign.
fn split_signs(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    for token in tokens {
        match signed(&token.token) {
            Some((operator, sign, length)) => {
                let start = token.span.start;
                let middle = Location { line: start.line, column: start.column + length };
                out.push(TokenWithSpan { token: operator, span: Span::new(start, middle) });
                out.push(TokenWithSpan { token: sign, span: Span::new(middle, token.span.end) });
            }
            None => out.push(token),
        }
    }
    out
}

/// An operator that ends in a sign, in its two parts, with the length of the first.
fn signed(token: &Token) -> Option<(Token, Token, u64)> {
    let Token::CustomBinaryOperator(text) = token else { return None };
    let (operator, sign) = match text.strip_suffix('-') {
        Some(operator) => (operator, Token::Minus),
        None => (text.strip_suffix('+')?, Token::Plus),
    };
    let first = match operator {
        "=" => Token::Eq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" => Token::Neq,
        "*" => Token::Mul,
        "/" => Token::Div,
        "+" => Token::Plus,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        _ => return None,
    };
    Some((first, sign, operator.len() as u64))
}

fn place_of(at: Location) -> Place {
    Place { line: at.line, column: at.column }
}

fn parse_place(text: &str) -> Option<Place> {
    let (line, column) = text.split_once(", Column: ")?;
    let (line, column) = (line.trim().parse().ok()?, column.trim().parse().ok()?);
    (line > 0).then_some(Place { line, column })
}

/// One past the last character that is not blank.
fn end_of(text: &str) -> Place {
    let text = text.trim_end();
    let line = text.matches('\n').count() as u64 + 1;
    let last = text.rsplit('\n').next().unwrap_or(text);
    Place { line, column: last.chars().count() as u64 + 1 }
}

/// The error that users read: the text, the source line, and a caret below the place.
fn syntax_error(text: &str, place: Place, what: &str) -> Error {
    Error::new(Code::Syntax, what).at(place).within(text)
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
