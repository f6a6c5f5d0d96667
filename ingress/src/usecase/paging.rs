//! Lists, a part at a time.

use std::str::FromStr;

use gantry_domain::InvalidText;

use crate::refusal::Refusal;

const FEW: usize = 50;
const MOST: usize = 500;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paging {
    /// `next` of the part before.
    pub(crate) after: Option<String>,
    /// At most so many items; 50 if absent, never more than 500.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    /// How many items the part may have.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(FEW).clamp(1, MOST)
    }

    /// The last item of the part before, for a list whose places are ids.
    pub(crate) fn after_id<T: FromStr<Err = InvalidText>>(&self) -> Result<Option<T>, Refusal> {
        let after = self.after.as_deref().map(str::parse).transpose();
        after.map_err(|error: InvalidText| Refusal::invalid("after", error.to_string()))
    }
}

/// Part of a list, and where it goes on.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// `None` at the end.
    pub(crate) next: Option<String>,
}

impl<T> Listed<T> {
    /// Of records that were read one more than fit: that one says that the list goes on.
    pub(crate) fn of(mut items: Vec<T>, limit: usize, id: impl Fn(&T) -> String) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { next: items.last().filter(|_| has_more).map(id), items }
    }
}
