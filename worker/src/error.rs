//! Why a worker cannot run.

/// Result of starting or running a worker.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps a worker from running; each says the way out. Outages are not among them: those are waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error("data directory `{path}`: {reason}")]
    DataDir {
        /// Which directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The coordinators will not have this worker, now or later.
    #[error("the coordinator refused worker `{worker}`: {reason}")]
    Refused {
        /// Its name.
        worker: String,
        /// What the coordinator said.
        reason: String,
    },
    /// The worker itself broke.
    #[error("worker task ended: {0}")]
    Broken(String),
}
