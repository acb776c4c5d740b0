//! Delta tables: created whole, merged into, committed exactly once.
//!
//! The lake layer promises: a table appears with its complete first load or not at all; a commit holds a batch's rows,
//! deletion vectors, position and batch number in one conditional PUT; after any error the table is read again before
//! anything is decided; two writers of one table cannot both succeed. It knows no database: positions are text here.

mod append_table;
mod buckets;
mod changes;
mod commit;
mod creation;
mod data_file;
mod deletion_vector;
mod delta_schema;
mod error;
mod first_load;
mod key;
mod load_note;
mod locator;
mod log;
mod merge;
mod object_reader;
mod picture;
mod protocol;
mod row_hash;
mod row_index;
mod spill;
pub mod splice;
mod step;
mod store;
mod table;
mod upgrade;
mod vacuum;
mod vanished;

pub use append_table::AppendTable;
pub use changes::TableChange;
pub use commit::{Committed, Stretch};
pub use error::{Class, Error};
pub use first_load::FirstLoad;
pub use key::KeyHasher;
pub use load_note::LoadNote;
pub use locator::{FileId, KeyHash, KeyMap, KeySet, RowAddress};
pub use log::{LogEntry, TableLog, TableState};
pub use picture::{Picture, RowPrint, Since, compared};
pub use row_hash::hash_rows;
pub use row_index::{Counters, IndexCache, IndexError};
pub use spill::{Spill, SpillError, SpillFile, SpilledRows};
pub(crate) use step::reached;
pub use store::Lake;
pub(crate) use store::cause_text;
pub use table::{
    Applied, ChunkWriter, Compacted, Compaction, CompactionGroup, CompactionMerged, CompactionTerms, Eagerness, Merged,
    Place, Repair, Repaired, StagedChunk, Table, TableSummary,
};
pub use vacuum::{VacuumTerms, Vacuumed, vacuum};
