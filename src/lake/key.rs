//! What tells rows apart, as hashes: the columns of the merge key, or all columns where the table has none.
//!
//! In a table without a key equal rows are interchangeable, so the n-th of them may have a hash of its own, made of the
//! row's and of n. The index holds the hashes of occurrences 0 to n without a gap: how many equal rows there are is found
//! by asking it, and nothing else need be kept.
//!
//! Values are hashed in a type that growing columns keep: all whole numbers alike, decimals by their scale. So a key that
//! becomes `bigint` hashes as it did, and the index stays.

use std::hash::{BuildHasher, RandomState};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, Rows, SortField};
use twox_hash::XxHash3_128;

use super::locator::{KeyHash, KeyMap};
use super::row_index::{Files, IndexError, RowIndex};
use crate::schema::{Origin, RowIdentity, Shape};

/// Turns rows into hashes. The seed is random, and kept nowhere but beside an index that is made of such hashes
/// (`row_index/manifest.rs`, whose version is to be raised when the same row comes to another hash than before).
#[derive(Debug)]
pub struct KeyHasher {
    columns: Vec<usize>,
    /// What each of them is hashed as.
    types: Vec<DataType>,
    converter: RowConverter,
    seed: u64,
}

/// See the module text.
fn hashed_as(column: DataType) -> DataType {
    match column {
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
        other => other,
    }
}

impl KeyHasher {
    pub fn new(shape: &Shape) -> Result<Self, ArrowError> {
        Self::with_seed(shape, Self::random_seed())
    }

    pub(super) fn random_seed() -> u64 {
        RandomState::new().hash_one(0_u8)
    }

    /// What rows of this shape are told apart by, in words: hashes of rows of two shapes are comparable where these agree.
    pub(super) fn described(shape: &Shape) -> String {
        let schema = &shape.lake;
        let column = |&index: &usize| {
            let column = &schema.columns[index];
            format!("{:?} {:?}", column.name, hashed_as(column.lake_type.arrow()))
        };
        Self::columns_of(shape).iter().map(column).collect::<Vec<_>>().join(", ")
    }

    /// The hasher of the same table in another shape.
    pub fn of_shape(&self, shape: &Shape) -> Result<Self, ArrowError> {
        Self::with_seed(shape, self.seed)
    }

    pub(super) fn with_seed(shape: &Shape, seed: u64) -> Result<Self, ArrowError> {
        let schema = &shape.lake;
        let columns = Self::columns_of(shape);
        let types: Vec<DataType> =
            columns.iter().map(|&index| hashed_as(schema.columns[index].lake_type.arrow())).collect();
        let fields = types.iter().cloned().map(SortField::new).collect();
        Ok(Self { columns, types, converter: RowConverter::new(fields)?, seed })
    }

    fn columns_of(shape: &Shape) -> Vec<usize> {
        let schema = &shape.lake;
        match schema.identity {
            RowIdentity::Key => schema.key.clone(),
            // What the source dropped, its row images don't tell.
            RowIdentity::WholeRow => {
                (0..schema.columns.len()).filter(|&index| shape.origins[index] != Origin::Dropped).collect()
            }
            RowIdentity::AppendOnly => Vec::new(),
        }
    }

    /// Whether `after`, of a later shape of the table, gives each row the hash that this one gave it; `moved` says where
    /// each column of this shape is in the later one.
    pub fn agrees(&self, after: &Self, moved: &[Option<usize>]) -> bool {
        let columns = self.columns.iter().map(|&index| moved.get(index).copied().flatten());
        columns.eq(after.columns.iter().map(|&index| Some(index))) && self.types == after.types
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The columns that are hashed, as indexes into the schema.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// One hash per row; `columns` are those of [`KeyHasher::columns`].
    pub fn hash(&self, columns: &[ArrayRef]) -> Result<Vec<KeyHash>, ArrowError> {
        let rows = self.encode(columns)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot_with_seed(self.seed, row.as_ref()).into()).collect())
    }

    /// What the log calls the keys of a batch that has all the table's columns: the same in every process, and so nothing
    /// to build an index on.
    pub fn names(&self, rows: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&index| rows.column(index).clone()).collect();
        let rows = self.encode(&columns)?;
        Ok(rows.iter().map(|row| XxHash3_128::oneshot(row.as_ref()) as u64).collect())
    }

    fn encode(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        let columns = columns.iter().zip(&self.types).map(|(column, hashed)| {
            if column.data_type() == hashed { Ok(column.clone()) } else { cast(column, hashed) }
        });
        self.converter.convert_columns(&columns.collect::<Result<Vec<_>, _>>()?)
    }

    /// One hash per row of a batch that has all the table's columns.
    pub fn hash_batch(&self, rows: &RecordBatch) -> Result<Vec<KeyHash>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&index| rows.column(index).clone()).collect();
        self.hash(&columns)
    }

    /// The key of the n-th row (from 0) with this content.
    pub fn occurrence(&self, row: KeyHash, number: u32) -> KeyHash {
        if number == 0 {
            return row;
        }
        let mut bytes = [0; KeyHash::BYTES + 4];
        bytes[..KeyHash::BYTES].copy_from_slice(&row.to_bytes());
        bytes[KeyHash::BYTES..].copy_from_slice(&number.to_le_bytes());
        XxHash3_128::oneshot_with_seed(self.seed, &bytes).into()
    }

    /// How many rows with the content of each of these the index knows. Asks for all of them at once, step by step.
    pub async fn occurrences(
        &self,
        rows: impl IntoIterator<Item = KeyHash>,
        index: &RowIndex,
        files: &Files,
    ) -> Result<KeyMap<u32>, IndexError> {
        let mut counts = KeyMap::default();
        let mut open: Vec<(KeyHash, Search)> = rows.into_iter().map(|row| (row, Search::default())).collect();
        while !open.is_empty() {
            let asked: Vec<KeyHash> = open.iter().map(|(row, search)| self.occurrence(*row, search.next())).collect();
            let found = index.locate(&asked, files).await?;
            let mut still = Vec::with_capacity(open.len());
            for ((row, search), asked) in open.into_iter().zip(asked) {
                match search.after(found.contains_key(&asked)) {
                    Ok(search) => still.push((row, search)),
                    Err(count) => drop(counts.insert(row, count)),
                }
            }
            open = still;
        }
        Ok(counts)
    }
}

