//! `shardwright check`: does everything that this configuration names exist, answer and let us in? A line for each thing, with
//! the way out where something is wrong. It changes nothing, anywhere.

mod limits;
mod outside;

use std::{
    fmt,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use coordinator::Vault;
use daemon::tls::Tls;
use proto::v1::StatusRequest;
use store::{Keyspace, MetadataStore, View};

use crate::{
    backup::StoreArgs,
    client::{self, Member, Patience, Target},
    failure::Failure,
    role::{self, Settings},
};

/// How long one thing may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// What may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    Store,
    Coordinators,
    Sources,
    Sinks,
    Limits,
}

/// Look whether everything that the settings name is there and lets us in.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    place: StoreArgs,
    /// What is not looked at, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    skip: Vec<Part>,
}

/// How one thing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    Ok,
    Warning,
    Failed,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// The lines, printed as they come: what is slow or hangs is seen.
struct Report<'a> {
    out: &'a mut dyn Write,
    failed: usize,
    warnings: usize,
}

impl Report<'_> {
    fn line(
        &mut self,
        mark: Mark,
        what: &str,
        found: impl fmt::Display,
        remedy: &str,
    ) -> Result<(), Failure> {
        match mark {
            Mark::Ok => {}
            Mark::Warning => self.warnings += 1,
            Mark::Failed => self.failed += 1,
        }
        writeln!(self.out, "{mark:<8} {what:<20} {found}")?;
        if mark != Mark::Ok && !remedy.is_empty() {
            writeln!(self.out, "{:<29} -> {remedy}", "")?;
        }
        self.out.flush()?;
        Ok(())
    }

    fn ok(&mut self, what: &str, found: impl fmt::Display) -> Result<(), Failure> {
        self.line(Mark::Ok, what, found, "")
    }
}

/// Looks at everything, and fails if something failed.
pub async fn run(args: CheckArgs, target: &Target) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let mut report = Report { out: &mut out, failed: 0, warnings: 0 };
    let settings = match settings(&args, &mut report)? {
        Some(settings) => settings,
        None => return end(&report),
    };
    let looks = |part: Part| !args.skip.contains(&part);
    certificate(&settings, &mut report)?;
    if looks(Part::Limits) {
        limits::look(&settings.worker, &mut report)?;
    }
    if looks(Part::Coordinators) {
        coordinators(&settings, target, &mut report).await?;
    }
    if looks(Part::Store)
        && let Some(view) = store(&settings, &mut report).await?
    {
        if looks(Part::Sources) {
            outside::sources(&view, &mut report).await?;
        }
        if looks(Part::Sinks) {
            outside::sinks(&view, &mut report).await?;
        }
    }
    end(&report)
}

fn end(report: &Report<'_>) -> Result<(), Failure> {
    let Report { failed, warnings, .. } = report;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Refused(format!("ERROR: {failed} failed, {warnings} warnings"))),
    }
}

/// The settings, if they can be read and fit together.
fn settings(args: &CheckArgs, report: &mut Report<'_>) -> Result<Option<Settings>, Failure> {
    let loaded = match args.place.read() {
        Ok(loaded) => loaded,
        Err(failure) => {
            let text = failure.to_string();
            let remedy = "`shardwright settings` lists every key";
            report.line(Mark::Failed, "settings", text.trim_start_matches("ERROR: "), remedy)?;
            return Ok(None);
        }
    };
    for line in &loaded.passed_over {
        report.line(Mark::Warning, "settings", line, "remove it, or mend its name")?;
    }
    let settings = loaded.value;
    match role::check_strangers(&settings, &["coordinator", "worker"]) {
        Ok(open) => {
            for line in open {
                report.line(
                    Mark::Warning,
                    "settings",
                    line,
                    "see The wires of a cluster in docs/security.md",
                )?;
            }
        }
        Err(failure) => {
            report.line(Mark::Failed, "settings", failure.to_string().trim_start_matches("ERROR: "), "")?;
        }
    }
    let wrong = settings.coordinator.check().map_err(|error| error.to_string());
    let wrong = wrong.and_then(|()| settings.worker.check().map_err(|error| error.to_string()));
    match wrong {
        Err(text) => report.line(Mark::Failed, "settings", text, "")?,
        Ok(()) => {
            let from = args.place.config();
            let from = from.map_or_else(|| "no file".to_owned(), |path| format!("`{}`", path.display()));
            report.ok("settings", format!("{from}, cluster `{}`", settings.coordinator.cluster))?;
        }
    }
    Ok(Some(settings))
}

