//! Scalars as people and programs write them. `None` is "not such a value"; nothing here guesses silently.

mod interval;
mod moment;
mod number;

pub(super) use interval::interval;
pub(super) use moment::{TimestamptzMode, date, guess_micros, time, time_of_micros, timestamp};
pub(super) use number::{double, integer, numeric};

/// Bytes in one of PostgreSQL's two spellings: `\x` and hex digits, or text with `\\` and octal `\ooo`.
pub(super) fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[a, b]| Some(digit(*a)? << 4 | digit(*b)?)).collect();
        return bytes.filter(|_| rest.is_empty());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = after;
        } else {
            let octal = rest.get(..3)?;
            let value =
                octal.iter().try_fold(0u32, |value, b| Some(value * 8 + char::from(*b).to_digit(8)?))?;
            out.push(u8::try_from(value).ok()?);
            rest = &rest[3..];
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytea_has_two_spellings() {
        assert_eq!(bytea("\\xDEADbeef").as_deref(), Some(&b"\xde\xad\xbe\xef"[..]));
        assert_eq!(bytea("\\x").as_deref(), Some(&b""[..]));
        assert_eq!(bytea("a\\\\b\\000\\377").as_deref(), Some(&b"a\\b\0\xff"[..]));
        for bad in ["\\x1", "\\xzz", "\\8", "\\01", "\\400"] {
            assert_eq!(bytea(bad), None, "{bad}");
        }
    }
}
