//! The keyboard: history, completion of keywords and object names, statements over several lines.
//!
//! The line editor blocks, so it has a thread of its own; statements run on the runtime and Ctrl-C leaves them.

use std::{collections::BTreeSet, path::PathBuf};

use proto::v1::StatusRequest;
use rustyline::{
    Completer, Context, Editor, Helper, Highlighter, Hinter, Validator, completion::Completer,
    error::ReadlineError, history::DefaultHistory,
};
use tokio::runtime::Handle;

use super::{Session, masking::masked, splitting::is_complete};
use crate::{
    client::{self, Patience},
    failure::Failure,
};

const HELP: &str = "\
Statements end with `;`. They may go over several lines.
  \\d        sources and sinks          \\w   workers        \\s   splits
  \\?  help  this text                  \\q   quit           Ctrl-C  leave a statement";

/// Reads statements until the end of input.
pub(super) async fn run(session: Session, server: String) -> Result<(), Failure> {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || Terminal::open(session, runtime)?.run(&server)).await;
    done.unwrap_or_else(|panic| Err(Failure::Refused(format!("ERROR: the line editor broke: {panic}"))))
}

struct Terminal {
    editor: Editor<Words, DefaultHistory>,
    history: Option<PathBuf>,
    session: Session,
    runtime: Handle,
}

impl Terminal {
    fn open(session: Session, runtime: Handle) -> Result<Self, Failure> {
        let config = rustyline::Config::builder()
            .history_ignore_space(true)
            .completion_type(rustyline::CompletionType::List)
            .auto_add_history(false)
            .build();
        let mut editor = Editor::with_config(config).map_err(broken)?;
        editor.set_helper(Some(Words { completion: Completion::default() }));
        let history = history_path();
        if let Some(path) = &history {
            // There is none before the first session.
            editor.load_history(path).ok();
        }
        Ok(Self { editor, history, session, runtime })
    }

    fn run(mut self, server: &str) -> Result<(), Failure> {
        println!("shardwright {} at {server}. \\? for help.", env!("SHARDWRIGHT_VERSION"));
        self.learn_names();
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { "shardwright=> " } else { "shardwright-> " };
            match self.editor.readline(prompt) {
                Ok(line) if text.is_empty() => match shorthand(line.trim()) {
                    Word::Quit => break,
                    Word::Help => println!("{HELP}"),
                    Word::Statement(short) => self.execute(short),
                    Word::Unknown => println!("`{}` is no command; \\? for help", line.trim()),
                    Word::None => text = line,
                },
                Ok(line) => {
                    text.push('\n');
                    text.push_str(&line);
                }
                Err(ReadlineError::Interrupted) => text.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(broken(error)),
            }
            if is_complete(&text) {
                let statement = std::mem::take(&mut text);
                self.remember(&statement);
                self.execute(&statement);
                self.learn_names();
            } else if text.trim().is_empty() {
                text.clear();
            }
        }
        Ok(())
    }

    fn execute(&mut self, text: &str) {
        let mut session = self.session.clone();
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                outcome = session.execute(text) => outcome,
                _ = tokio::signal::ctrl_c() => Err(Failure::Refused("left; the statement may still be carried out".to_owned())),
            }
        });
        if let Err(failure) = outcome {
            eprintln!("{failure}");
        }
    }

    fn remember(&mut self, statement: &str) {
        self.editor.add_history_entry(masked(statement)).ok();
        if let Some(path) = &self.history {
            // A read-only home is no reason to stop.
            self.editor.save_history(path).ok();
        }
    }

    /// Asks for the names of objects; without an answer the old ones stay.
    fn learn_names(&mut self) {
        let mut admin = self.session.admin.clone();
        let answer = self.runtime.block_on(client::ask(Patience::default(), admin.status(StatusRequest {})));
        let (Ok(status), Some(words)) = (answer, self.editor.helper_mut()) else { return };
        let names =
            status.sources.into_iter().map(|s| s.name).chain(status.sinks.into_iter().map(|s| s.name));
        words.completion.names = names.collect();
    }
}

fn broken(error: ReadlineError) -> Failure {
    Failure::Refused(format!("ERROR: terminal: {error}"))
}

fn history_path() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let directory = state.join("shardwright");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

enum Word {
    Quit,
    Help,
    Statement(&'static str),
    Unknown,
    None,
}

fn shorthand(line: &str) -> Word {
    match line.trim_end_matches(';') {
        "\\q" | "quit" | "exit" => Word::Quit,
        "\\?" | "help" => Word::Help,
        "\\d" => Word::Statement("SHOW SOURCES; SHOW SINKS;"),
        "\\w" => Word::Statement("SHOW WORKERS;"),
        "\\s" => Word::Statement("SHOW SPLITS;"),
        other if other.starts_with('\\') => Word::Unknown,
        _ => Word::None,
    }
}

#[derive(Helper, Completer, Hinter, Highlighter, Validator)]
struct Words {
    #[rustyline(Completer)]
    completion: Completion,
}

#[derive(Default)]
struct Completion {
    names: BTreeSet<String>,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(&line[..position]))
    }
}

impl Completion {
    /// Where the last word starts, and what it may become. Names keep their case, keywords follow the user's.
    fn candidates(&self, before: &str) -> (usize, Vec<String>) {
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        let lower = word.chars().next().is_some_and(char::is_lowercase);
        let upper = word.to_uppercase();
        let keywords = ::sql::KEYWORDS.iter().filter(|keyword| keyword.starts_with(&upper));
        let keywords =
            keywords.map(|keyword| if lower { keyword.to_lowercase() } else { (*keyword).to_owned() });
        let names = self.names.iter().filter(|name| name.to_uppercase().starts_with(&upper)).cloned();
        (start, names.chain(keywords).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_in_the_users_case_and_names_come_first() {
        let completion = Completion { names: ["sink_to_kafka".to_owned(), "clicks".to_owned()].into() };
        assert_eq!(
            completion.candidates("DROP SI"),
            (5, vec!["sink_to_kafka".into(), "SINK".into(), "SINKS".into()])
        );
        assert_eq!(
            completion.candidates("drop sink cl"),
            (10, vec!["clicks".to_owned(), "cluster".to_owned()])
        );
        assert_eq!(completion.candidates("show wor"), (5, vec!["workers".to_owned()]));
    }
}
