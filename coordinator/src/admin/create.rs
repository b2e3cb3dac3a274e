//! `CREATE SOURCE` and `CREATE SINK` (what is there already: `replace`): bind, ask the outside, commit. Whatever fails before the commit leaves nothing behind.
//!
//! The start of a source is pinned *before* its first listing (docs/kinesis.md 3.1), always: a `latest` that nobody
//! pinned would lose records. `validate = 'false'` therefore skips only what can wait: if the stream cannot be listed now,
//! the listing stays due, and the splits of the first one that works begin where the start was pinned.

use std::{future::Future, sync::Arc, time::Duration};

use connector::{Listing, Registrar, Source};
use model::{ObjectKind, Privilege, SinkSpec, SourceSpec};
use sql::{Code, CreateSink, CreateSource, ObjectName, SinkInput};
use store::Spec;

use crate::{catalog::busy, error::ErrorKind, handle::Leader};

use super::{
    credential::plain_spec,
    refuse::Refusal,
    replace,
    show::PROGRESS,
    statement::{Answer, missing_near},
};

/// How long the outside may take to prove that it is there.
pub(super) const OUTSIDE: Duration = Duration::from_secs(20);

/// The same when it need not be there.
const OUTSIDE_OPTIONAL: Duration = Duration::from_secs(5);

/// `CREATE SOURCE`
pub(super) async fn source(leader: &Leader, create: &CreateSource) -> Result<Answer, Refusal> {
    let name = &create.name;
    if let Some(there) = leader.source(&name.name) {
        return match create.or_replace {
            true => replace::source(leader, create, there.id).await,
            false => exists(ObjectKind::Source, name, create.if_not_exists),
        };
    }
    replace::may_create(leader, create.or_replace, Privilege::CreateSource, name)?;
    clash(leader, name)?;
    let registry = leader.registry();
    let sql::BoundSource { mut spec, source, mut notices, validate } = sql::bind_source(create, &registry)?;
    notices.extend(plain_spec(leader, &Spec::Source(Box::new(spec.clone())))?);
    if validate {
        dead_letters(sql::source_dead_letters(&registry, &spec)).await?;
    }
    let start = outside(OUTSIDE, source.start()).await;
    spec.start = start.map_err(|e| unpinned(&e))?;
    let listing = match first_listing(source.as_ref(), validate).await {
        Ok(listing) => Some(listing),
        Err(error) if validate => {
            let hint = "validate = 'false' creates the source before its stream is there";
            return Err(no_answer(format!("failed to list shards: {error}")).hint(hint).into());
        }
        Err(error) => {
            notices.push(format!("the stream could not be listed yet and is tried again: {error}"));
            None
        }
    };
    if let Some(listing) = &listing {
        spec.creation = listing.creation;
    }
    match leader.create_source(spec, listing.as_ref()).await {
        Ok(_) => Ok(Answer::done(notices)),
        Err(error) if error.kind == ErrorKind::Exists => {
            raced(ObjectKind::Source, name, (create.or_replace, create.if_not_exists))
        }
        Err(error) => Err(error.into()),
    }
}

async fn first_listing(source: &dyn Source, validate: bool) -> Result<Listing, String> {
    outside(if validate { OUTSIDE } else { OUTSIDE_OPTIONAL }, source.discover()).await
}

/// `CREATE SINK`
pub(super) async fn sink(leader: &Leader, create: &CreateSink) -> Result<Answer, Refusal> {
    let name = &create.name;
    if let Some(there) = leader.sink(&name.name) {
        return match create.or_replace {
            true => replace::sink(leader, create, there.id).await,
            false => exists(ObjectKind::Sink, name, create.if_not_exists),
        };
    }
    replace::may_create(leader, create.or_replace, Privilege::CreateSink, name)?;
    let (mut bound, source_spec) = bind_sink(leader, create)?;
    bound.notices.extend(plain_spec(leader, &Spec::Sink(Box::new(bound.spec.clone())))?);
    if bound.common.validate {
        outside(OUTSIDE, bound.sink.validate()).await.map_err(unreachable)?;
        dead_letters(sql::sink_dead_letters(&leader.registry(), &bound.spec)).await?;
    }
    let source = leader
        .registry()
        .build_source(&source_spec)
        .map_err(|error| sql::Error::of_option(Code::Config, &error))?;
    let registrar = source.registrar();
    if let Some(registrar) = registrar
        && let Some(other) = leader.namesake(&bound.spec, registrar)
    {
        let text =
            format!("sink \"{other}\" already reads the source as \"{}\"", registrar.name(&bound.spec));
        let hint = "each sink needs a name of its own there: {sink} in the name stands for the sink's";
        return Err(sql::Error::new(Code::Bind, text).at(name.place).hint(hint).into());
    }
    let mut notices = bound.notices;
    match leader.create_sink(bound.spec, &source_spec).await {
        Ok(sink) => {
            if let Some(registrar) = registrar.filter(|_| bound.common.validate) {
                notices.extend(registered(leader, &sink, registrar).await?);
            }
            Ok(Answer::done(notices))
        }
        Err(error) if error.kind == ErrorKind::Exists => {
            raced(ObjectKind::Sink, name, (create.or_replace, create.if_not_exists))
        }
        Err(error) => Err(error.into()),
    }
}

