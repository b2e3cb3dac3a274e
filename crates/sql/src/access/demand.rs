//! What each statement and each call demands. Both matches name every variant: a new one without a rule does not compile.

use model::{ObjectKind, Privilege};

use super::{Call, Demand, On, Touched, relation};
use crate::{
    CreateSink, FormatSpec, InspectTarget, ObjectName, OptionEntry, Place, SinkChange, SinkInput, Statement,
    ast::access::{AccessStatement, GrantOn, Granted, Name},
};

/// What a statement demands.
pub(super) fn of_statement(statement: &Statement, touched: &Touched) -> Vec<Demand> {
    use Privilege::{Admin, CreateSink, CreateSource, Select};
    match statement {
        Statement::CreateSource(create) => {
            let mut demands = made(CreateSource, &create.name, touched);
            demands.extend(credentials(create.options.iter().flatten()));
            demands.extend(credentials_of_format(Some(&create.format)));
            demands
        }
        Statement::CreateSink(create) => {
            let mut demands = made(CreateSink, &create.name, touched);
            demands.extend(reads(create));
            demands
        }
        // It tells how what is there differs.
        Statement::Explain(create) => {
            let looked_at = touched.replaces.iter();
            let mut demands: Vec<Demand> =
                looked_at.map(|on| Demand::Right(Select, on.clone(), create.name.place)).collect();
            demands.extend(reads(create));
            demands
        }
        Statement::Drop { kind, name, cascade, .. } => {
            let mut demands = vec![Demand::Right(Admin, on(*kind, name), name.place)];
            if *cascade {
                let sink = |sink: &String| Demand::Right(Admin, On::Sink(sink.clone()), name.place);
                demands.extend(touched.dependents.iter().map(sink));
            }
            demands
        }
        Statement::AlterSource { name, options } => {
            let admin = Demand::Right(Admin, on(ObjectKind::Source, name), name.place);
            changed(admin, placed(options), touched)
        }
        Statement::AlterSink { name, change } => {
            let admin = Demand::Right(Admin, on(ObjectKind::Sink, name), name.place);
            match change {
                SinkChange::Set(options) => changed(admin, placed(options), touched),
                SinkChange::Pause | SinkChange::Resume => vec![admin],
            }
        }
        Statement::Show { target, from, .. } => show(*target, from.as_ref()),
        Statement::ShowCreate { kind, name } => {
            vec![Demand::Right(looks(*kind), on(*kind, name), name.place)]
        }
        Statement::ShowErrors { name } => {
            let either = [ObjectKind::Source, ObjectKind::Sink].map(|kind| on(kind, name));
            vec![Demand::Either(Select, either.to_vec(), name.place)]
        }
        Statement::Rebalance { explain: true } => vec![Demand::Right(Select, On::Cluster, Place::default())],
        Statement::Rebalance { explain: false } => vec![Demand::Right(Admin, On::Cluster, Place::default())],
        Statement::Describe { name } => described(name),
        Statement::Select { relations, .. } => relations
            .iter()
            .filter(|name| name.schema.as_deref() != Some("sys"))
            .map(|name| Demand::Either(Select, relation(name), name.place))
            .collect(),
        Statement::CreateCredential(create) => {
            let place = create.name.place;
            let mut demands = vec![Demand::Right(Privilege::CreateCredential, On::Schema, place)];
            demands.extend(touched.replaces.iter().map(|on| Demand::Right(Admin, on.clone(), place)));
            demands
        }
        Statement::AlterCredential { name, .. } => credential(Admin, Some(name)),
        Statement::DropCredential { name, .. } => credential(Admin, name.as_ref()),
        // Without a name they are about what the caller may administer, or use.
        Statement::ShowCredential { name } | Statement::DescribeCredential { name } => {
            credential(Privilege::Read, name.as_ref())
        }
        Statement::Access(access) => of_access(access),
    }
}

/// What a call demands.
pub(super) fn of_call(call: Call<'_>) -> Vec<Demand> {
    use Privilege::{Admin, Select};
    let right = |privilege, on| vec![Demand::Right(privilege, on, Place::default())];
    let named = |name: &str, on: fn(String) -> On| match name {
        "" => Vec::new(),
        name => vec![Demand::Right(Select, on(name.to_owned()), Place::default())],
    };
    match call {
        // Each statement is looked at by itself; what a status or a list shows is what the caller may see.
        Call::Execute | Call::Status => Vec::new(),
        Call::ListSplits { source, sink } => [named(source, On::Source), named(sink, On::Sink)].concat(),
        Call::ListWorkers | Call::Scale | Call::WatchEvents => right(Select, On::Cluster),
        Call::DescribeSplit { source } => right(Select, On::Source(source.to_owned())),
        Call::ListErrors { name } => {
            let either = vec![On::Source(name.to_owned()), On::Sink(name.to_owned())];
            vec![Demand::Either(Select, either, Place::default())]
        }
        Call::DrainWorker => right(Admin, On::Cluster),
        Call::PauseSink { sink } | Call::ResumeSink { sink } | Call::ResetPosition { sink } => {
            right(Admin, On::Sink(sink.to_owned()))
        }
        Call::RotateSecrets => vec![Demand::System(Privilege::SystemAdmin)],
    }
}

fn credential(privilege: Privilege, name: Option<&ObjectName>) -> Vec<Demand> {
    name.map(|name| Demand::Right(privilege, on(ObjectKind::Credential, name), name.place))
        .into_iter()
        .collect()
}

