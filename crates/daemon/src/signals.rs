//! Signals become a cancellation: the first asks for an orderly stop, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{Error, Result};

/// Exit code of a process that was told twice: 128 + SIGINT, as shells have it.
const EXIT_IMPATIENT: i32 = 130;

/// Cancels `cancel` at the first SIGTERM or SIGINT; a second one ends the process without waiting.
pub fn stop_on_signals(cancel: CancellationToken) -> Result<()> {
    let refused = |error: std::io::Error| Error::system(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    tokio::spawn(async move {
        let mut told = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if told {
                tracing::warn!(signal = name, "second signal: leaving at once");
                std::process::exit(EXIT_IMPATIENT);
            }
            told = true;
            tracing::info!(signal = name, "stopping in order; once more to leave at once");
            cancel.cancel();
        }
    });
    Ok(())
}
