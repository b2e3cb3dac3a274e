//! The file behind the embedded store: one redb database, written through. Leased keys are not in it: after a restart
//! nobody could have kept them alive.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableTable, StorageError, TableDefinition};

use super::map::{Change, Map, Stored};
use crate::{Error, ErrorKind, Key, Result, Revision};

/// Key → create revision, modification revision, value.
const ENTRIES: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("entries");
/// `revision` → the revision of the store.
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
/// Everything is in memory anyway, so the database needs next to no cache of its own.
const CACHE_BYTES: usize = 4 << 20;

/// An open file. Blocking: called from blocking threads only.
pub(super) struct StoreFile {
    database: Database,
    path: PathBuf,
}

impl StoreFile {
    /// Opens or makes the file and reads all of it.
    pub fn open(path: &Path) -> Result<(Self, Map)> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| {
                let folder = parent.display();
                Error::new(ErrorKind::Config, format!("folder `{folder}` cannot be made: {error}"))
            })?;
        }
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        let file = Self { database, path: path.to_owned() };
        let map = file.load().map_err(|error| failed(path, "read", error))?;
        Ok((file, map))
    }

    /// Makes a change durable. After an error the file must be opened again before it takes another.
    pub fn write(&self, change: &Change) -> Result<()> {
        self.try_write(change).map_err(|error| failed(&self.path, "written", error).ambiguous())
    }

    fn load(&self) -> Result<Map, redb::Error> {
        let transaction = self.database.begin_write()?;
        let (revision, entries) = {
            let counters = transaction.open_table(COUNTERS)?;
            let revision: Revision = counters.get("revision")?.map_or(0, |guard| guard.value());
            let mut entries = BTreeMap::new();
            for row in transaction.open_table(ENTRIES)?.iter()? {
                let (key, stored) = row?;
                let (create_revision, mod_revision, value) = stored.value();
                let value = Bytes::copy_from_slice(value);
                let stored = Stored { value, create_revision, mod_revision, lease: None };
                entries.insert(Key(key.value().to_owned()), stored);
            }
            (revision, entries)
        };
        transaction.commit()?;
        Ok(Map::new(revision, entries))
    }

    fn try_write(&self, change: &Change) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for (key, stored) in &change.keys {
                match stored {
                    Some(s) if s.lease.is_none() => {
                        entries.insert(key.as_str(), (s.create_revision, s.mod_revision, &s.value[..]))?;
                    }
                    _ => drop(entries.remove(key.as_str())?),
                }
            }
            transaction.open_table(COUNTERS)?.insert("revision", change.revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    let shown = path.display();
    let (kind, text) = match &error {
        DatabaseError::DatabaseAlreadyOpen => (
            ErrorKind::Config,
            format!(
                "metadata file `{shown}` is in use by another process: stop that one, or name another file"
            ),
        ),
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() == std::io::ErrorKind::InvalidData => {
            (ErrorKind::Corrupt, format!("metadata file `{shown}` is not a metadata file: {io}"))
        }
        DatabaseError::Storage(StorageError::Io(io)) if io.kind() == std::io::ErrorKind::StorageFull => {
            (ErrorKind::Full, format!("metadata file `{shown}` cannot be opened: {io}"))
        }
        DatabaseError::Storage(StorageError::Io(io)) => {
            (ErrorKind::Config, format!("metadata file `{shown}` cannot be opened: {io}"))
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => {
            (ErrorKind::Corrupt, format!("metadata file `{shown}` is damaged: {what}"))
        }
        other => (ErrorKind::Config, format!("metadata file `{shown}` cannot be opened: {other}")),
    };
    Error::new(kind, text).caused_by(error)
}

/// What an error of redb means.
pub(super) fn failed(path: &Path, what: &str, error: redb::Error) -> Error {
    let kind = match &error {
        redb::Error::Io(io)
            if matches!(
                io.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::FileTooLarge
            ) =>
        {
            ErrorKind::Full
        }
        redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    let text = format!("metadata file `{}` cannot be {what}: {error}", path.display());
    Error::new(kind, text).caused_by(error)
}