fn of_access(access: &AccessStatement) -> Vec<Demand> {
    match access {
        AccessStatement::Create { .. } => vec![Demand::System(Privilege::SystemUserAdmin)],
        AccessStatement::AlterUser { name, .. } => vec![Demand::Password(name.name.clone(), name.place)],
        AccessStatement::Drop { name, .. } => vec![manage(name)],
        AccessStatement::Grant { granted, .. } | AccessStatement::Revoke { granted, .. } => match granted {
            Granted::Privileges { privileges, on } => {
                let (thing, place) = thing(on);
                privileges.iter().map(|p| Demand::Give(*p, thing.clone(), place)).collect()
            }
            Granted::System(_) => vec![Demand::System(Privilege::SystemAdmin)],
            Granted::Roles(roles) => roles.iter().map(manage).collect(),
        },
        // Without the privilege over users one sees oneself and one's roles.
        AccessStatement::Show(_) | AccessStatement::ShowPrivileges => Vec::new(),
        AccessStatement::ShowGrants { of } => {
            of.iter().map(|name| Demand::Look(name.name.clone(), name.place)).collect()
        }
    }
}

fn manage(name: &Name) -> Demand {
    Demand::Manage(name.name.clone(), name.place)
}

/// What is behind `ON`, and where it stands.
pub(super) fn thing(on: &GrantOn) -> (On, Place) {
    match on {
        GrantOn::Source(name) => (On::Source(name.name.clone()), name.place),
        GrantOn::Sink(name) => (On::Sink(name.name.clone()), name.place),
        GrantOn::Credential(name) => (On::Credential(name.name.clone()), name.place),
        GrantOn::Schema(name) => (On::Schema, name.place),
        GrantOn::Cluster => (On::Cluster, Place::default()),
    }
}

fn on(kind: ObjectKind, name: &ObjectName) -> On {
    match kind {
        ObjectKind::Source => On::Source(name.name.clone()),
        ObjectKind::Sink => On::Sink(name.name.clone()),
        ObjectKind::Credential => On::Credential(name.name.clone()),
    }
}

/// What looking at an object of this kind takes.
fn looks(kind: ObjectKind) -> Privilege {
    match kind {
        ObjectKind::Source | ObjectKind::Sink => Privilege::Select,
        ObjectKind::Credential => Privilege::Read,
    }
}

fn show(target: InspectTarget, from: Option<&ObjectName>) -> Vec<Demand> {
    match target {
        InspectTarget::Sources | InspectTarget::Sinks | InspectTarget::Credentials => Vec::new(),
        InspectTarget::Splits => from
            .map(|name| Demand::Right(Privilege::Select, on(ObjectKind::Source, name), name.place))
            .into_iter()
            .collect(),
        InspectTarget::Workers | InspectTarget::Scale => {
            vec![Demand::Right(Privilege::Select, On::Cluster, Place::default())]
        }
    }
}

fn described(name: &ObjectName) -> Vec<Demand> {
    if name.schema.as_deref() == Some("sys") {
        return Vec::new();
    }
    let mut either = relation(name);
    either.push(on(ObjectKind::Sink, name));
    vec![Demand::Either(Privilege::Select, either, name.place)]
}

/// What a sink reads, and the credentials that it uses.
fn reads(create: &CreateSink) -> Vec<Demand> {
    let (SinkInput::From(from) | SinkInput::Query { from, .. }) = &create.input;
    let mut demands = vec![Demand::Right(Privilege::Select, on(ObjectKind::Source, from), from.place)];
    demands.extend(credentials(create.options.iter()));
    demands.extend(credentials_of_format(create.format.as_ref()));
    demands
}

/// A new object takes the right to create; one that takes the place of another, what changing that one takes.
fn made(create: Privilege, name: &ObjectName, touched: &Touched) -> Vec<Demand> {
    let Some(there) = &touched.replaces else {
        return vec![Demand::Right(create, On::Schema, name.place)];
    };
    changed(Demand::Right(Privilege::Admin, there.clone(), name.place), (&[], name.place), touched)
}

/// A changed object may use the credentials that it names now for something else.
fn changed(admin: Demand, (options, place): (&[OptionEntry], Place), touched: &Touched) -> Vec<Demand> {
    let kept = touched.credentials.iter().map(|name| read(name, place));
    std::iter::once(admin).chain(credentials(options.iter())).chain(kept).collect()
}

/// Options, and where they stand.
fn placed(options: &[OptionEntry]) -> (&[OptionEntry], Place) {
    (options, options.first().map_or_else(Place::default, |option| option.place))
}

/// Credentials that options name: `credential = 'c'`, `dead_letter.credential = 'c'`.
fn credentials<'a>(options: impl Iterator<Item = &'a OptionEntry>) -> Vec<Demand> {
    let named = |option: &&OptionEntry| {
        let last = option.name.rsplit('.').next().unwrap_or(&option.name);
        last.eq_ignore_ascii_case("credential")
    };
    options.filter(named).map(|option| read(&option.value, option.place)).collect()
}

fn credentials_of_format(format: Option<&FormatSpec>) -> Vec<Demand> {
    let Some(format) = format else { return Vec::new() };
    let keys = format.key_encode.iter().flat_map(|encode| &encode.options);
    credentials(format.encode.options.iter().chain(keys))
}

/// By exactly the name that is looked up when it is used.
fn read(credential: &str, place: Place) -> Demand {
    Demand::Right(Privilege::Read, On::Credential(credential.to_owned()), place)
}
