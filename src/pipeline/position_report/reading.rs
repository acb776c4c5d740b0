//! What to type to read a version of a table.

use serde::Serialize;
use url::Url;

use crate::schema::TableName;

/// One statement for each engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Where the table lies.
    pub url: String,
    pub duckdb: String,
    pub spark: String,
    /// By the name that the table has at its source: the one under which it is registered may be another.
    pub trino: String,
}

impl Reading {
    pub(super) fn new(url: &Url, name: &TableName, version: u64) -> Self {
        let url = url.as_str().trim_end_matches('/');
        let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        Self {
            url: url.to_owned(),
            duckdb: format!("SELECT * FROM delta_scan('{}', version => {version})", url.replace('\'', "''")),
            spark: format!("SELECT * FROM delta.`{}` VERSION AS OF {version}", url.replace('`', "``")),
            trino: format!(
                "SELECT * FROM {}.{} FOR VERSION AS OF {version}",
                identifier(&name.schema),
                identifier(&name.table)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_for_each_engine() {
        let url = Url::parse("s3://bucket/lake/src/shop/it's").expect("a url");
        let reading = Reading::new(&url, &TableName::new("shop", "it\"s"), 7);
        assert_eq!(reading.duckdb, "SELECT * FROM delta_scan('s3://bucket/lake/src/shop/it''s', version => 7)");
        assert_eq!(reading.spark, "SELECT * FROM delta.`s3://bucket/lake/src/shop/it's` VERSION AS OF 7");
        assert_eq!(reading.trino, "SELECT * FROM \"shop\".\"it\"\"s\" FOR VERSION AS OF 7");
    }
}
