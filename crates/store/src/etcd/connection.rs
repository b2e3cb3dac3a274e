//! The connection to etcd. Its files (authority, certificate, key, password) are looked at again and again, by what they hold;
//! when that changes, a second connection is made with it and, once it answers, takes the place of the first. Leases and keys
//! are etcd's: they live on. Calls under way end on the connection that they began on, watches live on it until it breaks.
//! Files that cannot be used change nothing but the log.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use etcd_client::{Client, GetOptions};
use sha2::{Digest as _, Sha256};

use super::{EtcdConfig, PROBE_KEY, call::Caller};
use crate::Result;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The connection as it is now. Cheap to clone; all clones change together.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    client: RwLock<Client>,
    caller: Caller,
    config: EtcdConfig,
}

/// What the files held, without holding it.
type Print = [u8; 32];

impl Connection {
    /// Connects, and looks at the files until the last clone is gone.
    pub(super) async fn open(config: EtcdConfig, caller: Caller) -> Result<Self> {
        // Before they are read for the connection: what changes in between is seen at the first look.
        let used = print(&config).await?;
        let client = connect(&config, &caller).await?;
        let shared = Arc::new(Shared { client: RwLock::new(client), caller, config });
        if shared.config.files().next().is_some() {
            tokio::spawn(attend(Arc::downgrade(&shared), used));
        }
        Ok(Self { shared })
    }

    /// For one call.
    pub(super) fn client(&self) -> Client {
        self.shared.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn attend(store: Weak<Shared>, mut used: Print) {
    // What went wrong at the last look, and whether that was said. Files are written one after the other: what fits together a
    // moment later is no trouble.
    let mut trouble: Option<(String, bool)> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = store.upgrade() else { return };
        match shared.look(&used).await {
            Ok(None) => trouble = None,
            Ok(Some(found)) => {
                tracing::info!("the files for etcd were read again, and it answers");
                (used, trouble) = (found, None);
            }
            Err(error) => {
                let reason = error.to_string();
                let said = match &trouble {
                    Some((known, said)) if *known == reason => {
                        if !said {
                            tracing::error!(
                                reason,
                                "the changed files for etcd cannot be used, what was read before is kept"
                            );
                        }
                        true
                    }
                    _ => false,
                };
                trouble = Some((reason, said));
            }
        }
    }
}

impl Shared {
    /// What is used from now on, if it changed.
    async fn look(&self, used: &Print) -> Result<Option<Print>> {
        let found = print(&self.config).await?;
        if found == *used {
            return Ok(None);
        }
        let client = connect(&self.config, &self.caller).await?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(Some(found))
    }
}

/// A connection over which etcd has answered.
async fn connect(config: &EtcdConfig, caller: &Caller) -> Result<Client> {
    let options = config.client_options().await?;
    caller
        .first_call(config.connect_timeout, || async {
            let client = Client::connect(&config.endpoints, Some(options.clone())).await?;
            client.kv_client().get(PROBE_KEY, Some(GetOptions::new().with_keys_only())).await?;
            Ok(client)
        })
        .await
}

async fn print(config: &EtcdConfig) -> Result<Print> {
    let mut all = Sha256::new();
    for file in config.files() {
        all.update(Sha256::digest(super::options::read(file).await?));
    }
    Ok(all.finalize().into())
}
