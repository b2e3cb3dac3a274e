//! The line of a statement with a caret below a place. Statements are full of secrets, so what is shown is masked first (I9):
//! whatever stands behind `name =` of a secret option, and the user-info part of any URL.

use connector::looks_secret;
use model::{MASK, mask_url};

use crate::Place;

/// `\nLINE n: …\n   ^`; empty if the text has no such line.
pub(crate) fn excerpt(text: &str, place: Place) -> String {
    let (Ok(line), Ok(column)) = (usize::try_from(place.line), usize::try_from(place.column)) else {
        return String::new();
    };
    let (Some(line_at), Some(column_at)) = (line.checked_sub(1), column.checked_sub(1)) else {
        return String::new();
    };
    let Some(begin) = begin_of_line(text, line_at) else { return String::new() };
    let rest = text[begin..].lines().next().unwrap_or_default();
    let cut = rest.char_indices().nth(column_at).map_or(rest.len(), |(at, _)| at);
    // One past the end of the line is a place, too.
    let beyond = column_at.saturating_sub(rest.chars().count());
    let whole = masked(text);
    let shown = whole.lines().nth(line_at).unwrap_or_default();
    let before = masked(&text[..begin + cut]);
    let before = before.rsplit('\n').next().unwrap_or_default();
    let lead = format!("LINE {line}: ");
    let blanks: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!("\n{lead}{shown}\n{}{blanks}{}^", " ".repeat(lead.len()), " ".repeat(beyond))
}

fn begin_of_line(text: &str, line: usize) -> Option<usize> {
    if line == 0 {
        return Some(0);
    }
    text.match_indices('\n').nth(line - 1).map(|(at, _)| at + 1)
}

/// The text with its secrets masked; it keeps its lines. A literal belongs to the name before it, whether or not an equals
/// sign stands between them: a text that does not parse has its secrets, too.
#[must_use]
pub fn masked(text: &str) -> String {
    let mut masking = Masking { dollars: true, ..Masking::default() };
    masking.text(text, true);
    masking.out
}

#[derive(Default)]
struct Masking {
    out: String,
    /// The last name, as far as it was read.
    name: String,
    /// Whether it is at its end.
    ended: bool,
    /// Whether a dollar may begin a literal: not behind one that never ends.
    dollars: bool,
}

impl Masking {
    fn text(&mut self, text: &str, comments: bool) {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = match (c, comments) {
                ('\'', _) => self.literal(rest, self.behind_e()),
                ('"', _) => self.quoted(rest),
                ('$', _) if self.dollars && (self.ended || self.name.is_empty()) => self.dollar(rest),
                ('-', true) if rest.starts_with("--") => self.comment(rest, line_comment(rest)),
                ('/', true) if rest.starts_with("/*") => self.comment(rest, block_comment(rest)),
                _ => self.plain(rest, c),
            };
        }
    }

    /// Whether the quote to come is that of `E'…'`, in which a backslash takes the next character as it is.
    fn behind_e(&self) -> bool {
        let mut before = self.out.chars().rev();
        matches!(before.next(), Some('e' | 'E'))
            && !before.next().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
    }

    fn plain<'a>(&mut self, rest: &'a str, c: char) -> &'a str {
        let after = &rest[c.len_utf8()..];
        match c {
            // The `E` of `E'…'` and the `U&` of `U&'…'` are no names.
            c if c.is_ascii_alphabetic() && self.ended && after.starts_with('\'') => {}
            'u' | 'U' if self.ended && after.starts_with("&'") => {}
            '&' if after.starts_with('\'') => {}
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | '$') => {
                if self.ended {
                    self.name.clear();
                }
                self.ended = false;
                self.name.push(c);
            }
            c if c.is_whitespace() || c == '=' => self.ended = true,
            _ => {
                self.ended = true;
                self.name.clear();
            }
        }
        self.out.push(c);
        after
    }

    fn literal<'a>(&mut self, rest: &'a str, escapes: bool) -> &'a str {
        let (literal, after) = literal(rest, escapes);
        if looks_secret(&self.name) {
            self.stars(literal, "'");
        } else {
            self.out.push_str(&mask_url(literal));
            // It may be a name itself: `'sasl.password' = '…'`.
            literal.trim_matches('\'').clone_into(&mut self.name);
            self.ended = true;
        }
        after
    }

    /// A quoted name; where the value of a secret is expected, what was meant to be one.
    fn quoted<'a>(&mut self, rest: &'a str) -> &'a str {
        let end = rest[1..].find('"').map(|at| at + 2);
        if self.ended && looks_secret(&self.name) {
            let (quoted, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.stars(quoted, "\"");
            return after;
        }
        let (quoted, after) = rest.split_at(end.unwrap_or(1));
        if self.ended {
            self.name.clear();
        }
        self.ended = false;
        self.name.push_str(quoted.trim_matches('"'));
        self.out.push_str(quoted);
        after
    }

    /// `$$…$$` or `$tag$…$tag$`
    fn dollar<'a>(&mut self, rest: &'a str) -> &'a str {
        let tag = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).map(|at| at + 1);
        let Some(tag) = tag.filter(|&at| rest[at..].starts_with('$')).map(|at| &rest[..=at]) else {
            return self.plain(rest, '$');
        };
        let end = rest[tag.len()..].find(tag).map(|at| at + 2 * tag.len());
        self.dollars = end.is_some();
        if looks_secret(&self.name) {
            let (quoted, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.stars(quoted, "$$");
            return after;
        }
        let (quoted, after) = rest.split_at(end.unwrap_or(tag.len()));
        self.out.push_str(&mask_url(quoted));
        self.name.clear();
        self.ended = true;
        after
    }

    fn stars(&mut self, literal: &str, quote: &str) {
        self.out.push_str(quote);
        self.out.push_str(MASK);
        self.out.extend(literal.matches('\n'));
        if literal.len() > quote.len() && literal.ends_with(quote) {
            self.out.push_str(quote);
        }
        self.name.clear();
    }

    /// A quote in a comment opens nothing outside of it.
    fn comment<'a>(&mut self, rest: &'a str, length: usize) -> &'a str {
        let (comment, after) = rest.split_at(length);
        let mut inner = Self::default();
        inner.text(comment, false);
        self.out.push_str(&inner.out);
        self.ended = true;
        after
    }
}

