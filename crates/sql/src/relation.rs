//! `SELECT` on the relations of the system: the progress of a source, `sys.source_errors`. Their rows are handed in, so this
//! is DataFusion over a few tables in memory; nothing that writes, loads or sets is let through. The coordinator's admin
//! room calls it.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    datasource::MemTable,
    error::DataFusionError,
    execution::{FunctionRegistry, SessionState, SessionStateBuilder},
    physical_optimizer::optimizer::PhysicalOptimizer,
    physical_plan::{ExecutionPlan, collect},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use model::{Column, SqlType};
use sqlparser::{
    ast::{SelectItem, SetExpr, Statement},
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use crate::{Code, Error, Result, bounds::with_room, projection};

/// A relation with its rows.
#[derive(Clone, Debug)]
pub struct Relation {
    /// `public` or `sys`.
    pub schema: &'static str,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each value as text.
    pub rows: Vec<Vec<Option<String>>>,
}

/// What a query answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowSet {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each value as text.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Answers a query over these relations.
///
/// # Errors
/// Names that do not exist, types that do not fit, anything but a query.
pub async fn select(text: &str, relations: Vec<Relation>) -> Result<RowSet> {
    let context = SessionContext::new_with_state(state());
    for relation in relations {
        register(&context, relation).map_err(|e| refusal(&e))?;
    }
    let (plan, names) = with_room(|| {
        let plan = at_once(planned(&context, text))?.map_err(|e| refusal(&e))?;
        let names = names(text, plan.schema().fields().len());
        Ok((plan, names))
    })?;
    let schema = plan.schema();
    let batches = collect(plan, context.task_ctx()).await.map_err(|e| refusal(&e))?;
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, f)| Column {
            name: names.get(at).cloned().flatten().unwrap_or_else(|| f.name().clone()),
            kind: SqlType::of_arrow(f).unwrap_or(SqlType::Varchar),
        })
        .collect();
    let mut rows = Vec::new();
    for batch in &batches {
        let text: Vec<ArrayRef> = batch
            .columns()
            .iter()
            .map(projection::to_text)
            .collect::<Result<_, _>>()
            .map_err(|e| refusal(&DataFusionError::from(e)))?;
        rows.extend(
            (0..batch.num_rows()).map(|row| text.iter().map(|c| projection::text_at(c, row)).collect()),
        );
    }
    Ok(RowSet { columns, rows })
}

/// How the query is carried out.
async fn planned(context: &SessionContext, text: &str) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let only_queries =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    context.sql_with_options(text, only_queries).await?.create_physical_plan().await
}

/// What waits for nothing: the tables are in memory.
fn at_once<T>(work: impl Future<Output = T>) -> Result<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => Err(Error::new(Code::State, "the plan of the query waits for something")),
    }
}

/// What the columns of a plain `SELECT` without an alias are called, as in a sink; nothing where DataFusion's own name will do.
/// A `*` stands for as many columns as the other items leave.
fn names(text: &str, columns: usize) -> Vec<Option<String>> {
    let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, text) else { return Vec::new() };
    let [Statement::Query(query)] = statements.as_slice() else { return Vec::new() };
    let SetExpr::Select(select) = query.body.as_ref() else { return Vec::new() };
    let is_star =
        |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let stars = select.projection.iter().filter(|item| is_star(item)).count();
    let Some(starred) = (columns + stars).checked_sub(select.projection.len()) else { return Vec::new() };
    if stars > 1 || (stars == 0 && starred != 0) {
        return Vec::new();
    }
    let of_item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) => vec![Some(projection::name_of(expr))],
        item if is_star(item) => vec![None; starred],
        _ => vec![None],
    };
    select.projection.iter().flat_map(of_item).collect()
}

fn state() -> SessionState {
    let mut config =
        SessionConfig::new().with_target_partitions(1).with_default_catalog_and_schema("dev", "public");
    projection::configure(config.options_mut());
    // The memory table of DataFusion 53 forgets a limit that was pushed into it when its columns are put into another order.
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| rule.name() != "LimitPushdown");
    let mut state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_physical_optimizer_rules(rules)
        .build();
    for function in projection::functions() {
        state.register_udf(function).expect("a plain function can always be registered");
    }
    state
}

