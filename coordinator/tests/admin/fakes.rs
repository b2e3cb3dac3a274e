//! A source and a sink that are there or not, as their options say.
//!
//! `reach = 'never'` makes every call of the outside fail; `stream` is the number of splits of the stream and the moment when it
//! was created (`'4@1000'`). A source with `service` registers its sinks there ([`services`]), one for each sink or, with
//! `name`, under that name.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
};

use async_trait::async_trait;
use connector::{
    BatchLimits, Capability, CredentialKind, DistributionKind, Error, ErrorKind, KeyRule, Listing, OptionDef,
    OptionError, OptionKind, Part, Reader, Registered, Registrar, Registry, Result, Run, Sink, SinkKind,
    SinkWriter, Source, SourceKind, SplitReader,
};
use model::{
    Creation, Encode, Format, IncludeKind, Options, Position, SinkSpec, SourceSpec, Split, SplitId, Start,
    StartFrom, TaskId, Timestamp,
};

const OPTIONS: &[OptionDef] = &[
    OptionDef::new("stream", OptionKind::Text),
    OptionDef::new("reach", OptionKind::OneOf(&["always", "never"])),
    OptionDef::new("scan.startup.mode", OptionKind::OneOf(&["earliest", "latest", "timestamp"])),
    OptionDef::new("user", OptionKind::Text),
    OptionDef::secret("password"),
    OptionDef::new("validate", OptionKind::Boolean),
    OptionDef::new("service", OptionKind::Text),
    OptionDef::new("name", OptionKind::Text),
    OptionDef::new("optional", OptionKind::Boolean),
];

/// A service that must know its readers.
#[derive(Clone, Default)]
pub struct Service {
    pub known: Vec<String>,
    /// What it says to who wants to register.
    pub refuses: Option<&'static str>,
    /// It answers nobody who wants to register.
    pub stuck: bool,
    /// What it says to who wants to take a registration back.
    pub keeps: Option<&'static str>,
    /// It takes its time to look somebody up.
    pub slow: bool,
}

/// Services by name.
static SERVICES: LazyLock<Mutex<BTreeMap<String, Service>>> = LazyLock::new(Mutex::default);

/// The services of all tests.
pub fn services() -> MutexGuard<'static, BTreeMap<String, Service>> {
    SERVICES.lock().unwrap()
}

struct Fan {
    service: String,
    name: Option<String>,
    optional: bool,
}

impl Fan {
    fn service<T>(&self, change: impl FnOnce(&mut Service) -> T) -> T {
        change(services().entry(self.service.clone()).or_default())
    }
}

#[async_trait]
impl Registrar for Fan {
    fn name(&self, sink: &SinkSpec) -> String {
        self.name.clone().unwrap_or_else(|| format!("for-{}", sink.name))
    }
    fn optional(&self) -> bool {
        self.optional
    }
    async fn find(&self, name: &str) -> Result<Registered> {
        if self.service(|service| service.slow) {
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        }
        let known = self.service(|service| service.known.iter().any(|known| known == name));
        Ok(if known { Registered::Ready } else { Registered::Absent })
    }
    async fn register(&self, name: &str) -> Result<()> {
        if self.service(|service| service.stuck) {
            std::future::pending::<()>().await;
        }
        self.service(|service| match service.refuses {
            Some(why) => Err(Error::new(ErrorKind::Denied, why)),
            None => {
                service.known.push(name.to_owned());
                Ok(())
            }
        })
    }
    async fn deregister(&self, name: &str) -> Result<()> {
        self.service(|service| match service.keeps {
            Some(why) => Err(Error::new(ErrorKind::Unavailable, why)),
            None => {
                service.known.retain(|known| known != name);
                Ok(())
            }
        })
    }
    async fn open(&self, _: &str, _: &SplitId, _: &Position) -> Result<Box<dyn SplitReader>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator reads"))
    }
}

/// What `latest` is pinned to.
pub const PINNED: Timestamp = Timestamp(77_000);

struct Fake {
    reach: bool,
    mode: String,
    splits: u32,
    creation: Creation,
    fan: Option<Fan>,
}

