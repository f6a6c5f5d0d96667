//! The variables that exist at one place of a template.

use std::collections::BTreeMap;

use super::node::Slot;

/// The declared variables, innermost last. Each is found in logarithmic time.
#[derive(Debug)]
pub(super) struct Scope<'t> {
    names: Vec<&'t str>,
    slots: BTreeMap<&'t str, Vec<Slot>>,
}

impl<'t> Scope<'t> {
    /// The scope of a template, which has `$` alone.
    pub(super) fn new() -> Self {
        let mut scope = Self { names: Vec::new(), slots: BTreeMap::new() };
        scope.declare("$");
        scope
    }

    /// Declares a variable, which hides others of its name.
    pub(super) fn declare(&mut self, name: &'t str) -> Slot {
        let slot = self.names.len();
        self.names.push(name);
        self.slots.entry(name).or_default().push(slot);
        slot
    }

    pub(super) fn find(&self, name: &str) -> Option<Slot> {
        self.slots.get(name)?.last().copied()
    }

    /// The number of variables, for [`Scope::leave`].
    pub(super) fn mark(&self) -> usize {
        self.names.len()
    }

    /// Forgets the variables that were declared since `mark`.
    pub(super) fn leave(&mut self, mark: usize) {
        for name in self.names.drain(mark..) {
            if let Some(slots) = self.slots.get_mut(name) {
                slots.pop();
            }
        }
    }
}
