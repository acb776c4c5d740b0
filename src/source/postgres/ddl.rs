//! What the optional event trigger (`event_trigger.sql`) says about a DDL statement, in order with the rows around it.
//!
//! A message is data from outside: whoever may connect to the database can write one. It is believed only about tables that
//! are followed, by their oid, and rows that come later with other columns than it said are found out as if it had not been
//! there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::attributes::{Attribute, Attributes, Description};
use super::catalog::Missing;
use super::types::ResolvedType;
use crate::schema::TableName;

/// The prefix of the messages.
pub const PREFIX: &str = "lakeward.ddl";

/// For whoever installs it.
pub const EVENT_TRIGGER: &str = include_str!("event_trigger.sql");

const VERSION: u32 = 1;

/// One message.
#[derive(Debug, Deserialize)]
pub struct Ddl {
    version: u32,
    pub tables: Vec<ToldTable>,
    pub dropped: Vec<DroppedTable>,
    #[serde(flatten)]
    pub statement: Statement,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Statement {
    #[serde(rename = "statement")]
    pub text: Option<String>,
    /// Tables and partitions of which every row was written anew.
    #[serde(default)]
    rewritten: Vec<u32>,
}

/// A table as it is after the statement.
#[derive(Debug, Deserialize)]
pub struct ToldTable {
    pub oid: u32,
    schema: String,
    table: String,
    kind: String,
    width: i16,
    identity: String,
    key: Vec<String>,
    files: BTreeMap<u32, u32>,
    columns: Vec<ToldColumn>,
}

#[derive(Debug, Deserialize)]
struct ToldColumn {
    number: i16,
    name: String,
    type_oid: u32,
    typmod: i32,
    /// `format_type()`
    declared: String,
    dimensions: i32,
    generated: bool,
    has_default: bool,
    /// For all partitions, each value once.
    missing: Option<Vec<Option<String>>>,
}

#[derive(Debug, Deserialize)]
pub struct DroppedTable {
    pub oid: u32,
    schema: String,
    table: String,
}

/// Reads a message; the error says why it is none.
pub fn read(content: &[u8]) -> Result<Ddl, String> {
    let ddl: Ddl = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if ddl.version != VERSION {
        return Err(format!("it has version {}, and {VERSION} is known", ddl.version));
    }
    Ok(ddl)
}

impl DroppedTable {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

impl ToldTable {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// The types to resolve for [`ToldTable::described`].
    pub fn types(&self) -> Vec<(u32, i32)> {
        self.columns.iter().map(|column| (column.type_oid, column.typmod)).collect()
    }

    /// `types` are those of [`ToldTable::types`], resolved; `before` says what of it is sent, and `listed` that new columns
    /// are not.
    pub fn described(self, types: Vec<ResolvedType>, before: Option<&Attributes>, listed: bool) -> Description {
        let name = self.name();
        let mut missing = BTreeMap::new();
        let mut has_default = BTreeSet::new();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (column, found) in self.columns.into_iter().zip(types) {
            let values = column.missing.unwrap_or_default();
            missing.insert(column.number, values.into_iter().map(|value| Missing { oid: 0, value }).collect());
            if column.has_default {
                has_default.insert(column.number);
            }
            let known = before.and_then(|before| before.numbered(column.number));
            columns.push(Attribute {
                number: column.number,
                name: column.name,
                type_oid: column.type_oid,
                typmod: column.typmod,
                // The type may be gone by now.
                found: ResolvedType {
                    name: column.declared,
                    dimensions: found.dimensions.max(column.dimensions),
                    ..found
                },
                generated: column.generated,
                sent: known.map_or(!column.generated && !listed, |known| known.sent),
                left_out: false,
            });
        }
        Description {
            name,
            attributes: Attributes {
                oid: self.oid,
                width: self.width,
                identity: self.identity,
                key: self.key,
                files: self.files,
                columns,
            },
            missing,
            has_default,
            listed,
            published: true,
            partitioned: self.kind == "p",
            leaves: Vec::new(),
        }
    }
}

impl Statement {
    /// One that has not run: its text, and whether the table of this oid would be written anew.
    pub fn foretold(text: &str, oid: u32, rewritten: bool) -> Self {
        Self { text: Some(text.to_owned()), rewritten: if rewritten { vec![oid] } else { Vec::new() } }
    }

    /// Whether rows of the table, or of a partition of it, were written anew.
    pub fn rewrote(&self, table: &Description) -> bool {
        let attributes = &table.attributes;
        self.rewritten.iter().any(|oid| *oid == attributes.oid || attributes.files.contains_key(oid))
    }

    /// A word in it, or that its text is not known, leaves room for a default of a new column.
    pub fn may_declare_defaults(&self) -> bool {
        let Some(text) = self.plain_text() else { return true };
        words(text).iter().any(|word| matches!(word.to_lowercase().as_str(), "default" | "serial" | "identity"))
    }

    /// Whether `ALTER COLUMN … TYPE … USING` computed this column's values.
    pub fn used_expression(&self, column: &str) -> bool {
        self.text.as_deref().is_some_and(|text| expressions(text).iter().any(|name| name == column))
    }

    /// Its text is known.
    pub fn is_plain(&self) -> bool {
        self.plain_text().is_some()
    }

