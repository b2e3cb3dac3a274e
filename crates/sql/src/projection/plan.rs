//! From the text of a sink's query to physical expressions.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{Field, Schema};
use datafusion::{
    common::{
        DFSchema, SchemaError,
        config::{ConfigOptions, Dialect},
    },
    error::DataFusionError,
    execution::{
        FunctionRegistry,
        session_state::{SessionState, SessionStateBuilder},
    },
    logical_expr::{Expr as Logical, execution_props::ExecutionProps, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr},
    prelude::SessionConfig,
};
use model::{Column, SqlType, numeric_arrow};
use sqlparser::ast::{Expr, ExprWithAlias, GroupByExpr, Query, Select, SelectItem, SetExpr, TableFactor};

use super::{Condition, Output, Projection, Scope, arithmetic, functions, numeric, rewrite, schema_of};
use crate::{Code, Error, Result, lexer::Cursor};

/// One for all queries: DataFusion's functions, ours beside them.
static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new();
    configure(config.options_mut());
    let mut state = SessionStateBuilder::new().with_default_features().with_config(config).build();
    for function in functions::all() {
        state.register_udf(function).expect("a plain function can always be registered");
    }
    state
});

/// PostgreSQL's words, texts as plain strings, the time zone of the session.
pub(crate) fn configure(options: &mut ConfigOptions) {
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some("UTC".to_owned());
}

/// A select item before it is compiled.
struct Item {
    name: String,
    expr: Expr,
}

/// See [`Projection::compile`].
pub(super) fn compile(text: &str, input: &[Column]) -> Result<Projection> {
    let mut cursor = Cursor::new(text)?;
    let query = cursor.query(|_, _| false)?;
    let select = plain_select(&query)?;
    let (relation, qualifiers) = relation(select)?;
    let is_column = |name: &str| input.iter().any(|c| c.name == name);
    let mut items = items(select, input, &qualifiers)?;
    for item in &mut items {
        rewrite::rewrite(&mut item.expr, &qualifiers, &is_column)?;
    }
    let mut condition = select.selection.clone();
    if let Some(condition) = &mut condition {
        rewrite::rewrite(condition, &qualifiers, &is_column)?;
    }
    let all = seen_schema(input)?;
    let logical = |expr: &Expr| logical(expr, &all, input);
    let mut planned = Vec::new();
    for item in &items {
        let column = match &item.expr {
            Expr::Identifier(ident) => input.iter().find(|c| c.name == rewrite::folded(ident)),
            _ => None,
        };
        planned.push(match column {
            Some(column) => Planned::Input(column),
            None => Planned::Computed(logical(&item.expr)?),
        });
    }
    let filter = condition.as_ref().map(logical).transpose()?;
    let computed_of = planned.iter().filter_map(|p| match p {
        Planned::Computed(expr) => Some(expr),
        Planned::Input(_) => None,
    });
    let (scope, schema) = scope(computed_of, input)?;
    let condition = filter.as_ref().map(|expr| condition_of(expr, input)).transpose()?;
    let used = |name: &str| {
        scope.columns.iter().chain(condition.iter().flat_map(|c| &c.scope.columns)).any(|c| c.name == name)
    };
    let passed = |name: &str| planned.iter().any(|p| matches!(p, Planned::Input(c) if c.name == name));
    let inputs = input.iter().filter(|c| used(&c.name) || passed(&c.name)).map(|c| c.name.clone()).collect();
    let mut columns = Vec::with_capacity(items.len());
    let mut outputs = Vec::with_capacity(items.len());
    let mut origins = Vec::with_capacity(items.len());
    for (item, planned) in items.iter().zip(&planned) {
        let (output, kind) = match planned {
            Planned::Input(column) => (Output::Input(column.name.clone()), column.kind.clone()),
            Planned::Computed(expr) => computed(expr, &schema, &item.name)?,
        };
        outputs.push(output);
        origins.push(match planned {
            Planned::Input(column) => column.name.clone(),
            Planned::Computed(_) => item.expr.to_string(),
        });
        columns.push(Column { name: item.name.clone(), kind });
    }
    let schema = schema_of(&columns);
    Ok(Projection { inputs, columns, origins, outputs, filter: condition, scope, schema, relation })
}

/// A select item that is a column, or an expression.
enum Planned<'a> {
    Input(&'a Column),
    Computed(Logical),
}

