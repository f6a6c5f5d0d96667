//! A parsed template.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::functions::Function;
use super::value::Data;

/// What stands between two actions of a block, in order.
pub(super) type Block = Vec<Node>;

/// The templates that `define` and `block` name.
pub(super) type Definitions = BTreeMap<Arc<str>, Block>;

#[derive(Debug)]
pub(super) enum Node {
    /// Text of the template.
    Text(Range<usize>),
    /// Prints the value of a pipeline, or binds it.
    Action { at: usize, pipeline: Pipeline },
    /// `if`, with an arm for each `else if`.
    If { arms: Vec<Arm>, otherwise: Block },
    /// `with`, with an arm for each `else with`.
    With { arms: Vec<Arm>, otherwise: Block },
    /// `range`.
    Range { pipeline: Pipeline, body: Block, otherwise: Block },
    /// `template` or `block`.
    Template { at: usize, name: Arc<str>, argument: Option<Pipeline> },
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// A condition and its block.
#[derive(Debug)]
pub(super) struct Arm {
    pub(super) condition: Pipeline,
    pub(super) body: Block,
}

/// `$x := command | command`
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    /// The variables that get the value. More than one only in `range`.
    pub(super) binds: Vec<Slot>,
    /// At least one.
    pub(super) commands: Vec<Command>,
}

/// The place of a variable: the number of variables that were declared before it and still exist.
pub(super) type Slot = usize;

/// `function argument argument`, or a single operand.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) head: Operand,
    pub(super) arguments: Vec<Operand>,
}

#[derive(Debug)]
pub(super) struct Operand {
    /// Its place in the template.
    pub(super) at: Range<usize>,
    pub(super) kind: OperandKind,
}

#[derive(Debug)]
pub(super) enum OperandKind {
    /// `.`
    Dot,
    /// `$x`
    Variable(Slot),
    /// Text, a number, `true`, `false` or `nil`.
    Literal(Data),
    /// The name of a function.
    Function(&'static Function),
    /// `(pipeline)`
    Pipeline(Box<Pipeline>),
    /// `.a.b`, `$x.a` or `(pipeline).a`
    Fields(Box<Operand>, Vec<String>),
}
