//! Removes the images of a test when its thread ends, because the engine may be in use by others.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use gantry_worker::engine::BuildOrder;

use crate::tested::Tested;

thread_local! {
    static MADE: Made = Made::default();
}

/// Removes the images of `order`'s installation when the calling test has ended.
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
    // `{"label":["gantry.installation=…"]}`, encoded for a query.
    let filter = format!("%7B%22label%22:[%22gantry.installation={installation}%22]%7D");
    // The containerd store returns an error if an image is removed while it lists them.
    let mut answers = (0..10).map(|_| ask(on, "GET", &format!("/images/json?filters={filter}")));
    answers.find_map(|answer| serde_json::from_str(&answer).ok()).unwrap_or_default()
}

/// The body of the engine's response. An ending thread has no runtime, so this blocks.
pub(crate) fn ask(on: Tested, method: &str, path: &str) -> String {
    let mut engine = UnixStream::connect(on.host().trim_start_matches("unix://")).unwrap();
    write!(engine, "{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
