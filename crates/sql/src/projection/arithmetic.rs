//! Arithmetic as PostgreSQL does it, where DataFusion's differs: a fractional literal beside a numeric is exact, integers do not
//! wrap, and nothing is divided by zero. `plan` calls it, before coercion, behind it, and on the physical expression.

use std::{any::Any, sync::Arc};

use arrow::{
    array::AsArray,
    compute::kernels::numeric::div,
    datatypes::{DataType, Float64Type},
};
use datafusion::{
    common::{
        DFSchema, ExprSchema,
        tree_node::{Transformed, TreeNode},
    },
    error::{DataFusionError, Result},
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr::Case,
    },
    physical_expr::{
        PhysicalExpr,
        expressions::{self, Literal, NegativeExpr},
    },
    scalar::ScalarValue,
};

use super::numeric;

/// As many fractional digits as a numeric has inside an expression.
const FRACTION_MAX: usize = 10;

/// Larger ones were rounded when they were read.
const EXACT_BELOW: f64 = 1e15;

/// Functions whose arguments are of one type.
const ALIKE: &[&str] = &["coalesce", "nullif", "greatest", "least"];

/// Fractional literals beside numerics, which are doubles for DataFusion, as the decimals that were written. Before coercion:
/// it would make doubles of the numerics.
pub(super) fn exact(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let changed = expr.transform_up(|mut expr| {
        let mut changed = false;
        for mut group in alike(&mut expr) {
            let fractional = group.iter().any(|e| is_constant(e) && has_fraction(e));
            if fractional && group.iter().any(|e| !is_constant(e) && is_decimal(e, schema)) {
                for member in group.iter_mut().filter(|e| is_constant(e)) {
                    **member = decimals(std::mem::take(*member))?;
                }
                changed = true;
            }
        }
        Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    })?;
    Ok(changed.data)
}

/// What of an expression has one type.
fn alike(expr: &mut Expr) -> Vec<Vec<&mut Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => vec![vec![&mut **left, &mut **right]],
        Expr::Between(between) => vec![vec![&mut *between.expr, &mut *between.low, &mut *between.high]],
        Expr::InList(list) => vec![std::iter::once(&mut *list.expr).chain(&mut list.list).collect()],
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (mut compared, mut results) = (Vec::new(), Vec::new());
            compared.extend(expr.as_deref_mut());
            let simple = !compared.is_empty();
            for (when, then) in when_then_expr {
                if simple {
                    compared.push(&mut **when);
                }
                results.push(&mut **then);
            }
            results.extend(else_expr.as_deref_mut());
            vec![compared, results]
        }
        Expr::ScalarFunction(function) if ALIKE.contains(&function.func.name()) => {
            vec![function.args.iter_mut().collect()]
        }
        _ => Vec::new(),
    }
}

/// A number, or arithmetic on numbers.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.data_type().is_numeric(),
        Expr::Negative(inner) => is_constant(inner),
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => is_constant(left) && is_constant(right),
        _ => false,
    }
}

fn has_fraction(expr: &Expr) -> bool {
    let is_double = |e: &Expr| Ok(matches!(e, Expr::Literal(ScalarValue::Float64(Some(_)), _)));
    expr.exists(is_double).unwrap_or(false)
}

fn is_decimal(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_decimal())
}

fn decimals(constant: Expr) -> Result<Expr> {
    let changed = constant.transform_up(|expr| {
        let Expr::Literal(ScalarValue::Float64(Some(value)), _) = &expr else {
            return Ok(Transformed::no(expr));
        };
        Ok(match decimal(*value) {
            Some(decimal) => Transformed::yes(Expr::Literal(decimal, None)),
            None => Transformed::no(expr),
        })
    })?;
    Ok(changed.data)
}

/// The decimal of the shortest text that reads as this double: what was written.
fn decimal(value: f64) -> Option<ScalarValue> {
    if value.is_nan() || value.abs() >= EXACT_BELOW {
        return None;
    }
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if fraction.len() > FRACTION_MAX {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let precision = u8::try_from(digits.unsigned_abs().to_string().len().max(fraction.len())).ok()?;
    Some(ScalarValue::Decimal128(Some(digits), precision, i8::try_from(fraction.len()).ok()?))
}

/// Quotients of doubles that fail at zero. Behind coercion: both sides are of one type.
pub(super) fn guarded(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let changed = expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })
            if left.get_type(schema)?.is_floating() =>
        {
            Ok(Transformed::yes(Division::udf().call(vec![*left, *right])))
        }
        expr => Ok(Transformed::no(expr)),
    })?;
    Ok(changed.data)
}

/// Division of doubles.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Division {
    signature: Signature,
}

impl Division {
    fn udf() -> ScalarUDF {
        ScalarUDF::new_from_impl(Self { signature: Signature::any(2, Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for Division {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        "shardwright_divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let (left, right) = (&arrays[0], &arrays[1]);
        let double = |array| numeric::strict(array, &DataType::Float64);
        let (dividends, divisors) = (double(left)?, double(right)?);
        let pairs =
            dividends.as_primitive::<Float64Type>().iter().zip(divisors.as_primitive::<Float64Type>());
        if pairs.into_iter().any(|(x, y)| y == Some(0.0) && x.is_some_and(|x| !x.is_nan())) {
            return Err(DataFusionError::Execution("divide by zero error".to_owned()));
        }
        Ok(ColumnarValue::Array(div(left, right)?))
    }
}

/// Sums, differences and products that fail where they would wrap.
pub(super) fn checked(expr: Arc<dyn PhysicalExpr>, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let changed = expr.transform_up(|expr| {
        if let Some(binary) = expr.as_any().downcast_ref::<expressions::BinaryExpr>() {
            return Ok(Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _));
        }
        if let Some(negative) = expr.as_any().downcast_ref::<NegativeExpr>() {
            let kind = negative.arg().data_type(schema.as_arrow())?;
            if kind.is_signed_integer() {
                let zero: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::new_zero(&kind)?));
                let difference =
                    expressions::BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
                return Ok(Transformed::yes(Arc::new(difference.with_fail_on_overflow(true)) as _));
            }
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(changed.data)
}