/// For the first occurrence that is not known: occurrences below it are, as long as none is missing in between.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    /// The last that is known to be there.
    there: Option<u32>,
    /// The first that is known not to be.
    missing: Option<u32>,
}

impl Search {
    /// The occurrence to ask for.
    fn next(self) -> u32 {
        match (self.there, self.missing) {
            (None, _) => 0,
            (Some(there), None) => (there * 2).max(1),
            (Some(there), Some(missing)) => there + (missing - there) / 2,
        }
    }

    /// What there is to ask for next, or how many there are.
    fn after(self, found: bool) -> Result<Self, u32> {
        let asked = self.next();
        let search = if found { Self { there: Some(asked), ..self } } else { Self { missing: Some(asked), ..self } };
        match (search.there, search.missing) {
            (None, Some(_)) => Err(0),
            (Some(there), Some(missing)) if missing - there <= 1 => Err(missing),
            _ => Ok(search),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::data_file::DataFile;
    use super::super::locator::RowAddress;
    use super::*;
    use crate::schema::{Column, LakeType, Policy, TableName, TableSchema};
    use arrow::array::{Int32Array, Int64Array};
    use deltalake::kernel::Add;
    use roaring::RoaringTreemap;
    use std::sync::Arc;

    /// K-1
    #[tokio::test]
    async fn equal_rows_are_counted_by_asking_the_index() {
        let column = Column {
            name: "a".into(),
            source_type: String::new(),
            lake_type: LakeType::Long,
            nullable: true,
            policy: Policy::default(),
        };
        let schema = TableSchema {
            name: TableName::new("a", "b"),
            columns: vec![column],
            key: vec![],
            partition_by: vec![],
            identity: RowIdentity::WholeRow,
        };
        let hasher = KeyHasher::new(&Shape::of(Arc::new(schema))).expect("longs");
        let add = Add { path: "a".into(), ..Add::default() };
        let mut file = DataFile { add, rows: 70, deleted: RoaringTreemap::new() };
        let mut index = RowIndex::default();
        let row = KeyHash::from(77);
        let count = async |index: &RowIndex, file: &DataFile| {
            let files = Files::from([(0, file.clone())]);
            hasher.occurrences([row, KeyHash::from(78)], index, &files).await.expect("in memory")
        };
        for number in 0..70 {
            let counts = count(&index, &file).await;
            assert_eq!((counts[&row], counts[&KeyHash::from(78)]), (number, 0));
            index.insert(hasher.occurrence(row, number), RowAddress { file: 0, row: number });
        }
        file.deleted.insert(69);
        assert_eq!(count(&index, &file).await[&row], 69);
    }

    pub(in crate::lake) fn keyed(lake_type: LakeType) -> Shape {
        let column = Column {
            name: "a".into(),
            source_type: String::new(),
            lake_type,
            nullable: false,
            policy: Policy::default(),
        };
        Shape::of(Arc::new(TableSchema {
            name: TableName::new("a", "b"),
            columns: vec![column],
            key: vec![0],
            partition_by: vec![],
            identity: RowIdentity::Key,
        }))
    }

    #[test]
    fn a_whole_number_hashes_as_before_when_its_column_grows() {
        let before = KeyHasher::new(&keyed(LakeType::Integer)).expect("hashable");
        let after = before.of_shape(&keyed(LakeType::Long)).expect("hashable");
        assert!(before.agrees(&after, &[Some(0)]) && !before.agrees(&after, &[None]));
        let small: ArrayRef = Arc::new(Int32Array::from(vec![-7, 0, i32::MAX]));
        let large: ArrayRef = Arc::new(Int64Array::from(vec![-7, 0, i64::from(i32::MAX)]));
        assert_eq!(before.hash(&[small]).expect("hashed"), after.hash(&[large]).expect("hashed"));
        let decimal = before.of_shape(&keyed(LakeType::Decimal { precision: 12, scale: 0 })).expect("hashable");
        assert!(!before.agrees(&decimal, &[Some(0)]));
    }
}
