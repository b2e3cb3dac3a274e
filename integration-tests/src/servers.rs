//! Real servers, started by the project's own scripts, each on its own port and data directory.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::process::Process;

/// How long an etcd may take until it serves.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// How often one is started before it is given up.
const STARTS: usize = 3;

/// A loopback port that nobody uses right now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Waits until something listens on a loopback port, or the process that should has ended.
///
/// # Errors
/// When neither it listens within `deadline` nor the process lives.
pub async fn listening(process: &mut Process, port: u16, deadline: Duration) -> Result<()> {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(());
        }
        if let Some(status) = process.ended() {
            bail!("{} ended with {status}\n{}", process.name(), process.tail());
        }
        if tokio::time::Instant::now() > end {
            bail!("{} does not listen on {port} after {deadline:?}\n{}", process.name(), process.tail());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an etcd serves, which may be long after it listens: it writes its first entry to a disk that others keep busy.
async fn serving(process: &mut Process, port: u16) -> Result<()> {
    let end = tokio::time::Instant::now() + SERVES_WITHIN;
    listening(process, port, SERVES_WITHIN).await?;
    loop {
        let asked = tokio::time::timeout(Duration::from_secs(2), health(port)).await;
        if let Ok(Ok(text)) = &asked
            && text.contains("\"health\":\"true\"")
        {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            bail!("{} does not serve after {SERVES_WITHIN:?}: {asked:?}\n{}", process.name(), process.tail());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn health(port: u16) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// One etcd.
pub struct Etcd {
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    peer_port: u16,
    process: Process,
    version: String,
}

impl Etcd {
    /// Starts the etcd at `$SHARDWRIGHT_TEST_ETCD`, or the one in the path.
    ///
    /// # Errors
    /// When there is none, or it does not come up; the text says how to get one.
    pub async fn start(dir: &Path) -> Result<Self> {
        let program = program();
        let version = version(&program).await?;
        Self::start_version(&program, dir, version).await
    }

    /// The etcd of a test. `None` where etcd is not to be had or not to be used, which is said aloud: the test is skipped.
    ///
    /// # Panics
    /// When there is one and it does not come up: that test was not run, and must not pass.
    pub async fn of_test(test: &str, dir: &Path) -> Option<Self> {
        let program = program();
        let version = match std::env::var("SHARDWRIGHT_TEST_SERVERS") {
            Ok(servers) if servers == "off" => Err("SHARDWRIGHT_TEST_SERVERS=off".to_owned()),
            _ => version(&program).await.map_err(|error| format!("{error:#}")),
        };
        match version {
            Ok(version) => match Self::start_version(&program, dir, version).await {
                Ok(etcd) => Some(etcd),
                Err(error) => panic!("etcd does not come up: {error:#}"),
            },
            Err(why) => {
                skipped(test, &why);
                None
            }
        }
    }

    /// Another process may take a port between the look for it and its use: then others are tried.
    async fn start_version(program: &Path, dir: &Path, version: String) -> Result<Self> {
        let mut failed = None;
        for attempt in 0..STARTS {
            let dir = if attempt == 0 { dir.to_owned() } else { dir.join(format!("again-{attempt}")) };
            let (port, peer_port) = (free_port()?, free_port()?);
            let mut process = spawn_etcd(program, &dir, port, peer_port)?;
            match serving(&mut process, port).await {
                Ok(()) => {
                    let program = program.to_owned();
                    return Ok(Self { program, dir, port, peer_port, process, version });
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.context("etcd was never started")?)
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `3.4.23`
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// kill -9, stays away for `pause`, and is started again on the same data.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self, pause: Duration) -> Result<()> {
        self.process.kill().await?;
        tokio::time::sleep(pause).await;
        self.process = spawn_etcd(&self.program, &self.dir, self.port, self.peer_port)?;
        serving(&mut self.process, self.port).await
    }
}

fn program() -> PathBuf {
    std::env::var_os("SHARDWRIGHT_TEST_ETCD").map_or_else(|| PathBuf::from("etcd"), PathBuf::from)
}

/// Says aloud that a test was not run: `make test` repeats it at its end.
///
/// # Panics
/// When nothing can be said.
pub fn skipped(test: &str, why: &str) {
    writeln!(std::io::stdout(), "\nskipped: {test}: {why}").expect("a test can print");
}

async fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output().await;
    let output = output.with_context(|| {
        format!(
            "{} cannot be started; install it with `scripts/setup etcd`, or set SHARDWRIGHT_TEST_ETCD",
            program.display()
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.with_context(|| format!("{} --version says {text:?}", program.display()))?.trim().to_owned())
}

fn spawn_etcd(program: &Path, dir: &Path, port: u16, peer_port: u16) -> Result<Process> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    Process::start("etcd", command, dir)
}
