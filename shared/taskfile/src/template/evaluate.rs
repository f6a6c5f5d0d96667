//! Evaluates pipelines: fields, variables and calls of functions.

use super::budget::STEP;
use super::error::{TemplateError, TemplateErrorKind};
use super::functions::{Behaviour, Call, Function, Origins, Run};
use super::node::{Command, Operand, OperandKind, Pipeline};
use super::render::Renderer;
use super::value::{Data, Value, least_trusted};

impl<'t> Renderer<'t> {
    pub(super) fn pipeline(
        &mut self,
        pipeline: &'t Pipeline,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or(Value::NIL);
        for slot in &pipeline.binds {
            self.set_variable(*slot, value.clone());
        }
        Ok(value)
    }

    /// Evaluates a command; `piped` is the value before its `|`.
    fn command(
        &mut self,
        command: &'t Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let Command { head, arguments } = command;
        if let OperandKind::Function(function) = &head.kind {
            return self.call(function, head.at.start, arguments, piped, dot);
        }
        if piped.is_some() || !arguments.is_empty() {
            let of = self.template.text[head.at.clone()].to_owned();
            let kind = TemplateErrorKind::NotAFunction { of };
            return Err(TemplateError { at: head.at.start, kind });
        }
        self.operand(head, dot)
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Value) -> Result<Value, TemplateError> {
        let at = operand.at.start;
        self.spend(at, STEP)?;
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Variable(slot) => Ok(self.variable(*slot)),
            OperandKind::Literal(data) => Ok(data.clone().into()),
            OperandKind::Function(function) => self.call(function, at, &[], None, dot),
            OperandKind::Pipeline(pipeline) => {
                self.deeper(at, |renderer| renderer.pipeline(pipeline, dot))
            }
            OperandKind::Fields(base, fields) => {
                let value = self.operand(base, dot)?;
                self.fields(base, value, fields)
            }
        }
    }

    fn fields(
        &mut self,
        base: &Operand,
        value: Value,
        fields: &[String],
    ) -> Result<Value, TemplateError> {
        // A field of nil is nil. But in `.a.b`, a missing `a` is a mistake, as in the original.
        if value.is_nil() {
            return Ok(Value::NIL);
        }
        let at = base.at.start;
        let mut value = value;
        for (depth, field) in fields.iter().enumerate() {
            self.spend(at, STEP)?;
            let found = match &value.data {
                Data::Map(map) => map.get(field).cloned().unwrap_or(Value::NIL),
                Data::Nil => {
                    let of = self.path(base, &fields[..depth]);
                    let kind = TemplateErrorKind::MissingField { of, field: field.clone() };
                    return Err(TemplateError { at, kind });
                }
                Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) | Data::List(_) => {
                    let (of, kind) = (self.path(base, &fields[..depth]), value.kind());
                    let kind = TemplateErrorKind::NoFields { of, kind, field: field.clone() };
                    return Err(TemplateError { at, kind });
                }
            };
            value = found.tainted(value.origin.as_ref());
        }
        Ok(value)
    }

    /// The expression for these fields of `base`, as an author writes it.
    fn path(&self, base: &Operand, fields: &[String]) -> String {
        let base = &self.template.text[base.at.clone()];
        if base.is_empty() && fields.is_empty() {
            return ".".to_owned();
        }
        let fields = fields.iter().map(|field| format!(".{field}"));
        std::iter::once(base.to_owned()).chain(fields).collect()
    }

    fn call(
        &mut self,
        function: &'static Function,
        at: usize,
        operands: &'t [Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        self.spend(at, STEP)?;
        let count = operands.len() + usize::from(piped.is_some());
        function.check_count(count).map_err(|kind| TemplateError { at, kind })?;
        let run = match function.behaviour {
            Behaviour::Call(run) | Behaviour::Change(run) => run,
            Behaviour::Decide(truth) => return self.decide(truth, operands, piped, dot),
        };
        let mut arguments = Vec::with_capacity(count);
        for operand in operands {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        let result = self.run(function, run, &arguments);
        let result = result.map_err(|kind| TemplateError { at, kind })?;
        if let (Behaviour::Change(_), Some(OperandKind::Variable(slot))) =
            (&function.behaviour, operands.first().map(|operand| &operand.kind))
        {
            self.set_variable(*slot, result.clone());
        }
        Ok(result)
    }

    /// Pays for a call, makes it, and gives its result an origin.
    fn run(
        &mut self,
        function: &'static Function,
        run: Run,
        arguments: &[Value],
    ) -> Result<Value, TemplateErrorKind> {
        let mut origin = None;
        for argument in arguments {
            let from = match function.origins {
                Origins::Whole => self.budget.read(argument)?,
                Origins::Parts | Origins::Chosen | Origins::Test => {
                    if let Data::Text(text) = &argument.data {
                        self.budget.spend(text.len())?;
                    }
                    argument.origin.as_ref()
                }
            };
            origin = least_trusted(origin, from);
        }
        let call = &mut Call { function: function.name, arguments, budget: &mut self.budget };
        let result = run(call)?;
        match function.origins {
            Origins::Whole | Origins::Parts => {
                let result = result.tainted(origin);
                self.budget.read(&result)?;
                Ok(result)
            }
            Origins::Chosen => Ok(result),
            Origins::Test => Ok(result.data.into()),
        }
    }

    /// The first value whose truth is `truth`, or the last. The others are not evaluated.
    fn decide(
        &mut self,
        truth: bool,
        operands: &'t [Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let mut last = Value::NIL;
        for operand in operands {
            last = self.operand(operand, dot)?;
            if last.is_true() == truth {
                return Ok(last);
            }
        }
        Ok(piped.unwrap_or(last))
    }
}
