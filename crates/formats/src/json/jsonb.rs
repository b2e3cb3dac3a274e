//! jsonb texts as they leave the house: members sorted, of equal names the last one, in one of two spacings.

use std::borrow::Cow;

use super::{Scanner, Token, write_text};
use crate::Malformed;

/// Spacing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// No blanks.
    Compact,
    /// As PostgreSQL prints jsonb: a blank after each comma and colon.
    Postgres,
}

impl Style {
    fn comma(self) -> &'static [u8] {
        if self == Self::Compact { b"," } else { b", " }
    }

    fn colon(self) -> &'static [u8] {
        if self == Self::Compact { b":" } else { b": " }
    }
}

/// Appends the jsonb value `text`. What was appended before an error is garbage that the caller cuts off.
pub(crate) fn write_jsonb(text: &str, style: Style, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut scanner = Scanner::new(text);
    write_value(&mut scanner, style, out)?;
    scanner.end()
}

/// Recursive, but no deeper than the scanner allows: a member's text is scanned before it is written.
fn write_value(scanner: &mut Scanner<'_>, style: Style, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match scanner.token()? {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Boolean(true) => out.extend_from_slice(b"true"),
        Token::Boolean(false) => out.extend_from_slice(b"false"),
        Token::Number(text) => out.extend_from_slice(text.as_bytes()),
        Token::Text(text) => write_text(&text.get().ok_or_else(half_a_pair)?, out),
        Token::Array => {
            scanner.enter()?;
            out.push(b'[');
            let (mut first, mut begun) = (true, false);
            while scanner.item(&mut first)? {
                if std::mem::replace(&mut begun, true) {
                    out.extend_from_slice(style.comma());
                }
                write_value(scanner, style, out)?;
            }
            out.push(b']');
        }
        Token::Object => write_object(scanner, style, out)?,
    }
    Ok(())
}

fn write_object(scanner: &mut Scanner<'_>, style: Style, out: &mut Vec<u8>) -> Result<(), Malformed> {
    scanner.enter()?;
    let mut members: Vec<(Cow<'_, str>, &str)> = Vec::new();
    let mut first = true;
    while let Some(name) = scanner.member(&mut first)? {
        members.push((name.get().ok_or_else(half_a_pair)?, scanner.skip()?));
    }
    // Stable, so that of equal names the last one stays last.
    members.sort_by(|a, b| a.0.cmp(&b.0));
    out.push(b'{');
    let mut begun = false;
    for (i, (name, value)) in members.iter().enumerate() {
        if members.get(i + 1).is_some_and(|next| next.0 == *name) {
            continue;
        }
        if std::mem::replace(&mut begun, true) {
            out.extend_from_slice(style.comma());
        }
        write_text(name, out);
        out.extend_from_slice(style.colon());
        write_value(&mut Scanner::new(value), style, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn half_a_pair() -> Malformed {
    Malformed::new("half a surrogate pair in a string")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, style: Style) -> String {
        let mut out = Vec::new();
        write_jsonb(text, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_are_sorted_and_the_last_of_equals_stays() {
        let text = r#"{"b":[1,{"z":1,"a":[]}],"a":1,"b":[2,3.50]}"#;
        assert_eq!(written(text, Style::Postgres), r#"{"a": 1, "b": [2, 3.50]}"#);
        assert_eq!(written(text, Style::Compact), r#"{"a":1,"b":[2,3.50]}"#);
        assert_eq!(written(r#"{"b":{"z":1,"a":{}}}"#, Style::Postgres), r#"{"b": {"a": {}, "z": 1}}"#);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "[1,]", "{} x", r#""\ud800""#] {
            assert!(write_jsonb(text, Style::Compact, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
