//! A cluster of real processes: coordinators and workers of the built binary, killed, stopped and started again at will.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{admin::Admin, process::Process, servers};

/// The binary under test: `$SHARDWRIGHT_TEST_BIN`, or the one beside this program.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SHARDWRIGHT_TEST_BIN") {
        return Ok(path.into());
    }
    let here = std::env::current_exe()?;
    let found =
        here.ancestors().skip(1).take(2).map(|dir| dir.join("shardwright")).find(|path| path.is_file());
    found.with_context(|| format!("no `shardwright` beside {}; build the workspace first", here.display()))
}

/// Where the cluster keeps its metadata.
#[derive(Clone, Debug)]
pub enum Metadata {
    /// One coordinator with a local file.
    Embedded,
    /// Any number of coordinators with an etcd at this URL.
    Etcd(String),
}

/// Coordinators and workers. Everything is killed when this value goes.
pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    metadata: Metadata,
    ports: Vec<u16>,
    coordinators: BTreeMap<usize, Process>,
    workers: BTreeMap<String, Process>,
}

impl Cluster {
    /// Starts `coordinators` coordinators and no worker.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(dir: &Path, metadata: Metadata, coordinators: usize) -> Result<Self> {
        let ports = (0..coordinators).map(|_| servers::free_port()).collect::<Result<Vec<_>>>()?;
        let mut cluster = Self {
            binary: binary()?,
            dir: dir.to_owned(),
            metadata,
            ports,
            coordinators: BTreeMap::new(),
            workers: BTreeMap::new(),
        };
        for number in 0..coordinators {
            cluster.start_coordinator(number).await?;
        }
        Ok(cluster)
    }

    /// The URLs of all coordinators.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// The admin API.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.urls())
    }

    /// Where processes keep their data and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts coordinator `number` (again).
    ///
    /// # Errors
    /// When it does not listen within 20 s.
    pub async fn start_coordinator(&mut self, number: usize) -> Result<()> {
        let port = self.ports[number];
        let store = match &self.metadata {
            Metadata::Embedded => format!("embedded:{}", self.dir.join("metadata.redb").display()),
            Metadata::Etcd(url) => url.clone(),
        };
        let mut command = Command::new(&self.binary);
        command
            .args(["coordinator", "--telemetry-listen", "off"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--store", &store]);
        let mut process = Process::start(&format!("coordinator-{number}"), command, &self.dir.join("logs"))?;
        servers::listening(&mut process, port, Duration::from_secs(20)).await?;
        self.coordinators.insert(number, process);
        Ok(())
    }

    /// Starts worker `name` (again, on the same data directory).
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_worker(&mut self, name: &str) -> Result<()> {
        let data = self.dir.join(name);
        let process = self.spawn_worker(name, name, &data)?;
        self.workers.insert(name.to_owned(), process);
        Ok(())
    }

    /// Starts a worker process called `process` that says its name is `name`; the caller owns it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_worker(&self, process: &str, name: &str, data: &Path) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        command
            .args(["worker", "--telemetry-listen", "off", "--name", name])
            .args(["--coordinators", &self.urls().join(",")])
            .arg("--data-dir")
            .arg(data);
        Process::start(process, command, &self.dir.join("logs"))
    }

    /// The process of worker `name`.
    ///
    /// # Panics
    /// When there is none: a mistake in the test.
    pub fn worker(&mut self, name: &str) -> &mut Process {
        self.workers.get_mut(name).expect("the test started this worker")
    }

    /// Names of the workers that were started and not forgotten.
    #[must_use]
    pub fn worker_names(&self) -> Vec<String> {
        self.workers.keys().cloned().collect()
    }

    /// Forgets a worker, killing it if it still runs.
    pub fn forget_worker(&mut self, name: &str) {
        self.workers.remove(name);
    }

    /// The process of coordinator `number`.
    ///
    /// # Panics
    /// When there is none: a mistake in the test.
    pub fn coordinator(&mut self, number: usize) -> &mut Process {
        self.coordinators.get_mut(&number).expect("the test started this coordinator")
    }

    /// Which coordinator leads.
    ///
    /// # Errors
    /// When none does within 20 s.
    pub async fn leader(&self) -> Result<usize> {
        let mut leader = None;
        self.admin()
            .wait("a leader", Duration::from_secs(20), |status| {
                leader = self.ports.iter().position(|port| status.leader.contains(&format!(":{port}")));
                leader.map(|_| ()).ok_or_else(|| format!("leader is {:?}", status.leader))
            })
            .await?;
        leader.context("a leader")
    }

    /// The last lines of every log.
    #[must_use]
    pub fn tails(&self) -> String {
        let all = self.coordinators.values().chain(self.workers.values());
        all.map(Process::tail).collect::<Vec<_>>().join("\n")
    }
}
