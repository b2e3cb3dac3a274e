//! `certificate_expiry_seconds`: the time that is left to a certificate, below zero once it is over.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{KeyValue, global};
use tokio_util::sync::CancellationToken;

use super::{
    files::{self, Named, now},
    identity::LOOK_EVERY,
};

/// What a file is to this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Our certificate.
    Certificate,
    /// Those who vouch for others; the first that expires counts.
    Authority,
}

/// Measures files that others of this process use, as they lie there, until `cancel`. One that cannot be read or understood has
/// no series. Inside the runtime, after telemetry.
pub fn measure(files: Vec<(PathBuf, Use)>, cancel: CancellationToken) {
    if files.is_empty() {
        return;
    }
    let found: Arc<Mutex<Vec<(PathBuf, Use, i64)>>> = Arc::default();
    let seen = Arc::downgrade(&found);
    gauge(move |observe| {
        let Some(found) = seen.upgrade() else { return };
        for (file, used, expires) in found.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            observe(file, *used, *expires);
        }
    });
    tokio::spawn(async move {
        loop {
            let (files, found) = (files.clone(), Arc::clone(&found));
            // Files may lie on a disk that hangs.
            let looked = tokio::task::spawn_blocking(move || {
                let now = files.into_iter().filter_map(|(file, used)| {
                    let named = Named::new("store", file.as_path());
                    let expires =
                        named.read().and_then(|bytes| files::expires((&named, &bytes), used)).ok()?;
                    Some((file, used, expires))
                });
                let now = now.collect();
                *found.lock().unwrap_or_else(PoisonError::into_inner) = now;
            });
            if looked.await.is_err() {
                return;
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    });
}

/// The gauge, which asks for the second at which each file expires.
pub(super) fn gauge(each: impl Fn(&mut dyn FnMut(&Path, Use, i64)) + Send + Sync + 'static) {
    let meter = global::meter("shardwright");
    let gauge = meter.f64_observable_gauge("certificate_expiry").with_unit("s");
    let observed = gauge.with_callback(move |observer| {
        each(&mut |file, used, expires| {
            #[allow(clippy::cast_precision_loss, reason = "seconds of a life of centuries fit")]
            let left = (expires - now()) as f64;
            let used = match used {
                Use::Certificate => "certificate",
                Use::Authority => "authority",
            };
            let labels = [KeyValue::new("file", file.display().to_string()), KeyValue::new("use", used)];
            observer.observe(left, &labels);
        });
    });
    observed.build();
}
