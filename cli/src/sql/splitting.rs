//! Where a statement ends, for the keyboard: a `;` outside quotes and comments. The server does the real parsing.

/// Whether this text can be sent: its last statement has its `;`, and no quote or comment is open.
#[must_use]
pub(crate) fn is_complete(text: &str) -> bool {
    let mut state = State::Between;
    let mut complete = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let next = rest.peek().copied();
        state = match (state, c) {
            (State::Between, '-') if next == Some('-') => State::LineComment,
            (State::Between, '/') if next == Some('*') => {
                rest.next();
                State::BlockComment(1)
            }
            (State::Between, '\'' | '"') => {
                complete = false;
                State::Quote(c)
            }
            (State::Between, _) => {
                complete = c == ';' || (complete && c.is_whitespace());
                State::Between
            }
            // A doubled quote closes and opens again, which comes to the same.
            (State::Quote(open), _) if c == open => State::Between,
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
    LineComment,
    BlockComment(u32),
}

#[cfg(test)]
mod tests {
    use super::is_complete;

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
