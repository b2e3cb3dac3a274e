//! A cluster of real processes: coordinators and workers of the built binary, killed, stopped and started again at will.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{admin::Admin, pki::Authority, process::Process, servers};

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
    /// As many coordinators as URLs, each with its own way to the same etcd.
    EtcdEach(Vec<String>),
}

/// Coordinators and workers. Everything is killed when this value goes.
pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    metadata: Metadata,
    ports: Vec<u16>,
    coordinators: BTreeMap<usize, Process>,
    workers: BTreeMap<String, Process>,
    /// Workers that go another way to the coordinators.
    ways: BTreeMap<String, String>,
    /// Where coordinators say that they are, if not where they listen.
    fronts: Vec<String>,
    /// Who issues the certificates of a cluster with TLS.
    authority: Option<Authority>,
    /// Where processes serve their telemetry.
    telemetry: &'static str,
    /// Variables of every process, and of coordinators alone.
    variables: [Vec<(String, String)>; 2],
}

impl Cluster {
    /// Starts `coordinators` coordinators and no worker.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(dir: &Path, metadata: Metadata, coordinators: usize) -> Result<Self> {
        let mut cluster = Self::plan(dir, metadata, coordinators)?;
        for number in 0..coordinators {
            cluster.start_coordinator(number).await?;
        }
        Ok(cluster)
    }

    /// A cluster of which nothing runs yet: its addresses are known.
    ///
    /// # Errors
    /// When the binary or free ports are not to be had.
    pub fn plan(dir: &Path, metadata: Metadata, coordinators: usize) -> Result<Self> {
        let ports = (0..coordinators).map(|_| servers::free_port()).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            binary: binary()?,
            dir: dir.to_owned(),
            metadata,
            ports,
            coordinators: BTreeMap::new(),
            workers: BTreeMap::new(),
            ways: BTreeMap::new(),
            fronts: Vec::new(),
            authority: None,
            telemetry: "off",
            variables: [Vec::new(), Vec::new()],
        })
    }

    /// From their next start on, all processes speak TLS with each other, each with a certificate of its own for its name.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn secure(&mut self) -> Result<()> {
        self.authority = Some(Authority::new(&self.dir.join("pki"))?);
        Ok(())
    }

    /// From their next start on, all processes serve their telemetry, each at a port of its own.
    pub fn serve_telemetry(&mut self) {
        self.telemetry = "127.0.0.1:0";
    }

    /// From their next start on, all processes have this variable.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables[0].push((name.to_owned(), value.to_owned()));
    }

    /// From their next start on, coordinators have this variable.
    pub fn set_coordinator_variable(&mut self, name: &str, value: &str) {
        self.variables[1].push((name.to_owned(), value.to_owned()));
    }

    /// Who issues the certificates.
    ///
    /// # Panics
    /// When the cluster was not secured: a mistake in the test.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("the test secured this cluster")
    }

    /// The settings of a process that is called `name`: those of its certificate, issued anew.
    fn identity(&self, name: &str) -> Result<Vec<String>> {
        let issued = self.authority.as_ref().map(|authority| authority.issue(name, name)).transpose()?;
        Ok(issued.map_or_else(Vec::new, |issued| issued.settings()))
    }

    /// From their next start on, coordinators keep their metadata here.
    pub fn store_at(&mut self, metadata: Metadata) {
        self.metadata = metadata;
    }

    /// From their next start on, coordinators say that they are at these URLs, and workers are told them too.
    pub fn advertise(&mut self, urls: Vec<String>) {
        self.fronts = urls;
    }

    /// The URLs of all coordinators.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        self.ports.iter().map(|port| format!("{scheme}://127.0.0.1:{port}")).collect()
    }

    /// The admin API.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.admin_at(self.urls())
    }

    fn admin_at(&self, urls: Vec<String>) -> Admin {
        let admin = Admin::new(urls);
        match &self.authority {
            Some(authority) => admin.secured(authority.client()),
            None => admin,
        }
    }

    /// The binary that they run.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
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
            Metadata::EtcdEach(urls) => urls[number].clone(),
        };
        let mut command = Command::new(&self.binary);
        command
            .args(["coordinator", "--telemetry-listen", self.telemetry])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--store", &store])
            .envs(self.variables.iter().flatten().cloned())
            .args(self.identity(&format!("coordinator-{number}"))?);
        if let Some(front) = self.fronts.get(number) {
            command.args(["--advertise", front]);
        }
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
        let known = if self.fronts.is_empty() { self.urls() } else { self.fronts.clone() };
        let coordinators = self.ways.get(name).cloned().unwrap_or_else(|| known.join(","));
        let mut command = Command::new(&self.binary);
        command
            .args(["worker", "--telemetry-listen", self.telemetry, "--name", name])
            .args(["--coordinators", &coordinators])
            .envs(self.variables[0].iter().cloned())
            .args(self.identity(name)?)
            .arg("--data-dir")
            .arg(data);
        Process::start(process, command, &self.dir.join("logs"))
    }

    /// From its next start on, worker `name` is told this URL instead of the coordinators' own.
    pub fn route_worker(&mut self, name: &str, url: &str) {
        self.ways.insert(name.to_owned(), url.to_owned());
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
                leader = (0..self.ports.len()).find(|number| self.said(*number, &status.leader));
                leader.map(|_| ()).ok_or_else(|| format!("leader is {:?}", status.leader))
            })
            .await?;
        leader.context("a leader")
    }

    /// Whether a coordinator itself says that it leads.
    pub async fn coordinator_leads(&self, number: usize) -> bool {
        let asked = self.admin_at(vec![self.urls().swap_remove(number)]).status().await;
        asked.is_ok_and(|status| self.said(number, &status.leader))
    }

    /// Whether `leader` is how a coordinator calls itself.
    fn said(&self, number: usize, leader: &str) -> bool {
        match self.fronts.get(number) {
            Some(front) => leader.trim_end_matches('/') == front,
            None => leader.contains(&format!(":{}", self.ports[number])),
        }
    }

    /// Every process, those that were killed included.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.coordinators.values().chain(self.workers.values())
    }

    /// The last lines of every log.
    #[must_use]
    pub fn tails(&self) -> String {
        self.processes().map(Process::tail).collect::<Vec<_>>().join("\n")
    }
}
