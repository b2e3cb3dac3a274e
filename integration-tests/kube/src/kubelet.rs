//! A pod's life on this machine: its volumes are laid out, its container runs as a process, the probes look at it; a container that
//! ends or does not live is started again in the same pod, with growing pauses; and at its end: out of the services, preStop,
//! SIGTERM, and SIGKILL when the grace period is over.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use integration_tests::process::Process;
use tokio::{
    process::Command,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    environment::{self, Identity},
    manifest::{PodSpec, Release},
    place::{Places, unresolved},
    probe::{Probes, Which},
    volume,
};

/// The first pause before a container is started once more; it doubles. The first time there is none.
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// What is left for SIGTERM if preStop took the whole grace period.
const GRACE_LEAST: Duration = Duration::from_secs(2);

/// How a pod is.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// It is ready, and since when.
    pub ready_since: Option<Instant>,
    /// It was told to end.
    pub ends: bool,
    /// It is gone.
    pub gone: bool,
    /// How often its container was started again.
    pub restarts: u32,
    /// SIGKILL was needed.
    pub killed: bool,
    /// What went wrong with its start.
    pub failed: Option<String>,
    /// The exit code of the container that ended last.
    pub code: Option<i32>,
}

impl State {
    /// Whether services lead to it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ready_since.is_some() && !self.ends && !self.gone
    }
}

enum Order {
    Stop,
    Crash,
}

/// What a pod is started with.
pub struct Plan {
    /// Who it is.
    pub identity: Identity,
    /// Its address.
    pub ip: Ipv4Addr,
    /// What it is.
    pub spec: PodSpec,
    /// The image's entry point.
    pub binary: PathBuf,
    /// Its directory: volumes, and nothing else.
    pub dir: PathBuf,
    /// Where its output goes.
    pub logs: PathBuf,
    /// Names of services.
    pub names: Places,
}

/// A pod. Its process is killed when this value goes.
pub struct Pod {
    /// Who it is.
    pub identity: Identity,
    /// Its address.
    pub ip: Ipv4Addr,
    state: Arc<watch::Sender<State>>,
    orders: mpsc::Sender<Order>,
    life: JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.life.abort();
    }
}

impl Pod {
    /// Starts a pod, whose volumes and variables come from `release` as it is now.
    ///
    /// # Errors
    /// When they cannot be laid out: Kubernetes would keep the pod waiting for ever.
    pub fn start(plan: Plan, release: &Release) -> Result<Self> {
        let state = Arc::new(watch::Sender::new(State::default()));
        let (orders, taken) = mpsc::channel(4);
        let (identity, ip) = (plan.identity.clone(), plan.ip);
        let container = Launch::prepare(&plan, release).with_context(|| format!("pod {}", identity.name))?;
        let life = Life { spec: plan.spec, ip, container, tell: Arc::clone(&state), orders: taken };
        Ok(Self { identity, ip, state, orders, life: tokio::spawn(life.lead()) })
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// To watch how it is.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Tells it to end; it takes its time. From now on no service leads to it.
    pub fn stop(&self) {
        self.state.send_modify(|state| state.ends = true);
        self.orders.try_send(Order::Stop).ok();
    }

    /// Its process is killed as if it had crashed: it is started again in the same pod.
    pub fn crash(&self) {
        self.orders.try_send(Order::Crash).ok();
    }
}

/// The command of a container.
struct Launch {
    name: String,
    binary: PathBuf,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    logs: PathBuf,
}

impl Launch {
    fn prepare(plan: &Plan, release: &Release) -> Result<Self> {
        let container = plan.spec.container()?;
        let mut places = plan.names.clone();
        places.put("0.0.0.0", &plan.ip.to_string());
        volume::mount(&plan.spec, &plan.dir, &mut places)?;
        volume::fill(&plan.spec, &plan.dir, release, &places)?;
        let known = environment::variables(container, &plan.identity, release)?;
        let arg = |text: &String| places.apply(&environment::expand(text, &known));
        let args: Vec<String> = container.args.iter().map(arg).collect();
        let variables: Vec<_> =
            known.iter().map(|(name, value)| (name.clone(), places.apply(value))).collect();
        if let Some(name) =
            args.iter().chain(variables.iter().map(|(_, value)| value)).find_map(|text| unresolved(text))
        {
            bail!("nobody here resolves {name}");
        }
        let (name, binary, logs) = (plan.identity.name.clone(), plan.binary.clone(), plan.logs.clone());
        Ok(Self { name, binary, args, variables, logs })
    }

    fn start(&self) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        command.args(&self.args).env_clear().envs(self.variables.iter().cloned());
        Process::start(&self.name, command, &self.logs)
    }
}

struct Life {
    spec: PodSpec,
    ip: Ipv4Addr,
    container: Launch,
    tell: Arc<watch::Sender<State>>,
    orders: mpsc::Receiver<Order>,
}

enum End {
    Exited,
    Told,
}

