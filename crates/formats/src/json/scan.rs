//! A pull scanner over one JSON text. It checks the grammar of RFC 8259 as it goes, copies nothing, and hands out the text
//! of numbers as written, so that decimals keep their digits. Nesting is bounded, and skipping a value does not recurse.

use std::borrow::Cow;

use crate::Malformed;

/// Deepest nesting of a record.
const DEPTH_MAX: u32 = 128;

/// What stands at the present place. Scalars are consumed; of a container only the kind is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Null,
    Boolean(bool),
    /// As written.
    Number(&'a str),
    Text(RawText<'a>),
    Array,
    Object,
}

/// A string as written, without its quotes. Its escapes are known to be well formed, but may name half a surrogate pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RawText<'a> {
    /// Between the quotes.
    pub(crate) raw: &'a str,
    escaped: bool,
}

impl<'a> RawText<'a> {
    /// The text meant, or `None` if it is no text (half a surrogate pair).
    pub(crate) fn get(self) -> Option<Cow<'a, str>> {
        if !self.escaped {
            return Some(Cow::Borrowed(self.raw));
        }
        let mut out = Vec::with_capacity(self.raw.len());
        self.append_to(&mut out).then(|| String::from_utf8(out).ok()).flatten().map(Cow::Owned)
    }

    /// Appends the text meant. False, and nothing appended, if it is no text.
    pub(crate) fn append_to(self, out: &mut Vec<u8>) -> bool {
        if !self.escaped {
            out.extend_from_slice(self.raw.as_bytes());
            return true;
        }
        let before = out.len();
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let Some((meant, length)) = unescape(&rest[at..]) else {
                out.truncate(before);
                return false;
            };
            out.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[at + length..];
        }
        out.extend_from_slice(rest.as_bytes());
        true
    }
}

/// The character that an escape (at the start of `text`) means, and the length of the escape.
fn unescape(text: &str) -> Option<(char, usize)> {
    let simple = |c| Some((c, 2));
    match text.as_bytes().get(1)? {
        b'b' => simple('\u{8}'),
        b't' => simple('\t'),
        b'n' => simple('\n'),
        b'f' => simple('\u{c}'),
        b'r' => simple('\r'),
        b'u' => {
            let high = u32::from_str_radix(text.get(2..6)?, 16).ok()?;
            if !(0xD800..0xDC00).contains(&high) {
                return Some((char::from_u32(high)?, 6));
            }
            let low = text.get(6..12)?.strip_prefix("\\u")?;
            let low = u32::from_str_radix(low, 16).ok().filter(|l| (0xDC00..0xE000).contains(l))?;
            Some((char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))?, 12))
        }
        other => simple(char::from(*other)),
    }
}

/// See the module.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// At the start of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn wrong(&self, what: &str) -> Malformed {
        Malformed::new(format!("invalid JSON at byte {}: {what}", self.at))
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Consumes a scalar; stays before a container.
    pub(crate) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        match self.blanks() {
            Some(b'"') => Ok(Token::Text(self.string()?)),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number(self.number()?)),
            Some(b't') => self.word("true", Token::Boolean(true)),
            Some(b'f') => self.word("false", Token::Boolean(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(_) => Err(self.wrong("expected a value")),
            None => Err(self.wrong("unexpected end")),
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, Malformed> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(token)
        } else {
            Err(self.wrong("expected a value"))
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    fn number(&mut self) -> Result<&'a str, Malformed> {
        let from = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.byte() == Some(b'0');
        match self.digits() {
            0 => return Err(self.wrong("expected a digit")),
            1 => {}
            _ if zero => return Err(self.wrong("a number has a leading zero")),
            _ => {}
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        Ok(&self.text[from..self.at])
    }

    /// At the opening quote.
    fn string(&mut self) -> Result<RawText<'a>, Malformed> {
        self.at += 1;
        let from = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    let raw = &self.text[from..self.at];
                    self.at += 1;
                    return Ok(RawText { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.wrong("a control character in a string")),
                None => return Err(self.wrong("a string has no end")),
            }
        }
    }

    /// At a backslash: checks the escape and goes past it.
    fn escape(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.at..];
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if rest.get(2..6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => {
                self.at += 6;
            }
            _ => return Err(self.wrong("invalid escape")),
        }
        Ok(())
    }

    /// Goes into the container before which it stands.
    pub(crate) fn enter(&mut self) -> Result<(), Malformed> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// The name of the next member, with the scanner before its value; `None` after the last, outside of the object.
    pub(crate) fn member(&mut self, first: &mut bool) -> Result<Option<RawText<'a>>, Malformed> {
        match (self.blanks(), std::mem::take(first)) {
            (Some(b'}'), _) => {
                self.at += 1;
                self.depth -= 1;
                return Ok(None);
            }
            (Some(b','), false) => {
                self.at += 1;
                self.blanks();
            }
            (_, true) => {}
            _ => return Err(self.wrong("expected `,` or `}`")),
        }
        if self.byte() != Some(b'"') {
            return Err(self.wrong("expected a member name"));
        }
        let name = self.string()?;
        if self.blanks() != Some(b':') {
            return Err(self.wrong("expected `:`"));
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// True with the scanner before the next item; false after the last, outside of the array.
    pub(crate) fn item(&mut self, first: &mut bool) -> Result<bool, Malformed> {
        match (self.blanks(), std::mem::take(first)) {
            (Some(b']'), _) => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            (Some(b','), false) => self.at += 1,
            (_, true) => {}
            _ => return Err(self.wrong("expected `,` or `]`")),
        }
        Ok(true)
    }

    /// Goes past one value, whatever it is, and returns its text.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Malformed> {
        self.blanks();
        let from = self.at;
        // One bit per open container: is it an object?
        let (mut objects, outer) = (0u128, self.depth);
        let mut first = false;
        loop {
            if let token @ (Token::Array | Token::Object) = self.token()? {
                self.enter()?;
                objects = objects << 1 | u128::from(token == Token::Object);
                first = true;
            }
            while self.depth > outer {
                let more = if objects & 1 == 1 {
                    self.member(&mut first)?.is_some()
                } else {
                    self.item(&mut first)?
                };
                if more {
                    break;
                }
                objects >>= 1;
            }
            if self.depth == outer {
                return Ok(&self.text[from..self.at]);
            }
        }
    }

    /// Nothing but blanks may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        match self.blanks() {
            None => Ok(()),
            Some(_) => Err(self.wrong("trailing characters")),
        }
    }
}

