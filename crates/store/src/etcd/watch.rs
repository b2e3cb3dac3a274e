//! Wake-ups from etcd. A watch says only "look again", so it needs no revision to resume from: whatever broke it (a server
//! that went away, a compaction, a changed password), it is opened again and wakes once, because something may have been
//! missed.

use etcd_client::{WatchOptions, WatchStream};
use futures::stream::{BoxStream, StreamExt, unfold};

use super::{
    call::{Caller, pause},
    connection::Connection,
};
use crate::{Error, ErrorKind, Key, Result};

struct Watching {
    connection: Connection,
    caller: Caller,
    prefix: Key,
    /// Empty while broken.
    stream: Option<WatchStream>,
    /// Attempts to open it since it last worked.
    attempts: u32,
}

/// Opens a watch; when this returns, every later change wakes.
pub(super) async fn open(
    connection: Connection,
    caller: Caller,
    prefix: &Key,
) -> Result<BoxStream<'static, ()>> {
    let stream = Some(establish(&connection, &caller, prefix).await?);
    let watching = Watching { connection, caller, prefix: prefix.clone(), stream, attempts: 0 };
    Ok(unfold(watching, |mut watching| async move {
        watching.woken().await;
        Some(((), watching))
    })
    .boxed())
}

impl Watching {
    /// Returns when something may have changed.
    async fn woken(&mut self) {
        loop {
            let Some(stream) = &mut self.stream else {
                if self.reopen().await {
                    return;
                }
                continue;
            };
            match stream.message().await {
                Ok(Some(message)) if message.canceled() => {
                    tracing::debug!(prefix = %self.prefix, reason = message.cancel_reason(), "watch cancelled");
                    self.stream = None;
                }
                Ok(Some(message)) => {
                    self.attempts = 0;
                    if !message.events().is_empty() {
                        return;
                    }
                }
                Ok(None) => self.stream = None,
                Err(error) => {
                    tracing::debug!(prefix = %self.prefix, %error, "watch broke");
                    self.stream = None;
                }
            }
        }
    }

    async fn reopen(&mut self) -> bool {
        tokio::time::sleep(pause(self.attempts)).await;
        self.attempts = self.attempts.saturating_add(1);
        match establish(&self.connection, &self.caller, &self.prefix).await {
            Ok(stream) => {
                self.stream = Some(stream);
                true
            }
            Err(error) => {
                tracing::warn!(prefix = %self.prefix, attempts = self.attempts, %error, "watch cannot be opened");
                if error.kind == ErrorKind::Denied {
                    // The token may have expired unnoticed: a watch learns of it only by being cancelled.
                    self.connection.client().refresh_token().await.ok();
                }
                false
            }
        }
    }
}

/// A stream whose watch the server has confirmed.
async fn establish(connection: &Connection, caller: &Caller, prefix: &Key) -> Result<WatchStream> {
    let opened = caller.read("watch", || {
        let (mut client, prefix) = (connection.client().watch_client(), prefix.as_str());
        async move {
            let mut stream = client.watch(prefix, Some(WatchOptions::new().with_prefix())).await?;
            let first = stream.message().await?;
            Ok((stream, first))
        }
    });
    let (stream, first) = opened.await.map_err(|failure| failure.error)?;
    match first {
        Some(message) if message.created() && !message.canceled() => Ok(stream),
        Some(message) => {
            let reason = message.cancel_reason();
            let denied = reason.contains("permission denied") || reason.contains("auth");
            let kind = if denied { ErrorKind::Denied } else { ErrorKind::Unavailable };
            Err(Error::new(kind, format!("etcd refused to watch `{prefix}`: {reason}")))
        }
        None => Err(Error::new(ErrorKind::Unavailable, format!("watch of `{prefix}` ended at once"))),
    }
}
