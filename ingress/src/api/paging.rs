//! Lists, a page at a time.

use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use gantry_api::Page;

const FEW: usize = 50;
const MOST: usize = 500;

/// How many, and from where.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// `next` of the page before.
    pub(crate) after: Option<String>,
    /// At most so many items; 50 if absent, never more than 500.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    /// How many items the page may have.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(FEW).clamp(1, MOST)
    }
}

/// A page of records that were read one more than fit: that one says that there is another page.
pub(crate) fn page<T, V: Serialize>(
    mut items: Vec<T>,
    limit: usize,
    id: impl Fn(&T) -> String,
    view: impl Fn(&T) -> V,
) -> Page<V> {
    let has_more = items.len() > limit;
    items.truncate(limit);
    Page {
        next: items.last().filter(|_| has_more).map(id),
        items: items.iter().map(view).collect(),
    }
}
