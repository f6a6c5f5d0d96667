//! Bounds on what one rendering may cost.

use super::error::TemplateErrorKind;
use super::value::{Data, Origin, Value, least_trusted};

/// Bounds on one rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest output, in bytes.
    pub output: usize,
    /// The most units of work: one for each byte that a function reads or writes, several for each action and value.
    pub work: u64,
}

impl Default for Limits {
    /// 1 MiB of output, and work that takes at most a second or so.
    fn default() -> Self {
        Self { output: 1 << 20, work: 10_000_000 }
    }
}

/// The deepest nesting of blocks and parentheses, of template calls, and of lists and maps.
pub(super) const DEEPEST: usize = 100;

/// What an action, a call or an element costs. Each takes about as much time and memory as a text of this length.
pub(super) const STEP: usize = 32;

/// What is left to spend.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    output: usize,
    work: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, output: limits.output, work: limits.work }
    }

    /// Pays for work. Functions pay before they allocate.
    pub(super) fn spend(&mut self, units: usize) -> Result<(), TemplateErrorKind> {
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        match self.work.checked_sub(units) {
            Some(left) => {
                self.work = left;
                Ok(())
            }
            None => {
                self.work = 0;
                Err(TemplateErrorKind::TooMuchWork { most: self.limits.work })
            }
        }
    }

    /// Pays for `count` texts of `length` bytes, or lists of that many elements.
    pub(super) fn spend_times(
        &mut self,
        count: usize,
        length: usize,
    ) -> Result<(), TemplateErrorKind> {
        self.spend(count.saturating_mul(length))
    }

    /// Pays for output.
    pub(super) fn print(&mut self, bytes: usize) -> Result<(), TemplateErrorKind> {
        self.output = self
            .output
            .checked_sub(bytes)
            .ok_or(TemplateErrorKind::TooLong { most: self.limits.output })?;
        self.spend(bytes)
    }

    /// Pays for reading a whole value, and returns the least trusted origin in it.
    pub(super) fn read<'a>(
        &mut self,
        value: &'a Value,
    ) -> Result<Option<&'a Origin>, TemplateErrorKind> {
        self.read_at(value, 0)
    }

    fn read_at<'a>(
        &mut self,
        value: &'a Value,
        depth: usize,
    ) -> Result<Option<&'a Origin>, TemplateErrorKind> {
        if depth > DEEPEST {
            return Err(TemplateErrorKind::TooDeep { most: DEEPEST });
        }
        self.spend(STEP)?;
        let mut origin = value.origin.as_ref();
        match &value.data {
            Data::Text(text) => self.spend(text.len())?,
            Data::List(list) => {
                for element in list.iter() {
                    origin = least_trusted(origin, self.read_at(element, depth + 1)?);
                }
            }
            Data::Map(map) => {
                for (key, element) in map.iter() {
                    self.spend(key.len())?;
                    origin = least_trusted(origin, self.read_at(element, depth + 1)?);
                }
            }
            Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) => {}
        }
        Ok(origin)
    }
}