/// The one `SELECT`, if the query says nothing that a sink cannot do row by row.
fn plain_select(query: &Query) -> Result<&Select> {
    let refusals = [
        (query.with.is_some(), "WITH"),
        (query.order_by.is_some(), "ORDER BY"),
        (query.limit_clause.is_some() || query.fetch.is_some(), "LIMIT"),
        (!query.locks.is_empty() || query.for_clause.is_some(), "FOR"),
        (query.settings.is_some() || query.format_clause.is_some(), "SETTINGS and FORMAT"),
        (!query.pipe_operators.is_empty(), "|>"),
    ];
    refuse(&refusals)?;
    let select = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::Query(inner) => return plain_select(inner),
        _ => return Err(Error::unsupported("UNION, VALUES and the like in a sink's query")),
    };
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, modifiers) => !by.is_empty() || !modifiers.is_empty(),
    };
    let sorted = [&select.cluster_by, &select.distribute_by].iter().any(|by| !by.is_empty());
    let topped = select.top.is_some()
        || select.into.is_some()
        || select.qualify.is_some()
        || !select.lateral_views.is_empty();
    let refusals = [
        (select.distinct.is_some() || select.select_modifiers.is_some(), "DISTINCT"),
        (grouped || select.having.is_some(), "GROUP BY"),
        (topped, "TOP, INTO, QUALIFY and LATERAL VIEW"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.exclude.is_some() || select.value_table_mode.is_some(), "EXCLUDE, AS STRUCT and AS VALUE"),
        (select.prewhere.is_some() || !select.connect_by.is_empty(), "PREWHERE and CONNECT BY"),
        (sorted || !select.sort_by.is_empty(), "CLUSTER BY, DISTRIBUTE BY and SORT BY"),
    ];
    refuse(&refusals)?;
    Ok(select)
}

/// Refuses the first of these that is there.
fn refuse(refusals: &[(bool, &str)]) -> Result<()> {
    match refusals.iter().find(|(there, _)| *there) {
        Some((_, what)) => Err(Error::unsupported(format!("{what} in a sink's query"))),
        None => Ok(()),
    }
}

/// The relation in `FROM`, and the names that may stand before a column.
fn relation(select: &Select) -> Result<(String, Vec<String>)> {
    let one = || Error::unsupported("a sink's query reads exactly one source");
    let [table] = select.from.as_slice() else { return Err(one()) };
    if !table.joins.is_empty() {
        return Err(Error::unsupported("joins in a sink's query"));
    }
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = &table.relation
    else {
        return Err(Error::unsupported("subqueries in a sink's query"));
    };
    refuse(&[
        (args.is_some() || *with_ordinality, "functions in FROM"),
        (sample.is_some(), "TABLESAMPLE"),
        (
            alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()),
            "other names for the columns of FROM",
        ),
        (
            version.is_some() || !partitions.is_empty() || json_path.is_some(),
            "versions, partitions and paths in FROM",
        ),
        (!with_hints.is_empty() || !index_hints.is_empty(), "hints"),
    ])?;
    let last = name.0.last().and_then(|part| part.as_ident()).ok_or_else(one)?;
    let relation = rewrite::folded(last);
    let qualifier = match alias {
        Some(alias) => rewrite::folded(&alias.name),
        None => relation.clone(),
    };
    Ok((relation, vec![qualifier]))
}

/// The select list with `*` written out and every item named.
fn items(select: &Select, input: &[Column], qualifiers: &[String]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => items.push(Item { name: name_of(expr), expr: expr.clone() }),
            SelectItem::ExprWithAlias { expr, alias } => {
                items.push(Item { name: rewrite::folded(alias), expr: expr.clone() });
            }
            SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
                if let SelectItem::QualifiedWildcard(kind, _) = item {
                    let name = kind.to_string().to_lowercase();
                    let name = name.strip_suffix(".*").unwrap_or(&name);
                    if !qualifiers.iter().any(|q| q == name) {
                        let text = format!("relation \"{name}\" is not in FROM");
                        return Err(Error::new(Code::UndefinedObject, text));
                    }
                }
                if options.to_string() != "" {
                    return Err(Error::unsupported("EXCEPT, REPLACE and RENAME behind *"));
                }
                items.extend(input.iter().map(|c| Item {
                    name: c.name.clone(),
                    expr: Expr::Identifier(sqlparser::ast::Ident::with_quote('"', &c.name)),
                }));
            }
        }
    }
    if items.is_empty() {
        return Err(Error::new(Code::Bind, "the select list is empty"));
    }
    Ok(items)
}

