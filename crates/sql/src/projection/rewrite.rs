//! Our SQL to what DataFusion knows, on the syntax tree: `->`, `->>`, casts to text, jsonb, numeric and timestamps,
//! `(c).f`, qualified names, and the functions of the present moment, which must not be frozen when a query is compiled.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, TimezoneInfo, Value,
    visit_expressions_mut,
};

use super::functions;
use crate::{Error, Result};

/// Rewrites an expression in place. `qualifiers` are the names under which the source's columns may be qualified;
/// `is_column` says whether a folded name is a column.
pub(super) fn rewrite(
    expr: &mut Expr,
    qualifiers: &[String],
    is_column: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let flow = visit_expressions_mut(expr, |e| match one(e, qualifiers, is_column) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn one(expr: &mut Expr, qualifiers: &[String], is_column: &dyn Fn(&str) -> bool) -> Result<()> {
    match expr {
        Expr::CompoundIdentifier(parts) if parts.len() > 1 => {
            if parts.len() > 2 && folded(&parts[0]) == "public" && qualifiers.contains(&folded(&parts[1])) {
                parts.remove(0);
            }
            let first = folded(&parts[0]);
            if qualifiers.contains(&first) && !is_column(&first) {
                parts.remove(0);
                if let [only] = parts.as_slice() {
                    *expr = Expr::Identifier(only.clone());
                }
            }
        }
        Expr::CompoundFieldAccess { access_chain, .. } => {
            for access in access_chain {
                if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                    *access = AccessExpr::Dot(text(&folded(field)));
                }
            }
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Arrow | BinaryOperator::LongArrow), right } => {
            let name = if *op == BinaryOperator::Arrow { functions::JSON_GET } else { functions::JSON_TEXT };
            *expr = call(name, vec![taken(left), taken(right)]);
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. } => {
            if let Some(replaced) = cast(inner, data_type)? {
                *expr = replaced;
            }
        }
        Expr::Function(function) => {
            plain_call(function)?;
            if let Some(replaced) = present(function) {
                *expr = replaced;
            }
        }
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
            return Err(Error::unsupported("subqueries in a sink's query"));
        }
        _ => {}
    }
    Ok(())
}

/// A cast as a function of ours, or with a target that DataFusion knows; `None` leaves it as it is.
fn cast(inner: &mut Expr, target: &mut DataType) -> Result<Option<Expr>> {
    Ok(match target {
        DataType::Varchar(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_)
        | DataType::Nvarchar(_)
        | DataType::Text
        | DataType::String(_) => Some(call(functions::TO_TEXT, vec![taken(inner)])),
        DataType::JSONB => Some(call(functions::TO_JSONB, vec![taken(inner)])),
        DataType::JSON => return Err(Error::unsupported("casts to json").hint("cast to jsonb")),
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => {
            *target = DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 10));
            None
        }
        DataType::Timestamp(precision @ None, _) => {
            *precision = Some(6);
            None
        }
        DataType::TimestampNtz(_) | DataType::Datetime(None) => {
            *target = DataType::Timestamp(Some(6), TimezoneInfo::None);
            None
        }
        _ => None,
    })
}

/// What DataFusion would leave unsaid of a function that is evaluated row by row.
fn plain_call(function: &Function) -> Result<()> {
    let Function {
        name: _,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = function;
    let plain = match args {
        FunctionArguments::None | FunctionArguments::Subquery(_) => true,
        FunctionArguments::List(list) => list.duplicate_treatment.is_none() && list.clauses.is_empty(),
    };
    let plain = plain
        && matches!(parameters, FunctionArguments::None)
        && (filter.is_none() && null_treatment.is_none() && over.is_none() && within_group.is_empty());
    match plain {
        true => Ok(()),
        false => Err(Error::unsupported("aggregates and window functions in a sink's query")),
    }
}

/// Functions of the present moment.
fn present(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let as_kind = |data_type| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(call(functions::PROCTIME, Vec::new())),
        data_type,
        array: false,
        format: None,
    };
    match name.as_str() {
        "now" | "current_timestamp" | "localtimestamp" => Some(call(functions::PROCTIME, Vec::new())),
        "current_date" | "today" => Some(as_kind(DataType::Date)),
        "current_time" | "localtime" => Some(as_kind(DataType::Time(None, TimezoneInfo::None))),
        _ => None,
    }
}

/// What is about to be put elsewhere: a copy at every level of a tree would be as many trees.
fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn text(value: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.to_owned()).into())
}

/// An identifier as a name: bare ones folded.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}
