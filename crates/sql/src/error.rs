//! What is wrong with a statement: SQLSTATE, prefix and text as users read them (docs/sql.md, Errors), and the place.

use std::fmt;

use connector::OptionError;

use crate::{Place, excerpt::excerpt};

/// Result of a step of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The families of errors; each has its SQLSTATE and its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The text does not parse.
    Syntax,
    /// Names, types or combinations of options are wrong.
    Bind,
    /// The syntax of a value in an option list is wrong.
    InvalidInput,
    /// The source's format or encode options are wrong.
    Protocol,
    /// A connector option is missing or invalid.
    Config,
    /// The outside system could not be reached, or refused.
    Connector,
    /// An object does not exist.
    UndefinedObject,
    /// An object exists already.
    DuplicateObject,
    /// A column does not exist.
    UndefinedColumn,
    /// A column is there twice.
    DuplicateColumn,
    /// Other objects depend on it.
    InUse,
    /// A privilege is missing.
    Denied,
    /// The grammar knows it, this release does not do it.
    Unsupported,
    /// The object is not in the state that the statement needs.
    State,
}

impl Code {
    /// The five characters.
    #[must_use]
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::Syntax => "42601",
            Self::Bind | Self::Protocol | Self::Config => "22023",
            Self::InvalidInput => "22P02",
            Self::Connector => "08001",
            Self::UndefinedObject => "42P01",
            Self::DuplicateObject => "42P07",
            Self::UndefinedColumn => "42703",
            Self::DuplicateColumn => "42701",
            Self::InUse => "2BP01",
            Self::Denied => "42501",
            Self::Unsupported => "0A000",
            Self::State => "55000",
        }
    }

    /// What is printed before the message.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Syntax => "sql parser error: ",
            Self::Bind => "Bind error: ",
            Self::InvalidInput => "Invalid input syntax: ",
            Self::Protocol => "Protocol error: ",
            Self::Config => "config error: ",
            Self::Connector => "connector error: ",
            Self::UndefinedObject
            | Self::DuplicateObject
            | Self::UndefinedColumn
            | Self::DuplicateColumn
            | Self::State => "Catalog error: ",
            Self::InUse | Self::Denied => "Permission denied: ",
            Self::Unsupported => "not supported: ",
        }
    }
}

/// What is wrong with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its family.
    pub code: Code,
    /// Prefix and text; for a text that does not parse also its line and a caret.
    pub message: String,
    /// Line in the text, from 1, where there is a place.
    pub line: Option<u64>,
    /// Column in that line, in characters, from 1.
    pub column: Option<u64>,
    /// The way out, where one is known.
    pub hint: Option<String>,
    /// The option it is about.
    pub option: Option<String>,
}

impl Error {
    /// An error with its prefix put before `text`.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        let message = format!("{}{text}", code.prefix());
        Self { code, message, line: None, column: None, hint: None, option: None }
    }

    /// At a place of the text.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        if place.line > 0 {
            self.line = Some(place.line);
            self.column = Some(place.column);
        }
        self
    }

    /// With the line of `text` and a caret below the place, unless it has them already or has no place. Secrets in
    /// the line are masked.
    #[must_use]
    pub fn within(mut self, text: &str) -> Self {
        if let (Some(line), Some(column)) = (self.line, self.column)
            && !self.message.contains("\nLINE ")
        {
            self.message.push_str(&excerpt(text, Place { line, column }));
        }
        self
    }

    /// With the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// About this option.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>) -> Self {
        self.option = Some(name.into());
        self
    }

    /// A refusal of the connector's options. A hint in its text becomes the hint.
    #[must_use]
    pub fn of_option(code: Code, refused: &OptionError) -> Self {
        let text = refused.to_string();
        match text.split_once("\nHint: ") {
            Some((text, hint)) => Self::new(code, text).hint(hint),
            None => Self::new(code, text),
        }
    }

    /// Something that the grammar knows and this release does not do.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(Code::Unsupported, what)
    }
}

/// The message, then the hint on a line of its own.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
