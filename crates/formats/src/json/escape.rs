//! Strings of JSON as every writer of this house writes them: only what must be escaped is escaped.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::scan::plain_prefix;

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(other >> 4)], HEX[usize::from(other & 15)]]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// Appends `bytes` as a JSON string of standard base64, padded, quotes included.
pub(crate) fn write_bytes_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[from..]).expect("base64 needs four bytes for three");
    out.truncate(from + written);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_escaped_is_escaped() {
        let mut out = Vec::new();
        write_text("a\"\\/\u{8}\t\n\u{c}\r\u{1}\u{1f}\u{7f}é😀", &mut out);
        let expected = "\"a\\\"\\\\/\\b\\t\\n\\f\\r\\u0001\\u001f\u{7f}é😀\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            (&b""[..], "\"\""),
            (b"\0", "\"AA==\""),
            (b"\xde\xad\xbe\xef", "\"3q2+7w==\""),
            (b"abc", "\"YWJj\""),
        ] {
            let mut out = Vec::new();
            write_bytes_base64(bytes, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
