//! `CREATE OR REPLACE SOURCE | SINK` of what is there (docs/sql.md, CREATE OR REPLACE): what may take its place is said by `sql`, what the
//! outside says is asked as for `CREATE` and `ALTER`, and the commit is one (`Leader::replace_objects`). A text that says what is
//! there already asks nobody, commits nothing and restarts nothing.

use model::{ObjectId, ObjectKind, Privilege, SinkSpec, SourceSpec};
use sql::{BoundSink, BoundSource, CreateSink, CreateSource, ObjectName, Replacement, access::On};
use store::Spec;

use crate::{catalog::busy, handle::Leader};

use super::{
    alter::same_stream,
    create::{OUTSIDE, bind_sink, dead_letters, outside, unreachable},
    credential::plain_spec,
    refuse::Refusal,
    statement::Answer,
};

/// A source that takes the place of another one, and the sinks that deliver something else then.
struct NewSource {
    bound: BoundSource,
    replacement: Replacement<SourceSpec>,
    sinks: Vec<SinkSpec>,
}

/// `CREATE OR REPLACE SOURCE` of the source `id`.
pub(super) async fn source(leader: &Leader, create: &CreateSource, id: ObjectId) -> Result<Answer, Refusal> {
    let name = &create.name;
    may_replace(leader, On::Source(name.name.clone()), name)?;
    let Some(NewSource { bound, replacement, sinks }) = new_source(leader, create, id)? else {
        return Ok(unchanged(ObjectKind::Source, name));
    };
    let spec = &replacement.spec;
    let plain = plain_spec(leader, &Spec::Source(Box::new(spec.clone())))?;
    if bound.validate {
        dead_letters(sql::source_dead_letters(&leader.registry(), spec)).await?;
        same_stream(leader, spec, name).await?;
    }
    let plan = || -> Result<Vec<Spec>, Refusal> {
        let Some(NewSource { replacement, sinks, .. }) = new_source(leader, create, id)? else {
            return Ok(Vec::new());
        };
        let sinks = sinks.into_iter().map(|sink| Spec::Sink(Box::new(sink)));
        Ok(std::iter::once(Spec::Source(Box::new(replacement.spec))).chain(sinks).collect())
    };
    if !leader.replace_objects(&name.name, plan).await? {
        return Ok(unchanged(ObjectKind::Source, name));
    }
    let mut notices = bound.notices;
    notices.extend(plain);
    notices.push(done(ObjectKind::Source, name, &replacement.changes));
    let follows = |sink: &SinkSpec| {
        format!("sink \"{}\" delivers these columns now: {}", sink.name, sql::columns_text(&sink.columns))
    };
    notices.extend(sinks.iter().map(follows));
    Ok(Answer::done(notices))
}

fn new_source(leader: &Leader, create: &CreateSource, id: ObjectId) -> Result<Option<NewSource>, Refusal> {
    let name = &create.name;
    let old = leader.source(&name.name).filter(|spec| spec.id == id).ok_or_else(|| busy(&name.name))?;
    let registry = leader.registry();
    let bound = sql::bind_source(create, &registry)?;
    let Some(replacement) = sql::replace_source(&old, create, bound.spec.clone(), &registry)? else {
        return Ok(None);
    };
    let mut sinks = Vec::new();
    for sink in leader.all_sinks().iter().filter(|sink| sink.source == id) {
        let rebound = sql::rebind_sink(sink, &replacement.spec, &registry);
        sinks.extend(rebound.map_err(|error| error.at(name.place))?);
    }
    Ok(Some(NewSource { bound, replacement, sinks }))
}

/// `CREATE OR REPLACE SINK` of the sink `id`.
pub(super) async fn sink(leader: &Leader, create: &CreateSink, id: ObjectId) -> Result<Answer, Refusal> {
    let name = &create.name;
    may_replace(leader, On::Sink(name.name.clone()), name)?;
    let Some((bound, replacement)) = new_sink(leader, create, id)? else {
        return Ok(unchanged(ObjectKind::Sink, name));
    };
    let plain = plain_spec(leader, &Spec::Sink(Box::new(replacement.spec.clone())))?;
    if bound.common.validate {
        outside(OUTSIDE, bound.sink.validate()).await.map_err(unreachable)?;
        dead_letters(sql::sink_dead_letters(&leader.registry(), &replacement.spec)).await?;
    }
    let plan = || -> Result<Vec<Spec>, Refusal> {
        let replaced = new_sink(leader, create, id)?;
        Ok(replaced.map(|(_, replacement)| Spec::Sink(Box::new(replacement.spec))).into_iter().collect())
    };
    if !leader.replace_objects(&name.name, plan).await? {
        return Ok(unchanged(ObjectKind::Sink, name));
    }
    let mut notices = bound.notices;
    notices.extend(plain);
    notices.push(done(ObjectKind::Sink, name, &replacement.changes));
    notices.extend(replacement.notices);
    Ok(Answer::done(notices))
}

type NewSink = (BoundSink, Replacement<SinkSpec>);

fn new_sink(leader: &Leader, create: &CreateSink, id: ObjectId) -> Result<Option<NewSink>, Refusal> {
    let name = &create.name;
    let old = leader.sink(&name.name).filter(|spec| spec.id == id).ok_or_else(|| busy(&name.name))?;
    let (bound, source) = bind_sink(leader, create)?;
    let replacement = sql::replace_sink(&old, create, bound.spec.clone(), (&source, &leader.registry()))?;
    Ok(replacement.map(|replacement| (bound, replacement)))
}

/// What `CREATE OR REPLACE SINK` would do, in words; nobody outside is asked.
pub(super) fn would(leader: &Leader, create: &CreateSink) -> String {
    let name = &create.name.name;
    let Some(there) = leader.sink(name) else { return format!("create sink \"{name}\"") };
    match new_sink(leader, create, there.id) {
        Ok(None) => format!("change nothing: sink \"{name}\" is like this"),
        Ok(Some((_, replacement))) => {
            let changes = replacement.changes.join(", ");
            let notices: Vec<String> = replacement.notices.iter().map(|text| format!("; {text}")).collect();
            format!(
                "replace sink \"{name}\", which keeps its positions; changed: {changes}{}",
                notices.concat()
            )
        }
        Err(Refusal::Statement(error)) => {
            let text = error.message.strip_prefix(error.code.prefix()).unwrap_or(&error.message);
            let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("refuse: {text}{hint}")
        }
        Err(_) => format!("refuse for now: sink \"{name}\" is being changed by others"),
    }
}

/// Between the look at the rights and here the object may have come; `permit` asked for the right to create one.
fn may_replace(leader: &Leader, on: On, name: &ObjectName) -> Result<(), Refusal> {
    if leader.administers(&on) { Ok(()) } else { Err(busy(&name.name).into()) }
}

/// The same the other way round: the object has gone, and `permit` asked for the right to change it.
pub(super) fn may_create(
    leader: &Leader,
    or_replace: bool,
    create: Privilege,
    name: &ObjectName,
) -> Result<(), Refusal> {
    if or_replace && !leader.viewer_rights().has(create, &On::Schema) {
        return Err(busy(&name.name).into());
    }
    Ok(())
}

fn unchanged(kind: ObjectKind, name: &ObjectName) -> Answer {
    Answer::done(vec![format!("{} \"{}\" is unchanged", kind.as_str(), name.name)])
}

fn done(kind: ObjectKind, name: &ObjectName, changes: &[String]) -> String {
    format!("{} \"{}\" keeps its positions; changed: {}", kind.as_str(), name.name, changes.join(", "))
}
