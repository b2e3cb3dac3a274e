//! The options of a datagen source (docs/sql.md, Options of the datagen source). Those of a column have its name in theirs,
//! `fields.NAME.kind`, so they are checked here and not by a table.

use connector::{OptionDef, OptionError, OptionKind, Reader, looks_secret, nearest};
use model::{Column, MASK, Options, SqlType, shown_value};

/// Every option whose name is fixed.
pub(super) static OPTIONS: [OptionDef; 3] = [
    OptionDef::new("datagen.rows.per.second", OptionKind::Integer { min: 1, max: 1_000_000 }).default("10"),
    OptionDef::new("datagen.split.num", OptionKind::Integer { min: 1, max: 1000 }).default("1"),
    OptionDef::new("validate", OptionKind::Boolean).default("true"),
];

/// What the options of columns begin with.
const FIELDS: &str = "fields.";
/// What they end with.
const ATTRIBUTES: [&str; 7] = ["kind", "start", "end", "min", "max", "length", "seed"];
/// The largest random number, unless `max` says another.
const MAX: i64 = 32_767;
/// Letters of a random text, unless `length` says another number.
const LENGTH: u16 = 10;
/// The longest random text.
const LENGTH_MAX: u16 = 10_000;

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// The first value; each row has the next one, up to the last.
    Sequence { start: i64, end: i64 },
    /// A whole number between two, both inclusive.
    Whole { min: i64, max: i64 },
    /// A fraction between two; of single precision or not.
    Fraction { min: f64, max: f64, single: bool },
    /// Letters and digits.
    Text { length: u16 },
    /// True or false.
    Truth,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub name: String,
    pub kind: Kind,
    /// Two columns of one seed hold the same; without one, a column's name is its seed.
    pub seed: Option<u64>,
}

/// A source's options.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// Rows a second, of all splits together.
    pub rate: u64,
    pub splits: u64,
    pub fields: Vec<Field>,
}

impl Config {
    /// Reads the options, for these columns.
    pub(super) fn read(options: &Options, columns: &[Column]) -> Result<Self, OptionError> {
        known(options, columns)?;
        let own: Options = options.iter().filter(|(name, _)| !name.starts_with(FIELDS)).collect();
        let mut own = Reader::new(&own, &OPTIONS)?;
        let fields = columns.iter().map(|column| Given { options, column }.field());
        Ok(Self {
            rate: own.integer("datagen.rows.per.second")?.unwrap_or(10),
            splits: own.integer("datagen.split.num")?.unwrap_or(1),
            fields: fields.collect::<Result<_, _>>()?,
        })
    }
}

/// Refuses names that mean nothing, each with the nearest that does.
fn known(options: &Options, columns: &[Column]) -> Result<(), OptionError> {
    let fixed = OPTIONS.iter().map(|def| def.name.to_owned());
    let of_columns = columns.iter().flat_map(|column| ATTRIBUTES.map(|attribute| full(column, attribute)));
    let names: Vec<String> = fixed.chain(of_columns).collect();
    let unknown: Vec<(&str, &str)> =
        options.iter().filter(|(name, _)| !names.iter().any(|known| known == name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let shown = |(name, value): &(&str, &str)| {
        let value = if looks_secret(name) { MASK.to_owned() } else { shown_value(name, value) };
        format!("\"{name}\": \"{value}\"")
    };
    let listed: Vec<String> = unknown.iter().map(shown).collect();
    let mut message = format!("Unknown fields in the WITH clause: {{{}}}", listed.join(", "));
    for (name, _) in &unknown {
        if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
            message.push_str(&format!("\nHint: `{name}` is not an option; did you mean `{near}`?"));
        }
    }
    Err(OptionError::config(message))
}

fn full(column: &Column, attribute: &str) -> String {
    format!("{FIELDS}{}.{attribute}", column.name)
}

/// What is said of one column.
struct Given<'a> {
    options: &'a Options,
    column: &'a Column,
}

