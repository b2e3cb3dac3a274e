//! `shardwright support-bundle`: what somebody who helps wants to see, in one archive. Every text passes [`redact`] on its way in,
//! so no secret that the settings, their files or the environment hold is in it, wherever it came from (I9).
//!
//! What cannot be had is named in `missing.txt` and stops nothing: a bundle is asked for when something is broken.

mod gather;
mod redact;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use flate2::{Compression, write::GzEncoder};

use crate::{client::Target, failure::Failure};
use redact::Redaction;

/// Of each log file, at most its end.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Collect what somebody who helps wants to see, without secrets.
#[derive(Args, Debug)]
pub struct BundleArgs {
    /// The archive, which must not exist yet; shardwright-support-TIME.tar.gz if absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Settings of a process, to be taken along without their secrets
    #[arg(long, value_name = "FILE", env = "SHARDWRIGHT_CONFIG")]
    config: Option<PathBuf>,
    /// Where a process serves /metrics and /debug/tasks; may be given for each
    #[arg(long, value_name = "HOST:PORT")]
    telemetry: Vec<String>,
    /// A log file, of which the newest 4 MiB are taken along; may be given for each process
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
}

/// One file of the archive.
struct Piece {
    name: String,
    text: String,
}

/// Files of the archive, and what is not among them.
struct Pieces {
    redaction: Redaction,
    all: Vec<Piece>,
    missing: Vec<String>,
}

impl Pieces {
    fn add(&mut self, name: &str, text: &str) {
        self.all.push(Piece { name: name.to_owned(), text: self.redaction.text(text) });
    }

    fn lacks(&mut self, name: &str, why: impl std::fmt::Display) {
        let why = why.to_string();
        let why = why.trim_start_matches("ERROR: ").replace('\n', " ");
        let line = format!("{name}: {}", self.redaction.text(&why));
        self.missing.push(line);
    }
}

/// Gathers and writes.
pub async fn run(args: BundleArgs, target: &Target) -> Result<(), Failure> {
    let now = chrono::Utc::now();
    let name = format!("shardwright-support-{}", now.format("%Y%m%dT%H%M%SZ"));
    let path = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    let mut redaction = Redaction::of_environment();
    let settings = args.config.as_deref().map(|path| (path, redaction.settings(path)));
    let mut pieces = Pieces { redaction, all: Vec::new(), missing: Vec::new() };
    gather::machine(&mut pieces, &now.to_rfc3339());
    match settings {
        None => pieces.lacks("settings.toml", "no --config was given"),
        Some((_, Ok(text))) => pieces.add("settings.toml", &text),
        Some((path, Err(why))) => pieces.lacks("settings.toml", format!("{}: {why}", path.display())),
    }
    gather::cluster(&mut pieces, target).await;
    for address in &args.telemetry {
        gather::telemetry(&mut pieces, address).await;
    }
    for log in &args.log {
        gather::log(&mut pieces, log, LOG_BYTES_MAX);
    }
    if !pieces.missing.is_empty() {
        let text = pieces.missing.join("\n");
        pieces.add("missing.txt", &text);
    }
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it exists, and nothing is overwritten".to_owned(),
            _ => error.to_string(),
        };
        Failure::Refused(format!("ERROR: cannot write `{}`: {why}", path.display()))
    };
    write(&path, &name, now.timestamp(), &pieces.all).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    for Piece { name, text } in &pieces.all {
        writeln!(out, "{name:<40} {} bytes", text.len())?;
    }
    writeln!(out, "written to {}; look through it before you send it", path.display())?;
    Ok(())
}

fn write(path: &Path, folder: &str, at: i64, pieces: &[Piece]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for Piece { name, text } in pieces {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(at).unwrap_or(0));
        archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}
