//! Statements about tables, read from their text by sqlparser's PostgreSQL dialect.
//!
//! Only reads: what names and types mean is for the catalog to say. Whatever is not known for certain is [`Unclear`], with
//! the reason; nothing is guessed. What a statement changes of a table's columns and of what identifies its rows is told,
//! all else of it (checks, triggers, owners, defaults of later rows) does not concern the lake.
//!
//! Public source: PostgreSQL manual, "ALTER TABLE".

use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, DataType, Expr, Ident, ObjectName,
    ObjectType, RenameTableNameKind, ReplicaIdentity, Statement as Parsed, TableConstraint, UnaryOperator, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::schema::TableName;

/// Why the effect of a statement is not certain, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear(pub String);

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub schema: Option<String>,
    pub table: String,
}

/// A statement that concerns tables.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Alter { table: Named, changes: Vec<Change> },
    Truncate(Vec<Named>),
    Drop(Vec<Named>),
}

/// One change among those of an ALTER TABLE.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Add {
        name: String,
        /// In the statement's words.
        declared: String,
        default: Default,
        if_not_exists: bool,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    Rename {
        from: String,
        to: String,
    },
    Retype {
        name: String,
        declared: String,
        /// Values are computed by an expression.
        using: bool,
    },
    PrimaryKey(Vec<String>),
    PrimaryKeyOfIndex(String),
    /// It may be the primary key.
    DropConstraint(String),
    Identity(Identity),
    RenameTable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Full,
    Nothing,
    Default,
    Index(String),
}

/// What the rows that are there get in a new column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Default {
    /// None is stated: NULL, or what the type has.
    None,
    Null,
    /// The same in every row: a literal, or a function that stands still while a statement runs.
    Constant(String),
    /// An expression that calls this function; whether each row gets a value of its own depends on it.
    Call {
        expression: String,
        function: String,
    },
    /// Each row gets its own; how, in words.
    Each(String),
}

/// Reads statements separated by semicolons; those that do not concern tables are left out.
pub fn read(text: &str) -> Result<Vec<Statement>, Unclear> {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, text)
        .map_err(|error| Unclear(format!("it can't be read ({error})")))?;
    let mut statements = Vec::new();
    for statement in parsed {
        statements.extend(concerning_tables(&statement)?);
    }
    Ok(statements)
}

fn concerning_tables(statement: &Parsed) -> Result<Option<Statement>, Unclear> {
    match statement {
        Parsed::AlterTable(alter) => alter_table(alter).map(Some),
        Parsed::Truncate(truncate) => {
            let names: Result<Vec<Named>, Unclear> =
                truncate.table_names.iter().map(|target| named(&target.name)).collect();
            names.map(|names| Some(Statement::Truncate(names)))
        }
        Parsed::Drop { object_type: ObjectType::Table, names, .. } => {
            let names: Result<Vec<Named>, Unclear> = names.iter().map(named).collect();
            names.map(|names| Some(Statement::Drop(names)))
        }
        Parsed::CreateIndex(_)
        | Parsed::CreateTable(_)
        | Parsed::CreateView { .. }
        | Parsed::CreateSequence { .. }
        | Parsed::CreateFunction { .. }
        | Parsed::CreateTrigger { .. }
        | Parsed::CreateType { .. }
        | Parsed::AlterIndex { .. }
        | Parsed::Comment { .. }
        | Parsed::Grant { .. }
        | Parsed::Revoke { .. }
        | Parsed::Set(_)
        | Parsed::StartTransaction { .. }
        | Parsed::Commit { .. } => Ok(None),
        Parsed::Drop { object_type: ObjectType::Index | ObjectType::View | ObjectType::Sequence, .. } => Ok(None),
        other => {
            let text: String = other.to_string().chars().take(60).collect();
            Err(Unclear(format!("`{text}` is no statement whose effect on tables is known here")))
        }
    }
}