impl Given<'_> {
    fn field(&self) -> Result<Field, OptionError> {
        let kind = match self.get("kind") {
            None | Some("random") => self.random()?,
            Some("sequence") => self.sequence()?,
            Some(other) => {
                let name = full(self.column, "kind");
                return Err(OptionError::invalid(&name, "one of sequence|random", other));
            }
        };
        let seed = self.whole("seed", (0, i64::MAX))?.map(i64::cast_unsigned);
        Ok(Field { name: self.column.name.clone(), kind, seed })
    }

    fn get(&self, attribute: &str) -> Option<&str> {
        self.options.get(&full(self.column, attribute))
    }

    fn sequence(&self) -> Result<Kind, OptionError> {
        let Some((least, most)) = bounds(&self.column.kind) else {
            let text = format!(
                "column \"{}\" of type {} cannot be a sequence: accept [SMALLINT, INTEGER, BIGINT]",
                self.column.name, self.column.kind
            );
            return Err(OptionError::config(text));
        };
        self.only(&["start", "end"], "a sequence")?;
        let start = self.whole("start", (least, most))?.unwrap_or(0);
        let end = self.whole("end", (least, most))?.unwrap_or(most);
        self.in_order(("start", &start), ("end", &end), start <= end)?;
        Ok(Kind::Sequence { start, end })
    }

    fn random(&self) -> Result<Kind, OptionError> {
        let numbers = ["min", "max", "seed"];
        match &self.column.kind {
            SqlType::Smallint | SqlType::Integer | SqlType::Bigint => {
                self.only(&numbers, "a random number")?;
                let of_type = bounds(&self.column.kind).unwrap_or((0, MAX));
                let min = self.whole("min", of_type)?.unwrap_or(0);
                let max = self.whole("max", of_type)?.unwrap_or(MAX);
                self.in_order(("min", &min), ("max", &max), min <= max)?;
                Ok(Kind::Whole { min, max })
            }
            kind @ (SqlType::Real | SqlType::Double) => {
                self.only(&numbers, "a random number")?;
                let (min, max) =
                    (self.fraction("min")?.unwrap_or(0.0), self.fraction("max")?.unwrap_or(32_767.0));
                self.in_order(("min", &min), ("max", &max), min <= max)?;
                Ok(Kind::Fraction { min, max, single: *kind == SqlType::Real })
            }
            SqlType::Varchar => {
                self.only(&["length", "seed"], "a random text")?;
                let length = self.whole("length", (1, LENGTH_MAX.into()))?;
                Ok(Kind::Text { length: length.and_then(|n| u16::try_from(n).ok()).unwrap_or(LENGTH) })
            }
            SqlType::Boolean => self.only(&["seed"], "a random truth value").map(|()| Kind::Truth),
            other => Err(OptionError::config(format!(
                "connector \"datagen\" cannot make values of type {other} (column \"{}\"): accept [SMALLINT, INTEGER, BIGINT, \
                 REAL, DOUBLE, VARCHAR, BOOLEAN]; INCLUDE timestamp is when a row arrived",
                self.column.name
            ))),
        }
    }

    /// Refuses what other kinds of columns take.
    fn only(&self, accepted: &[&str], what: &str) -> Result<(), OptionError> {
        let given =
            ATTRIBUTES.iter().skip(1).find(|name| self.get(name).is_some() && !accepted.contains(name));
        match given {
            None => Ok(()),
            Some(name) => Err(OptionError::config(format!(
                "option `{}` does not go with {what} of type {}: accept [{}]",
                full(self.column, name),
                self.column.kind,
                accepted.join(", ")
            ))),
        }
    }

    fn whole(&self, attribute: &str, (least, most): (i64, i64)) -> Result<Option<i64>, OptionError> {
        let Some(text) = self.get(attribute) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => {
                let expected = format!("integer from {least} to {most}");
                Err(OptionError::invalid(&full(self.column, attribute), &expected, text))
            }
        }
    }

    fn fraction(&self, attribute: &str) -> Result<Option<f64>, OptionError> {
        let Some(text) = self.get(attribute) else { return Ok(None) };
        match text.parse::<f64>() {
            // Beyond that the distance between two of them would be infinite, or a REAL would be.
            Ok(number) if number.abs() <= 1e38 => Ok(Some(number)),
            _ => {
                let expected = "number from -1e38 to 1e38";
                Err(OptionError::invalid(&full(self.column, attribute), expected, text))
            }
        }
    }

    fn in_order(
        &self,
        (low, least): (&str, &dyn std::fmt::Display),
        (high, most): (&str, &dyn std::fmt::Display),
        holds: bool,
    ) -> Result<(), OptionError> {
        if holds {
            return Ok(());
        }
        let (low, high) = (full(self.column, low), full(self.column, high));
        Err(OptionError::config(format!("option `{low}` ({least}) is above `{high}` ({most})")))
    }
}

