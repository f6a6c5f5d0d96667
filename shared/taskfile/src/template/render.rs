//! Walks the blocks of a template and prints.

use super::budget::{Budget, DEEPEST, Limits, STEP};
use super::error::{TemplateError, TemplateErrorKind};
use super::format;
use super::node::{Arm, Block, Node, Pipeline, Slot};
use super::value::{Data, Value};
use super::{Piece, PieceKind, Template};

pub(super) fn render(
    template: &Template,
    data: &Value,
    limits: Limits,
) -> Result<Vec<Piece>, TemplateError> {
    let mut renderer = Renderer {
        template,
        budget: Budget::new(limits),
        pieces: Vec::new(),
        variables: vec![data.clone()],
        depth: 0,
        calls: 0,
    };
    // Values from elsewhere may be nested too deeply to be walked.
    renderer.budget.read(data).map_err(|kind| TemplateError { at: 0, kind })?;
    renderer.block(&template.block, data)?;
    Ok(renderer.pieces)
}

pub(super) struct Renderer<'t> {
    pub(super) template: &'t Template,
    pub(super) budget: Budget,
    pieces: Vec<Piece>,
    /// The variables of the current template, by slot.
    variables: Vec<Value>,
    /// The number of blocks and parentheses around this place, in all templates that are being rendered.
    depth: usize,
    /// The number of templates that are being rendered, beside the outermost.
    calls: usize,
}

/// The deepest nesting of blocks and parentheses in templates that call each other, so that the stack suffices.
const DEEPEST_STACK: usize = 250;

