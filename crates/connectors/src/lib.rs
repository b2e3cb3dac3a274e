//! The connectors of this house: one folder each, registered by name. `main` calls [`register_all`] once; tests register
//! fakes instead.

mod aws;
pub mod sink;
pub mod source;

pub use aws_sdk_kinesis::config::SharedHttpClient;
use connector::Registry;

/// Adds every connector that is built in.
pub fn register_all(registry: &mut Registry) {
    aws::credential::register(registry);
    source::datagen::register(registry);
    source::kinesis::register(registry);
    sink::kinesis::register(registry);
    sink::blackhole::register(registry);
    sink::file::register(registry);
    sink::kafka::register(registry);
}

/// The ARN as which AWS knows whoever uses these options of a Kinesis source or sink. `None` where that is not asked: the stream is
/// at an endpoint of its own and STS is not.
pub async fn aws_identity(options: &model::Options) -> Option<connector::Result<String>> {
    aws::identity::identity(options).await
}

#[cfg(test)]
mod tests {
    use connector::OptionDef;
    use model::is_secret_option;

    use super::*;

    fn all() -> Registry {
        let mut registry = Registry::new();
        register_all(&mut registry);
        registry
    }

    /// Every list of options that is declared, with what declares it.
    fn declared(registry: &Registry) -> Vec<(String, Vec<OptionDef>)> {
        let (sources, sinks) = registry.names();
        let sources = sources
            .into_iter()
            .map(|name| (format!("source {name}"), registry.source(name).unwrap().options.to_vec()));
        let sinks = sinks
            .into_iter()
            .map(|name| (format!("sink {name}"), registry.sink(name).unwrap().options.to_vec()));
        let credentials = registry.credentials().map(|kind| {
            (format!("credential {}", kind.name), kind.parts.iter().map(|part| part.def).collect())
        });
        sources.chain(sinks).chain(credentials).collect()
    }

    #[test]
    fn a_secret_is_known_by_its_name_wherever_a_connector_declares_one() {
        let declared = declared(&all());
        assert!(declared.len() >= 9, "only {} lists found", declared.len());
        let mut secrets = 0;
        for (of, defs) in &declared {
            for def in defs {
                for name in std::iter::once(&def.name).chain(def.aliases) {
                    assert_eq!(is_secret_option(name), def.secret, "{of}: `{name}`");
                    assert_eq!(
                        is_secret_option(&format!("dead_letter.{name}")),
                        def.secret,
                        "{of}: `{name}`"
                    );
                }
                secrets += usize::from(def.secret);
            }
        }
        assert!(secrets >= 9, "only {secrets} secrets found");
    }

    #[test]
    fn a_credential_stands_for_options_that_its_connectors_have() {
        let registry = all();
        for kind in registry.credentials() {
            for connector in kind.connectors {
                let source = registry.source(connector).map(|kind| kind.options);
                let sink = registry.sink(connector).map(|kind| kind.options);
                let lists: Vec<_> = source.into_iter().chain(sink).collect();
                assert!(!lists.is_empty(), "{}: no connector {connector}", kind.name);
                for defs in lists {
                    for part in kind.parts {
                        let def = defs.iter().find(|def| def.name == part.becomes);
                        let def = def.unwrap_or_else(|| panic!("{}: no option {}", kind.name, part.becomes));
                        assert_eq!(def.secret, part.def.secret, "{}: {}", kind.name, part.becomes);
                    }
                    let known = |name: &&str| defs.iter().any(|def| def.name == *name);
                    assert!(kind.excludes.iter().all(known), "{}", kind.name);
                }
            }
        }
    }
}
