//! Entry points for fuzzing the decoders: bytes in, nothing out, a panic if a promise is broken.
//!
//! Every entry takes one input in a small format of its own (told at the function), drives the decoders the way the
//! stream does, and checks what must hold for any bytes whatever: no panic, rows of even length, text in the lake's
//! columns that is UTF-8, positions that only grow, output whose size the input's size bounds, and, where the bytes of
//! a value can be told from the value, the same bytes again.
//!
//! `fuzz/` runs them under cargo-fuzz (`make fuzz`); [`short_run`] replays the corpus and mutates it in `make test`.

pub use super::mysql::fuzz::{binlog_events, jsonb, mysql_values, row_images};
pub use super::postgres::fuzz::{pgoutput, text_values as postgres_values};

#[cfg(test)]
mod short_run;

/// Values of both kinds of source: the first byte says which.
pub fn text_values(input: &[u8]) {
    match input.split_first() {
        Some((selector, value)) if selector & 0x80 != 0 => mysql_values(selector & 0x7F, value),
        Some((selector, value)) => postgres_values(*selector, value),
        None => {}
    }
}

/// A fuzz target: bytes in, a panic if a promise is broken.
pub type Target = fn(&[u8]);

/// The targets by the names of their folders in `fuzz/corpus` and `fuzz/regressions`.
pub const TARGETS: [(&str, Target); 5] = [
    ("binlog_events", binlog_events),
    ("row_images", row_images),
    ("jsonb", jsonb),
    ("pgoutput", pgoutput),
    ("text_values", text_values),
];

/// Rows as they leave a decoder: every column is as long as the list of operations, and Arrow finds nothing wrong.
pub(super) fn check_rows(rows: &arrow::array::RecordBatch, ops: usize, unchanged: &[(u32, u16)]) {
    assert_eq!(rows.num_rows(), ops, "as many rows as operations");
    for (column, field) in rows.columns().iter().zip(rows.schema().fields()) {
        assert_eq!(column.len(), ops, "column {} is as long as the others", field.name());
        // Offsets, UTF-8, null counts.
        column.to_data().validate_full().unwrap_or_else(|error| panic!("column {}: {error}", field.name()));
    }
    for (row, column) in unchanged {
        assert!((*row as usize) < ops && usize::from(*column) < rows.num_columns(), "unchanged values exist");
    }
}