fn register(context: &SessionContext, relation: Relation) -> Result<(), DataFusionError> {
    let schema: SchemaRef =
        Arc::new(Schema::new(relation.columns.iter().map(Column::arrow).collect::<Vec<_>>()));
    let mut arrays = Vec::with_capacity(relation.columns.len());
    for (at, column) in relation.columns.iter().enumerate() {
        let text: StringArray = relation.rows.iter().map(|row| row.get(at).cloned().flatten()).collect();
        arrays.push(projection::strict(&(Arc::new(text) as ArrayRef), &column.kind.arrow())?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(relation.rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)?;
    let table = Arc::new(MemTable::try_new(schema, vec![vec![batch]])?);
    let catalog = context
        .catalog("dev")
        .ok_or_else(|| DataFusionError::Internal("the catalog of the session is missing".to_owned()))?;
    let provider = match catalog.schema(relation.schema) {
        Some(provider) => provider,
        None => {
            let provider: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
            catalog.register_schema(relation.schema, Arc::clone(&provider))?;
            provider
        }
    };
    provider.register_table(relation.name, table)?;
    Ok(())
}

fn refusal(error: &DataFusionError) -> Error {
    projection::refusal(error, &[], Code::Bind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Relation {
        let text = |name: &str| Column { name: name.into(), kind: SqlType::Varchar };
        let row = |shard: &str, lag: Option<&str>, state: &str| {
            vec![Some(shard.to_owned()), lag.map(str::to_owned), Some(state.to_owned())]
        };
        Relation {
            schema: "public",
            name: "clicks_progress".into(),
            columns: vec![
                text("shard_id"),
                Column { name: "millis_behind_latest".into(), kind: SqlType::Bigint },
                text("state"),
            ],
            rows: vec![
                row("shardId-1", Some("900"), "reading"),
                row("shardId-0", None, "pending"),
                row("shardId-2", Some("1000"), "reading"),
            ],
        }
    }

    async fn run(text: &str) -> Vec<String> {
        let rows = select(text, vec![progress()]).await.unwrap().rows;
        rows.into_iter()
            .map(|r| r.into_iter().map(|v| v.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join("|"))
            .collect()
    }

    #[tokio::test]
    async fn a_limit_holds_whatever_the_order_of_the_columns() {
        for text in [
            "SELECT state, shard_id FROM clicks_progress LIMIT 1",
            "SELECT shard_id, state FROM clicks_progress LIMIT 1",
        ] {
            assert_eq!(run(text).await.len(), 1, "{text}");
        }
    }

    #[tokio::test]
    async fn filters_sorts_by_number_and_limits() {
        assert_eq!(
            run("SELECT * FROM clicks_progress ORDER BY shard_id").await,
            ["shardId-0|NULL|pending", "shardId-1|900|reading", "shardId-2|1000|reading"]
        );
        let text = "SELECT shard_id FROM public.clicks_progress WHERE state = 'reading' \
                    ORDER BY millis_behind_latest DESC LIMIT 1";
        assert_eq!(run(text).await, ["shardId-2"]);
        let text = "SELECT state, count(*) FROM clicks_progress GROUP BY state ORDER BY state";
        assert_eq!(run(text).await, ["pending|1", "reading|2"]);
    }

    #[tokio::test]
    async fn a_column_without_an_alias_is_called_as_in_a_sink() {
        let cases: [(&str, &[&str]); 5] = [
            ("SELECT 1", &["?column?"]),
            ("SELECT 'a', 2 AS two, upper('x')", &["?column?", "two", "upper"]),
            ("SELECT state, count(*) FROM clicks_progress GROUP BY state", &["state", "count"]),
            (
                "SELECT 1 + 1, *, 7 AS n FROM clicks_progress",
                &["?column?", "shard_id", "millis_behind_latest", "state", "n"],
            ),
            ("SELECT 1 UNION SELECT 2", &["Int64(1)"]),
        ];
        for (text, expected) in cases {
            let columns = select(text, vec![progress()]).await.unwrap().columns;
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            assert_eq!(names, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn an_unknown_column_is_named_and_nothing_but_queries_runs() {
        let error = select("SELECT shard FROM clicks_progress", vec![progress()]).await.unwrap_err();
        assert_eq!(error.code, Code::UndefinedColumn, "{error}");
        assert!(select("CREATE TABLE t AS SELECT 1", vec![]).await.is_err());
        assert!(select("SELECT * FROM nothing", vec![]).await.is_err());
    }

    #[tokio::test]
    async fn relations_of_the_system_have_their_schema() {
        let errors = Relation {
            schema: "sys",
            name: "source_errors".into(),
            columns: vec![Column { name: "at".into(), kind: SqlType::Timestamptz }],
            rows: vec![vec![Some("2026-01-02T03:04:05.678Z".into())]],
        };
        let rows = select("SELECT at FROM sys.source_errors", vec![errors]).await.unwrap().rows;
        assert_eq!(rows, [[Some("2026-01-02 03:04:05.678+00:00".to_owned())]]);
    }
}
