//! `FORMAT … ENCODE …`, and the old `ROW FORMAT …` rewritten to it.

use crate::{
    Encoding, FormatSpec, OptionEntry, Place, Result,
    grammar::option_list,
    lexer::{Cursor, Token},
};

const FORMATS: &[&str] = &["PLAIN", "UPSERT", "DEBEZIUM"];
const ENCODES: &[&str] = &["JSON", "AVRO", "PROTOBUF", "CSV", "BYTES", "TEXT"];
const ROW_FORMATS: &[&str] = &[
    "JSON",
    "UPSERT_JSON",
    "PROTOBUF",
    "DEBEZIUM_JSON",
    "AVRO",
    "UPSERT_AVRO",
    "DEBEZIUM_AVRO",
    "CSV",
    "BYTES",
];

/// The format clause of a source: either form.
pub(super) fn source_format(cursor: &mut Cursor) -> Result<FormatSpec> {
    if cursor.at_keyword("format") {
        sink_format(cursor)
    } else if cursor.at_keywords(&["row", "format"]) {
        row_format(cursor)
    } else {
        Err(cursor.expected_keyword("description of the format", &["FORMAT", "WITH", "INCLUDE", "ROW"]))
    }
}

/// `FORMAT …`
pub(super) fn sink_format(cursor: &mut Cursor) -> Result<FormatSpec> {
    let place = cursor.place();
    cursor.expect("format")?;
    let format = one_of(cursor, FORMATS, "FORMAT")?;
    cursor.expect("encode")?;
    let encode = encoding(cursor)?;
    let key_encode = if cursor.eat_all(&["key", "encode"]) { Some(encoding(cursor)?) } else { None };
    Ok(FormatSpec { format, encode, key_encode, place })
}

fn encoding(cursor: &mut Cursor) -> Result<Encoding> {
    let place = cursor.place();
    let name = one_of(cursor, ENCODES, "ENCODE")?;
    let options = if cursor.peek() == &Token::LParen { option_list(cursor)? } else { Vec::new() };
    Ok(Encoding { name, options, place })
}

/// One of these words, in any case.
fn one_of(cursor: &mut Cursor, words: &[&str], after: &str) -> Result<String> {
    if let Some(word) = words.iter().find(|word| cursor.at_keyword(word)) {
        cursor.take();
        return Ok((*word).to_owned());
    }
    let what = match cursor.peek() {
        Token::Word(_) => format!("{} after {after}", words.join(" | ")),
        _ => "identifier".to_owned(),
    };
    Err(cursor.expected_keyword(&what, words))
}

/// `ROW FORMAT …`
fn row_format(cursor: &mut Cursor) -> Result<FormatSpec> {
    let place = cursor.place();
    cursor.eat_all(&["row", "format"]);
    let Some(word) = ROW_FORMATS.iter().find(|word| cursor.at_keyword(word)) else {
        let what = format!("{} after ROW FORMAT", ROW_FORMATS.join(" | "));
        return Err(cursor.expected_keyword(&what, ROW_FORMATS));
    };
    cursor.take();
    let (format, encode) = match word.split_once('_') {
        Some((format, encode)) => (format, encode),
        None => ("PLAIN", *word),
    };
    let mut options = Vec::new();
    match encode {
        "PROTOBUF" | "AVRO" => {
            if encode == "PROTOBUF" {
                cursor.expect("message")?;
                options.push(entry("message", cursor.string()?, place));
            } else if cursor.eat("message") {
                options.push(entry("message", cursor.string()?, place));
            }
            options.push(schema_location(cursor)?);
        }
        "CSV" => {
            if cursor.eat_all(&["without", "header"]) {
                options.push(entry("without_header", "true".to_owned(), place));
            }
            cursor.expect("delimited")?;
            cursor.expect("by")?;
            options.push(entry("delimiter", cursor.string()?, place));
        }
        _ => {}
    }
    let encode = Encoding { name: encode.to_owned(), options, place };
    Ok(FormatSpec { format: format.to_owned(), encode, key_encode: None, place })
}

fn schema_location(cursor: &mut Cursor) -> Result<OptionEntry> {
    let place = cursor.place();
    for word in ["row", "schema", "location"] {
        cursor.expect(word)?;
    }
    let name = if cursor.eat_all(&["confluent", "schema", "registry"]) {
        "schema.registry"
    } else {
        "schema.location"
    };
    Ok(entry(name, cursor.string()?, place))
}

fn entry(name: &str, value: String, place: Place) -> OptionEntry {
    OptionEntry { name: name.to_owned(), value, place }
}