fn alter_table(alter: &AlterTable) -> Result<Statement, Unclear> {
    let table = named(&alter.name)?;
    let mut changes = Vec::new();
    for operation in &alter.operations {
        take(operation, &mut changes)?;
    }
    Ok(Statement::Alter { table, changes })
}

fn take(operation: &AlterTableOperation, changes: &mut Vec<Change>) -> Result<(), Unclear> {
    use AlterTableOperation as Operation;
    match operation {
        Operation::AddColumn { if_not_exists, column_def, .. } => {
            let (default, primary) = default_of(column_def)?;
            let name = folded(&column_def.name);
            if primary {
                changes.push(Change::PrimaryKey(vec![name.clone()]));
            }
            let declared = column_def.data_type.to_string();
            // The key names the column: it goes first.
            let at = changes.len() - usize::from(primary);
            changes.insert(at, Change::Add { name, declared, default, if_not_exists: *if_not_exists });
        }
        Operation::DropColumn { column_names, if_exists, .. } => {
            for name in column_names {
                changes.push(Change::Drop { name: folded(name), if_exists: *if_exists });
            }
        }
        Operation::RenameColumn { old_column_name, new_column_name } => {
            changes.push(Change::Rename { from: folded(old_column_name), to: folded(new_column_name) });
        }
        Operation::AlterColumn { column_name, op } => match op {
            AlterColumnOperation::SetDataType { data_type, using, .. } => changes.push(Change::Retype {
                name: folded(column_name),
                declared: data_type.to_string(),
                using: using.is_some(),
            }),
            AlterColumnOperation::SetNotNull
            | AlterColumnOperation::DropNotNull
            | AlterColumnOperation::SetDefault { .. }
            | AlterColumnOperation::DropDefault
            | AlterColumnOperation::AddGenerated { .. } => {}
        },
        Operation::AddConstraint { constraint, .. } => match constraint {
            TableConstraint::PrimaryKey(key) => {
                let columns: Option<Vec<String>> = key
                    .columns
                    .iter()
                    .map(|column| match &column.column.expr {
                        Expr::Identifier(name) => Some(folded(name)),
                        _ => None,
                    })
                    .collect();
                changes.push(Change::PrimaryKey(columns.ok_or_else(|| unknown(operation))?));
            }
            TableConstraint::PrimaryKeyUsingIndex(index) => {
                changes.push(Change::PrimaryKeyOfIndex(folded(&index.index_name)));
            }
            _ => {}
        },
        Operation::DropConstraint { name, .. } => changes.push(Change::DropConstraint(folded(name))),
        Operation::ReplicaIdentity { identity } => changes.push(Change::Identity(match identity {
            ReplicaIdentity::Full => Identity::Full,
            ReplicaIdentity::Nothing => Identity::Nothing,
            ReplicaIdentity::Default => Identity::Default,
            ReplicaIdentity::Index(name) => Identity::Index(folded(name)),
        })),
        Operation::RenameTable { table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name) } => {
            changes.push(Change::RenameTable(named(name)?.table));
        }
        Operation::RenameConstraint { .. }
        | Operation::ValidateConstraint { .. }
        | Operation::OwnerTo { .. }
        | Operation::EnableTrigger { .. }
        | Operation::DisableTrigger { .. }
        | Operation::EnableAlwaysTrigger { .. }
        | Operation::EnableReplicaTrigger { .. }
        | Operation::EnableRule { .. }
        | Operation::DisableRule { .. }
        | Operation::EnableAlwaysRule { .. }
        | Operation::EnableReplicaRule { .. }
        | Operation::EnableRowLevelSecurity
        | Operation::DisableRowLevelSecurity
        | Operation::ForceRowLevelSecurity
        | Operation::NoForceRowLevelSecurity
        | Operation::SetOptionsParens { .. } => {}
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn unknown(operation: &AlterTableOperation) -> Unclear {
    Unclear(format!("what `{operation}` does to the lake is not known here"))
}

/// What old rows get, and whether the column becomes the primary key.
fn default_of(column: &ColumnDef) -> Result<(Default, bool), Unclear> {
    let mut default = Default::None;
    let mut primary = false;
    if let DataType::Custom(name, _) = &column.data_type
        && name.to_string().to_lowercase().contains("serial")
    {
        default = Default::Each("it counts by itself".to_owned());
    }
    for option in &column.options {
        match &option.option {
            ColumnOption::Default(expression) => default = constant(expression),
            ColumnOption::Generated { generation_expr: None, .. } | ColumnOption::Identity(_) => {
                default = Default::Each("it counts by itself".to_owned());
            }
            ColumnOption::Generated { generation_expr: Some(expression), .. } => {
                default = Default::Each(format!("it is generated as `{expression}`"));
            }
            ColumnOption::PrimaryKey(_) => primary = true,
            ColumnOption::Null
            | ColumnOption::NotNull
            | ColumnOption::Unique(_)
            | ColumnOption::ForeignKey(_)
            | ColumnOption::Check(_)
            | ColumnOption::Collation(_) => {}
            other => return Err(Unclear(format!("what `{other}` does to the lake is not known here"))),
        }
    }
    Ok((default, primary))
}

/// Whether every row gets the same value from this default, as far as its text says.
fn constant(expression: &Expr) -> Default {
    if is_null(expression) {
        return Default::Null;
    }
    if is_literal(expression) {
        return Default::Constant(expression.to_string());
    }
    let text = expression.to_string();
    match call(expression) {
        Some(function) if STANDING_STILL.contains(&function.as_str()) => Default::Constant(text),
        Some(function) => Default::Call { expression: text, function },
        None => Default::Each(format!("its default is `{text}`")),
    }
}

/// Functions that give the same value as often as a statement calls them (manual 9.9.5 "Current Date/Time").
const STANDING_STILL: [&str; 9] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "localtime",
    "transaction_timestamp",
    "statement_timestamp",
    "current_user",
];

