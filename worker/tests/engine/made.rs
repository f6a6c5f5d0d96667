//! The images that a test made are removed when its thread ends: the engine may be somebody's own.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use gantry_worker::engine::BuildOrder;

use crate::tested::Tested;

thread_local! {
    static MADE: Made = Made::default();
}

/// Removes what is built in the name of `order`'s installation, once the test that calls this has ended.
pub(crate) fn remember(on: Tested, order: &BuildOrder) {
    MADE.with(|made| made.0.borrow_mut().push((on, order.installation.clone())));
}

#[derive(Default)]
struct Made(RefCell<Vec<(Tested, String)>>);

impl Drop for Made {
    fn drop(&mut self) {
        for (on, installation) in self.0.take() {
            for image in images(on, &installation) {
                let id = image["Id"].as_str().unwrap();
                ask(on, "DELETE", &format!("/images/{id}?force=1"));
            }
        }
    }
}

/// The images with the label of this installation.
fn images(on: Tested, installation: &str) -> Vec<serde_json::Value> {
    // `{"label":["gantry.installation=…"]}`, as a query has it.
    let filter = format!("%7B%22label%22:[%22gantry.installation={installation}%22]%7D");
    // The containerd store lists nothing at all when an image goes while it looks.
    let mut answers = (0..10).map(|_| ask(on, "GET", &format!("/images/json?filters={filter}")));
    answers.find_map(|answer| serde_json::from_str(&answer).ok()).unwrap_or_default()
}

/// The body of what the engine answers. A thread that ends has no runtime, so this blocks.
pub(crate) fn ask(on: Tested, method: &str, path: &str) -> String {
    let mut engine = UnixStream::connect(on.host().trim_start_matches("unix://")).unwrap();
    write!(engine, "{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
