//! Whether sources and sinks answer and let this machine in, as the catalog describes them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use connector::{Credentials, Registry};
use model::{SinkSpec, SourceSpec};
use store::{Spec, View};

use super::{ANSWER, Mark, Report};
use crate::{failure::Failure, role};

/// A signature is good for five minutes of the service's time; well before that somebody should look.
const SKEW_WARNING_MS: u64 = 10_000;
const SKEW_FAILED_MS: u64 = 240_000;

pub(super) async fn sources(view: &View, report: &mut Report<'_>) -> Result<(), Failure> {
    for spec in named(view, |spec| if let Spec::Source(spec) = spec { Some(&**spec) } else { None }) {
        source(&registry(view), spec, report).await?;
    }
    Ok(())
}

pub(super) async fn sinks(view: &View, report: &mut Report<'_>) -> Result<(), Failure> {
    for spec in named(view, |spec| if let Spec::Sink(spec) = spec { Some(&**spec) } else { None }) {
        sink(&registry(view), spec, report).await?;
    }
    Ok(())
}

/// The connectors, with the credentials of the catalog.
fn registry(view: &View) -> Registry {
    let credentials =
        named(view, |spec| if let Spec::Credential(spec) = spec { Some(&**spec) } else { None });
    let credentials: Credentials =
        credentials.into_iter().map(|spec| (spec.name.clone(), spec.clone())).collect();
    role::registry().with_credentials(Arc::new(credentials))
}

/// What is not being dropped.
fn named<'v, T>(view: &'v View, of: impl Fn(&'v Spec) -> Option<&'v T>) -> Vec<&'v T> {
    let standing = view.objects.values().filter(|object| !object.value.dropping);
    standing.filter_map(|object| of(&object.value.spec)).collect()
}

async fn source(registry: &Registry, spec: &SourceSpec, report: &mut Report<'_>) -> Result<(), Failure> {
    let what = format!("source {}", spec.name);
    let built = match registry.build_source(spec) {
        Ok(built) => built,
        Err(error) => {
            return report.line(Mark::Failed, &what, error, "ALTER SOURCE, or the release that knows it");
        }
    };
    if spec.connector == connectors::source::kinesis::NAME
        && let Ok(whole) = registry.expanded_source(spec)
        && let Some(identity) = connectors::aws_identity(&whole.options).await
    {
        match identity {
            Ok(arn) => report.ok(&what, format!("this machine is {arn} there"))?,
            Err(error) => {
                let remedy =
                    "mend the credentials of this machine or of the source; docs/iam.md has the policies";
                report.line(Mark::Failed, &what, error, remedy)?;
            }
        }
    }
    match tokio::time::timeout(ANSWER, built.discover()).await {
        Ok(Ok(listing)) => {
            let open = listing.splits.iter().filter(|split| !split.closed).count();
            report.ok(&what, format!("{} splits are listed, {open} of them open", listing.splits.len()))?;
            if listing.creation != spec.creation {
                let found = "the stream was deleted and created again since the source was";
                report.line(
                    Mark::Warning,
                    &what,
                    found,
                    "what was in the old one is gone; see the event data_loss",
                )?;
            }
            match listing.now {
                Some(now) => clock(&what, now.0, report),
                None => Ok(()),
            }
        }
        Ok(Err(error)) => {
            let remedy = "is it the right stream, region and account, and does docs/iam.md's policy hold?";
            report.line(Mark::Failed, &what, error, remedy)
        }
        Err(_) => {
            let found = format!("no answer within {} s", ANSWER.as_secs());
            report.line(Mark::Failed, &what, found, "may this machine reach the service?")
        }
    }
}

/// `service`: its present, ms since 1970, in whole seconds.
fn clock(what: &str, service: i64, report: &mut Report<'_>) -> Result<(), Failure> {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let skew = i64::try_from(own).unwrap_or(i64::MAX).saturating_sub(service);
    let found = format!("our clock is {:+.0} s from the service's", skew as f64 / 1000.0);
    let mark = match skew.unsigned_abs() {
        ms if ms >= SKEW_FAILED_MS => Mark::Failed,
        ms if ms >= SKEW_WARNING_MS => Mark::Warning,
        _ => Mark::Ok,
    };
    report.line(mark, what, found, "run a time service (chrony) on this machine")
}

async fn sink(registry: &Registry, spec: &SinkSpec, report: &mut Report<'_>) -> Result<(), Failure> {
    let what = format!("sink {}", spec.name);
    let (built, common) = match registry.build_sink(spec) {
        Ok(built) => built,
        Err(error) => {
            return report.line(Mark::Failed, &what, error, "ALTER SINK, or the release that knows it");
        }
    };
    let remedy = "may this machine reach it, do the credentials suffice, does what it writes to exist?";
    match tokio::time::timeout(ANSWER, built.validate()).await {
        Ok(Ok(())) => report.ok(&what, "it answers and fits"),
        // Who said so may know that it comes later.
        Ok(Err(error)) if !common.validate => report.line(Mark::Warning, &what, error, remedy),
        Ok(Err(error)) => report.line(Mark::Failed, &what, error, remedy),
        Err(_) => {
            report.line(Mark::Failed, &what, format!("no answer within {} s", ANSWER.as_secs()), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(skew_s: i64) -> String {
        let mut out = Vec::new();
        let mut report = Report { out: &mut out, failed: 0, warnings: 0 };
        let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        clock("source s", i64::try_from(own).unwrap() - skew_s * 1000, &mut report).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_clock_is_judged_by_what_signatures_bear() {
        assert!(judged(1).starts_with("ok "), "{}", judged(1));
        assert!(judged(-30).starts_with("warning ") && judged(-30).contains("-30 s"), "{}", judged(-30));
        let off = judged(290);
        assert!(off.starts_with("failed ") && off.contains("+290 s") && off.contains("chrony"), "{off}");
    }
}