/// Registers a new sink at the service of its source. A sink that cannot be read without is taken back if that fails.
async fn registered(
    leader: &Leader,
    sink: &SinkSpec,
    registrar: &dyn Registrar,
) -> Result<Option<String>, Refusal> {
    let Err(error) = leader.register(sink, registrar).await else { return Ok(None) };
    if registrar.optional() {
        return Ok(Some(format!("the source is read without a registration for now: {error}")));
    }
    leader.drop_object(ObjectKind::Sink, &sink.name, false).await?;
    Err(unreachable(error.to_string()).into())
}

/// Finds the source of a sink and binds the sink to it.
pub(super) fn bind_sink(
    leader: &Leader,
    create: &CreateSink,
) -> Result<(sql::BoundSink, Arc<SourceSpec>), Refusal> {
    let (SinkInput::From(from) | SinkInput::Query { from, .. }) = &create.input;
    sql::check_name(ObjectKind::Source, from)?;
    let Some(source) = leader.source(&from.name) else {
        return Err(missing_near(leader, ObjectKind::Source, from).into());
    };
    Ok((sql::bind_sink(create, &leader.registry(), &source)?, source))
}

/// Somebody else created it meanwhile.
fn raced(
    kind: ObjectKind,
    name: &ObjectName,
    (or_replace, if_not_exists): (bool, bool),
) -> Result<Answer, Refusal> {
    if or_replace { Err(busy(&name.name).into()) } else { exists(kind, name, if_not_exists) }
}

/// A dead-letter sink is looked at like any sink, unless `validate` or `dead_letter.validate` is false.
pub(super) async fn dead_letters(
    made: Result<Option<sql::DeadLetterSink>, connector::OptionError>,
) -> Result<(), sql::Error> {
    let Some(target) = made.map_err(|e| sql::Error::of_option(Code::Config, &e))? else { return Ok(()) };
    if target.common.validate {
        let looked = outside(OUTSIDE, target.sink.validate()).await;
        looked.map_err(|error| unreachable(format!("dead letters: {error}")))?;
    }
    Ok(())
}

/// Asks the outside within a deadline.
pub(super) async fn outside<T>(
    deadline: Duration,
    asked: impl Future<Output = connector::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", deadline.as_secs())),
    }
}

/// The outside could not be reached, or refused; creating without a look at it would do.
pub(super) fn unreachable(text: String) -> sql::Error {
    no_answer(text).hint("validate = 'false' skips this check")
}

fn no_answer(text: String) -> sql::Error {
    sql::Error::new(Code::Connector, text)
}

/// Nothing skips this: what nobody pinned would be evaluated again, and records would be lost.
fn unpinned(error: &str) -> sql::Error {
    no_answer(format!("failed to pin where the source begins: {error}")).hint(
        "where this startup mode begins is asked of the stream, so it must be reachable, whatever `validate` says; \
         scan.startup.mode = 'earliest' or 'timestamp' needs no answer",
    )
}

pub(super) fn exists(kind: ObjectKind, name: &ObjectName, if_not_exists: bool) -> Result<Answer, Refusal> {
    let text = format!("{} \"{}\" already exists", kind.as_str(), name.name);
    if if_not_exists {
        return Ok(Answer::done(vec![format!("{text}, skipping")]));
    }
    Err(sql::Error::new(Code::DuplicateObject, text).at(name.place).into())
}

/// A source's name and the name of another one's progress relation are names of relations: they must differ.
fn clash(leader: &Leader, name: &ObjectName) -> Result<(), sql::Error> {
    let progress = format!("{}{PROGRESS}", name.name);
    let taken = leader.source(&progress).map(|_| progress).or_else(|| {
        let owner = name.name.strip_suffix(PROGRESS)?;
        leader.source(owner).map(|_| name.name.clone())
    });
    match taken {
        Some(relation) => {
            let text = format!("relation \"{relation}\" already exists");
            Err(sql::Error::new(Code::DuplicateObject, text).at(name.place))
        }
        None => Ok(()),
    }
}
