//! Deletion vectors: which rows of a data file are gone.
//!
//! All vectors of one commit share one object, `deletion_vector_<uuid>.bin` in the table's folder. Format: Delta
//! protocol, "Deletion Vector Format"; the bytes are made by deltalake's kernel.

use delta_kernel::actions::deletion_vector_writer::{KernelDeletionVector, StreamingDeletionVectorWriter};
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use deltalake::logstore::LogStoreRef;
use roaring::RoaringTreemap;
use url::Url;
use uuid::Uuid;

use super::data_file::{self, DataFile};

/// The vectors of one commit, being gathered.
pub struct DeletionVectorObject {
    uuid: Uuid,
    bytes: Vec<u8>,
    descriptors: Vec<DeletionVectorDescriptor>,
}

impl DeletionVectorObject {
    /// Writes one vector per entry, in order.
    pub fn encode<'a>(deleted: impl Iterator<Item = &'a RoaringTreemap>) -> Result<Self, delta_kernel::Error> {
        let uuid = Uuid::new_v4();
        let mut bytes = Vec::new();
        let mut descriptors = Vec::new();
        let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
        for rows in deleted {
            let mut vector = KernelDeletionVector::new();
            vector.add_deleted_row_indexes(rows.iter());
            let written = writer.write_deletion_vector(vector)?;
            descriptors.push(DeletionVectorDescriptor {
                storage_type: StorageType::UuidRelativePath,
                path_or_inline_dv: z85::encode(uuid.as_bytes()),
                offset: Some(written.offset),
                size_in_bytes: written.size_in_bytes,
                cardinality: written.cardinality,
            });
        }
        writer.finalize()?;
        Ok(Self { uuid, bytes, descriptors })
    }

    /// The object's name in the table's folder.
    pub fn file_name(&self) -> String {
        object_name(self.uuid)
    }

    /// The object's bytes and each vector's descriptor.
    pub fn into_parts(self) -> (Vec<u8>, Vec<DeletionVectorDescriptor>) {
        (self.bytes, self.descriptors)
    }
}

const NAME_BEGINS: &str = "deletion_vector_";
const NAME_ENDS: &str = ".bin";

/// A relative descriptor's own part; what stands before it is a folder.
const ENCODED_UUID: usize = 20;

fn object_name(uuid: Uuid) -> String {
    format!("{NAME_BEGINS}{uuid}{NAME_ENDS}")
}

/// Whether an object of this name has vectors.
pub fn is_object(name: &str) -> bool {
    name.starts_with(NAME_BEGINS) && name.ends_with(NAME_ENDS)
}

/// The object that has these vectors, by its path from the table's folder; `None` where the log itself has them.
pub fn object_of(vector: &DeletionVectorDescriptor) -> Option<String> {
    let told = vector.path_or_inline_dv.as_str();
    match vector.storage_type {
        StorageType::Inline => None,
        StorageType::AbsolutePath => Some(told.to_owned()),
        StorageType::UuidRelativePath => {
            let (folder, encoded) = told.split_at_checked(told.len().checked_sub(ENCODED_UUID)?)?;
            let name = object_name(Uuid::from_slice(&z85::decode(encoded).ok()?).ok()?);
            Some(if folder.is_empty() { name } else { format!("{folder}/{name}") })
        }
    }
}

/// Gives files the vectors of what is deleted in them; returns name and bytes of the object to write.
pub fn attach(files: &mut [DataFile]) -> Result<(String, Vec<u8>), delta_kernel::Error> {
    let object = DeletionVectorObject::encode(files.iter().map(|file| &file.deleted))?;
    let name = object.file_name();
    let (bytes, descriptors) = object.into_parts();
    for (file, descriptor) in files.iter_mut().zip(descriptors) {
        file.add.deletion_vector = Some(descriptor);
        file.add.data_change = true;
        data_file::loosen_bounds(&mut file.add);
    }
    Ok((name, bytes))
}

/// Reads a stored vector. Blocks: call it off the runtime's threads.
pub fn read(
    log_store: &LogStoreRef,
    table_url: &Url,
    descriptor: DeletionVectorDescriptor,
) -> Result<RoaringTreemap, delta_kernel::Error> {
    let descriptor: delta_kernel::actions::deletion_vector::DeletionVectorDescriptor = descriptor.try_into()?;
    let mut folder = table_url.clone();
    // Joining a relative path replaces the last segment unless the url ends in a slash.
    if !folder.path().ends_with('/') {
        folder.set_path(&format!("{}/", folder.path()));
    }
    let engine = log_store.engine(None);
    descriptor.read(engine.storage_handler(), &folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_a_vector_is_found_by_its_descriptor() {
        let id = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
        let vector = |storage_type, path: String| DeletionVectorDescriptor {
            storage_type,
            path_or_inline_dv: path,
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 1,
        };
        let encoded = z85::encode(id.as_bytes());
        let name = format!("deletion_vector_{id}.bin");
        let relative = vector(StorageType::UuidRelativePath, encoded.clone());
        assert_eq!(object_of(&relative), Some(name.clone()));
        let moved = vector(StorageType::UuidRelativePath, format!("resync-1{encoded}"));
        assert_eq!(object_of(&moved), Some(format!("resync-1/{name}")));
        assert_eq!(object_of(&vector(StorageType::Inline, encoded)), None);
        assert!(is_object(&name) && !is_object("part-0.parquet"));
    }
}
