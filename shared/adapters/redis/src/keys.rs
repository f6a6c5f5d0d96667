//! Every name that gantry uses in Redis.
//!
//! | name | type | holds |
//! |---|---|---|
//! | `{prefix}:version` | string | the number of the last commit that put a record |
//! | `{prefix}:r:<kind>/<id>` | string | a record: its version in 8 bytes, big end first, then what was put |
//! | `{prefix}:i:<path>` | sorted set | an index in its order: elements of place and member, all with score 0 |
//! | `{prefix}:m:<path>` | hash | the same index by member: its place, to move or remove it |
//! | channel `{prefix}:r:<kind>/<id>` | | tells of commits that touched the record |
//!
//! The kind stands before the id, so that an ACL can let a user read `~gantry:r:run/*` and nothing else.

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

    /// The counter of commits.
    pub(crate) fn version(&self) -> String {
        format!("{}:version", self.prefix)
    }

    /// A record.
    pub(crate) fn record(&self, key: &Key) -> String {
        format!("{}:r:{}/{}", self.prefix, key.kind.as_str(), key.id)
    }

    /// What every record's name begins with; `<kind>/<id>` follows.
    pub(crate) fn records(&self) -> String {
        format!("{}:r:", self.prefix)
    }

    /// What the name of every index in its order begins with; its path follows.
    pub(crate) fn orders(&self) -> String {
        format!("{}:i:", self.prefix)
    }

    /// Where commits that touched a record are told. A channel is no key: the same name stands for both.
    pub(crate) fn channel(&self, key: &Key) -> String {
        self.record(key)
    }

    /// An index in its order.
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
    fn the_kind_stands_before_the_id() {
        let names = Names::new("gantry".to_owned());
        assert_eq!(names.record(&Key::new(Kind::Run, "ca1")), "gantry:r:run/ca1");
        assert_eq!(names.order(&Index::new("runs/ready")), "gantry:i:runs/ready");
        assert_eq!(names.places(&Index::new("runs/ready")), "gantry:m:runs/ready");
        assert_eq!(names.version(), "gantry:version");
    }
}
