//! Where a statement ends, for the keyboard: a `;` outside quotes and comments. The server does the real parsing.

/// Whether this text can be sent: its last statement has its `;`, and no quote or comment is open.
#[must_use]
pub(crate) fn is_complete(text: &str) -> bool {
    let mut state = State::Between;
    let mut complete = false;
    // Whether a word has just begun with an `E`: a quote right behind it knows backslashes.
    let (mut escapes, mut in_word) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let next = rest.peek().copied();
        let behind_e = std::mem::replace(&mut escapes, matches!(c, 'e' | 'E') && !in_word);
        in_word = c.is_alphanumeric() || c == '_';
        state = match (state, c) {
            (State::Between, '-') if next == Some('-') => State::LineComment,
            (State::Between, '/') if next == Some('*') => {
                rest.next();
                State::BlockComment(1)
            }
            (State::Between, '\'' | '"') => {
                complete = false;
                if behind_e && c == '\'' { State::Escapes } else { State::Quote(c) }
            }
            (State::Between, _) => {
                complete = c == ';' || (complete && c.is_whitespace());
                State::Between
            }
            // A doubled quote closes and opens again, which comes to the same.
            (State::Quote(open), _) if c == open => State::Between,
            (State::Escapes, '\\') => {
                rest.next();
                State::Escapes
            }
            (State::Escapes, '\'') if next == Some('\'') => {
                rest.next();
                State::Escapes
            }
            (State::Escapes, '\'') => State::Between,
            (State::LineComment, '\n') => State::Between,
            (State::BlockComment(depth), '/') if next == Some('*') => {
                rest.next();
                State::BlockComment(depth + 1)
            }
            (State::BlockComment(depth), '*') if next == Some('/') => {
                rest.next();
                if depth == 1 { State::Between } else { State::BlockComment(depth - 1) }
            }
            (state, _) => state,
        };
    }
    complete && matches!(state, State::Between | State::LineComment)
}

#[derive(Clone, Copy)]
enum State {
    Between,
    Quote(char),
    /// Within `E'…'`.
    Escapes,
    LineComment,
    BlockComment(u32),
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn a_backslash_hides_a_quote_behind_an_e_and_nowhere_else() {
        for text in [r"SELECT E'it\'s';", r"SELECT e'''\\';", r"SELECT 'the\';", r"SELECT name'\';"] {
            assert!(is_complete(text), "{text}");
        }
        for text in [r"SELECT E'it\';", r"SELECT E'''';'", r"SELECT E'\\'';"] {
            assert!(!is_complete(text), "{text}");
        }
    }

    #[test]
    fn a_semicolon_outside_quotes_and_comments_ends_a_statement() {
        for text in
            ["SHOW SINKS;", "a; b; \n", "SELECT 'x;''';", "a; -- and more", "/* ; /* */ */ a;", "\"x;\";"]
        {
            assert!(is_complete(text), "{text}");
        }
        for text in
            ["", "SHOW SINKS", "SELECT ';", "SELECT 'it''s;", "a -- ;", "/* a;", "/* /* */ a;", "a; b", "\";"]
        {
            assert!(!is_complete(text), "{text}");
        }
    }
}
