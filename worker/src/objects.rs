//! Sources and sinks as this process has them: each is built once per revision of its spec and shared by all runs that name it.
//! The specs come with the task list and are never stored.

use std::{collections::HashMap, sync::Arc};

use connector::{OptionError, Registry};
use model::{ObjectId, SinkSpec, SourceSpec};

use crate::{
    dead_letter,
    reading::Readings,
    task::{BuiltSink, BuiltSource, Failure},
};

/// What was built of one spec, or why it could not be.
type Built<S, T> = (S, Option<Result<Arc<T>, Failure>>);

/// The catalog objects of the newest task list.
pub(crate) struct Objects {
    registry: Registry,
    sources: HashMap<ObjectId, Built<SourceSpec, BuiltSource>>,
    sinks: HashMap<ObjectId, Built<SinkSpec, BuiltSink>>,
}

impl Objects {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, sources: HashMap::new(), sinks: HashMap::new() }
    }

    /// Takes the objects of a list; what is unchanged stays built, what is not in it is forgotten.
    pub(crate) fn take(&mut self, sources: &[Vec<u8>], sinks: &[Vec<u8>]) {
        let mut old = std::mem::take(&mut self.sources);
        for spec in sources.iter().filter_map(|bytes| parse::<SourceSpec>(bytes)) {
            let built = old.remove(&spec.id).filter(|(known, _)| *known == spec).and_then(|(_, built)| built);
            self.sources.insert(spec.id, (spec, built));
        }
        let mut old = std::mem::take(&mut self.sinks);
        for spec in sinks.iter().filter_map(|bytes| parse::<SinkSpec>(bytes)) {
            let built = old.remove(&spec.id).filter(|(known, _)| *known == spec).and_then(|(_, built)| built);
            self.sinks.insert(spec.id, (spec, built));
        }
    }

    /// The source `id`.
    pub(crate) fn source(&mut self, id: ObjectId) -> Result<Arc<BuiltSource>, Failure> {
        let Some((spec, built)) = self.sources.get_mut(&id) else { return Err(absent("source", id)) };
        let registry = &self.registry;
        built.get_or_insert_with(|| build_source(registry, spec).map_err(config)).clone()
    }

    /// The sink `id`.
    pub(crate) fn sink(&mut self, id: ObjectId) -> Result<Arc<BuiltSink>, Failure> {
        let Some((spec, built)) = self.sinks.get_mut(&id) else { return Err(absent("sink", id)) };
        let registry = &self.registry;
        built.get_or_insert_with(|| build_sink(registry, spec).map_err(config)).clone()
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(%error, "an object of the task list cannot be read"))
        .ok()
}

fn absent(what: &str, id: ObjectId) -> Failure {
    Failure { error: format!("{what} {id} is not in the task list"), kind: "bug" }
}

fn config(error: OptionError) -> Failure {
    Failure { error: error.to_string(), kind: "config" }
}

fn build_source(registry: &Registry, spec: &SourceSpec) -> Result<Arc<BuiltSource>, OptionError> {
    let source = registry.build_source(spec)?;
    let letters = dead_letter::build(sql::source_dead_letters(registry, spec))?;
    Ok(Arc::new(BuiltSource { spec: spec.clone(), source, letters, readings: Readings::default() }))
}

fn build_sink(registry: &Registry, spec: &SinkSpec) -> Result<Arc<BuiltSink>, OptionError> {
    let (sink, common) = registry.build_sink(spec)?;
    let letters = dead_letter::build(sql::sink_dead_letters(registry, spec))?;
    Ok(Arc::new(BuiltSink { spec: spec.clone(), sink, common, letters }))
}