/// The name of an expression without an alias, as PostgreSQL gives it.
pub(crate) fn name_of(expr: &Expr) -> String {
    const UNNAMED: &str = "?column?";
    match expr {
        Expr::Identifier(ident) => rewrite::folded(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(|| UNNAMED.to_owned(), rewrite::folded),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(sqlparser::ast::AccessExpr::Dot(Expr::Identifier(ident))) => rewrite::folded(ident),
            _ => UNNAMED.to_owned(),
        },
        Expr::Nested(inner) => name_of(inner),
        Expr::Cast { expr, .. } => name_of(expr),
        Expr::Function(function) => function
            .name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map_or_else(|| UNNAMED.to_owned(), |ident| ident.value.to_lowercase()),
        _ => UNNAMED.to_owned(),
    }
}

/// The columns that expressions name.
fn scope<'a>(expressions: impl Iterator<Item = &'a Logical>, input: &[Column]) -> Result<(Scope, DFSchema)> {
    let named: HashSet<&str> =
        expressions.flat_map(Logical::column_refs).map(|column| column.name.as_str()).collect();
    let columns: Vec<Column> = input.iter().filter(|c| named.contains(c.name.as_str())).cloned().collect();
    let schema = seen_schema(&columns)?;
    Ok((Scope { columns, schema: Arc::new(schema.as_arrow().clone()) }, schema))
}

/// The columns as expressions see them: numerics as decimals.
fn seen_schema(columns: &[Column]) -> Result<DFSchema> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|c| match c.kind {
            SqlType::Numeric => Field::new(&c.name, numeric_arrow(), true),
            _ => c.arrow(),
        })
        .collect();
    DFSchema::try_from(Schema::new(fields)).map_err(|e| refusal(&e, &[], Code::Bind))
}

fn logical(expr: &Expr, schema: &DFSchema, input: &[Column]) -> Result<Logical> {
    let expr = ExprWithAlias { expr: expr.clone(), alias: None };
    let expr =
        STATE.create_logical_expr_from_sql_expr(expr, schema).map_err(|e| refusal(&e, input, Code::Bind))?;
    let whole = |e: &Logical| matches!(e, Logical::AggregateFunction(_) | Logical::WindowFunction(_));
    let mut found = false;
    _ = datafusion::common::tree_node::TreeNode::apply(&expr, |e| {
        found |= whole(e);
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    if found {
        return Err(Error::unsupported("aggregates and window functions in a sink's query"));
    }
    Ok(expr)
}

/// Coerces and simplifies before the physical expression is made: without it `coalesce` and its like fail when evaluated.
fn physical(expr: &Logical, schema: &DFSchema) -> Result<(Arc<dyn PhysicalExpr>, Field)> {
    let context = SimplifyContext::default()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(STATE.config_options()))
        .with_current_time();
    let simplifier = ExprSimplifier::new(context);
    let physical = arithmetic::exact(expr.clone(), schema)
        .and_then(|expr| simplifier.coerce(expr, schema))
        .and_then(|expr| arithmetic::guarded(expr, schema))
        .and_then(|expr| simplifier.simplify(expr))
        .and_then(|expr| create_physical_expr(&expr, schema, &ExecutionProps::new()))
        .and_then(|expr| arithmetic::checked(expr, schema))
        .map_err(|e| refusal(&e, &[], Code::Bind))?;
    let field = physical.return_field(schema.as_arrow()).map_err(|e| refusal(&e, &[], Code::Bind))?;
    Ok((physical, field.as_ref().clone()))
}

fn computed(expr: &Logical, schema: &DFSchema, name: &str) -> Result<(Output, SqlType)> {
    let (physical, field) = physical(expr, schema)?;
    match SqlType::of_arrow(&field) {
        Some(kind) => Ok((Output::Computed(physical), kind)),
        None => {
            let text = format!("column \"{name}\" has no type of its own ({})", field.data_type());
            Err(Error::new(Code::Bind, text).hint("add a cast"))
        }
    }
}

fn condition_of(expr: &Logical, input: &[Column]) -> Result<Condition> {
    let (scope, schema) = scope(std::iter::once(expr), input)?;
    let (holds, field) = physical(expr, &schema)?;
    if field.data_type() == &arrow::datatypes::DataType::Boolean {
        return Ok(Condition { scope, holds });
    }
    let kind =
        SqlType::of_arrow(&field).map_or_else(|| field.data_type().to_string(), |kind| kind.to_string());
    Err(Error::new(Code::Bind, format!("the condition of WHERE must be boolean, not {kind}")))
}

/// What DataFusion refuses, in our words.
pub(crate) fn refusal(error: &DataFusionError, input: &[Column], other: Code) -> Error {
    if let DataFusionError::SchemaError(schema, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } = schema.as_ref()
    {
        let error = Error::new(Code::UndefinedColumn, format!("column \"{}\" does not exist", field.name));
        return match connector::nearest(&field.name, input.iter().map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        };
    }
    Error::new(other, numeric::explain(error))
}