impl Life {
    async fn lead(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let mut process = match self.container.start() {
                Ok(process) => process,
                Err(error) => {
                    self.tell.send_modify(|state| state.failed = Some(format!("{error:#}")));
                    break;
                }
            };
            match self.run(&mut process).await {
                End::Exited => {}
                End::Told => {
                    self.end(&mut process).await;
                    break;
                }
            }
            self.tell.send_modify(|state| state.ready_since = None);
            if self.stopped_within(pause).await {
                break;
            }
            pause = if pause.is_zero() { BACK_OFF } else { (pause * 2).min(BACK_OFF_MAX) };
            self.tell.send_modify(|state| state.restarts += 1);
        }
        self.tell.send_modify(|state| {
            state.gone = true;
            state.ready_since = None;
        });
    }

    /// One run of the container, until it ends or the pod is told to end.
    async fn run(&mut self, process: &mut Process) -> End {
        let Ok(container) = self.spec.container() else { return End::Told };
        let mut probes = Probes::new(container, self.ip);
        let unasked = container.readiness_probe.is_none();
        if unasked && !probes.has(Which::Startup) {
            self.ready(true);
        }
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Crash) => { process.signal("KILL").ok(); }
                    Some(Order::Stop) | None => return End::Told,
                },
                status = process.wait() => {
                    let code = status.ok().and_then(|status| status.code());
                    self.tell.send_modify(|state| state.code = code);
                    return End::Exited;
                }
                (which, good) = probes.next() => match (which, good) {
                    (Which::Startup, true) => {
                        probes.started();
                        if unasked {
                            self.ready(true);
                        }
                    }
                    (Which::Readiness, good) => self.ready(good),
                    (Which::Liveness, true) => {}
                    (Which::Startup | Which::Liveness, false) => {
                        self.ready(false);
                        self.terminate(process, Instant::now() + self.grace()).await;
                        return End::Exited;
                    }
                },
            }
        }
    }

    fn ready(&self, ready: bool) {
        self.tell.send_if_modified(|state| {
            let changed = state.ready_since.is_some() != ready;
            if changed {
                state.ready_since = ready.then(Instant::now);
            }
            changed
        });
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.spec.termination_grace_period_seconds)
    }

    /// The pause before the next start; true when the pod is told to end meanwhile.
    async fn stopped_within(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                order = self.orders.recv() => if !matches!(order, Some(Order::Crash)) { return true },
                () = tokio::time::sleep_until(until) => return false,
            }
        }
    }

    /// The grace period begins with preStop.
    async fn end(&mut self, process: &mut Process) {
        let kill_at = Instant::now() + self.grace();
        let hook = self.spec.container().ok().and_then(|container| container.lifecycle.pre_stop.as_ref());
        if let Some(hook) = hook {
            let over = (Instant::now() + Duration::from_secs(hook.sleep.seconds)).min(kill_at);
            tokio::select! {
                () = tokio::time::sleep_until(over) => {}
                _ = process.wait() => return,
            }
        }
        self.terminate(process, kill_at.max(Instant::now() + GRACE_LEAST)).await;
    }

    async fn terminate(&self, process: &mut Process, kill_at: Instant) {
        process.signal("TERM").ok();
        if let Ok(status) = tokio::time::timeout_at(kill_at, process.wait()).await {
            let code = status.ok().and_then(|status| status.code());
            self.tell.send_modify(|state| state.code = code);
            return;
        }
        self.tell.send_modify(|state| state.killed = true);
        process.kill().await.ok();
    }
}

/// Runs a pod that ends by itself, as a Job does: again and again until its container succeeds.
///
/// # Errors
/// When it has not within `deadline`, with what it printed last.
pub async fn complete(plan: &Plan, release: &Release, deadline: Duration) -> Result<()> {
    let launch = Launch::prepare(plan, release)?;
    let until = Instant::now() + deadline;
    loop {
        let mut process = launch.start()?;
        let status = tokio::time::timeout_at(until, process.wait()).await;
        let status = status.with_context(|| {
            format!("{} is not done after {deadline:?}\n{}", launch.name, process.tail())
        })??;
        if status.success() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{} ended with {status}\n{}", launch.name, process.tail());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The directory of a pod below that of the run.
#[must_use]
pub fn dir_of(run: &Path, identity: &Identity) -> PathBuf {
    run.join("pods").join(format!("{}-{}", identity.name, identity.uid))
}

/// Labels, annotations and names of a new pod.
#[must_use]
pub fn identity(name: &str, namespace: &str, ip: Ipv4Addr, template: &crate::manifest::Meta) -> Identity {
    let [a, b]: [u64; 2] = rand::random();
    let uid = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    );
    Identity {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid,
        ip: ip.to_string(),
        labels: template.labels.clone(),
        annotations: template.annotations.clone(),
    }
}

/// What services share of a pod.
#[must_use]
pub fn endpoint(pod: &Pod, spec: &PodSpec) -> Option<crate::service::Endpoint> {
    let container = Arc::new(spec.container().ok()?.clone());
    Some(crate::service::Endpoint {
        ip: pod.ip,
        labels: pod.identity.labels.clone(),
        container,
        state: pod.watch(),
    })
}