    /// What the client sent, where it is the DDL itself: a function or a block of code may hold any other.
    fn plain_text(&self) -> Option<&str> {
        let text = self.text.as_deref()?;
        words(text).first().filter(|first| first.eq_ignore_ascii_case("alter")).map(|_| text)
    }
}

/// Words, quoted identifiers and single signs; comments are left out. Quotes of texts count as white space: DDL inside a
/// block of code is read too.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut after = quoted;
            loop {
                let (part, behind) = after.split_once('"').unwrap_or((after, ""));
                name.push_str(part);
                after = behind;
                match after.strip_prefix('"') {
                    Some(behind) => {
                        name.push('"');
                        after = behind;
                    }
                    None => break,
                }
            }
            // Told apart from the words of SQL.
            words.push(format!("\"{name}"));
            rest = after;
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = after;
        } else {
            if matches!(first, '(' | ')' | ',' | ';') {
                words.push(first.to_string());
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// The columns whose type is altered with USING.
fn expressions(text: &str) -> Vec<String> {
    let words = words(text);
    let is = |index: usize, word: &str| words.get(index).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let mut columns = Vec::new();
    for at in (0..words.len()).filter(|&at| is(at, "type") && at > 1) {
        // ALTER [COLUMN] name [SET DATA] TYPE …
        let name = if at > 3 && is(at - 1, "data") && is(at - 2, "set") { at - 3 } else { at - 1 };
        let altered = name > 0 && (is(name - 1, "alter") || is(name - 1, "column"));
        if !altered {
            continue;
        }
        let mut depth = 0_usize;
        for word in &words[at + 1..] {
            match word.as_str() {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," | ";" if depth == 0 => break,
                _ if depth == 0 && word.eq_ignore_ascii_case("using") => {
                    let name = &words[name];
                    columns.push(name.strip_prefix('"').map_or_else(|| name.to_lowercase(), str::to_owned));
                    break;
                }
                _ => {}
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn using_is_found_where_a_type_is_altered_and_nowhere_else() {
        for (text, columns) in [
            ("ALTER TABLE t ALTER a TYPE bigint", vec![]),
            ("alter table t alter column a set data type numeric(10, 2) using (a * 2)::numeric", vec!["a"]),
            (
                "ALTER TABLE t ALTER A TYPE int USING 1, ALTER \"B \"\"b\" TYPE int, ALTER c TYPE int USING f(x, y)",
                vec!["a", "c"],
            ),
            ("ALTER TABLE t ALTER \"B \"\"b\" TYPE int USING 1", vec!["B \"b"]),
            ("ALTER TABLE t REPLICA IDENTITY USING INDEX i", vec![]),
            ("ALTER TABLE t ALTER a TYPE bigint; CREATE INDEX ON t USING btree (a)", vec![]),
            ("ALTER TABLE t ALTER a TYPE bigint -- USING nothing\n", vec![]),
            ("ALTER TABLE t ALTER a TYPE /* USING */ bigint", vec![]),
            ("DO $$ BEGIN EXECUTE 'ALTER TABLE t ALTER a TYPE int USING a + 1'; END $$", vec!["a"]),
            ("ALTER TABLE t ADD type text, ADD COLUMN \"using\" int", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(expressions(text), columns, "{text}");
        }
    }

    #[test]
    fn a_default_is_ruled_out_only_by_the_statement_itself() {
        let may = |text: Option<&str>| {
            Statement { text: text.map(str::to_owned), ..Statement::default() }.may_declare_defaults()
        };
        assert!(!may(Some("ALTER TABLE t ADD x int, ALTER y TYPE bigint")));
        assert!(!may(Some("/* default */ ALTER TABLE t ADD x int")));
        assert!(may(Some("ALTER TABLE t ADD x int DEFAULT 5")) && may(Some("ALTER TABLE t ADD x serial")));
        assert!(may(Some("SELECT migrate()")) && may(Some("DO $$ BEGIN END $$")) && may(None));
    }

    #[test]
    fn a_message_is_read_or_refused_never_a_panic() {
        let message = r#"{"version": 1, "tag": "ALTER TABLE", "statement": "ALTER TABLE t ADD b int", "dropped": [],
            "rewritten": [7], "tables": [{"oid": 7, "schema": "shop", "table": "t", "kind": "r", "width": 2,
            "identity": "d", "key": ["id"], "files": {"7": 8}, "columns": [{"number": 1, "name": "id", "type_oid": 23,
            "typmod": -1, "declared": "integer", "dimensions": 0, "generated": false, "has_default": false,
            "missing": [null]}]}]}"#;
        let ddl = read(message.as_bytes()).expect("a message");
        assert_eq!(ddl.tables[0].types(), [(23, -1)]);
        let [table] = <[ToldTable; 1]>::try_from(ddl.tables).expect("one table");
        assert!(ddl.statement.rewrote(&table.described(vec![ResolvedType::default()], None, false)));
        for end in 0..message.len() {
            assert!(read(&message.as_bytes()[..end]).is_err());
        }
        assert!(read(message.replace("\"version\": 1", "\"version\": 2").as_bytes()).is_err());
        assert!(read(b"[]").is_err() && read(b"\xff").is_err());
    }
}
