//! How a lake table lies to its source's table.
//!
//! At first both have the same columns. Then policies may keep a dropped column, leave a new one out, hold it back, or
//! leave a renamed one its old name; the [`Shape`] says so, and the lake keeps it in the table's own metadata, so that it
//! changes with the very commit that changes the table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ChangeRecord, Column, TableRows, TableSchema};

/// Where a lake column's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The source's column of this name.
    Source(String),
    /// A column that the source dropped and the lake keeps: NULL from then on.
    Dropped,
}

/// What waits for a decision while the table goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChange {
    /// Of the schema change.
    pub id: Uuid,
    pub actions: Vec<HeldAction>,
    pub record: ChangeRecord,
}

/// What an approval does. Columns by their names in the lake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum HeldAction {
    /// A new column that the data files have already.
    Show {
        column: String,
    },
    Drop {
        column: String,
    },
    Rename {
        column: String,
        to: String,
    },
}

impl HeldAction {
    pub fn column(&self) -> &str {
        match self {
            Self::Show { column } | Self::Drop { column } | Self::Rename { column, .. } => column,
        }
    }

    pub(super) fn column_mut(&mut self) -> &mut String {
        match self {
            Self::Show { column } | Self::Drop { column } | Self::Rename { column, .. } => column,
        }
    }
}

/// See the module text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Every column of the data files, in Delta's names.
    pub lake: Arc<TableSchema>,
    /// One for each column of `lake`.
    pub origins: Vec<Origin>,
    /// One for each column of `lake`: in the files, but not in the schema that readers see.
    pub hidden: Vec<bool>,
    /// Columns of the source that the lake leaves out by policy.
    pub ignored: BTreeSet<String>,
    pub held: Vec<HeldChange>,
}

