//! The file system: folders, files that are appended to, and `fsync`. Every error names its path and says what to do.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use connector::{Error, ErrorKind, Result};
use model::Epoch;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

/// Threads of one sink that may be in the file system at a time. The process has 512 for all that blocks.
const THREADS_MAX: usize = 32;

/// Who may be in the file system. A thread on a disk that stands still does not come back, whoever waited for it: it keeps its
/// place, and the next attempts wait without one.
#[derive(Clone, Debug)]
pub(super) struct Threads {
    all: Arc<Semaphore>,
    /// One at a time.
    own: Arc<Semaphore>,
}

impl Threads {
    /// Those of one sink.
    pub(super) fn of_a_sink() -> Self {
        Self::new(THREADS_MAX)
    }

    fn new(max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(max)), own: Arc::new(Semaphore::new(1)) }
    }

    /// One of them, for one kind of work.
    fn one(&self) -> Self {
        Self { all: Arc::clone(&self.all), own: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for a place.
    async fn place(&self) -> Place {
        let (own, all) = (Arc::clone(&self.own), Arc::clone(&self.all));
        let closed = "nobody closes it";
        Place {
            _own: own.acquire_owned().await.expect(closed),
            _all: all.acquire_owned().await.expect(closed),
        }
    }
}

/// A thread's leave to be in the file system; the thread itself gives it back.
struct Place {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Place {
    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let worked = spawn_blocking(move || {
            let outcome = work();
            drop(self);
            outcome
        });
        worked.await.unwrap_or_else(|e| {
            Err(Error::new(ErrorKind::Bug, "the file system thread ended early").because(e))
        })
    }
}

/// Where the files of one split of one sink are.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// It and the folders above it that are ours, outermost first.
    levels: [PathBuf; 3],
    /// Makes files and appends to them.
    writes: Threads,
    /// Syncs them: an error of one sync is not told to the next, so the next must see that the file is broken.
    syncs: Threads,
}

impl Folder {
    /// `{path}/{sink}/{split}`
    pub(super) fn new(path: &Path, sink: &str, split: &str, threads: &Threads) -> Self {
        let sink = path.join(safe_name(sink));
        let split = sink.join(safe_name(split));
        Self { levels: [path.to_owned(), sink, split], writes: threads.one(), syncs: threads.one() }
    }

    /// Makes the first file of this epoch that is not there yet, from number `n` on. Its name is durable when this returns.
    pub(super) async fn create(
        &self,
        epoch: Epoch,
        n: u32,
        extension: &'static str,
    ) -> Result<(Segment, u32)> {
        let folder = self.clone();
        self.writes.place().await.run(move || folder.create_now(epoch, n, extension)).await
    }

    fn create_now(&self, epoch: Epoch, first: u32, extension: &str) -> Result<(Segment, u32)> {
        let [path, .., split] = &self.levels;
        let above = path.parent().filter(|above| !path.exists() && !above.as_os_str().is_empty());
        fs::create_dir_all(split).map_err(|e| failure("create folder", split, e))?;
        let mut n = first;
        loop {
            let name = format!("{:04}.{:012}-{n:06}.{extension}", epoch.generation, epoch.revision);
            let path = split.join(name);
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    // A name is durable when the folder that holds it is.
                    for level in above.into_iter().chain(self.levels.iter().map(PathBuf::as_path)) {
                        sync_folder(level)?;
                    }
                    return Ok((Segment::new(path, file, self), n));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(e) => return Err(failure("create file", &path, e)),
            }
        }
    }
}

fn sync_folder(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| failure("sync folder", path, e))
}

/// A name as one level of a path: everything but letters, digits, `.`, `_` and `-` becomes `%XX`.
fn safe_name(name: &str) -> String {
    let dots = name.chars().all(|c| c == '.');
    name.bytes()
        .map(|b| match b {
            b'.' if !dots => ".".to_owned(),
            b'_' | b'-' => char::from(b).to_string(),
            _ if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// A file that is appended to by one writer. No thread of the runtime waits for the disk: one that stands still must not stop
/// heartbeats.
pub(super) struct Segment {
    path: PathBuf,
    file: fs::File,
    /// Bytes of whole lines.
    length: AtomicU64,
    /// Nothing more may be written: its end is not known.
    broken: AtomicBool,
    writes: Threads,
    syncs: Threads,
    /// Bytes that are on the disk; held while syncing, so that all who wait are served by one sync.
    synced: tokio::sync::Mutex<u64>,
}

/// Gives a file up when its append is not waited for any more: nobody knows where it ends then.
struct Abandoned<'a>(Option<&'a Segment>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(segment) = self.0 {
            segment.broken.store(true, Ordering::SeqCst);
        }
    }
}

impl Segment {
    fn new(path: PathBuf, file: fs::File, folder: &Folder) -> Self {
        Self {
            path,
            file,
            length: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            writes: folder.writes.clone(),
            syncs: folder.syncs.clone(),
            synced: tokio::sync::Mutex::new(0),
        }
    }

    /// Whether a new file must be begun.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    /// Appends whole lines and returns where they end. After an error none of them are in the file, or it is broken.
    pub(super) async fn append(self: &Arc<Self>, lines: Vec<u8>) -> Result<u64> {
        let place = self.writes.place().await;
        let mut abandoned = Abandoned(Some(self));
        let segment = Arc::clone(self);
        let appended = place.run(move || segment.append_now(&lines)).await;
        abandoned.0 = None;
        appended
    }

    fn append_now(&self, lines: &[u8]) -> Result<u64> {
        if self.is_broken() {
            return Err(self.given_up());
        }
        let length = self.length();
        if let Err(e) = (&self.file).write_all(lines) {
            self.cut_back(length);
            return Err(failure("write to", &self.path, e));
        }
        let length = length + lines.len() as u64;
        self.length.store(length, Ordering::SeqCst);
        Ok(length)
    }

    /// After a failed write: half a line must not meet the next one.
    fn cut_back(&self, length: u64) {
        if self.file.set_len(length).is_err() {
            self.broken.store(true, Ordering::SeqCst);
        }
    }

    /// Waits until the first `end` bytes are on the disk.
    pub(super) async fn durable(self: Arc<Self>, end: u64) -> Result<()> {
        let mut synced = self.synced.lock().await;
        if *synced >= end {
            return Ok(());
        }
        let segment = Arc::clone(&self);
        *synced = self.syncs.place().await.run(move || segment.sync_now()).await?;
        Ok(())
    }

    fn sync_now(&self) -> Result<u64> {
        let length = self.length();
        if self.is_broken() {
            return Err(self.given_up());
        }
        // After a failed sync the kernel may have forgotten the pages: asking again would answer a hollow yes
        // (https://wiki.postgresql.org/wiki/Fsync_Errors). What is written again goes to the next file, after this one.
        self.file.sync_data().map_err(|e| {
            self.broken.store(true, Ordering::SeqCst);
            failure("sync", &self.path, e)
        })?;
        Ok(length)
    }

    fn given_up(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("file `{}` was given up", self.path.display()))
    }
}

