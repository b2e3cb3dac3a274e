//! The functions that DataFusion lacks: JSON access, casts to text and jsonb, `convert_from`/`convert_to`, `proctime()`.
//! The names with `shardwright_` in front are what `rewrite` puts in the place of operators and casts.

use std::{any::Any, borrow::Cow, collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, StringArray},
    datatypes::{DataType, Field, FieldRef, Int64Type},
};
use datafusion::{
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
    scalar::ScalarValue,
};
use model::{Column, SqlType};
use serde_json::value::RawValue;

use super::numeric;

pub(super) const JSON_GET: &str = "shardwright_json_get";
pub(super) const JSON_TEXT: &str = "shardwright_json_text";
pub(super) const TO_TEXT: &str = "shardwright_text";
pub(super) const TO_JSONB: &str = "shardwright_jsonb";
pub(super) const PROCTIME: &str = "proctime";

/// What a function does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    /// `json -> key`, as jsonb.
    JsonGet,
    /// `json ->> key`, as text.
    JsonText,
    /// `CAST(x AS varchar)`.
    ToText,
    /// `CAST(x AS jsonb)`.
    ToJsonb,
    /// `convert_from(bytea, 'utf8')`.
    ConvertFrom,
    /// `convert_to(text, 'utf8')`.
    ConvertTo,
    /// The moment of the evaluation; `now()` is the same.
    Proctime,
}

/// One of our functions.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Function {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Arc<ScalarUDF>> {
    [
        (JSON_GET, Kind::JsonGet, 2),
        (JSON_TEXT, Kind::JsonText, 2),
        (TO_TEXT, Kind::ToText, 1),
        (TO_JSONB, Kind::ToJsonb, 1),
        ("convert_from", Kind::ConvertFrom, 2),
        ("convert_to", Kind::ConvertTo, 2),
        (PROCTIME, Kind::Proctime, 0),
    ]
    .into_iter()
    .map(|(name, kind, arguments)| {
        let signature = match kind {
            Kind::Proctime => Signature::nullary(Volatility::Volatile),
            _ => Signature::any(arguments, Volatility::Immutable),
        };
        Arc::new(ScalarUDF::new_from_impl(Function { name, kind, signature }))
    })
}

impl ScalarUDFImpl for Function {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.check(arguments)?;
        Ok(self.result().arrow())
    }

    /// The tag that says `jsonb` travels in the field.
    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        self.check(&types)?;
        let field: Field = Column { name: self.name.to_owned(), kind: self.result() }.arrow();
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.kind == Kind::Proctime {
            let now = chrono::Utc::now().timestamp_micros();
            return Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(
                Some(now),
                Some("UTC".into()),
            )));
        }
        let scalar = arguments.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let out = self.evaluate(&arrays)?;
        if scalar {
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?))
        } else {
            Ok(ColumnarValue::Array(out))
        }
    }
}

impl Function {
    fn result(&self) -> SqlType {
        match self.kind {
            Kind::JsonGet | Kind::ToJsonb => SqlType::Jsonb,
            Kind::JsonText | Kind::ToText | Kind::ConvertFrom => SqlType::Varchar,
            Kind::ConvertTo => SqlType::Bytea,
            Kind::Proctime => SqlType::Timestamptz,
        }
    }

    fn check(&self, arguments: &[DataType]) -> Result<()> {
        let wrong = |what: &str| Err(DataFusionError::Plan(what.to_owned()));
        match (self.kind, arguments) {
            (Kind::JsonGet | Kind::JsonText, [json, key]) => {
                if !is_text(json) {
                    return wrong("the left side of -> and ->> must be jsonb");
                }
                if !is_text(key) && !key.is_integer() {
                    return wrong("the right side of -> and ->> must be a name or an index");
                }
                Ok(())
            }
            (Kind::ConvertFrom, [bytes, _]) if !is_bytes(bytes) => {
                wrong("convert_from takes bytea and an encoding")
            }
            (Kind::ConvertTo, [text, _]) if !is_text(text) => wrong("convert_to takes text and an encoding"),
            (Kind::ToJsonb, [text]) if !is_text(text) => {
                wrong("only text can be cast to jsonb; for bytea use convert_from(…, 'utf8')::jsonb")
            }
            _ => Ok(()),
        }
    }

