//! What can go wrong with the index on disk. Nothing of it is a reason for more than building it anew.

/// See the module text.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("its key index in {place} is damaged; it is built anew from the data files")]
    Damaged { place: String },
    #[error(
        "its key index cannot be kept in {place}: {source}; make room there, or name another folder by `[memory] index_dir`"
    )]
    Io { place: String, source: std::io::Error },
    #[error("work on its key index failed: {cause}")]
    Lost { cause: String },
    #[error("its key index is not whole; the table must be opened again")]
    Closed,
}
