//! Pages of lists.

use std::str::FromStr;

use gantry_domain::InvalidText;

use crate::refusal::Refusal;

const FEW: usize = 50;
const MOST: usize = 500;

/// Which page of a list to return.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paging {
    /// `next` of the previous page.
    pub(crate) after: Option<String>,
    /// The most items; 50 if absent, never more than 500.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(FEW).clamp(1, MOST)
    }

    /// The last item of the previous page, for a list ordered by id.
    pub(crate) fn after_id<T: FromStr<Err = InvalidText>>(&self) -> Result<Option<T>, Refusal> {
        let after = self.after.as_deref().map(str::parse).transpose();
        after.map_err(|error: InvalidText| Refusal::invalid("after", error.to_string()))
    }
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    /// The cursor of the next page; `None` at the end.
    pub(crate) next: Option<String>,
}

impl<T> Listed<T> {
    /// Makes a page of up to `limit` + 1 records: an extra record means that there is a next page.
    pub(crate) fn of(mut items: Vec<T>, limit: usize, id: impl Fn(&T) -> String) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { next: items.last().filter(|_| has_more).map(id), items }
    }
}
