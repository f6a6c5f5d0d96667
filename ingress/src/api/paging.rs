//! Pages of lists.

use actix_web::web::Json;
use gantry_api::Page;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::usecase::paging::{Listed, Paging};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// `next` of the previous page.
    after: Option<String>,
    /// The most items; 50 if absent, never more than 500.
    limit: Option<usize>,
}

impl PageQuery {
    pub(super) fn paging(&self) -> Paging {
        Paging { after: self.after.clone(), limit: self.limit }
    }
}

pub(super) fn page<T, V: Serialize>(listed: &Listed<T>, view: impl Fn(&T) -> V) -> Json<Page<V>> {
    Json(Page { items: listed.items.iter().map(view).collect(), next: listed.next.clone() })
}
