//! Questions over the record store: the portal, the command line and exports all ask here.
#![forbid(unsafe_code)]

pub use crate::record::audit::AuditQuestion;
pub use crate::record::audit::Finding;
pub use crate::record::audit::Proof;
pub use crate::record::question::Answer;
pub use crate::record::question::Gap;
pub use crate::record::question::Place;
pub use crate::record::question::Question;
pub use crate::record::question::Rank;
pub use crate::record::question::RecordRow;
pub use crate::record::question::StoredAccount;
pub use crate::record::under_way::Exchange;
pub use crate::record::under_way::UnderWay;

use crate::limits;
use crate::store::records::RecordStore;

/// Checks `question` and has `store` answer it. The error is in words for whoever asked.
pub fn answer(store: &dyn RecordStore, question: &Question) -> Result<Answer, String> {
    check(question)?;
    store.answer(question).map_err(|error| error.to_string())
}

/// Whether an audit can be asked for; if not, what is wrong and what would be accepted.
pub fn check_audit(question: &AuditQuestion) -> Result<(), String> {
    match (question.from_us, question.to_us) {
        (Some(from), Some(to)) if from >= to => {
            Err("asking for an audit: `from_us` is not before `to_us`; give a range that contains something"
                .to_string())
        }
        _ => Ok(()),
    }
}

/// Whether a question can be asked; if not, what is wrong with it and what would be accepted.
pub fn check(question: &Question) -> Result<(), String> {
    for (name, rows) in [("top", question.top), ("newest", question.newest)] {
        if rows.is_some_and(|rows| rows > limits::REPORT_ROWS_MAX) {
            return Err(format!(
                "asking the report: `{name}` is more than {}; ask for fewer rows",
                limits::REPORT_ROWS_MAX
            ));
        }
    }
    if let (Some(from), Some(to)) = (question.from_us, question.to_us)
        && from >= to
    {
        return Err(
            "asking the report: `from_us` is not before `to_us`; give a range that contains something".to_string()
        );
    }
    let texts = [&question.node, &question.host, &question.user, &question.category, &question.client, &question.rule];
    if texts.into_iter().flatten().any(|text| text.len() > limits::RECORD_URL_BYTES_MAX) {
        return Err("asking the report: a filter is longer than any value in a record; shorten it".to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_cannot_be_meant_is_refused_in_words() {
        let table = [
            (Question { top: Some(1001), ..Question::default() }, "top"),
            (Question { newest: Some(u32::MAX), ..Question::default() }, "newest"),
            (Question { from_us: Some(5), to_us: Some(5), ..Question::default() }, "from_us"),
            (Question { host: Some("x".repeat(9000)), ..Question::default() }, "longer"),
        ];
        for (question, word) in table {
            assert!(check(&question).unwrap_err().contains(word));
        }
        assert_eq!(check(&Question { top: Some(0), newest: Some(1000), ..Question::default() }), Ok(()));
    }
}
