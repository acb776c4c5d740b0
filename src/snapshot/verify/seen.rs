//! What a round saw of a table: each row by its key, or how many there are of each content.

use arrow::array::RecordBatch;

use super::bags::Bags;
use super::sight::{Found, Open, Sight};
use crate::lake::{self, Picture, Since};
use crate::schema::RowIdentity;

/// See the module text.
pub enum Seen {
    Rows(Sight),
    Bags(Bags),
}

impl Seen {
    pub fn new(picture: &Picture, wanted: Option<Open>, whole: bool) -> Self {
        match picture.shape().lake.identity {
            RowIdentity::Key => Self::Rows(Sight::new(picture, wanted, whole)),
            RowIdentity::WholeRow | RowIdentity::AppendOnly => Self::Bags(Bags::new(picture, wanted)),
        }
    }

    /// A chunk's reading begins, for the first time or anew.
    pub fn begin(&mut self) {
        match self {
            // Rows that were seen before a connection was lost were there, too.
            Self::Rows(_) => {}
            Self::Bags(bags) => bags.forget(),
        }
    }

    /// Rows of a chunk, with the columns of the lake.
    pub fn take(&mut self, picture: &Picture, chunk: u32, rows: &RecordBatch) -> Result<(), lake::Error> {
        match self {
            Self::Rows(sight) => sight.take(picture, chunk, rows),
            Self::Bags(bags) => bags.take(picture, rows),
        }
    }

    /// How many rows were not as the picture has them.
    pub fn different(&self, picture: &Picture) -> u64 {
        match self {
            Self::Rows(sight) => sight.different(picture),
            Self::Bags(bags) => bags.different(),
        }
    }

    /// See [`Sight::judge`].
    pub fn judge(self, picture: &Picture, since: &Since, partial: bool) -> (Vec<Found>, Open) {
        match self {
            Self::Rows(sight) => sight.judge(picture, since, partial),
            Self::Bags(bags) => bags.judge(picture, since, partial),
        }
    }
}
