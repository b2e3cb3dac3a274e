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
    let mut out = String::with_capacity(text.len());
    let mut name = String::new();
    let mut ended = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' => {
                let (literal, after) = literal(rest);
                if looks_secret(&name) {
                    out.push('\'');
                    out.push_str(MASK);
                    out.extend(literal.matches('\n'));
                    if literal.len() > 1 && literal.ends_with('\'') {
                        out.push('\'');
                    }
                    name.clear();
                } else {
                    out.push_str(&mask_url(literal));
                    // It may be a name itself: `'sasl.password' = '…'`.
                    literal.trim_matches('\'').clone_into(&mut name);
                    ended = true;
                }
                rest = after;
                continue;
            }
            // The `E` of `E'…'` is no name.
            c if c.is_ascii_alphabetic() && ended && after.starts_with('\'') => {}
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | '$') => {
                if ended {
                    name.clear();
                }
                ended = false;
                name.push(c);
            }
            '"' => {}
            c if c.is_whitespace() || c == '=' => ended = true,
            _ => {
                ended = true;
                name.clear();
            }
        }
        out.push(c);
        rest = after;
    }
    out
}

/// A string literal with its quotes (up to the end if it is not closed), and what follows.
fn literal(text: &str) -> (&str, &str) {
    let mut at = 1;
    while let Some(quote) = text[at..].find('\'') {
        at += quote + 1;
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
}