fn line_comment(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// They nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(found) = text[at..].find(['*', '/']) {
        at += found;
        if text[at..].starts_with("/*") {
            depth += 1;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        } else {
            at += 1;
            continue;
        }
        at += 2;
    }
    text.len()
}

/// A string literal with its quotes (up to the end if it is not closed), and what follows.
fn literal(text: &str, escapes: bool) -> (&str, &str) {
    let mut at = 1;
    while let Some(found) = text[at..].find(['\'', '\\']) {
        at += found + 1;
        if text[..at].ends_with('\\') {
            at += text[at..].chars().next().filter(|_| escapes).map_or(0, char::len_utf8);
            continue;
        }
        if !text[at..].starts_with('\'') {
            return text.split_at(at);
        }
        at += 1;
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stays_where_it_points_though_the_line_is_masked() {
        let text = "CREATE SINK s FROM t WITH (password = 'hunter2hunter2', x y)";
        let column = text.find("y)").unwrap() as u64 + 1;
        let shown = excerpt(text, Place { line: 1, column });
        let mut lines = shown.lines().skip(1);
        let (line, caret) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(line, "LINE 1: CREATE SINK s FROM t WITH (password = '********', x y)");
        assert_eq!(line.find("y)"), caret.find('^'));
    }

    #[test]
    fn no_way_of_writing_a_secret_shows_it() {
        for text in [
            "with (aws.credentials.secret_access_key='hunter2') x",
            "with (aws.credentials.secret_access_key = 'hunter2",
            "with (a.\"password\" = E'hunter2', b = 'c')",
            "with (password\n=\n'hun\nhunter2\nter2') x",
            "with (password = 'it''s hunter2') x",
            "with (password 'hunter2') x",
            "with (passwrod = 'hunter2') x",
            "with (properties.ssl.key.pex = 'hunter2', kinesis.credentials.secrex = 'hunter2') x",
            "with options ('sasl.password' = 'hunter2')",
            "with options ('sasl.password' 'hunter2')",
            "create credential c type = 'k', identity = 'i', secret = 'hunter2', x",
            "create credential c secret 'hunter2', type = 'k'",
            "with (endpoint = 'http://user:hunter2@127.0.0.1:1/x')",
            "with (dead_letter.properties.sasl.password='hunter2', x)",
            r"create user a password E'abc\'hunter2' x",
            r"create user a password e'abc\\\'hunter2', b = 'c'",
            r"create user a password E'abc\'hunter2",
            r"with (a = 'x\', password = 'hunter2', b = E'\\', secret = 'hunter2')",
            "with (secret_access_key = \"hunter2\", x)",
            "with (secret_access_key = \"hunter2, x)",
            "with (\"it's\" = 'a', password = 'hunter2')",
            "create user a password \"hunter2\"",
            "create user a password N'hunter2'",
            "create user a password U&'hunter2'",
            "with (secret = $$hunter2$$, x)",
            "with (secret = $a$it's hunter2$a$, x)",
            "with (secret = $a$it's hunter2",
            "with (note = $$it's$$, secret = 'hunter2')",
            "-- it's\ncreate user a password 'hunter2'",
            "/* it's /* a */ ' */ create user a password 'hunter2'",
            "create user a password /* it's */ 'hunter2'",
            "-- password = 'hunter2'",
        ] {
            let lines = text.lines().count() as u64;
            for line in 1..=lines {
                for column in 1..80 {
                    let shown = excerpt(text, Place { line, column });
                    assert!(!shown.contains("hunter2"), "{text}: {shown}");
                }
            }
        }
        let shown = excerpt("with (stream = 'clicks', primary_key = 'id')", Place { line: 1, column: 1 });
        assert!(shown.contains("'clicks'") && shown.contains("'id'"), "{shown}");
    }

    #[test]
    fn an_error_names_no_literal_that_it_found() {
        for literal in [
            "\"hunter2\"",
            "N'hunter2'",
            "$$hunter2$$",
            "X'hunter2'",
            "'hunter2'",
            "E'hunter2'",
            "U&'hunter2'",
        ] {
            for text in [
                format!("CREATE CREDENTIAL c TYPE = 'aws_access_key', SECRET = {literal} x"),
                format!("CREATE USER a PASSWORD = {literal}"),
                format!("CREATE SOURCE s WITH (aws.credentials.secret_access_key = {literal} y)"),
                format!("CREATE SINK k AS SELECT password = a {literal} FROM t WITH (x = '1')"),
                format!("SELECT password {literal} {literal}"),
            ] {
                let Err(error) = crate::parse(&text) else { continue };
                let head = error.message.lines().next().unwrap();
                assert!(!head.contains("hunter2"), "{text}: {head}");
            }
        }
        let error = crate::parse("CREATE SOURCE s WITH (secret = \"hunter2\")").unwrap_err().to_string();
        assert!(error.contains("found: a quoted name") && !error.contains("hunter2"), "{error}");
    }
}