/// How many bytes at the start of `bytes` stand for themselves in a string: no quote, no backslash, no control character.
/// Looks at eight bytes at a time.
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero (bits above the first such byte may be wrong, which does no harm here).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let special =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | control;
        if special != 0 {
            return i * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let done = words.len() * 8;
    let rest = &bytes[done..];
    done + rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// Appends a JSON text that is known to be well formed, without the blanks between its parts.
pub(crate) fn compact(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(&byte) = rest.first() {
        let length = if byte == b'"' { quoted_length(rest) } else { 1 };
        if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            out.extend_from_slice(&rest[..length]);
        }
        rest = &rest[length..];
    }
}

/// Length of the string at the start of `bytes`, both quotes counted.
fn quoted_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        at += plain_prefix(&bytes[at..]);
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            _ => return (at + 1).min(bytes.len()),
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.skip().is_ok() && scanner.end().is_ok()
    }

    #[test]
    fn the_grammar_is_kept() {
        for good in [
            "0",
            "-0",
            "1.50",
            "1e5",
            "-1.5E-7",
            "\"\"",
            "[]",
            "{}",
            "[1,[2,{\"a\":[]}],{}]",
            " [ 1 , 2 ] ",
            "{\"a\":{\"b\":{}},\"c\":null}",
            "\"\\u00e9\\n\\/\"",
            "true",
            "[true,false,null]",
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "[",
            "{",
            "[}",
            "{]",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\n\"",
            "tru",
            "nul",
            "1 2",
            "[1]]",
            "NaN",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_does_not_recurse() {
        assert!(accepts(&format!("{}{}", "[".repeat(128), "]".repeat(128))));
        assert!(!accepts(&format!("{}{}", "[".repeat(129), "]".repeat(129))));
        assert!(!accepts(&"{\"a\":[".repeat(500_000)));
    }

    #[test]
    fn escapes_are_opened_and_half_a_pair_is_no_text() {
        let text = |json: &str| match Scanner::new(json).token() {
            Ok(Token::Text(raw)) => raw.get().map(Cow::into_owned),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(r#""a\u0041\n\"\\\/z""#).as_deref(), Some("aA\n\"\\/z"));
        assert_eq!(text(r#""\ud83d\ude00""#).as_deref(), Some("😀"));
        assert_eq!(text(r#""\ud83d""#), None);
        assert_eq!(text(r#""\ude00\ud83d""#), None);
    }

    #[test]
    fn compact_keeps_what_is_quoted() {
        let mut out = Vec::new();
        compact("{ \"a b\" : [ 1 ,\n2 ] , \"c\\\" d\" : \"\\\\\" }", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a b\":[1,2],\"c\\\" d\":\"\\\\\"}");
    }

    /// Texts that are nearly JSON: pieces of it, shuffled.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\n\"",
            "\"\\u00e9\"",
            "\"\\q\"",
            "1",
            "-2.5e3",
            "0",
            "01",
            "true",
            "null",
            " ",
            "\"",
            "é",
            "\\",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(text in nearly_json()) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(accepts(&text), theirs);
        }

        #[test]
        fn strings_agree_with_serde_json(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            match Scanner::new(&json).token() {
                Ok(Token::Text(raw)) => prop_assert_eq!(raw.get().unwrap(), text),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn plain_prefix_is_the_obvious_one(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let obvious = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\').unwrap_or(bytes.len());
            prop_assert_eq!(plain_prefix(&bytes), obvious);
        }
    }
}
