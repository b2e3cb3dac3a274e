//! One segment of a key. Names that users or services chose are percent-encoded, so that no `/` or odd byte can make one
//! key look like another. Reading accepts only what writing makes: one name has one text.

use std::fmt::Write as _;

/// Appends `/` and the encoded text.
pub(super) fn push(path: &mut String, text: &str) {
    path.push('/');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// The text of a segment; `None` if [`push`] would not have written it so.
pub(super) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let mut again = String::with_capacity(segment.len() + 1);
    push(&mut again, &text);
    (again[1..] == *segment).then_some(text)
}

/// A number written in decimal, as `to_string` writes it.
pub(super) fn number<N: std::str::FromStr + ToString>(segment: &str) -> Option<N> {
    segment.parse::<N>().ok().filter(|n| n.to_string() == segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_is_read() {
        assert_eq!(decode("a%2Fb").as_deref(), Some("a/b"));
        for odd in ["a%2fb", "a/b", "%41", "%", "%F", "%FF", "%+1", "a b"] {
            assert_eq!(decode(odd), None, "{odd}");
        }
        assert_eq!(number::<u32>("7"), Some(7));
        assert_eq!(number::<u32>("07"), None);
        assert_eq!(number::<i64>("+7"), None);
    }
}