/// Where rendering goes on after a node.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'t> Renderer<'t> {
    fn block(&mut self, block: &'t Block, dot: &Value) -> Result<Flow, TemplateError> {
        for node in block {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'t Node, dot: &Value) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(range) => {
                let at = range.start;
                let text = self.template.text[range.clone()].to_owned();
                self.print(Piece { text, at, kind: PieceKind::Literal })?;
                Ok(Flow::Next)
            }
            Node::Action { at, pipeline } => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.binds.is_empty() {
                    self.print_value(*at, &value)?;
                }
                Ok(Flow::Next)
            }
            Node::If { arms, otherwise } => match self.choose(arms, dot)? {
                Some((arm, _)) => self.nested(&arm.body, dot, arm.condition.at),
                None => self.otherwise(arms, otherwise, dot),
            },
            Node::With { arms, otherwise } => match self.choose(arms, dot)? {
                Some((arm, value)) => self.nested(&arm.body, &value, arm.condition.at),
                None => self.otherwise(arms, otherwise, dot),
            },
            Node::Range { pipeline, body, otherwise } => self.range(pipeline, body, otherwise, dot),
            Node::Template { at, name, argument } => {
                self.call_template(*at, name, argument.as_ref(), dot)?;
                Ok(Flow::Next)
            }
            Node::Break => Ok(Flow::Break),
            Node::Continue => Ok(Flow::Continue),
        }
    }

    /// The first arm whose condition is true, and the value of that condition.
    fn choose(
        &mut self,
        arms: &'t [Arm],
        dot: &Value,
    ) -> Result<Option<(&'t Arm, Value)>, TemplateError> {
        for arm in arms {
            let value = self.pipeline(&arm.condition, dot)?;
            if value.is_true() {
                return Ok(Some((arm, value)));
            }
        }
        Ok(None)
    }

    fn otherwise(
        &mut self,
        arms: &'t [Arm],
        otherwise: &'t Block,
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        self.nested(otherwise, dot, arms.first().map_or(0, |arm| arm.condition.at))
    }

    fn range(
        &mut self,
        pipeline: &'t Pipeline,
        body: &'t Block,
        otherwise: &'t Block,
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let at = pipeline.at;
        let over = self.pipeline(pipeline, dot)?;
        let origin = over.origin.as_ref();
        let elements: &mut dyn Iterator<Item = (Value, Value)> = match &over.data {
            Data::Nil => &mut std::iter::empty(),
            Data::List(list) => &mut (0..)
                .zip(list.iter())
                .map(|(index, element)| (Value::from(index), element.clone().tainted(origin))),
            Data::Map(map) => &mut map.iter().map(|(key, element)| {
                (Value::from(key.as_str()).tainted(origin), element.clone().tainted(origin))
            }),
            Data::Int(_) if pipeline.binds.len() > 1 => {
                return Err(TemplateError { at, kind: TemplateErrorKind::RangeOverNumber });
            }
            Data::Int(count) => &mut (0..*count).map(|index| {
                let index = Value::from(index).tainted(origin);
                (index.clone(), index)
            }),
            Data::Bool(_) | Data::Float(_) | Data::Text(_) => {
                let kind = TemplateErrorKind::NotIterable { kind: over.kind() };
                return Err(TemplateError { at, kind });
            }
        };
        let mut is_empty = true;
        for (index, element) in elements {
            is_empty = false;
            self.spend(at, STEP)?;
            match pipeline.binds.as_slice() {
                [] => {}
                [slot] => self.set_variable(*slot, element.clone()),
                [index_slot, slot, ..] => {
                    self.set_variable(*index_slot, index);
                    self.set_variable(*slot, element.clone());
                }
            }
            if self.nested(body, &element, at)? == Flow::Break {
                break;
            }
        }
        if is_empty { self.nested(otherwise, dot, at) } else { Ok(Flow::Next) }
    }

    fn call_template(
        &mut self,
        at: usize,
        name: &str,
        argument: Option<&'t Pipeline>,
        dot: &Value,
    ) -> Result<(), TemplateError> {
        let template = self.template;
        let Some(block) = template.definitions.get(name) else {
            let kind = TemplateErrorKind::UnknownTemplate { name: name.to_owned() };
            return Err(TemplateError { at, kind });
        };
        let dot = match argument {
            Some(argument) => self.pipeline(argument, dot)?,
            None => Value::NIL,
        };
        if self.calls == DEEPEST {
            return Err(TemplateError { at, kind: TemplateErrorKind::TooDeep { most: DEEPEST } });
        }
        self.calls += 1;
        let around = std::mem::replace(&mut self.variables, vec![dot.clone()]);
        self.nested(block, &dot, at)?;
        self.variables = around;
        self.calls -= 1;
        Ok(())
    }

    fn nested(&mut self, block: &'t Block, dot: &Value, at: usize) -> Result<Flow, TemplateError> {
        self.deeper(at, |renderer| renderer.block(block, dot))
    }

    /// Does something nested.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == DEEPEST_STACK {
            let kind = TemplateErrorKind::TooDeep { most: DEEPEST_STACK };
            return Err(TemplateError { at, kind });
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn print_value(&mut self, at: usize, value: &Value) -> Result<(), TemplateError> {
        // As the original prints no `<no value>`.
        if value.is_nil() {
            self.spend(at, STEP)?;
            self.pieces.push(Piece { text: String::new(), at, kind: PieceKind::NoValue });
            return Ok(());
        }
        let origin = self.budget.read(value).map_err(|kind| TemplateError { at, kind })?.cloned();
        self.print(Piece { text: format::plain(value), at, kind: PieceKind::Output(origin) })
    }

    fn print(&mut self, piece: Piece) -> Result<(), TemplateError> {
        self.spend(piece.at, STEP)?;
        let paid = self.budget.print(piece.text.len());
        paid.map_err(|kind| TemplateError { at: piece.at, kind })?;
        if !piece.text.is_empty() {
            self.pieces.push(piece);
        }
        Ok(())
    }

    pub(super) fn spend(&mut self, at: usize, units: usize) -> Result<(), TemplateError> {
        self.budget.spend(units).map_err(|kind| TemplateError { at, kind })
    }

    pub(super) fn variable(&self, slot: Slot) -> Value {
        // A variable that a skipped operand of `and` declares has no value.
        self.variables.get(slot).cloned().unwrap_or(Value::NIL)
    }

    pub(super) fn set_variable(&mut self, slot: Slot, value: Value) {
        if slot >= self.variables.len() {
            self.variables.resize(slot + 1, Value::NIL);
        }
        self.variables[slot] = value;
    }
}