fn is_null(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => matches!(value.value, Value::Null),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_null(inner),
        _ => false,
    }
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => !matches!(value.value, Value::Placeholder(_)),
        Expr::UnaryOp { op: UnaryOperator::Plus | UnaryOperator::Minus, expr } => is_literal(expr),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_literal(inner),
        Expr::TypedString(_) => true,
        Expr::Interval(interval) => is_literal(&interval.value),
        Expr::Array(array) => array.elem.iter().all(is_literal),
        _ => false,
    }
}

/// The function that the expression is a call of, with nothing but literals given to it.
fn call(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => call(inner),
        Expr::Function(function) => {
            let name = function.name.0.last()?.as_ident()?;
            Some(folded(name))
        }
        _ => None,
    }
}

/// An identifier as the server keeps it: folded to lower case unless it is quoted.
fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn named(name: &ObjectName) -> Result<Named, Unclear> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(folded)).collect();
    match parts.as_deref() {
        Some([table]) => Ok(Named { schema: None, table: table.clone() }),
        Some([schema, table]) => Ok(Named { schema: Some(schema.clone()), table: table.clone() }),
        // A database before them can only be the one that the session is in.
        Some([_, schema, table]) => Ok(Named { schema: Some(schema.clone()), table: table.clone() }),
        _ => Err(Unclear(format!("`{name}` is no table's name"))),
    }
}

