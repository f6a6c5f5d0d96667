//! Lists, a page at a time.

use actix_web::web::Json;
use gantry_api::Page;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::usecase::paging::{Listed, Paging};

/// How many, and from where.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many items; 50 if absent, never more than 500.
    limit: Option<usize>,
}

impl PageQuery {
    pub(super) fn paging(&self) -> Paging {
        Paging { after: self.after.clone(), limit: self.limit }
    }
}

/// A part of a list as a page.
pub(super) fn page<T, V: Serialize>(listed: &Listed<T>, view: impl Fn(&T) -> V) -> Json<Page<V>> {
    Json(Page { items: listed.items.iter().map(view).collect(), next: listed.next.clone() })
}
