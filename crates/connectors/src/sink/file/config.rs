//! The options of a file sink.

use std::{path::PathBuf, time::Duration};

use connector::{OptionDef, OptionError, OptionKind, Reader};
use model::Options;

/// Every option of the sink.
pub(super) const OPTIONS: &[OptionDef] = &[
    OptionDef::new("path", OptionKind::Text),
    OptionDef::new("rotate.bytes", OptionKind::Integer { min: 1, max: 1 << 40 }).default("134217728"),
    OptionDef::new("rotate.interval", OptionKind::Duration { min: Duration::from_millis(100) })
        .default("10m"),
];

/// A sink's options.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// The folder under which everything is written; absolute, since every worker takes it from somewhere else.
    pub(super) path: PathBuf,
    pub(super) rotation: Rotation,
}

/// When a file is closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// It holds so many bytes.
    pub(super) bytes: u64,
    /// It is so old.
    pub(super) interval: Duration,
}

impl Config {
    /// Reads the options.
    pub(super) fn read(options: &Options) -> Result<Self, OptionError> {
        let mut options = Reader::new(options, OPTIONS)?;
        let path = PathBuf::from(options.required("path")?);
        if !path.is_absolute() {
            let text = format!(
                "path \"{}\" is relative, and each worker would take it from where it was started: write it from the root, \
                 as in \"/var/lib/shardwright/out\"",
                path.display()
            );
            return Err(OptionError::config(text));
        }
        Ok(Self {
            path,
            rotation: Rotation {
                bytes: options.integer("rotate.bytes")?.unwrap_or(128 << 20),
                interval: options.duration("rotate.interval")?.unwrap_or(Duration::from_secs(600)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_required_and_the_nearest_name_is_told() {
        let read = |pairs: &[(&str, &str)]| {
            Config::read(&pairs.iter().copied().collect()).map_err(|e| e.to_string())
        };
        assert_eq!(read(&[]).unwrap_err(), "missing field `path`");
        assert!(read(&[("paht", "/x")]).unwrap_err().contains("did you mean `path`?"));
        let relative = read(&[("path", "out/x")]).unwrap_err();
        assert!(
            relative.contains("path \"out/x\" is relative") && relative.contains("from the root"),
            "{relative}"
        );
        let config = read(&[("path", "/x"), ("rotate.interval", "1s")]).unwrap();
        assert_eq!((config.rotation.bytes, config.rotation.interval), (128 << 20, Duration::from_secs(1)));
    }
}
