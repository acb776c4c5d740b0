//! Values that the lake holds differently than the source, told once per column and stream, not once per row.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::schema::TableName;

/// What was told already about one column.
#[derive(Debug)]
pub struct Warnings {
    table: TableName,
    column: String,
    impossible_date: AtomicBool,
    broken_text: AtomicBool,
}

impl Warnings {
    pub fn new(table: &TableName, column: &str) -> Self {
        Self {
            table: table.clone(),
            column: column.to_owned(),
            impossible_date: AtomicBool::new(false),
            broken_text: AtomicBool::new(false),
        }
    }

    pub fn column(&self) -> &str {
        &self.column
    }

    #[cold]
    pub fn impossible_date(&self) {
        if !self.impossible_date.swap(true, Ordering::Relaxed) {
            tracing::warn!(table = %self.table, column = %self.column, "zero or impossible dates are NULL in the lake");
        }
    }

    #[cold]
    pub fn broken_text(&self) {
        if !self.broken_text.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                table = %self.table,
                column = %self.column,
                "some text is not valid in the column's character set; the broken characters are U+FFFD in the lake"
            );
        }
    }
}
