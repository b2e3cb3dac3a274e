//! Who this worker is: its name, its process (new at each start, P1) and its instance, which runs one process at a time: the
//! lock on the data directory proves it, so that a new process of the same instance is known to have outlived the old one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use rand::RngCore as _;

use crate::{Config, Error, Result};

/// The lock is held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) worker: String,
    pub(crate) process: String,
    pub(crate) instance: String,
    _lock: File,
}

impl Identity {
    /// Takes the data directory and reads, or makes, the instance id in it.
    pub(crate) fn take(config: &Config) -> Result<Self> {
        let worker = match &config.name {
            Some(name) if name.is_empty() || name.contains('/') => {
                return Err(Error::Config(format!("`{name}` cannot be the name of a worker")));
            }
            Some(name) => name.clone(),
            None => host_name(),
        };
        let (lock, kept) = lock(&config.data_dir)?;
        let instance = config.instance.clone().unwrap_or(kept);
        Ok(Self { worker, process: fresh_id(), instance, _lock: lock })
    }
}

fn host_name() -> String {
    let read =
        fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let name = read.unwrap_or_default().trim().to_owned();
    let name = if name.is_empty() { std::env::var("HOSTNAME").unwrap_or_default() } else { name };
    if name.is_empty() { "worker".to_owned() } else { name }
}

fn fresh_id() -> String {
    ulid::Ulid::from_parts(unix_ms(), u128::from(rand::rng().next_u64()) << 16).to_string()
}

fn unix_ms() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0)
}

fn lock(dir: &Path) -> Result<(File, String)> {
    let failed = |reason: String| Error::DataDir { path: dir.display().to_string(), reason };
    fs::create_dir_all(dir).map_err(|e| failed(format!("cannot be made: {e}")))?;
    let path = dir.join("instance");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| failed(format!("cannot be written: {e}")))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(failed(
                "another worker runs in it; stop that one or give this one its own `data_dir`".to_owned(),
            ));
        }
        Err(TryLockError::Error(e)) => return Err(failed(format!("cannot be locked: {e}"))),
    }
    let mut kept = String::new();
    file.read_to_string(&mut kept).map_err(|e| failed(format!("cannot be read: {e}")))?;
    if kept.trim().is_empty() {
        kept = fresh_id();
        file.rewind()
            .and_then(|()| file.write_all(kept.as_bytes()))
            .and_then(|()| file.sync_all())
            .map_err(|e| failed(format!("cannot be written: {e}")))?;
    }
    Ok((file, kept.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_stays_and_the_process_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("a"), ..Config::default() };
        let first = Identity::take(&config).unwrap();
        let (process, instance) = (first.process.clone(), first.instance.clone());
        drop(first);
        let second = Identity::take(&config).unwrap();
        assert_eq!(second.instance, instance);
        assert_ne!(second.process, process);
    }

    #[test]
    fn a_second_worker_on_the_same_directory_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let _first = Identity::take(&config).unwrap();
        let error = Identity::take(&config).unwrap_err().to_string();
        assert!(error.contains("another worker runs in it") && error.contains("data_dir"), "{error}");
    }
}
