//! Values on their way into and out of expressions: decimals are text outside and `Decimal128` inside (see
//! `model::numeric_arrow`), and what DataFusion produces is brought to the Arrow type of its SQL type.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Decimal128Type, Decimal256Type},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::error::DataFusionError;
use model::{SqlType, numeric_arrow};

/// How timestamps and the like become text: as PostgreSQL writes them.
pub(super) fn text_format() -> FormatOptions<'static> {
    FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
        .with_display_error(false)
}

/// A cast that fails rather than making a null.
pub(crate) fn strict(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, kind, &CastOptions { safe: false, format_options: text_format() })
}

/// The text of numerics as decimals. `NaN` and the infinities have no decimal: that row fails.
pub(super) fn to_decimal(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    strict(array, &numeric_arrow())
}

/// A decimal as canonical text: no zeros behind the last digit of the fraction.
fn canonical(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// An array of decimals as canonical text.
pub(super) fn decimal_text(array: &ArrayRef) -> Option<ArrayRef> {
    let mut out = StringBuilder::new();
    let mut push = |valid: bool, text: &dyn Fn() -> String| match valid {
        true => out.append_value(canonical(&text())),
        false => out.append_null(),
    };
    match array.data_type() {
        DataType::Decimal128(..) => {
            let array = array.as_primitive::<Decimal128Type>();
            (0..array.len()).for_each(|row| push(array.is_valid(row), &|| array.value_as_string(row)));
        }
        DataType::Decimal256(..) => {
            let array = array.as_primitive::<Decimal256Type>();
            (0..array.len()).for_each(|row| push(array.is_valid(row), &|| array.value_as_string(row)));
        }
        _ => return None,
    }
    Some(Arc::new(out.finish()))
}

/// Any array as text, as `CAST(… AS varchar)` makes it.
pub(crate) fn to_text(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(text) = decimal_text(array) {
        return Ok(text);
    }
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            strict(array, &DataType::Utf8)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let binary = strict(array, &DataType::Binary)?;
            let binary = binary.as_binary::<i32>();
            let hex = |bytes: &[u8]| bytes.iter().fold("\\x".to_owned(), |s, b| format!("{s}{b:02x}"));
            Ok(Arc::new(binary.iter().map(|b| b.map(hex)).collect::<StringArray>()))
        }
        _ => {
            let options = text_format();
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let float = array.data_type().is_floating();
            let text = |row| match array.is_valid(row) {
                true => formatter.value(row).try_to_string().map(|mut text| {
                    if float && text.ends_with(".0") {
                        text.truncate(text.len() - 2);
                    }
                    Some(text)
                }),
                false => Ok(None),
            };
            Ok(Arc::new((0..array.len()).map(text).collect::<Result<StringArray, _>>()?))
        }
    }
}

/// One value of an array that `to_text` made.
pub(crate) fn text_at(array: &ArrayRef, row: usize) -> Option<String> {
    let array = array.as_string::<i32>();
    array.is_valid(row).then(|| array.value(row).to_owned())
}

/// What an expression produced, as the Arrow type of its SQL type.
pub(super) fn to_output(array: &ArrayRef, kind: &SqlType) -> Result<ArrayRef, String> {
    let array = match kind {
        SqlType::Numeric => match decimal_text(array) {
            Some(text) => text,
            None => to_text(array).map_err(|e| plain(&e.to_string()))?,
        },
        _ => array.clone(),
    };
    let wanted = kind.arrow();
    if array.data_type() == &wanted {
        return Ok(array);
    }
    strict(&array, &wanted).map_err(|e| plain(&e.to_string()))
}

/// The reason of a failed evaluation, in one line.
pub(super) fn explain(error: &DataFusionError) -> String {
    plain(&error.find_root().strip_backtrace())
}

/// Without the families that the libraries put before their texts.
pub(super) fn plain(text: &str) -> String {
    let mut text = text.lines().next().unwrap_or_default().trim();
    for lead in [
        "Execution error: ",
        "Error during planning: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Invalid argument error: ",
        "Compute error: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Optimizer rule 'simplify_expressions' failed: ",
    ] {
        text = text.strip_prefix(lead).unwrap_or(text);
    }
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "the expression failed".to_owned(),
    }
}