impl Shape {
    /// Lake and source alike.
    pub fn of(schema: Arc<TableSchema>) -> Self {
        Self {
            origins: schema.columns.iter().map(|column| Origin::Source(column.name.clone())).collect(),
            hidden: vec![false; schema.columns.len()],
            lake: schema,
            ignored: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    /// The place in `lake` of a source's column.
    pub fn index_of_source(&self, name: &str) -> Option<usize> {
        self.origins.iter().position(|origin| matches!(origin, Origin::Source(source) if source == name))
    }

    /// The source's table as this shape takes it in: its columns that the lake holds, by the source's names.
    pub fn source_schema(&self) -> TableSchema {
        let mut columns = Vec::new();
        let mut places = HashMap::new();
        for (index, (column, origin)) in self.lake.columns.iter().zip(&self.origins).enumerate() {
            if let Origin::Source(name) = origin {
                places.insert(index, columns.len());
                columns.push(Column { name: name.clone(), ..column.clone() });
            }
        }
        let moved = |indexes: &[usize]| indexes.iter().filter_map(|index| places.get(index).copied()).collect();
        TableSchema {
            name: self.lake.name.clone(),
            columns,
            key: moved(&self.lake.key),
            partition_by: moved(&self.lake.partition_by),
            identity: self.lake.identity,
        }
    }

    /// The table as its readers see it.
    pub fn shown(&self) -> TableSchema {
        let mut schema = TableSchema::clone(&self.lake);
        let places: Vec<usize> = (0..self.lake.columns.len()).filter(|&index| !self.hidden[index]).collect();
        let moved = |indexes: &[usize]| {
            indexes.iter().filter_map(|index| places.iter().position(|place| place == index)).collect()
        };
        schema.columns = places.iter().map(|&index| self.lake.columns[index].clone()).collect();
        schema.key = moved(&self.lake.key);
        schema.partition_by = moved(&self.lake.partition_by);
        schema
    }

    /// What a load of the source's table as it is would undo, in words: what only the lake has by policy, and what it does not
    /// show yet. `None`: nothing.
    pub fn undone_by_load(&self) -> Option<String> {
        let columns = self.lake.columns.iter().zip(&self.origins).zip(&self.hidden);
        let mut undone: Vec<String> = columns
            .filter_map(|((column, origin), hidden)| match origin {
                Origin::Dropped => Some(format!("column `{}`, which the lake keeps, would be gone", column.name)),
                Origin::Source(_) if *hidden => {
                    Some(format!("column `{}`, which waits for a decision, would be shown", column.name))
                }
                Origin::Source(name) if *name != column.name => {
                    Some(format!("column `{}`, which keeps its name in the lake, would be `{name}`", column.name))
                }
                Origin::Source(_) => None,
            })
            .collect();
        undone.extend(self.ignored.iter().map(|name| format!("column `{name}`, which is left out, would be shown")));
        (!undone.is_empty()).then(|| undone.join("; "))
    }

    /// Whether source rows are lake rows as they are.
    pub fn is_plain(&self) -> bool {
        self.ignored.is_empty()
            && self
                .lake
                .columns
                .iter()
                .zip(&self.origins)
                .all(|(column, origin)| matches!(origin, Origin::Source(name) if *name == column.name))
    }

    /// The source's rows as rows of the lake: columns matched by name, NULL where the source has none.
    pub fn project(&self, rows: TableRows) -> Result<TableRows, ArrowError> {
        if self.is_plain() && rows.schema.columns.len() == self.lake.columns.len() {
            // Of other types are rows that have no place here; below they are refused.
            let same =
                |(ours, theirs): (&Column, &Column)| ours.name == theirs.name && ours.lake_type == theirs.lake_type;
            if self.lake.columns.iter().zip(&rows.schema.columns).all(same) {
                return Ok(TableRows { schema: self.lake.clone(), ..rows });
            }
        }
        let count = rows.rows.num_rows();
        let mut to_lake: HashMap<usize, usize> = HashMap::new();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.lake.columns.len());
        for (place, (column, origin)) in self.lake.columns.iter().zip(&self.origins).enumerate() {
            let found = match origin {
                Origin::Source(name) => rows.schema.column_index(name),
                Origin::Dropped => None,
            };
            arrays.push(match found {
                Some(index) => {
                    to_lake.insert(index, place);
                    rows.rows.column(index).clone()
                }
                None => new_null_array(&column.lake_type.arrow(), count),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.lake.arrow(), arrays, &options)?;
        let mut unchanged: Vec<(u32, u16)> = rows
            .unchanged
            .iter()
            .filter_map(|(row, column)| Some((*row, *to_lake.get(&usize::from(*column))? as u16)))
            .collect();
        unchanged.sort_unstable();
        let unfaithful = rows
            .unfaithful
            .into_iter()
            .filter_map(|value| {
                let column = *to_lake.get(&usize::from(value.column))? as u16;
                Some(super::Unfaithful { column, ..value })
            })
            .collect();
        Ok(TableRows { schema: self.lake.clone(), rows: batch, ops: rows.ops, unchanged, unfaithful })
    }

    /// Rows of the lake as rows of the source: undoes [`Shape::project`], but for columns that the lake does not have.
    pub fn unproject(&self, rows: &TableRows) -> Result<TableRows, ArrowError> {
        let schema = Arc::new(self.source_schema());
        let places: Vec<usize> =
            (0..self.origins.len()).filter(|&index| self.origins[index] != Origin::Dropped).collect();
        let arrays: Vec<ArrayRef> = places.iter().map(|&index| rows.rows.column(index).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.rows.num_rows()));
        let batch = RecordBatch::try_new_with_options(schema.arrow(), arrays, &options)?;
        let moved = |column: u16| places.iter().position(|&place| place == usize::from(column));
        let unchanged =
            rows.unchanged.iter().filter_map(|(row, column)| Some((*row, moved(*column)? as u16))).collect();
        let unfaithful = rows
            .unfaithful
            .iter()
            .filter_map(|value| Some(super::Unfaithful { column: moved(value.column)? as u16, ..*value }))
            .collect();
        Ok(TableRows { schema, rows: batch, ops: rows.ops.clone(), unchanged, unfaithful })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, Int64Array};
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::schema::{LakeType, Op, Policy, Reason, RowIdentity, TableName, Unfaithful};

    fn schema(names: &[&str]) -> Arc<TableSchema> {
        let column = |name: &&str| Column {
            name: (*name).into(),
            source_type: "int".into(),
            lake_type: LakeType::Integer,
            nullable: *name != "id",
            policy: Policy::Null,
        };
        Arc::new(TableSchema {
            name: TableName::new("shop", "goods"),
            columns: names.iter().map(column).collect(),
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        })
    }

    /// Two rows; column n holds 10n and 10n + 1.
    fn rows(names: &[&str]) -> TableRows {
        let schema = schema(names);
        let values = |index: i32| Arc::new(Int32Array::from(vec![10 * index, 10 * index + 1])) as ArrayRef;
        let arrays = (0..names.len() as i32).map(values).collect();
        let last = names.len() as u16 - 1;
        TableRows {
            rows: RecordBatch::try_new(schema.arrow(), arrays).expect("as its schema says"),
            schema,
            ops: vec![Op::Insert, Op::Update],
            unchanged: vec![(1, 1), (1, last)],
            unfaithful: vec![Unfaithful { row: 0, column: last, reason: Reason::OutOfRange }],
        }
    }

    fn first_values(rows: &TableRows) -> Vec<Option<i32>> {
        let first = |array: &ArrayRef| array.as_primitive::<Int32Type>().iter().next().flatten();
        rows.rows.columns().iter().map(first).collect()
    }

    /// The lake has `kept`, which the source dropped, calls the source's `b` still `a`, and leaves `out` out.
    fn shape() -> Shape {
        let mut shape = Shape::of(schema(&["id", "kept", "a", "c"]));
        shape.origins[1] = Origin::Dropped;
        shape.origins[2] = Origin::Source("b".into());
        shape.hidden[3] = true;
        shape.ignored.insert("out".into());
        shape
    }

    #[test]
    fn rows_of_the_source_become_rows_of_the_lake_and_back() {
        let shape = shape();
        let projected = shape.project(rows(&["id", "out", "c", "b"])).expect("fits");
        assert_eq!(projected.schema, shape.lake);
        assert_eq!(first_values(&projected), [Some(0), None, Some(30), Some(20)]);
        assert_eq!(projected.unchanged, [(1, 2)], "what is left out is not left out as unchanged");
        assert_eq!(projected.unfaithful, [Unfaithful { row: 0, column: 2, reason: Reason::OutOfRange }]);
        let back = shape.unproject(&projected).expect("fits");
        assert_eq!(*back.schema, shape.source_schema());
        assert_eq!(first_values(&back), [Some(0), Some(30), Some(20)]);
        assert_eq!((back.unchanged, back.unfaithful[0].column), (vec![(1, 1)], 1));
        let again = shape.project(shape.unproject(&projected).expect("fits")).expect("fits");
        assert_eq!(again.rows, projected.rows);
    }

    #[test]
    fn a_plain_shape_hands_rows_on_as_they_are() {
        let shape = Shape::of(schema(&["id", "a"]));
        let projected = shape.project(rows(&["id", "a"])).expect("fits");
        assert!(Arc::ptr_eq(&projected.schema, &shape.lake));
        assert_eq!(projected.unchanged, [(1, 1), (1, 1)]);
        // The source's order may be another.
        assert_eq!(first_values(&shape.project(rows(&["a", "id"])).expect("fits")), [Some(10), Some(0)]);
    }

    #[test]
    fn rows_of_other_types_and_without_a_key_are_refused() {
        let shape = Shape::of(schema(&["id", "a"]));
        let mut wide = rows(&["id", "a"]);
        let mut columns = TableSchema::clone(&wide.schema);
        columns.columns[1].lake_type = LakeType::Long;
        let arrays: Vec<ArrayRef> = vec![wide.rows.column(0).clone(), Arc::new(Int64Array::from(vec![1, 2]))];
        wide.rows = RecordBatch::try_new(columns.arrow(), arrays).expect("as its schema says");
        wide.schema = Arc::new(columns);
        assert!(shape.project(wide).is_err());
        assert!(shape.project(rows(&["a", "b"])).is_err());
    }

    #[test]
    fn readers_and_the_stream_each_see_their_own_columns() {
        let mut shape = shape();
        shape.lake = Arc::new(TableSchema { partition_by: vec![2], ..TableSchema::clone(&shape.lake) });
        let names = |schema: &TableSchema| -> Vec<String> { schema.columns.iter().map(|c| c.name.clone()).collect() };
        let source = shape.source_schema();
        assert_eq!(names(&source), ["id", "b", "c"]);
        assert_eq!((source.key, source.partition_by), (vec![0], vec![1]));
        let shown = shape.shown();
        assert_eq!(names(&shown), ["id", "kept", "a"]);
        assert_eq!((shown.key, shown.partition_by), (vec![0], vec![2]));
        assert!(!shape.is_plain() && Shape::of(schema(&["id"])).is_plain());
    }
}