impl Fake {
    fn read(options: &Options) -> Result<Self, OptionError> {
        let mut reader = Reader::new(options, OPTIONS)?;
        let stream = reader.required("stream")?;
        let (splits, creation) = stream.split_once('@').unwrap_or((&stream, "1000"));
        let number =
            |text: &str| text.parse::<u32>().map_err(|_| OptionError::invalid("stream", "n@t", text));
        Ok(Self {
            reach: reader.one_of("reach")? != Some("never"),
            mode: reader.one_of("scan.startup.mode")?.unwrap_or("earliest").to_owned(),
            splits: number(splits)?,
            creation: Creation(number(creation)?.into()),
            fan: match reader.text("service")? {
                Some(service) => Some(Fan {
                    service,
                    name: reader.text("name")?,
                    optional: reader.boolean("optional")?.unwrap_or(false),
                }),
                None => None,
            },
        })
    }

    fn ask(&self) -> Result<()> {
        if self.reach { Ok(()) } else { Err(Error::new(ErrorKind::Unavailable, "nobody is there")) }
    }
}

#[async_trait]
impl Source for Fake {
    async fn start(&self) -> Result<Start> {
        match self.mode.as_str() {
            "earliest" => Ok(Start::all(StartFrom::Horizon)),
            "timestamp" => Ok(Start::all(StartFrom::At(Timestamp(5)))),
            _ => self.ask().map(|()| Start::all(StartFrom::At(PINNED))),
        }
    }
    async fn discover(&self) -> Result<Listing> {
        self.ask()?;
        let split = |n: u32| Split {
            id: SplitId::new(self.creation, &format!("split-{n}")),
            parents: Vec::new(),
            range: None,
            closed: false,
        };
        Ok(Listing {
            creation: self.creation,
            splits: (0..self.splits).map(split).collect(),
            now: None,
            retention: None,
        })
    }
    async fn is_gone(&self, _: &SplitId) -> Result<bool> {
        Ok(false)
    }
    async fn open(&self, _: &SplitId, _: &Position) -> Result<Box<dyn SplitReader>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator reads"))
    }
    fn share(&self, _: &SplitId, _: u32) {}
    fn registrar(&self) -> Option<&dyn Registrar> {
        self.fan.as_ref().map(|fan| fan as &dyn Registrar)
    }
}

#[async_trait]
impl Sink for Fake {
    fn capability(&self) -> Capability {
        Capability { ordered: true, ..Capability::default() }
    }
    async fn validate(&self) -> Result<()> {
        self.ask()
    }
    async fn open(&self, _: &TaskId, _: &Run) -> Result<Box<dyn SinkWriter>> {
        Err(Error::new(ErrorKind::Bug, "no coordinator writes"))
    }
}

fn build_source(spec: &SourceSpec) -> Result<Arc<dyn Source>, OptionError> {
    Ok(Arc::new(Fake::read(&spec.options)?))
}

fn build_sink(_: &SinkSpec, own: &Options) -> Result<Arc<dyn Sink>, OptionError> {
    Ok(Arc::new(Fake::read(own)?))
}

const PAIR: CredentialKind = CredentialKind {
    name: "pair",
    connectors: &["fake"],
    parts: &[
        Part::identity("user", true),
        Part::secret("password", true),
        Part::option(OptionDef::new("reach", OptionKind::OneOf(&["always", "never"])), "reach"),
    ],
    excludes: &[],
    family: "user.*",
    finish: |_, _| Ok(()),
};

/// Of no connector that there is.
const OTHER: CredentialKind = CredentialKind { name: "other", connectors: &["another"], ..PAIR };

/// A registry with both under the name `fake`.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add_credential(PAIR).add_credential(OTHER);
    registry.add_source(SourceKind {
        name: "fake",
        options: OPTIONS,
        formats: &[(Format::Plain, Encode::Json)],
        include: &[(IncludeKind::Key, "_key")],
        build: Arc::new(build_source),
    });
    registry.add_sink(SinkKind {
        name: "fake",
        options: OPTIONS,
        formats: &[],
        format_required: false,
        key: KeyRule::Optional,
        distributions: DistributionKind::ALL,
        limits: BatchLimits { rows: 500, bytes: 1 << 20, linger: std::time::Duration::ZERO },
        build: Arc::new(build_sink),
    });
    registry
}
