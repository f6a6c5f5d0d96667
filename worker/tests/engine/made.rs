//! The images that a test made are removed when its thread ends: the engine may be somebody's own.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use gantry_worker::engine::BuildOrder;

use crate::docker::host;

thread_local! {
    static MADE: Made = Made::default();
}

/// Removes what is built in the name of `order`'s installation, once the test that calls this has ended.
pub(crate) fn remember(order: &BuildOrder) {
    MADE.with(|made| made.0.borrow_mut().push(order.installation.clone()));
}

#[derive(Default)]
struct Made(RefCell<Vec<String>>);

impl Drop for Made {
    fn drop(&mut self) {
        for installation in self.0.take() {
            // `{"label":["gantry.installation=…"]}`, as a query has it.
            let filter = format!("%7B%22label%22:[%22gantry.installation={installation}%22]%7D");
            let images = ask("GET", &format!("/images/json?filters={filter}"));
            let images: Vec<serde_json::Value> = serde_json::from_str(&images).unwrap();
            for image in images {
                ask("DELETE", &format!("/images/{}?force=1", image["Id"].as_str().unwrap()));
            }
        }
    }
}

/// The body of what the engine answers. A thread that ends has no runtime, so this blocks.
pub(crate) fn ask(method: &str, path: &str) -> String {
    let mut engine = UnixStream::connect(host().trim_start_matches("unix://")).unwrap();
    write!(engine, "{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
