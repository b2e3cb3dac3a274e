//! Runs seeds in processes of their own: each has its clock and its randomness to itself, and one that hangs or breaks takes
//! nothing with it.

use std::{
    collections::VecDeque,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long one run may take, in real time.
const LIMIT: Duration = Duration::from_secs(240);

/// What a child said, and whether it found something wrong.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its output.
    pub text: String,
    /// False if something is wrong.
    pub well: bool,
}

/// Runs this program with these arguments and this environment.
#[must_use]
pub fn child(args: &[String], env: &[(&str, &str)]) -> Said {
    run(args, env).unwrap_or_else(|error| Said { text: format!("cannot be run: {error}"), well: false })
}

fn run(args: &[String], env: &[(&str, &str)]) -> std::io::Result<Said> {
    let output = tempfile::tempfile()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = read(output)?;
    if status.is_none() {
        text.push_str(&format!("did not end within {LIMIT:?}\n"));
    }
    Ok(Said { text, well: status.is_some_and(|status| status.success()) })
}

fn read(mut file: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Does `work` for each item, `jobs` at a time; `done` hears of each as it is done.
pub fn each<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    jobs: usize,
    work: impl Fn(T) -> R + Sync,
    done: impl FnMut(R) + Send,
) {
    let items: Mutex<VecDeque<T>> = Mutex::new(items.into_iter().collect());
    let done = Mutex::new(done);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(item) = items.lock().expect("no thread panics").pop_front() else { return };
                    let result = work(item);
                    let mut done = done.lock().expect("no thread panics");
                    (*done)(result);
                }
            });
        }
    });
}
