//! The images that a test made are removed when its thread ends: the engine may be somebody's own.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use gantry_worker::engine::BuildOrder;

use crate::docker::host;

thread_local! {
    static MADE: Made = Made::default();
}

/// Removes what `order` makes, once the test that calls this has ended.
pub(crate) fn remember(order: &BuildOrder) {
    MADE.with(|made| made.0.borrow_mut().push(order.image.to_string()));
}

#[derive(Default)]
struct Made(RefCell<Vec<String>>);

impl Drop for Made {
    fn drop(&mut self) {
        let host = host();
        for image in self.0.take() {
            let mut engine = UnixStream::connect(host.trim_start_matches("unix://")).unwrap();
            write!(engine, "DELETE /images/{image}?force=1 HTTP/1.0\r\nHost: engine\r\n\r\n")
                .unwrap();
            engine.read_to_end(&mut Vec::new()).unwrap();
        }
    }
}