/// The certificate of `[tls]`, as a process that starts now would take it.
fn certificate(settings: &Settings, report: &mut Report<'_>) -> Result<(), Failure> {
    match Tls::open(&settings.tls) {
        Ok(None) => Ok(()),
        Ok(Some(tls)) => report.ok("certificate", format!("it can be used, for {}", tls.names().join(", "))),
        Err(error) => {
            report.line(Mark::Failed, "certificate", error, "mend tls.cert_path, tls.key_path or tls.ca_path")
        }
    }
}

/// The store, and what it holds of the cluster.
async fn store(settings: &Settings, report: &mut Report<'_>) -> Result<Option<View>, Failure> {
    let Some(config) = &settings.store else {
        let remedy = "sources and sinks are looked at with the store's settings: --store URL, or --config of a coordinator";
        report.line(Mark::Warning, "store", "none is named", remedy)?;
        return Ok(None);
    };
    let path = config.url.strip_prefix("embedded:").map(|path| path.strip_prefix("//").unwrap_or(path));
    if let Some(path) = path.filter(|path| !std::path::Path::new(path).exists()) {
        let found = format!("there is no file `{path}` yet");
        report.line(Mark::Warning, "store", found, "a coordinator makes it at its first start")?;
        return Ok(None);
    }
    let began = Instant::now();
    let opened = match store::connect(config).await {
        Ok(opened) => opened,
        // A file has one process at a time.
        Err(error) if error.context.contains("in use by another process") => {
            report.line(
                Mark::Warning,
                "store",
                error,
                "stop that one to look at the catalog, its sources and sinks",
            )?;
            return Ok(None);
        }
        Err(error) => {
            let remedy = match error.kind {
                store::ErrorKind::Unavailable => "is it running, and may this machine reach it?",
                store::ErrorKind::Denied => "mend store.user and store.password_file, or its certificates",
                _ => "",
            };
            report.line(Mark::Failed, "store", error, remedy)?;
            return Ok(None);
        }
    };
    match opened.maintain(None).await {
        Ok(health) => {
            let (took, mib) = (began.elapsed().as_millis(), health.size_bytes >> 20);
            report.ok("store", format!("{} answers ({took} ms), {mib} MiB", health.version))?;
            for alarm in health.alarms {
                let remedy = "free its disk or raise its quota, then `etcdctl alarm disarm`";
                report.line(Mark::Failed, "store", format!("it raises an alarm: {alarm}"), remedy)?;
            }
        }
        Err(error) => report.line(Mark::Failed, "store", error, "is the whole of it running?")?,
    }
    let cluster = &settings.coordinator.cluster;
    let vault = match Vault::open(&settings.secrets, cluster, config.is_local()).await {
        Ok(vault) => vault,
        Err(error) => {
            report.line(Mark::Failed, "secrets", error, "`shardwright secrets new-key` makes a key")?;
            return Ok(None);
        }
    };
    if let Some(key) = vault.key() {
        report.ok("secrets", format!("sealed with key `{key}`"))?;
    }
    catalog(&vault.over(opened, cluster), cluster, report).await
}

