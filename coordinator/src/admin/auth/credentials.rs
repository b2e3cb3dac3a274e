//! What a call brings along: `authorization: Basic …` or `Bearer …`, the name in a certificate, or nothing. Nothing is
//! believed here, only read.

use base64::{Engine, engine::general_purpose::STANDARD};
use tonic::metadata::{AsciiMetadataKey, MetadataMap};

use super::{config::Secret, denied::Denied};

/// Longer ones are refused unread.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// What a caller shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// A name and a password.
    Password {
        /// Whose.
        user: String,
        /// Which.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// Nothing.
    Nothing,
}

/// Reads the metadata of a call. What is there and cannot be read is refused: it never counts as nothing.
pub(super) fn shown(metadata: &MetadataMap) -> Result<Shown, Denied> {
    let key = AsciiMetadataKey::from_static("authorization");
    let mut all = metadata.get_all(key).iter();
    let Some(header) = all.next() else { return Ok(Shown::Nothing) };
    if all.next().is_some() {
        return Err(Denied::Malformed("there is more than one authorization header"));
    }
    let header = header.to_str().map_err(|_| Denied::Malformed("the authorization header is not text"))?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(Denied::Malformed("the authorization header is too long"));
    }
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
        return Ok(Shown::Token(Secret::new(rest)));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Denied::Malformed("the authorization header is neither Basic nor Bearer"));
    }
    let bytes =
        STANDARD.decode(rest).map_err(|_| Denied::Malformed("the authorization header is not base64"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| Denied::Malformed("the authorization header is not UTF-8"))?;
    let Some((user, password)) = text.split_once(':') else {
        return Err(Denied::Malformed("the authorization header is not user:password"));
    };
    Ok(Shown::Password { user: user.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[&str]) -> Result<Shown, Denied> {
        let mut metadata = MetadataMap::new();
        for header in headers {
            metadata.append("authorization", header.parse().unwrap());
        }
        shown(&metadata)
    }

    #[test]
    fn a_password_may_have_colons_and_a_name_may_not() {
        let header = format!("Basic {}", STANDARD.encode("alice:a:b"));
        let wanted = Shown::Password { user: "alice".to_owned(), password: Secret::new("a:b") };
        assert_eq!(read(&[&header]).unwrap(), wanted);
        assert_eq!(read(&[&header.replace("Basic", "bAsIc")]).unwrap(), wanted);
        assert_eq!(read(&["Bearer x.y.z"]).unwrap(), Shown::Token(Secret::new("x.y.z")));
        assert_eq!(read(&[]).unwrap(), Shown::Nothing);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_never_nothing() {
        for headers in [
            &["Basic"][..],
            &["Basic ???"],
            &["Basic YWxpY2U="],
            &["Bearer"],
            &["Digest x"],
            &[""],
            &["Bearer a", "Bearer b"],
        ] {
            assert!(read(headers).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn what_was_shown_is_not_printed() {
        let header = format!("Basic {}", STANDARD.encode("alice:hunter2"));
        assert!(!format!("{:?}", read(&[&header])).contains("hunter2"));
        assert!(!format!("{:?}", read(&["Bearer hunter2"])).contains("hunter2"));
    }
}