impl Named {
    /// Whether it is this table; without a schema, the schema is the table's own.
    pub fn is(&self, table: &TableName) -> bool {
        self.table == table.table && self.schema.as_ref().is_none_or(|schema| *schema == table.schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Vec<Change> {
        match read(text).unwrap_or_else(|unclear| panic!("{text}: {unclear:?}")).as_slice() {
            [Statement::Alter { changes, .. }] => changes.clone(),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn add(name: &str, declared: &str, default: Default) -> Change {
        Change::Add { name: name.into(), declared: declared.into(), default, if_not_exists: false }
    }

    #[test]
    fn columns_are_read_with_what_old_rows_get() {
        let constant = |text: &str| Default::Constant(text.into());
        for (text, wanted) in [
            ("ADD a int", add("a", "INT", Default::None)),
            ("ADD COLUMN \"A b\" numeric(10,2) DEFAULT NULL", add("A b", "NUMERIC(10,2)", Default::Null)),
            ("ADD a text NOT NULL DEFAULT 'it''s'", add("a", "TEXT", constant("'it''s'"))),
            ("ADD a int DEFAULT -7", add("a", "INT", constant("-7"))),
            ("ADD a date DEFAULT '2020-01-01'::date", add("a", "DATE", constant("'2020-01-01'::DATE"))),
            ("ADD a timestamptz DEFAULT now()", add("a", "TIMESTAMPTZ", constant("now()"))),
            ("ADD a shop.mood DEFAULT 'ok'", add("a", "shop.mood", constant("'ok'"))),
            (
                "ADD a uuid DEFAULT gen_random_uuid()",
                add(
                    "a",
                    "UUID",
                    Default::Call { expression: "gen_random_uuid()".into(), function: "gen_random_uuid".into() },
                ),
            ),
            ("ADD a bigserial", add("a", "bigserial", Default::Each("it counts by itself".into()))),
            (
                "ADD a int GENERATED ALWAYS AS (b * 2) STORED",
                add("a", "INT", Default::Each("it is generated as `b * 2`".into())),
            ),
        ] {
            assert_eq!(changes(&format!("ALTER TABLE t {text}")), [wanted], "{text}");
        }
    }

    #[test]
    fn every_change_of_columns_and_key_is_read() {
        assert_eq!(
            changes("ALTER TABLE IF EXISTS ONLY Shop.\"T\" DROP a, DROP COLUMN IF EXISTS B CASCADE"),
            [Change::Drop { name: "a".into(), if_exists: false }, Change::Drop { name: "b".into(), if_exists: true }]
        );
        assert_eq!(
            changes("ALTER TABLE t RENAME COLUMN a TO \"B\""),
            [Change::Rename { from: "a".into(), to: "B".into() }]
        );
        assert_eq!(
            changes("ALTER TABLE t ALTER a TYPE bigint, ALTER COLUMN b SET DATA TYPE text USING b::text"),
            [
                Change::Retype { name: "a".into(), declared: "BIGINT".into(), using: false },
                Change::Retype { name: "b".into(), declared: "TEXT".into(), using: true }
            ]
        );
        assert_eq!(changes("ALTER TABLE t ADD PRIMARY KEY (a, b)"), [Change::PrimaryKey(vec!["a".into(), "b".into()])]);
        assert_eq!(
            changes("ALTER TABLE t ADD id int PRIMARY KEY"),
            [add("id", "INT", Default::None), Change::PrimaryKey(vec!["id".into()])]
        );
        assert_eq!(changes("ALTER TABLE t REPLICA IDENTITY FULL"), [Change::Identity(Identity::Full)]);
        assert_eq!(changes("ALTER TABLE t RENAME TO u"), [Change::RenameTable("u".into())]);
        assert!(changes("ALTER TABLE t ALTER a SET NOT NULL, ALTER a DROP DEFAULT, ADD CHECK (a > 0)").is_empty());
    }

    #[test]
    fn whole_tables_and_what_is_not_known() {
        let t = Named { schema: Some("a".into()), table: "t".into() };
        assert_eq!(read("TRUNCATE a.t; COMMIT"), Ok(vec![Statement::Truncate(vec![t.clone()])]));
        assert_eq!(read("DROP TABLE IF EXISTS a.t CASCADE"), Ok(vec![Statement::Drop(vec![t.clone()])]));
        assert_eq!(read("CREATE INDEX i ON a.t (x)"), Ok(vec![]));
        for text in ["ALTER TABLE t ATTACH PARTITION p DEFAULT", "VACUUM FULL t", "ALTER TABEL t ADD a int"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(t.is(&TableName::new("a", "t")) && !t.is(&TableName::new("b", "t")));
        assert!(Named { schema: None, table: "t".into() }.is(&TableName::new("a", "t")));
    }
}