async fn catalog(
    store: &Arc<dyn MetadataStore>,
    cluster: &str,
    report: &mut Report<'_>,
) -> Result<Option<View>, Failure> {
    let keys = Keyspace::new(cluster);
    let listed = store.list(&keys.all()).await.and_then(|snapshot| View::decode(&keys, &snapshot));
    let view = match listed {
        Ok(view) => view,
        Err(error) => {
            report.line(Mark::Failed, "cluster", error, "see Disaster recovery in docs/operations.md")?;
            return Ok(None);
        }
    };
    let Some(schema) = view.schema.as_ref().map(|schema| schema.value) else {
        let remedy = "right before the first start; else mend coordinator.cluster or store.url";
        report.line(Mark::Warning, "cluster", format!("nothing is stored under `{}`", keys.all()), remedy)?;
        return Ok(None);
    };
    if schema.oldest_reader() > store::SCHEMA_VERSION {
        let found = format!(
            "layout {} is not for this release, which knows {}",
            schema.version,
            store::SCHEMA_VERSION
        );
        report.line(
            Mark::Failed,
            "cluster",
            found,
            "run a newer release, or finish the restore that was begun",
        )?;
        return Ok(None);
    }
    let (objects, workers) = (view.names.len(), view.workers.len());
    let leader = view.leader.as_ref().map_or("nobody leads", |_| "a coordinator leads");
    let text = format!(
        "`{cluster}`: layout {}, generation {}, {objects} objects, {workers} workers, {leader}",
        schema.version, schema.generation
    );
    report.ok("cluster", text)?;
    Ok(Some(view))
}

/// Which coordinators there are: those that workers are told, those of the command line, or the one that these settings are of.
struct Named {
    urls: Vec<String>,
    /// The settings said so: they say how TLS is spoken there, too.
    by_settings: bool,
    /// It is the one on this machine, whatever its certificate calls it.
    ours: bool,
}

fn named(settings: &Settings, target: &Target) -> Named {
    let (told, server) = (&settings.worker.coordinators, target.server.as_str());
    if *told != worker::Config::default().coordinators {
        return Named { urls: told.clone(), by_settings: true, ours: false };
    }
    if server != client::DEFAULT_SERVER {
        let urls = server.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned);
        return Named { urls: urls.collect(), by_settings: false, ours: false };
    }
    if let Some(url) = &settings.coordinator.advertise {
        return Named { urls: vec![url.clone()], by_settings: true, ours: false };
    }
    let mut listen = settings.coordinator.listen;
    if listen.ip().is_unspecified() {
        let here: (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        listen.set_ip(if listen.is_ipv4() { here.0 } else { here.1 });
    }
    let scheme = if settings.tls.is_on() { "https" } else { "http" };
    Named { urls: vec![format!("{scheme}://{listen}")], by_settings: true, ours: true }
}

/// Every coordinator by itself: one that is away is hidden by the others.
async fn coordinators(settings: &Settings, target: &Target, report: &mut Report<'_>) -> Result<(), Failure> {
    let Named { urls, by_settings, ours } = named(settings, target);
    let mut target = target.clone();
    if by_settings && target.ca.is_none() && target.cert.is_none() {
        // Files that cannot be used were told of.
        let tls = Tls::open(&settings.tls).ok().flatten();
        target.member = tls.map(|tls| {
            let name = tls.names().into_iter().next().filter(|_| ours);
            Member { tls, name }
        });
    }
    for url in urls {
        let mut one = target.clone();
        one.server.clone_from(&url);
        let what = "coordinator";
        let mut admin = match client::connect(&one).await {
            Ok(admin) => admin,
            Err(failure) => {
                let text = failure.to_string();
                let found = text.trim_start_matches("ERROR: ").lines().next().unwrap_or_default().to_owned();
                report.line(
                    Mark::Failed,
                    what,
                    found,
                    "start it, or mend worker.coordinators or --server",
                )?;
                continue;
            }
        };
        match client::ask(Patience::default(), admin.status(StatusRequest {})).await {
            Ok(status) if status.leader.is_empty() => {
                report.line(
                    Mark::Failed,
                    what,
                    format!("{url} answers, and nobody leads"),
                    "can it reach the store?",
                )?;
            }
            Ok(status) => {
                report.ok(
                    what,
                    format!("{url} answers; {} leads cluster `{}`", status.leader, status.cluster),
                )?;
                for warning in status.warnings {
                    report.line(Mark::Warning, "cluster", warning, "see Status in docs/operations.md")?;
                }
            }
            Err(failure) => {
                let text = failure.to_string();
                let found = format!("{url} answers and refuses us: {}", text.trim_start_matches("ERROR: "));
                report.line(Mark::Warning, what, found, "say who you are: --user, --token-file or --cert")?;
            }
        }
    }
    Ok(())
}
