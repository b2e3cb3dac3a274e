//! How a command ends when it does not end well: one clear line (or a statement's place), and the exit code scripts rely on.

use std::{error::Error as _, fmt, io};

use proto::StatusExt;
use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// A statement or a call was refused, or a process could not start: exit code 1.
    Refused(String),
    /// What was typed or configured is wrong: exit code 2.
    Usage(String),
    /// The server (or the store) could not be reached: exit code 3.
    Unreachable(String),
    /// The server does not know us, or we may not: exit code 4.
    Denied(String),
    /// Whoever read our output has gone; there is nobody to tell.
    OutputGone,
}

impl Failure {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Denied(_) => 4,
            Self::OutputGone => 0,
        }
    }

    /// The failure of a call. `text` is the statement it was about, for errors that have a place in it.
    #[must_use]
    pub fn of_status(status: &Status, text: Option<&str>) -> Self {
        let denied = matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied);
        match status.reason() {
            Some(reason) if denied => Self::Denied(refusal(&reason, status, text)),
            None if denied => Self::Denied(format!("ERROR: {}", cause(status))),
            Some(reason) if reason.len() == 5 => Self::Refused(refusal(&reason, status, text)),
            _ if unreachable(status) => Self::Unreachable(format!("server unavailable: {}", cause(status))),
            _ if status.code() == Code::DeadlineExceeded || status.code() == Code::Cancelled => {
                Self::Refused(format!(
                    "ERROR: no answer in time ({}); it may still be carried out",
                    cause(status)
                ))
            }
            _ => Self::Refused(match status.fact("hint") {
                Some(hint) => format!("ERROR: {}\nHINT:  {hint}", status.message()),
                None => format!("ERROR: {}", cause(status)),
            }),
        }
    }
}

/// True when nobody who could answer was there; then asking again may help.
pub fn unreachable(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.reason().is_none_or(|reason| reason.len() != 5)
}

/// What the innermost error says: the transport's own words are too general.
fn cause(status: &Status) -> String {
    let Some(mut error) = status.source() else { return status.message().to_owned() };
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// As psql prints an error: code and text, the line with a caret, the hint.
fn refusal(reason: &str, status: &Status, text: Option<&str>) -> String {
    let (mut shown, mut hint) = (format!("ERROR {reason}: "), status.fact("hint"));
    let message = match status.message().split_once("\nHint: ") {
        Some((message, in_message)) => {
            hint = hint.or_else(|| Some(in_message.to_owned()));
            message
        }
        None => status.message(),
    };
    shown.push_str(message);
    if !message.contains("\nLINE ") {
        let place = |name| status.fact(name).and_then(|n| n.parse::<usize>().ok());
        if let (Some(text), Some(line), Some(column)) = (text, place("line"), place("column")) {
            shown.push_str(&caret(text, line, column));
        }
    }
    if let Some(hint) = hint {
        shown.push_str("\nHINT:  ");
        shown.push_str(&hint);
    }
    shown
}

/// The line of the text with a caret below the column; both count from 1. Nothing if there is no such line.
fn caret(text: &str, line: usize, column: usize) -> String {
    let Some(source) = line.checked_sub(1).and_then(|n| text.lines().nth(n)) else { return String::new() };
    let label = format!("LINE {line}: ");
    let spaces = " ".repeat(label.chars().count() + column.saturating_sub(1));
    format!("\n{label}{source}\n{spaces}^")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) | Self::Usage(text) | Self::Unreachable(text) | Self::Denied(text) => {
                f.write_str(text)
            }
            Self::OutputGone => f.write_str("output closed"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputGone,
            _ => Self::Refused(format!("ERROR: {error}")),
        }
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        match error.kind {
            daemon::ErrorKind::Config => Self::Usage(format!("ERROR: {error}")),
            daemon::ErrorKind::System => Self::Refused(format!("ERROR: {error}")),
        }
    }
}

/// Why a call that prints as it goes ended early.
#[derive(Debug)]
pub enum Stopped {
    /// The server, or the way to it.
    Call(Status),
    /// Our own output.
    Output(Failure),
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, facts: &[(&str, &str)], text: &str) -> String {
        let status = proto::refusal(Code::InvalidArgument, "42601", message, facts);
        Failure::of_status(&status, Some(text)).to_string()
    }

    #[test]
    fn a_place_is_drawn_with_a_caret_and_the_hint_below() {
        let text = "SELECT 1;\nCREATE SORCE x";
        let facts = [("line", "2"), ("column", "8"), ("hint", "did you mean `SOURCE`?")];
        let expected = "ERROR 42601: sql parser error: unexpected SORCE\nLINE 2: CREATE SORCE x\n               ^\nHINT:  did you mean `SOURCE`?";
        assert_eq!(shown("sql parser error: unexpected SORCE", &facts, text), expected);
    }

    #[test]
    fn a_place_that_the_server_drew_is_not_drawn_again() {
        let message = "sql parser error: x\nLINE 1: FOO\n        ^\nHint: bar";
        let facts = [("line", "1"), ("column", "1")];
        let expected = "ERROR 42601: sql parser error: x\nLINE 1: FOO\n        ^\nHINT:  bar";
        assert_eq!(shown(message, &facts, "FOO"), expected);
    }

    #[test]
    fn an_outage_is_told_from_a_refusal() {
        let away = Status::unavailable("gone");
        assert_eq!(Failure::of_status(&away, None).exit_code(), 3);
        let no_leader = proto::refusal(Code::Unavailable, "NO_LEADER", "no coordinator leads", &[]);
        assert_eq!(Failure::of_status(&no_leader, None).exit_code(), 3);
        let connector = proto::refusal(Code::Unavailable, "08001", "connector error: x", &[]);
        assert_eq!(Failure::of_status(&connector, None).exit_code(), 1);
    }

    #[test]
    fn who_is_not_known_or_may_not_has_an_exit_code_of_its_own() {
        let hint = [("hint", "say --user NAME")];
        let login = proto::refusal(Code::Unauthenticated, "28000", "this call needs a login", &hint);
        let failure = Failure::of_status(&login, None);
        assert_eq!(failure.exit_code(), 4);
        assert_eq!(failure.to_string(), "ERROR 28000: this call needs a login\nHINT:  say --user NAME");
        let text = "Permission denied: ADMIN privilege on sink \"public.k\" is required";
        let missing = proto::refusal(Code::PermissionDenied, "42501", text, &[]);
        let failure = Failure::of_status(&missing, None);
        assert_eq!((failure.exit_code(), failure.to_string()), (4, format!("ERROR 42501: {text}")));
        assert_eq!(Failure::of_status(&Status::unauthenticated("x"), None).exit_code(), 4);
    }
}