/// The least and the largest of a type of whole numbers.
fn bounds(kind: &SqlType) -> Option<(i64, i64)> {
    match kind {
        SqlType::Smallint => Some((i16::MIN.into(), i16::MAX.into())),
        SqlType::Integer => Some((i32::MIN.into(), i32::MAX.into())),
        SqlType::Bigint => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(column: SqlType, pairs: &[(&str, &str)]) -> Result<Config, String> {
        let columns = [Column { name: "id".into(), kind: column }];
        Config::read(&pairs.iter().copied().collect(), &columns).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = read(SqlType::Bigint, &[]).unwrap();
        assert_eq!((config.rate, config.splits), (10, 1));
        assert_eq!(config.fields[0].kind, Kind::Whole { min: 0, max: 32_767 });
        let sequence = read(SqlType::Smallint, &[("fields.id.kind", "sequence")]).unwrap();
        assert_eq!(sequence.fields[0].kind, Kind::Sequence { start: 0, end: 32_767 });
        assert_eq!(read(SqlType::Varchar, &[]).unwrap().fields[0].kind, Kind::Text { length: 10 });
        assert_eq!(read(SqlType::Boolean, &[]).unwrap().fields[0].kind, Kind::Truth);
    }

    #[test]
    fn an_unknown_name_is_told_the_nearest() {
        for (typed, near) in [
            ("fields.id.knd", "fields.id.kind"),
            ("field.id.start", "fields.id.start"),
            ("fields.ix.length", "fields.id.length"),
            ("datagen.rows.per.sec", "datagen.rows.per.second"),
        ] {
            let error = read(SqlType::Bigint, &[(typed, "7")]).unwrap_err();
            assert!(
                error.starts_with(&format!("Unknown fields in the WITH clause: {{\"{typed}\": \"7\"}}")),
                "{error}"
            );
            assert!(error.contains(&format!("did you mean `{near}`?")), "{error}");
        }
        let secret = read(SqlType::Bigint, &[("datagen.password", "hunter2")]).unwrap_err();
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn what_does_not_fit_the_column_is_refused_with_what_does() {
        for (column, pairs, part) in [
            (SqlType::Varchar, &[("fields.id.kind", "sequence")][..], "cannot be a sequence"),
            (SqlType::Date, &[], "cannot make values of type"),
            (SqlType::Bigint, &[("fields.id.length", "3")], "accept [min, max, seed]"),
            (SqlType::Varchar, &[("fields.id.max", "3")], "accept [length, seed]"),
            (
                SqlType::Bigint,
                &[("fields.id.kind", "sequence"), ("fields.id.max", "3")],
                "accept [start, end]",
            ),
            (SqlType::Bigint, &[("fields.id.kind", "serial")], "one of sequence|random"),
            (SqlType::Smallint, &[("fields.id.max", "40000")], "integer from -32768 to 32767"),
            (
                SqlType::Bigint,
                &[("fields.id.min", "9"), ("fields.id.max", "3")],
                "`fields.id.min` (9) is above",
            ),
            (SqlType::Double, &[("fields.id.max", "inf")], "number from -1e38"),
            (SqlType::Varchar, &[("fields.id.length", "0")], "integer from 1 to 10000"),
            (SqlType::Bigint, &[("datagen.rows.per.second", "0")], "expected integer from 1 to 1000000"),
        ] {
            let error = read(column, pairs).unwrap_err();
            assert!(error.contains(part), "{pairs:?}: {error}");
        }
    }
}
