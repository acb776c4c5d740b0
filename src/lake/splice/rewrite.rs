//! The other way: read every row, write every row.

use std::sync::Arc;

use chrono::Utc;
use deltalake::kernel::Add;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;

use super::new_path;
use crate::lake::Error;
use crate::lake::data_file::{
    Roll, TableWriter, column_properties, file_columns, loosen_bounds, parquet_error, stream_columns,
};
use crate::lake::upgrade::upgrade;
use crate::schema::{LakeOp, TableSchema};

/// Writes the file's rows anew, deleted ones too: rows keep their numbers. Gives back what the log says of the new file
/// and its rows.
pub async fn rewrite(
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    before: &TableSchema,
    after: &TableSchema,
    ops: &[LakeOp],
) -> Result<(Add, u64), Error> {
    let after = Arc::new(after.clone());
    let mut writer = TableWriter::new(after.clone(), store.clone(), Roll::NeverInLittleMemory)?;
    let rows = match write_rows(store, add, before, &after, ops, &mut writer).await {
        Ok(rows) => rows,
        Err(cause) => {
            writer.abort().await;
            return Err(cause);
        }
    };
    let mut files = writer.close().await?;
    let mut new = match (files.pop(), files.is_empty()) {
        (Some(file), true) if file.rows == rows => file.add,
        (None, _) if rows == 0 => empty(store, &after, add).await?,
        _ => {
            return Err(Error::Table {
                table: before.name.to_string(),
                finding: format!("rewriting {} did not come to one file of {rows} rows", add.path),
                remedy: "report this as a defect of lakeward".to_owned(),
            });
        }
    };
    new.deletion_vector = add.deletion_vector.clone();
    if new.deletion_vector.is_some() {
        loosen_bounds(&mut new);
    }
    Ok((new, rows))
}

/// A file without rows, which a table's writer never begins.
async fn empty(store: &Arc<dyn ObjectStore>, after: &TableSchema, old: &Add) -> Result<Add, Error> {
    let columns: Vec<usize> = file_columns(after).collect();
    let schema =
        after.arrow().project(&columns).map_err(|source| Error::Arrow { table: after.name.to_string(), source })?;
    let mut bytes = Vec::new();
    ArrowWriter::try_new(&mut bytes, Arc::new(schema), Some(column_properties()))
        .and_then(ArrowWriter::close)
        .map_err(|cause| parquet_error(after, old, cause))?;
    let (path, object) = new_path(after, old)?;
    let size = bytes.len() as i64;
    let context = || format!("writing {object}");
    store.put(&object, bytes.into()).await.map_err(|source| Error::Store { context: context(), source })?;
    Ok(Add {
        path,
        size,
        modification_time: Utc::now().timestamp_millis(),
        data_change: true,
        stats: Some(r#"{"numRecords":0}"#.to_owned()),
        ..old.clone()
    })
}

async fn write_rows(
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    before: &TableSchema,
    after: &TableSchema,
    ops: &[LakeOp],
    writer: &mut TableWriter,
) -> Result<u64, Error> {
    let columns: Vec<usize> = (0..before.columns.len()).collect();
    let mut stream = stream_columns(store, before, add, &columns, None).await?;
    let mut rows = 0;
    while let Some(batch) = stream.try_next().await? {
        let batch =
            upgrade(&batch, after, ops).map_err(|source| Error::Arrow { table: before.name.to_string(), source })?;
        rows += batch.num_rows() as u64;
        writer.write(&batch, &[]).await?;
    }
    Ok(rows)
}