    fn evaluate(&self, arrays: &[ArrayRef]) -> Result<ArrayRef> {
        match self.kind {
            Kind::ToText => Ok(numeric::to_text(&arrays[0])?),
            Kind::ToJsonb => to_jsonb(&arrays[0]),
            Kind::JsonGet => access(&arrays[0], &arrays[1], |raw| Some(Cow::Borrowed(raw))),
            Kind::JsonText => access(&arrays[0], &arrays[1], unquoted),
            Kind::ConvertFrom => convert_from(&arrays[0], &arrays[1]),
            Kind::ConvertTo => convert_to(&arrays[0], &arrays[1]),
            Kind::Proctime => Err(DataFusionError::Internal("proctime takes no argument".to_owned())),
        }
    }
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn is_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null)
}

/// Every text as compact JSON; what is not JSON fails.
fn to_jsonb(array: &ArrayRef) -> Result<ArrayRef> {
    let text = numeric::strict(array, &DataType::Utf8)?;
    let one = |json: Option<&str>| match json {
        None => Ok(None),
        Some(json) => {
            compact(json).map(Some).map_err(|e| DataFusionError::Execution(format!("not valid JSON: {e}")))
        }
    };
    Ok(Arc::new(text.as_string::<i32>().iter().map(one).collect::<Result<StringArray>>()?))
}

/// Without blanks between its tokens; numbers keep their digits.
fn compact(json: &str) -> serde_json::Result<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(json)?;
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            quoted = c == '"';
            out.push(c);
        }
    }
    Ok(out)
}

/// A member by name or an element by index (from the end if negative); anything else is null.
fn access(json: &ArrayRef, key: &ArrayRef, map: impl Fn(&str) -> Option<Cow<'_, str>>) -> Result<ArrayRef> {
    let json = numeric::strict(json, &DataType::Utf8)?;
    let json = json.as_string::<i32>();
    let out: StringArray = if key.data_type().is_integer() {
        let index = numeric::strict(key, &DataType::Int64)?;
        let index = index.as_primitive::<Int64Type>();
        json.iter()
            .zip(index.iter())
            .map(|(json, index)| element(json?, index?).and_then(|raw| map(raw).map(Cow::into_owned)))
            .collect()
    } else {
        let name = numeric::strict(key, &DataType::Utf8)?;
        let name = name.as_string::<i32>();
        json.iter()
            .zip(name.iter())
            .map(|(json, name)| member(json?, name?).and_then(|raw| map(raw).map(Cow::into_owned)))
            .collect()
    };
    Ok(Arc::new(out))
}

fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let members: HashMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(json).ok()?;
    members.get(name).map(|raw| raw.get())
}

fn element(json: &str, index: i64) -> Option<&str> {
    if !json.trim_start().starts_with('[') {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let index = if index < 0 {
        elements.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(index).ok()?
    };
    elements.get(index).map(|raw| raw.get())
}

/// The text of a JSON value: of a string what it says, of `null` nothing.
fn unquoted(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
        Some(b'n') => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

fn utf8_only(encodings: &ArrayRef) -> Result<()> {
    let names = numeric::strict(encodings, &DataType::Utf8)?;
    for name in names.as_string::<i32>().iter().flatten() {
        if !name.eq_ignore_ascii_case("utf8") && !name.eq_ignore_ascii_case("utf-8") {
            return Err(DataFusionError::Execution(format!(
                "encoding \"{name}\" is not supported, accept utf8"
            )));
        }
    }
    Ok(())
}

fn convert_from(bytes: &ArrayRef, encodings: &ArrayRef) -> Result<ArrayRef> {
    utf8_only(encodings)?;
    let bytes = numeric::strict(bytes, &DataType::Binary)?;
    let one = |bytes: Option<&[u8]>| match bytes {
        None => Ok(None),
        Some(bytes) => std::str::from_utf8(bytes)
            .map(|text| Some(text.to_owned()))
            .map_err(|e| DataFusionError::Execution(format!("not valid UTF-8 at byte {}", e.valid_up_to()))),
    };
    Ok(Arc::new(bytes.as_binary::<i32>().iter().map(one).collect::<Result<StringArray>>()?))
}

fn convert_to(text: &ArrayRef, encodings: &ArrayRef) -> Result<ArrayRef> {
    utf8_only(encodings)?;
    let text = numeric::strict(text, &DataType::Utf8)?;
    let bytes: BinaryArray = text.as_string::<i32>().iter().map(|t| t.map(str::as_bytes)).collect();
    Ok(numeric::strict(&(Arc::new(bytes) as ArrayRef), &DataType::BinaryView)?)
}
