//! Why a caller is not let in, in words that help who is honest and tell nothing to who is not: a wrong password and a user
//! that is not there read alike.

use std::time::Duration;

use tonic::{Code, Status};

/// Why a caller is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Denied {
    /// It showed nothing, and nobody without credentials is let in here.
    Nothing {
        /// What would help.
        hint: &'static str,
    },
    /// What it showed cannot be read.
    Malformed(&'static str),
    /// The password is wrong, or there is no such user, or it has no password.
    Password {
        /// As it was given.
        user: String,
    },
    /// Too many wrong passwords.
    LockedOut {
        /// When the next one is looked at.
        wait: Duration,
    },
    /// Too many logins at once.
    Busy,
    /// The token is not taken.
    Token(&'static str),
    /// The issuer's keys could not be had.
    Keys(String),
    /// The user that it was is not there any more.
    Gone,
}

impl Denied {
    /// The status that the caller gets.
    pub fn status(&self) -> Status {
        let refuse = |reason: &str, text: &str, facts: &[(&str, &str)]| {
            proto::refusal(Code::Unauthenticated, reason, text, facts)
        };
        match self {
            Self::Nothing { hint } => refuse("28000", "this call needs a login", &[("hint", hint)]),
            Self::Malformed(why) => refuse("28000", &format!("login failed: {why}"), &[]),
            Self::Password { user } => refuse(
                "28P01",
                &format!("login failed: wrong password, or no user \"{user}\" with a password"),
                &[],
            ),
            Self::LockedOut { wait } => {
                let seconds = wait.as_secs().max(1).to_string();
                let text = format!("too many failed logins, the next one is looked at in {seconds} s");
                refuse("28000", &text, &[("retry_after_s", &seconds)])
            }
            Self::Busy => {
                proto::refusal(Code::Unavailable, "BUSY", "too many logins are under way, try again", &[])
            }
            Self::Token(why) => refuse("28000", &format!("login failed: {why}"), &[]),
            Self::Keys(why) => {
                let text = format!("the token cannot be looked at: {why}");
                proto::refusal(Code::Unavailable, "JWKS", text, &[])
            }
            Self::Gone => refuse("28000", "the user of this call is not there any more", &[]),
        }
    }
}
