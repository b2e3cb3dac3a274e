//! One process of the cluster under test: started with its output in a file, killed by its pid.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// A running process; killed when this value goes.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `{logs}/{name}.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its pid, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal (`KILL`, `TERM`, `STOP`, `CONT`).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let status =
            std::process::Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status()?;
        if !status.success() {
            bail!("kill -{signal} of {} (pid {pid}) failed", self.name);
        }
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself, which no test expects.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGTERM, and waits until it is gone; its exit code.
    ///
    /// # Errors
    /// When it is not gone within `deadline`.
    pub async fn stop(&mut self, deadline: Duration) -> Result<Option<i32>> {
        self.signal("TERM")?;
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?.code()),
            Err(_) => bail!("{} did not stop within {deadline:?}\n{}", self.name, self.tail()),
        }
    }

    /// Waits until it has ended by itself or by a signal. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the system does not tell.
    pub async fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its output.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        format!("--- {}\n{}", self.log.display(), lines[from..].join("\n"))
    }
}
