//! Questions over the record store: the portal, the command line and exports all ask here.
#![forbid(unsafe_code)]

pub use crate::record::question::Answer;
pub use crate::record::question::Gap;
pub use crate::record::question::Question;
pub use crate::record::question::Rank;
pub use crate::record::question::RecordRow;

use crate::store::records::RecordStore;

/// Checks `question` and has `store` answer it. The error is in words for whoever asked.
pub fn answer(store: &dyn RecordStore, question: &Question) -> Result<Answer, String> {
    store.answer(question).map_err(|error| error.to_string())
}
