//! `shardwright backup` and `shardwright restore`: the catalog and the positions of a cluster as a file, and back. Both go to
//! the store itself, so they need its settings and no coordinator; what the file is and what a restore does is in
//! `store::Backup`.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use daemon::config::Loaded;
use store::{Backup, Contents, MetadataStore, RestoreInto, StoreConfig};

use crate::{
    failure::Failure,
    role::{Given, Settings, SettingsArgs, read_for_tool, store_failed},
};

/// Which cluster in which store.
#[derive(Args, Debug)]
pub struct StoreArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Name of the cluster: the first part of its keys in the store
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// etcd://HOST:PORT[,HOST:PORT…] or embedded:PATH
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// Copy a cluster's catalog and positions into a file.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// The file, which must not exist yet; `-` is stdout
    file: PathBuf,
    #[command(flatten)]
    place: StoreArgs,
}

/// Put a backup back, while no coordinator runs.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The file that `shardwright backup` wrote
    file: PathBuf,
    /// Remove first what the store holds of the cluster
    #[arg(long)]
    replace: bool,
    /// The backup may be of a cluster of another name
    #[arg(long)]
    rename_cluster: bool,
    /// Only look whether the file is whole, and say what it is of
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    place: StoreArgs,
}

/// `shardwright backup`.
pub async fn backup(args: BackupArgs) -> Result<(), Failure> {
    let to_stdout = args.file.as_os_str() == "-";
    let (store, cluster) = args.place.open(true).await?;
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let taken = Backup::take(store.as_ref(), &cluster, env!("SHARDWRIGHT_VERSION"), &now).await;
    let backup = taken.map_err(|error| store_failed(&error))?;
    if to_stdout {
        backup.write(&mut std::io::stdout().lock())?;
        return Ok(());
    }
    write_whole(&args.file, &backup)?;
    writeln!(std::io::stdout(), "{}\nwritten to {}", told(backup.contents()), args.file.display())?;
    Ok(())
}

/// `shardwright restore`.
pub async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let shown = args.file.display();
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::Usage(format!("ERROR: cannot restore `{shown}`: {error}"));
    let bytes = std::fs::read(&args.file).map_err(|error| unreadable(&error))?;
    let backup = Backup::read(&bytes).map_err(|error| unreadable(&error))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", told(backup.contents()))?;
    if args.verify {
        writeln!(out, "the file is whole; nothing was restored")?;
        return Ok(());
    }
    let (store, cluster) = args.place.open(false).await?;
    let into = RestoreInto { cluster, replace: args.replace, rename: args.rename_cluster };
    let restored = backup.restore(&store, &into).await.map_err(|error| store_failed(&error))?;
    if restored.removed > 0 {
        writeln!(out, "{} keys were removed", restored.removed)?;
    }
    writeln!(
        out,
        "{} keys are restored to cluster `{}`, which begins generation {}.\n\
         Start the coordinators. Workers may go on: what they ran before is stopped, every task starts again from its \
         position in the backup, and what was delivered since then is delivered again.",
        restored.entries, into.cluster, restored.generation
    )?;
    Ok(())
}

fn told(contents: &Contents) -> String {
    let Contents { cluster, taken_at, release, revision, schema, entries, objects, splits, checkpoints } =
        contents;
    format!(
        "backup of cluster `{cluster}`, taken {taken_at} by {release} at revision {revision} of generation {}: \
         {entries} keys ({objects} objects, {splits} splits, {checkpoints} positions)",
        schema.generation
    )
}

/// The file is there when it is whole and durable, or not at all: until then it has another name. It holds whatever the catalog
/// does, so others do not read it.
fn write_whole(path: &Path, backup: &Backup) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: &std::io::Error| {
        let why = match error.kind() {
            ErrorKind::AlreadyExists => "it exists, and a backup overwrites nothing".to_owned(),
            _ => error.to_string(),
        };
        Failure::Refused(format!("ERROR: cannot write `{}`: {why}", path.display()))
    };
    if path.exists() {
        return Err(failed(&ErrorKind::AlreadyExists.into()));
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let whole = || -> std::io::Result<()> {
        let file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let mut buffered = std::io::BufWriter::new(file);
        backup.write(&mut buffered)?;
        buffered.into_inner()?.sync_all()?;
        // Unlike a rename this takes nothing away from whoever was faster.
        std::fs::hard_link(&part, path)
    };
    let written = whole().map_err(|error| failed(&error));
    std::fs::remove_file(&part).ok();
    written
}

impl StoreArgs {
    /// The settings, with what the flags say.
    pub(crate) fn read(&self) -> Result<Loaded<Settings>, Failure> {
        let mut given = Given::default();
        given.flag("coordinator.cluster", "--cluster", self.cluster.as_ref()).flag(
            "store.url",
            "--store",
            self.store.as_ref(),
        );
        read_for_tool(&self.settings, given)
    }

    /// The file of settings that was named.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.settings.config.as_deref()
    }

    /// The store and the name of the cluster. `there`: the store must hold something, so a file that is not there is not made.
    async fn open(&self, there: bool) -> Result<(Arc<dyn MetadataStore>, String), Failure> {
        let settings = self.read()?.value;
        let store = settings.store.ok_or_else(|| {
            Failure::Usage(
                "ERROR: no store is named; say --store etcd://HOST:PORT, --store embedded:PATH (of a standalone: \
                 embedded:DATA_DIR/metadata.redb), or --config FILE"
                    .to_owned(),
            )
        })?;
        refuse_what_is_gone(&store, there)?;
        let opened = store::connect(&store).await.map_err(|error| store_failed(&error))?;
        Ok((opened, settings.coordinator.cluster))
    }
}

fn refuse_what_is_gone(store: &StoreConfig, there: bool) -> Result<(), Failure> {
    if store.url.starts_with("memory") {
        let text = "ERROR: store `memory:` is gone with its process: there is nothing to back up or restore";
        return Err(Failure::Usage(text.to_owned()));
    }
    let path = store.url.strip_prefix("embedded:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path.filter(|path| there && !Path::new(path).exists()) {
        Some(path) => Err(Failure::Usage(format!("ERROR: there is no metadata file `{path}`"))),
        None => Ok(()),
    }
}
