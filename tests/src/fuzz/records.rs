//! Records as a store may return them.

use gantry_domain::decide::Decision;
use gantry_domain::delivery::Delivery;
use gantry_domain::event::Event;
use gantry_domain::fact::Fact;
use gantry_domain::hook::Hook;
use gantry_domain::lineage::Lineage;
use gantry_domain::registry::Registry;
use gantry_domain::run::Run;
use gantry_domain::scan::TaskImages;
use gantry_domain::task::Task;
use gantry_domain::token::Token;
use gantry_domain::worker::Worker;
use gantry_seams::installation::Installation;
use gantry_seams::outbox::Outgoing;
use gantry_seams::uploads::Upload;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "record",
    run: read,
    words: &[
        "null",
        "{}",
        "[]",
        "-1",
        "1e400",
        "18446744073709551616",
        "\"state\":",
        "\"\\u0000\"",
        "\"v\":1,",
        "true",
    ],
};

fn read(bytes: &[u8]) {
    same::<Run>(bytes);
    same::<Task>(bytes);
    same::<TaskImages>(bytes);
    same::<Registry>(bytes);
    same::<Hook>(bytes);
    same::<Token>(bytes);
    same::<Delivery>(bytes);
    same::<Event>(bytes);
    same::<Decision>(bytes);
    same::<Fact>(bytes);
    same::<Lineage>(bytes);
    same::<Worker>(bytes);
    same::<Installation>(bytes);
    same::<Upload>(bytes);
    same::<Outgoing>(bytes);
}

/// A decoded record, encoded and decoded again, is equal.
fn same<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_value(&value).expect("what was read is written");
    let again: T = serde_json::from_value(written.clone())
        .unwrap_or_else(|error| panic!("it does not read again: {error}: {written}"));
    assert_eq!(serde_json::to_value(&again).unwrap(), written);
}
