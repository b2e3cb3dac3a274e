//! Secrets do not go into the history file (I9): what is remembered of `secret_access_key = '…'` is eight stars.

/// The text with the values of secret options, passwords, and user and password of URLs, replaced: as the parser's errors show it.
#[must_use]
pub(crate) fn masked(text: &str) -> String {
    ::sql::masked(text)
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
    fn parts_of_credentials_become_stars() {
        for text in [
            "CREATE CREDENTIAL c TYPE = 'k', SECRET = E'hunter2' WITH OPTIONS ('sasl.password' = 'hunter2', 'a' = 'b')",
            "ALTER CREDENTIAL c SET PROPERTY 'secret' = 'hunter2', SESSION_TOKEN = 'hunter2'",
        ] {
            let shown = masked(text);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
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
            assert!(!shown.contains("hunter2") && shown.contains("'********"), "{shown}");
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["SHOW SINKS;", "SELECT 'x' = 'y';", "SELECT 'open", "é = 'x'", "'"] {
            assert_eq!(masked(text), text);
        }
    }
}
