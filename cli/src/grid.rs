//! Columns and rows, and the three ways of printing them: for people, for programs, for spreadsheets.

use std::{
    fmt,
    io::{self, Write},
};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table};
use proto::v1::ResultSet;
use serde_json::{Map, Value};

/// How rows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON array of objects per result, on one line.
    Json,
    /// RFC 4180 with a header line.
    Csv,
}

/// Lines as psql draws them: a rule below the header, bars between columns.
const PRESET: &str = "     -+ |          ";

/// What a column's texts are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text, or anything that JSON has no type for.
    Text,
    /// A number that JSON can carry.
    Number,
    /// `t`/`f`, `true`/`false`.
    Boolean,
    /// JSON.
    Json,
}

impl Kind {
    /// Of an SQL type. Decimals and big integers stay texts in JSON: a double would change them.
    fn of_sql(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "smallint" | "integer" | "bigint" | "real" | "double precision" => Self::Number,
            "boolean" => Self::Boolean,
            "jsonb" => Self::Json,
            _ => Self::Text,
        }
    }
}

/// One value: what programs read, and what people read if that differs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    text: Option<String>,
    shown: Option<String>,
}

impl Cell {
    /// A value.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { text: Some(text.to_string()), shown: None }
    }

    /// A value, or NULL.
    pub fn maybe(text: Option<impl fmt::Display>) -> Self {
        text.map_or_else(Self::default, Self::new)
    }

    /// How people read it.
    #[must_use]
    pub fn shown(mut self, shown: impl fmt::Display) -> Self {
        self.shown = Some(shown.to_string());
        self
    }

    fn for_people(&self) -> &str {
        self.shown.as_deref().or(self.text.as_deref()).unwrap_or("")
    }
}

/// Columns and rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// Without rows yet.
    #[must_use]
    pub fn new(columns: &[(&str, Kind)]) -> Self {
        Self {
            columns: columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
            rows: Vec::new(),
        }
    }

    /// The answer of a statement.
    #[must_use]
    pub fn of_result(set: ResultSet) -> Self {
        let columns =
            set.columns.into_iter().map(|column| (column.name, Kind::of_sql(&column.r#type))).collect();
        let cell = |text: Option<String>| Cell { text, shown: None };
        let rows = set.rows.into_iter();
        Self {
            columns,
            rows: rows.map(|row| row.values.into_iter().map(|v| cell(v.text)).collect()).collect(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Prints it; a table ends with the number of rows.
    pub fn print(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Table => {
                self.print_table(out)?;
                writeln!(out, "({} row{})\n", self.len(), if self.len() == 1 { "" } else { "s" })
            }
            Format::Json => writeln!(out, "{}", self.to_json()),
            Format::Csv => self.print_csv(out),
        }
    }

    /// Prints the columns without a footer.
    pub fn print_table(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(PRESET).set_header(self.columns.iter().map(|(name, _)| name));
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::for_people));
        }
        for (index, (_, kind)) in self.columns.iter().enumerate() {
            if *kind == Kind::Number {
                let column = table.column_mut(index).expect("every column has a header");
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// An array of objects.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let pairs = self.columns.iter().zip(row);
            Value::Object(
                pairs.map(|((name, kind), cell)| (name.clone(), json(*kind, cell))).collect::<Map<_, _>>(),
            )
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    fn print_csv(&self, out: &mut impl Write) -> io::Result<()> {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| csv_field(name)).collect();
        writeln!(out, "{}", header.join(","))?;
        for row in &self.rows {
            // NULL is an empty field, an empty text is "".
            let fields: Vec<String> =
                row.iter().map(|c| c.text.as_deref().map_or(String::new(), csv_field)).collect();
            writeln!(out, "{}", fields.join(","))?;
        }
        Ok(())
    }
}

fn json(kind: Kind, cell: &Cell) -> Value {
    let Some(text) = &cell.text else { return Value::Null };
    let typed = match kind {
        Kind::Text => None,
        Kind::Number | Kind::Json => serde_json::from_str(text).ok(),
        Kind::Boolean => match text.as_str() {
            "t" | "true" => Some(Value::Bool(true)),
            "f" | "false" => Some(Value::Bool(false)),
            _ => None,
        },
    };
    typed.unwrap_or_else(|| Value::String(text.clone()))
}

fn csv_field(text: &str) -> String {
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let mut grid = Grid::new(&[
            ("name", Kind::Text),
            ("lag_ms", Kind::Number),
            ("on", Kind::Boolean),
            ("raw", Kind::Json),
        ]);
        grid.push(vec![
            Cell::new("a,\"b\""),
            Cell::new(1200).shown("1.2 s"),
            Cell::new("t"),
            Cell::new("{\"x\": [1]}"),
        ]);
        grid.push(vec![Cell::new(""), Cell::default(), Cell::maybe(None::<u8>), Cell::default()]);
        let mut out = Vec::new();
        grid.print(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_keeps_types_and_nulls() {
        assert_eq!(
            printed(Format::Json),
            "[{\"name\":\"a,\\\"b\\\"\",\"lag_ms\":1200,\"on\":true,\"raw\":{\"x\":[1]}},{\"name\":\"\",\"lag_ms\":null,\"on\":null,\"raw\":null}]\n"
        );
    }

    #[test]
    fn csv_quotes_and_tells_null_from_empty() {
        assert_eq!(
            printed(Format::Csv),
            "name,lag_ms,on,raw\n\"a,\"\"b\"\"\",1200,t,\"{\"\"x\"\": [1]}\"\n\"\",,,\n"
        );
    }

    #[test]
    fn a_table_shows_what_people_read_and_counts_rows() {
        let text = printed(Format::Table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], " name  | lag_ms | on | raw");
        assert_eq!(lines[1], "-------+--------+----+------------");
        assert_eq!(lines[2], " a,\"b\" |  1.2 s | t  | {\"x\": [1]}");
        assert_eq!(lines[4], "(2 rows)");
    }
}