/// Whether files can be made under `path`.
pub(super) async fn probe(path: PathBuf, threads: &Threads) -> Result<()> {
    let tried = threads.place().await.run(move || {
        fs::create_dir_all(&path).map_err(|e| failure("create folder", &path, e))?;
        let probe = path.join(format!(".shardwright-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        let tried = fs::write(&probe, b"probe\n").and_then(|()| fs::remove_file(&probe));
        tried.map_err(|e| failure("write to folder", &path, e))
    });
    tried.await
}

fn failure(what: &str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::PermissionDenied => ErrorKind::Denied,
        Io::NotFound | Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists | Io::InvalidFilename => {
            ErrorKind::Config
        }
        Io::ReadOnlyFilesystem => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {what} `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn any_folder() -> Folder {
        Folder::new(&std::env::temp_dir(), "sink", "split", &Threads::of_a_sink())
    }

    /// One of two blocking threads is left when `folders` splits have tried again and again to write to a disk that stands
    /// still.
    fn stand_still(max: usize, folders: usize) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(2).enable_time().build().unwrap();
        let threads = Threads::new(max);
        // A pipe that nobody reads.
        let (reader, writer) = io::pipe().unwrap();
        runtime.block_on(async {
            for _ in 0..folders {
                let folder = Folder::new(Path::new("/nowhere"), "sink", "split", &threads);
                let pipe = fs::File::from(OwnedFd::from(writer.try_clone().unwrap()));
                let segment = Arc::new(Segment::new("pipe".into(), pipe, &folder));
                for _ in 0..3 {
                    let wait = Duration::from_millis(10);
                    assert!(timeout(wait, segment.append(vec![b'x'; 1 << 20])).await.is_err());
                    let epoch = Epoch { generation: 0, revision: 1 };
                    assert!(timeout(wait, folder.create(epoch, 0, "txt")).await.is_err());
                }
            }
            let free = timeout(Duration::from_secs(30), spawn_blocking(|| ())).await;
            drop(reader);
            free.expect("no thread is left for anybody else").unwrap();
        });
    }

    #[test]
    fn a_disk_that_stands_still_holds_one_thread_of_a_split() {
        stand_still(9, 1);
    }

    #[test]
    fn splits_of_a_sink_whose_disk_stands_still_hold_no_more_threads_than_it_may() {
        stand_still(1, 3);
    }

    #[test]
    fn a_name_never_leaves_its_folder() {
        assert_eq!(safe_name("shardId-000000000000"), "shardId-000000000000");
        assert_eq!(safe_name(".."), "%2E%2E");
        assert_eq!(safe_name("a/../b c"), "a%2F..%2Fb%20c");
    }

    #[test]
    fn a_full_disk_is_waited_out_and_named() {
        let full = failure("write to", Path::new("/x/y"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::Unavailable);
        assert!(full.to_string().starts_with("cannot write to `/x/y`: "), "{full}");
        let denied = failure("write to", Path::new("/x"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(denied.kind(), ErrorKind::Denied);
    }

    #[tokio::test]
    async fn after_a_failed_write_no_line_follows_half_a_line() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("shardwright-half-a-line-{}", std::process::id()));
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let segment = Arc::new(Segment::new(path.clone(), file, &any_folder()));
        assert_eq!(segment.append(b"one\n".to_vec()).await.unwrap(), 4);
        // Another hand leaves half a line behind, as a write that failed midway would.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"tw").unwrap();
        segment.cut_back(segment.length());
        assert!(!segment.is_broken());
        assert_eq!(segment.append(b"two\n".to_vec()).await.unwrap(), 8);
        segment.durable(8).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_device_that_is_full_breaks_the_file_and_says_so() {
        let path = PathBuf::from("/dev/full");
        let Ok(file) = OpenOptions::new().append(true).open(&path) else {
            println!("skipped: no /dev/full here");
            return;
        };
        let segment = Arc::new(Segment::new(path, file, &any_folder()));
        let error = segment.append(b"line\n".to_vec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert!(segment.is_broken(), "its end cannot be cut off, so nothing may follow");
        assert!(segment.append(b"line\n".to_vec()).await.is_err());
    }
}
