//! Parses what stands inside an action: pipelines, commands and operands.

use super::error::{TemplateError, TemplateErrorKind};
use super::functions::{self, Lookup};
use super::lexer::{Token, TokenKind};
use super::literal;
use super::node::{Command, Operand, OperandKind, Pipeline, Slot};
use super::parser::{Parser, escape, unexpected};
use super::value::Data;

impl<'t> Parser<'t> {
    /// Reads up to `}}` or `)`.
    pub(super) fn pipeline(&mut self, place: &'static str) -> Result<Pipeline, TemplateError> {
        self.skip_space();
        let at = self.peek()?.at;
        let binding = self.binding(place)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek()?;
            if ends_pipeline(token) {
                break;
            }
            if token.kind == TokenKind::Pipe {
                return Err(unexpected(token, place));
            }
            commands.push(self.command(place)?);
        }
        if commands.is_empty() {
            return Err(TemplateError { at, kind: TemplateErrorKind::NoValue { place } });
        }
        for command in commands.iter().skip(1) {
            if matches!(command.head.kind, OperandKind::Literal(_) | OperandKind::Dot) {
                let kind = TemplateErrorKind::PipeToLiteral;
                return Err(TemplateError { at: command.head.at.start, kind });
            }
        }
        // The commands still see what the variables hide.
        let binds = match binding {
            Some(binding) => self.bind(binding)?,
            None => Vec::new(),
        };
        Ok(Pipeline { at, binds, commands })
    }

    /// Reads `$x :=`, `$x =`, and in `range` also `$i, $x :=`.
    fn binding(&mut self, place: &'static str) -> Result<Option<Binding<'t>>, TemplateError> {
        let start = self.place();
        let mut variables = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek()?;
            if token.kind != TokenKind::Variable {
                break;
            }
            variables.push(self.advance()?);
            self.skip_space();
            let token = self.peek()?;
            if matches!(token.kind, TokenKind::Declare | TokenKind::Assign) {
                self.advance()?;
                let declares = token.kind == TokenKind::Declare;
                return Ok(Some(Binding { variables, declares }));
            }
            if token.kind != TokenKind::Comma {
                break;
            }
            if place != "range" || variables.len() == 2 {
                return Err(unexpected(token, place));
            }
            self.advance()?;
        }
        self.return_to(start);
        Ok(None)
    }

    fn bind(&mut self, binding: Binding<'t>) -> Result<Vec<Slot>, TemplateError> {
        let Binding { variables, declares } = binding;
        if declares {
            return Ok(variables.iter().map(|token| self.scope.declare(token.text)).collect());
        }
        variables.into_iter().map(|token| self.variable(token)).collect()
    }

    fn variable(&self, token: Token<'_>) -> Result<Slot, TemplateError> {
        self.scope.find(token.text).ok_or_else(|| {
            let kind = TemplateErrorKind::UndeclaredVariable { name: token.text.to_owned() };
            TemplateError { at: token.at, kind }
        })
    }

    /// Reads up to `|`, `}}` or `)`.
    fn command(&mut self, place: &'static str) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        let at = self.peek()?.at;
        loop {
            self.skip_space();
            operands.extend(self.operand()?);
            let token = self.peek()?;
            if ends_pipeline(token) {
                break;
            }
            if token.kind == TokenKind::Pipe {
                self.advance()?;
                break;
            }
            if token.kind != TokenKind::Space {
                return Err(unexpected(token, place));
            }
        }
        let mut operands = operands.into_iter();
        let Some(head) = operands.next() else {
            return Err(TemplateError { at, kind: TemplateErrorKind::NoValue { place } });
        };
        if matches!(head.kind, OperandKind::Literal(Data::Nil)) {
            return Err(TemplateError { at, kind: TemplateErrorKind::BareNil });
        }
        Ok(Command { head, arguments: operands.collect() })
    }

    /// Reads a term and the fields directly after it; `None` if there is no term.
    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let Some(term) = self.term()? else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        let mut end = term.at.end;
        loop {
            let token = self.peek()?;
            if token.kind != TokenKind::Field {
                break;
            }
            if matches!(term.kind, OperandKind::Literal(_)) {
                return Err(unexpected(token, "a literal"));
            }
            self.advance()?;
            fields.push(token.text[1..].to_owned());
            end = token.at + token.text.len();
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        let at = term.at.start..end;
        Ok(Some(Operand { at, kind: OperandKind::Fields(Box::new(term), fields) }))
    }

    fn term(&mut self) -> Result<Option<Operand>, TemplateError> {
        let token = self.peek()?;
        let at = token.at..token.at + token.text.len();
        let kind = match token.kind {
            TokenKind::Field => {
                // The dot has no width here, so the operand is the fields as they are written.
                let dot = Operand { at: token.at..token.at, kind: OperandKind::Dot };
                return Ok(Some(dot));
            }
            TokenKind::Dot => OperandKind::Dot,
            TokenKind::Variable => OperandKind::Variable(self.variable(token)?),
            TokenKind::Number => {
                let number = literal::number(token.text).ok_or_else(|| not_a_number(token))?;
                OperandKind::Literal(number)
            }
            TokenKind::Character => {
                let code = literal::character(token.text).ok_or_else(|| escape(token))?;
                OperandKind::Literal(Data::Int(code))
            }
            TokenKind::Quoted => {
                let text = literal::quoted(token.text).ok_or_else(|| escape(token))?;
                OperandKind::Literal(Data::Text(text.into()))
            }
            TokenKind::Raw => OperandKind::Literal(Data::Text(literal::raw(token.text).into())),
            TokenKind::Word => self.function(token)?,
            TokenKind::OpenParenthesis => return self.parenthesis().map(Some),
            TokenKind::Text
            | TokenKind::Open
            | TokenKind::Close
            | TokenKind::Space
            | TokenKind::Pipe
            | TokenKind::Declare
            | TokenKind::Assign
            | TokenKind::Comma
            | TokenKind::CloseParenthesis
            | TokenKind::End => return Ok(None),
        };
        self.advance()?;
        Ok(Some(Operand { at, kind }))
    }

    fn parenthesis(&mut self) -> Result<Operand, TemplateError> {
        let opens = self.advance()?;
        let pipeline = self.deeper(opens.at, |parser| parser.pipeline("the parenthesis"))?;
        let closes = self.advance()?;
        if closes.kind != TokenKind::CloseParenthesis {
            return Err(unexpected(closes, "the parenthesis"));
        }
        let kind = OperandKind::Pipeline(Box::new(pipeline));
        Ok(Operand { at: opens.at..closes.at + 1, kind })
    }

    fn function(&self, token: Token<'_>) -> Result<OperandKind, TemplateError> {
        let name = token.text;
        let kind = match name {
            "true" => return Ok(OperandKind::Literal(Data::Bool(true))),
            "false" => return Ok(OperandKind::Literal(Data::Bool(false))),
            "nil" => return Ok(OperandKind::Literal(Data::Nil)),
            "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range"
            | "template" | "with" => return Err(unexpected(token, "the action")),
            _ => match functions::find(name) {
                Lookup::Found(function) => return Ok(OperandKind::Function(function)),
                Lookup::Unavailable(reason) => {
                    TemplateErrorKind::Unavailable { name: name.to_owned(), reason }
                }
                Lookup::Unknown => {
                    // `{{Run.ID}}` is a common mistake for `{{.Run.ID}}`.
                    let is_field = name.starts_with(char::is_uppercase);
                    let meant = is_field.then(|| format!(".{name}"));
                    TemplateErrorKind::UnknownFunction { name: name.to_owned(), meant }
                }
            },
        };
        Err(TemplateError { at: token.at, kind })
    }
}

/// The variables that a pipeline binds its value to.
struct Binding<'t> {
    variables: Vec<Token<'t>>,
    /// `:=`, not `=`.
    declares: bool,
}

fn ends_pipeline(token: Token<'_>) -> bool {
    matches!(token.kind, TokenKind::Close | TokenKind::CloseParenthesis)
}

fn not_a_number(token: Token<'_>) -> TemplateError {
    let kind = TemplateErrorKind::Number { text: token.text.to_owned() };
    TemplateError { at: token.at, kind }
}
