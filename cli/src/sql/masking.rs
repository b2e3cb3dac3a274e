//! Secrets do not go into the history file (I9): what is remembered of `secret_access_key = '…'` is eight stars.

use model::{MASK, is_secret_option, mask_url};

/// The text with the values of secret options, and user and password of URLs, replaced.
#[must_use]
pub(crate) fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('\'') {
        let (before, quoted) = rest.split_at(open);
        out.push_str(before);
        let length = literal_length(quoted);
        let literal = &quoted[..length];
        if is_secret_option(&option_before(before)) || is_password(before) {
            out.push_str(&format!("'{MASK}'"));
        } else {
            // The quotes are no part of the URL and do no harm to it.
            out.push_str(&mask_url(literal));
        }
        rest = &quoted[length..];
    }
    out.push_str(rest);
    out
}

/// Bytes of the literal that starts here, quotes included; an open one goes to the end.
fn literal_length(quoted: &str) -> usize {
    let mut at = 1;
    while let Some(found) = quoted[at..].find('\'') {
        at += found + 1;
        if !quoted[at..].starts_with('\'') {
            return at;
        }
        at += 1;
    }
    quoted.len()
}

/// The word of `PASSWORD '…'`, in statements about users.
fn is_password(before: &str) -> bool {
    // The `E` of `E'…'` is no word.
    let before =
        before.strip_suffix(['E', 'e']).filter(|rest| rest.ends_with(char::is_whitespace)).unwrap_or(before);
    let word = before.trim_end();
    word.len() >= 8 && word.get(word.len() - 8..).is_some_and(|word| word.eq_ignore_ascii_case("password"))
}

/// The option name in `… name = `; empty if there is none.
fn option_before(before: &str) -> String {
    let Some(name) = before.trim_end().strip_suffix('=') else { return String::new() };
    let name = name.trim_end().trim_end_matches('"');
    let start = name
        .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')))
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    name[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn values_of_secret_options_become_stars() {
        let text = "CREATE SOURCE s WITH (stream = 'a''b', aws.credentials.secret_access_key='hunter2', \"sasl.password\" = 'hun''ter2', endpoint = 'http://u:hunter2@h:1/')";
        let shown = masked(text);
        assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
        assert!(shown.contains("stream = 'a''b'"), "{shown}");
        assert!(shown.contains("secret_access_key='********'"), "{shown}");
        assert!(shown.contains("'http://********@h:1/'"), "{shown}");
    }

    #[test]
    fn passwords_of_users_become_stars() {
        for text in [
            "CREATE USER a PASSWORD 'hunter2'",
            "alter user a with password\n'hun''ter2hunter2';",
            "CREATE USER a PASSWORD E'hunter2'",
            "CREATE USER a PASSWORD 'hunter2",
        ] {
            let shown = masked(text);
            assert!(!shown.contains("hunter2") && shown.contains("'********'"), "{shown}");
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["SHOW SINKS;", "SELECT 'x' = 'y';", "SELECT 'open", "é = 'x'", "'"] {
            assert_eq!(masked(text), text);
        }
    }
}
