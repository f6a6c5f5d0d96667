//! Lists that are read page by page.

use serde::de::DeserializeOwned;

use super::CodeHostError;
use super::client::{Operation, RepositoryClient};

/// How much of a list is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    /// The entries of a page that are asked for. The host may have a lower limit.
    pub(super) size: usize,
    /// After so many entries no further page is read.
    pub(super) most: usize,
}

impl RepositoryClient<'_> {
    /// Passes each entry of a list that every repository has to `take`. Returns whether these were all.
    pub(super) async fn read_pages<T: DeserializeOwned>(
        &self,
        operation: Operation,
        words: &[&str],
        filter: &[(&str, &str)],
        pages: Pages,
        mut take: impl FnMut(T) + Send,
    ) -> Result<bool, CodeHostError> {
        let size = pages.size.to_string();
        let (mut page, mut read) = (1_usize, 0);
        loop {
            let number = page.to_string();
            let of_page = [(self.conventions.page_size(), size.as_str()), ("page", &number)];
            let query = [filter, &of_page].concat();
            let entries: Vec<T> = self.read_own(operation, words, &query).await?;
            let is_last = self.conventions.is_last_page(entries.len(), pages.size);
            read += entries.len();
            entries.into_iter().for_each(&mut take);
            if is_last || read >= pages.most {
                return Ok(is_last);
            }
            page += 1;
        }
    }
}
