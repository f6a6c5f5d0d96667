//! Lists of pull requests.

use serde_json::Value;

use super::server::Asked;

/// A page of the open pull requests. The one with the highest number changed last.
pub(super) fn open_page<'v>(
    pulls: impl DoubleEndedIterator<Item = &'v Value>,
    is_open: impl Fn(&Value) -> bool,
    size: usize,
    asked: &Asked,
) -> Vec<Value> {
    let page: usize = asked.query("page").parse().unwrap_or(1);
    let open = pulls.rev().filter(|pull| is_open(pull));
    open.skip((page - 1) * size).take(size).cloned().collect()
}
