//! All names that gantry uses in Redis.
//!
//! | name | type | holds |
//! |---|---|---|
//! | `{prefix}:version` | string | the number of the last commit that wrote a record |
//! | `{prefix}:r:<kind>/<id>` | string | a record: its version as 8 bytes, big-endian, then its bytes |
//! | `{prefix}:i:<path>` | sorted set | an index in order: elements of place and member, all with score 0 |
//! | `{prefix}:m:<path>` | hash | the same index by member: its place, needed to move or remove it |
//! | channel `{prefix}:r:<kind>/<id>` | | notifications of commits that touched the record |
//!
//! The kind comes before the id, so that an ACL can limit a user to `~gantry:r:run/*`.

use gantry_seams::store::{Index, Key};

/// The names of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// The commit counter.
    pub(crate) fn version(&self) -> String {
        format!("{}:version", self.prefix)
    }

    pub(crate) fn record(&self, key: &Key) -> String {
        format!("{}:r:{}/{}", self.prefix, key.kind.as_str(), key.id)
    }

    /// The prefix of all record names, followed by `<kind>/<id>`.
    pub(crate) fn records(&self) -> String {
        format!("{}:r:", self.prefix)
    }

    /// The prefix of all ordered indexes, followed by the path.
    pub(crate) fn orders(&self) -> String {
        format!("{}:i:", self.prefix)
    }

    /// The channel for commits that touched a record. Channels and keys are separate, so both have the same name.
    pub(crate) fn channel(&self, key: &Key) -> String {
        self.record(key)
    }

    /// An index in order.
    pub(crate) fn order(&self, index: &Index) -> String {
        format!("{}:i:{}", self.prefix, index.as_str())
    }

    /// The same index by member.
    pub(crate) fn places(&self, index: &Index) -> String {
        format!("{}:m:{}", self.prefix, index.as_str())
    }
}

#[cfg(test)]
mod tests {
    use gantry_seams::store::Kind;

    use super::*;

    #[test]
    fn the_kind_comes_before_the_id() {
        let names = Names::new("gantry".to_owned());
        assert_eq!(names.record(&Key::new(Kind::Run, "ca1")), "gantry:r:run/ca1");
        assert_eq!(names.order(&Index::new("runs/ready")), "gantry:i:runs/ready");
        assert_eq!(names.places(&Index::new("runs/ready")), "gantry:m:runs/ready");
        assert_eq!(names.version(), "gantry:version");
    }
}
