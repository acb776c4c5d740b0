//! Arrow builders for rows of one table: where decoded values land, from the log and from snapshots alike.
//!
//! A decoder appends exactly one value to every column of a row and then calls [`RowBuilder::end_row`]; the check in
//! there turns a decoder that forgot a column into an error instead of values shifted by one row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int8Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, RecordBatch, RecordBatchOptions, StringBuilder,
    StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, SchemaRef};

use super::lake_type::{ELEMENT_FIELD, geometry_fields};
use super::{LakeType, Reason, TableSchema, Unfaithful};

/// The builder of one column, typed by the column's [`LakeType`].
#[derive(Debug)]
pub enum ColumnBuilder {
    Boolean(BooleanBuilder),
    Byte(Int8Builder),
    Short(Int16Builder),
    Integer(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    String(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    /// Both [`LakeType::Timestamp`] and [`LakeType::TimestampNtz`].
    Timestamp(TimestampMicrosecondBuilder),
    Array(Box<ListColumn>),
    Geometry(GeometryColumn),
}

/// Lists: append the elements to [`ListColumn::elements`], then close each list with [`ListColumn::end`].
#[derive(Debug)]
pub struct ListColumn {
    pub elements: ColumnBuilder,
    element: LakeType,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl ListColumn {
    fn new(element: LakeType) -> Self {
        Self { elements: ColumnBuilder::new(element), element, ends: vec![0], valid: Vec::new() }
    }

    /// Closes a list (or, with `valid` false, a NULL): what was appended since the last call is in it. `false` when all
    /// lists together hold more than 2^31 elements, and nothing was closed.
    #[must_use]
    pub fn end(&mut self, valid: bool) -> bool {
        let Ok(end) = i32::try_from(self.elements.len()) else { return false };
        self.ends.push(end);
        self.valid.push(valid);
        true
    }

    fn finish(&mut self) -> ArrayRef {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let valid = std::mem::take(&mut self.valid);
        let field = Arc::new(Field::new(ELEMENT_FIELD, self.element.arrow(), true));
        let elements = self.elements.finish();
        let mut offsets = ends;
        // Elements of a list that was never closed belong to no row.
        let used = offsets.last().copied().unwrap_or(0) as usize;
        let elements = elements.slice(0, used.min(elements.len()));
        if offsets.is_empty() {
            offsets.push(0);
        }
        Arc::new(ListArray::new(field, OffsetBuffer::new(offsets.into()), elements, Some(NullBuffer::from(valid))))
    }
}

/// Shapes: SRID and well-known binary.
#[derive(Debug, Default)]
pub struct GeometryColumn {
    srid: Int32Builder,
    wkb: BinaryBuilder,
    valid: Vec<bool>,
}

impl GeometryColumn {
    pub fn append_value(&mut self, srid: i32, wkb: &[u8]) {
        self.srid.append_value(srid);
        self.wkb.append_value(wkb);
        self.valid.push(true);
    }

    fn append_null(&mut self) {
        self.srid.append_null();
        self.wkb.append_null();
        self.valid.push(false);
    }

    fn finish(&mut self) -> ArrayRef {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.srid.finish()), Arc::new(self.wkb.finish())];
        let valid = NullBuffer::from(std::mem::take(&mut self.valid));
        Arc::new(StructArray::new(geometry_fields(), columns, Some(valid)))
    }
}

impl ColumnBuilder {
    pub fn new(lake_type: LakeType) -> Self {
        match lake_type {
            LakeType::Boolean => Self::Boolean(BooleanBuilder::new()),
            LakeType::Byte => Self::Byte(Int8Builder::new()),
            LakeType::Short => Self::Short(Int16Builder::new()),
            LakeType::Integer => Self::Integer(Int32Builder::new()),
            LakeType::Long => Self::Long(Int64Builder::new()),
            LakeType::Float => Self::Float(Float32Builder::new()),
            LakeType::Double => Self::Double(Float64Builder::new()),
            LakeType::Decimal { .. } => Self::Decimal(Decimal128Builder::new().with_data_type(lake_type.arrow())),
            LakeType::String => Self::String(StringBuilder::new()),
            LakeType::Binary => Self::Binary(BinaryBuilder::new()),
            LakeType::Date => Self::Date(Date32Builder::new()),
            LakeType::Timestamp | LakeType::TimestampNtz => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(lake_type.arrow()))
            }
            LakeType::Array(element) => Self::Array(Box::new(ListColumn::new(element.lake_type()))),
            LakeType::Geometry => Self::Geometry(GeometryColumn::default()),
        }
    }

    pub fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Self::Boolean(b) => b.len(),
            Self::Byte(b) => b.len(),
            Self::Short(b) => b.len(),
            Self::Integer(b) => b.len(),
            Self::Long(b) => b.len(),
            Self::Float(b) => b.len(),
            Self::Double(b) => b.len(),
            Self::Decimal(b) => b.len(),
            Self::String(b) => b.len(),
            Self::Binary(b) => b.len(),
            Self::Date(b) => b.len(),
            Self::Timestamp(b) => b.len(),
            Self::Array(b) => b.valid.len(),
            Self::Geometry(b) => b.valid.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn append_null(&mut self) {
        match self {
            Self::Boolean(b) => b.append_null(),
            Self::Byte(b) => b.append_null(),
            Self::Short(b) => b.append_null(),
            Self::Integer(b) => b.append_null(),
            Self::Long(b) => b.append_null(),
            Self::Float(b) => b.append_null(),
            Self::Double(b) => b.append_null(),
            Self::Decimal(b) => b.append_null(),
            Self::String(b) => b.append_null(),
            Self::Binary(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Array(b) => {
                b.ends.push(b.ends.last().copied().unwrap_or(0));
                b.valid.push(false);
            }
            Self::Geometry(b) => b.append_null(),
        }
    }

    /// Takes what was appended out; the builder starts empty again.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Byte(b) => Arc::new(b.finish()),
            Self::Short(b) => Arc::new(b.finish()),
            Self::Integer(b) => Arc::new(b.finish()),
            Self::Long(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Double(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::String(b) => Arc::new(b.finish()),
            Self::Binary(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::Array(b) => b.finish(),
            Self::Geometry(b) => b.finish(),
        }
    }
}

/// A row whose columns do not line up: a defect of a decoder, never of the data.
#[derive(Debug, thiserror::Error)]
#[error("decoded rows of {table} do not line up: column {column} holds {found} values, the row count is {rows}")]
pub struct TypeMismatch {
    pub table: String,
    pub column: String,
    pub found: usize,
    pub rows: usize,
}

/// Builders for all columns of one table.
#[derive(Debug)]
pub struct RowBuilder {
    schema: Arc<TableSchema>,
    arrow: SchemaRef,
    pub columns: Vec<ColumnBuilder>,
    rows: usize,
    unfaithful: Vec<Unfaithful>,
}

impl RowBuilder {
    pub fn new(schema: Arc<TableSchema>) -> Self {
        let columns = schema.columns.iter().map(|column| ColumnBuilder::new(column.lake_type)).collect();
        Self { arrow: schema.arrow(), schema, columns, rows: 0, unfaithful: Vec::new() }
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Notes that the open row's value of a column has no faithful lake form, and what stands there is not the source's.
    pub fn note(&mut self, column: usize, reason: Reason) {
        self.unfaithful.push(Unfaithful { row: self.rows as u32, column: column as u16, reason });
    }

    /// What was noted of the rows since this was last called.
    pub fn take_unfaithful(&mut self) -> Vec<Unfaithful> {
        std::mem::take(&mut self.unfaithful)
    }

    /// Closes the row whose values were just appended, one per column.
    pub fn end_row(&mut self) -> Result<(), TypeMismatch> {
        self.rows += 1;
        for (column, builder) in self.schema.columns.iter().zip(&self.columns) {
            if builder.len() != self.rows {
                return Err(TypeMismatch {
                    table: self.schema.name.to_string(),
                    column: column.name.clone(),
                    found: builder.len(),
                    rows: self.rows,
                });
            }
        }
        Ok(())
    }

    /// Takes the finished rows out; the builders start empty again.
    pub fn finish(&mut self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let rows = std::mem::take(&mut self.rows);
        RecordBatch::try_new_with_options(
            self.arrow.clone(),
            arrays,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ElementType, Policy, RowIdentity, TableName};

    fn schema() -> Arc<TableSchema> {
        let column = |name: &str, lake_type, nullable| Column {
            name: name.into(),
            source_type: String::new(),
            lake_type,
            nullable,
            policy: Policy::Null,
        };
        Arc::new(TableSchema {
            name: TableName::new("booking", "coupons"),
            columns: vec![column("id", LakeType::Long, false), column("label", LakeType::String, true)],
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        })
    }

    #[test]
    fn a_forgotten_column_is_an_error_not_a_shift() {
        let mut rows = RowBuilder::new(schema());
        if let ColumnBuilder::Long(ids) = &mut rows.columns[0] {
            ids.append_value(1);
        }
        assert!(rows.end_row().is_err());
    }

    #[test]
    fn finish_starts_over() {
        let mut rows = RowBuilder::new(schema());
        for _ in 0..2 {
            if let ColumnBuilder::Long(ids) = &mut rows.columns[0] {
                ids.append_value(7);
            }
            rows.columns[1].append_null();
            rows.end_row().expect("both columns were appended");
            assert_eq!(rows.finish().expect("nullable where null").num_rows(), 1);
        }
    }

    #[test]
    fn lists_and_shapes_keep_their_nulls_and_empties() {
        let mut lists = ColumnBuilder::new(LakeType::Array(ElementType::Long));
        for _ in 0..2 {
            let ColumnBuilder::Array(list) = &mut lists else { panic!("a list column") };
            let ColumnBuilder::Long(elements) = &mut list.elements else { panic!("long elements") };
            elements.append_value(1);
            elements.append_null();
            assert!(list.end(true) && list.end(true));
            lists.append_null();
            assert_eq!(lists.len(), 3);
            let array = lists.finish();
            let array = array.as_any().downcast_ref::<ListArray>().expect("a list");
            assert_eq!((array.value(0).len(), array.value(1).len(), array.is_null(2)), (2, 0, true));
        }
        let mut shapes = ColumnBuilder::new(LakeType::Geometry);
        shapes.append_null();
        let ColumnBuilder::Geometry(shape) = &mut shapes else { panic!("a shape column") };
        shape.append_value(4326, &[1, 1]);
        let array = shapes.finish();
        assert_eq!((array.len(), array.is_null(0), array.is_null(1)), (2, true, false));
    }
}
