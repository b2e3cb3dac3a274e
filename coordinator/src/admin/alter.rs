//! `ALTER SOURCE` and `ALTER SINK`. A changed spec is checked like a new one, then committed; every run restarts with it
//! through a drain (docs/sql.md, ALTER and DROP).

use model::{ObjectKind, SinkSpec, SourceSpec};
use sql::{Code, ObjectName, OptionEntry, SinkChange};
use store::Spec;

use crate::{
    error::{Error, ErrorKind},
    handle::Leader,
};

use super::{
    create::{OUTSIDE, dead_letters, outside, unreachable},
    credential::plain_spec,
    refuse::Refusal,
    statement::{Answer, missing_near},
};

/// `ALTER SOURCE name SET ( … )`
pub(super) async fn source(
    leader: &Leader,
    name: &ObjectName,
    options: &[OptionEntry],
) -> Result<Answer, Refusal> {
    sql::check_name(ObjectKind::Source, name)?;
    let Some(spec) = leader.source(&name.name) else {
        return Err(missing_near(leader, ObjectKind::Source, name).into());
    };
    let registry = &leader.registry();
    let changed = sql::alter_source(&spec, options, registry)?;
    if wants_check(changed.options.get("validate")) {
        dead_letters(sql::source_dead_letters(registry, &changed)).await?;
        same_stream(leader, &changed, name).await?;
    }
    let alter = |spec: &mut SourceSpec| {
        *spec = sql::alter_source(spec, options, registry)
            .map_err(|e| Error::new(ErrorKind::State, e.to_string()))?;
        Ok(())
    };
    let notice = plain_spec(leader, &Spec::Source(Box::new(changed)))?;
    leader.update_source(&name.name, alter).await?;
    Ok(Answer::done(notice.into_iter().collect()))
}

/// That the changed source finds the stream that it was created on.
pub(super) async fn same_stream(
    leader: &Leader,
    changed: &SourceSpec,
    name: &ObjectName,
) -> Result<(), sql::Error> {
    let source =
        leader.registry().build_source(changed).map_err(|e| sql::Error::of_option(Code::Config, &e))?;
    let listing = outside(OUTSIDE, source.discover())
        .await
        .map_err(|error| unreachable(format!("failed to list shards: {error}")))?;
    if changed.creation != model::Creation(0) && listing.creation != changed.creation {
        let text = format!("source \"{}\" would read another stream after this", name.name);
        let error = sql::Error::new(Code::Bind, text).at(name.place);
        return Err(error.hint("drop the source and create it again"));
    }
    Ok(())
}

/// `ALTER SINK name PAUSE | RESUME | SET ( … )`
pub(super) async fn sink(leader: &Leader, name: &ObjectName, change: SinkChange) -> Result<Answer, Refusal> {
    sql::check_name(ObjectKind::Sink, name)?;
    let Some(spec) = leader.sink(&name.name) else {
        return Err(missing_near(leader, ObjectKind::Sink, name).into());
    };
    match change {
        SinkChange::Pause => leader.pause_sink(&name.name).await?,
        SinkChange::Resume => leader.resume_sink(&name.name).await?,
        SinkChange::Set(options) => return set(leader, &spec, &options).await,
    }
    Ok(Answer::default())
}

async fn set(leader: &Leader, spec: &SinkSpec, options: &[OptionEntry]) -> Result<Answer, Refusal> {
    let registry = &leader.registry();
    let changed = sql::alter_sink(spec, options, registry)?;
    if wants_check(changed.options.get("validate")) {
        let (sink, _) = registry.build_sink(&changed).map_err(|e| sql::Error::of_option(Code::Config, &e))?;
        outside(OUTSIDE, sink.validate()).await.map_err(unreachable)?;
        dead_letters(sql::sink_dead_letters(registry, &changed)).await?;
    }
    let alter = |spec: &mut SinkSpec| {
        *spec = sql::alter_sink(spec, options, registry)
            .map_err(|e| Error::new(ErrorKind::State, e.to_string()))?;
        Ok(())
    };
    let notice = plain_spec(leader, &Spec::Sink(Box::new(changed)))?;
    leader.update_sink(&spec.name, alter).await?;
    Ok(Answer::done(notice.into_iter().collect()))
}

fn wants_check(validate: Option<&str>) -> bool {
    !validate.is_some_and(|text| text.eq_ignore_ascii_case("false"))
}
