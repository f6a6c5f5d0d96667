//! Builds the blocks of a template from its tokens.

use std::ops::Range;
use std::sync::Arc;

use super::budget::DEEPEST;
use super::error::{TemplateError, TemplateErrorKind};
use super::lexer::{self, Token, TokenKind};
use super::literal;
use super::node::{Arm, Block, Definitions, Node, Pipeline};
use super::scope::Scope;

/// Parses a whole template: its own block, and the templates that it defines.
pub(super) fn parse(text: &str) -> Result<(Block, Definitions), TemplateError> {
    let (tokens, broken) = lexer::tokens(text);
    let mut parser = Parser {
        tokens,
        broken,
        next: 0,
        text,
        scope: Scope::new(),
        loops: 0,
        depth: 0,
        definitions: Definitions::new(),
    };
    let block = parser.template()?;
    Ok((block, parser.definitions))
}

pub(super) struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    /// Why there are no more tokens.
    broken: Option<TemplateError>,
    next: usize,
    text: &'t str,
    pub(super) scope: Scope<'t>,
    /// The number of `range` blocks around this place.
    loops: usize,
    /// The number of blocks and parentheses around this place.
    depth: usize,
    definitions: Definitions,
}

const BLOCKS: &str = "`if`, `with` or `range`";

/// How a block ends.
enum Ending {
    /// `{{end}}`, which has been read.
    End,
    /// `{{else`, of which the rest follows.
    Else,
    /// The end of the template.
    Template,
}

/// A block that ends, and where and with which keyword it began.
#[derive(Clone, Copy)]
struct Opening {
    at: usize,
    keyword: &'static str,
}

impl<'t> Parser<'t> {
    fn template(&mut self) -> Result<Block, TemplateError> {
        let mut block = Block::new();
        match self.nodes(&mut block)? {
            (Ending::Template, _) => Ok(block),
            (Ending::End, at) => Err(misplaced(at, "end", BLOCKS)),
            (Ending::Else, at) => Err(misplaced(at, "else", BLOCKS)),
        }
    }

    /// Reads up to the end of this block, and returns the place of that end.
    fn nodes(&mut self, block: &mut Block) -> Result<(Ending, usize), TemplateError> {
        loop {
            let token = self.advance()?;
            if token.kind == TokenKind::End {
                return Ok((Ending::Template, token.at));
            }
            if token.kind == TokenKind::Text {
                block.push(Node::Text(token.at..token.at + token.text.len()));
                continue;
            }
            // Between actions there is nothing but text, so this is `{{`.
            self.skip_space();
            match self.word()? {
                "end" => {
                    self.advance()?;
                    self.close("`end`")?;
                    return Ok((Ending::End, token.at));
                }
                "else" => {
                    self.advance()?;
                    return Ok((Ending::Else, token.at));
                }
                keyword => block.extend(self.action(token.at, keyword)?),
            }
        }
    }

    /// The word that follows, or nothing.
    fn word(&self) -> Result<&'t str, TemplateError> {
        let token = self.peek()?;
        Ok(if token.kind == TokenKind::Word { token.text } else { "" })
    }

    /// Reads an action that begins with `keyword`, and whose `{{` is at `at`; `None` for `define`.
    fn action(&mut self, at: usize, keyword: &str) -> Result<Option<Node>, TemplateError> {
        let node = match keyword {
            "if" => {
                let (arms, otherwise) = self.conditional(Opening { at, keyword: "if" })?;
                Node::If { arms, otherwise }
            }
            "with" => {
                let (arms, otherwise) = self.conditional(Opening { at, keyword: "with" })?;
                Node::With { arms, otherwise }
            }
            "range" => self.range(Opening { at, keyword: "range" })?,
            "template" => self.template_call(at)?,
            "block" => self.block_call(Opening { at, keyword: "block" })?,
            "define" => {
                self.define(Opening { at, keyword: "define" })?;
                return Ok(None);
            }
            "break" => self.leave_loop(at, "break", Node::Break)?,
            "continue" => self.leave_loop(at, "continue", Node::Continue)?,
            _ => {
                let pipeline = self.closed_pipeline("the action")?;
                Node::Action { at, pipeline }
            }
        };
        Ok(Some(node))
    }

    /// `if` or `with`, and each `else` of it.
    fn conditional(&mut self, opening: Opening) -> Result<(Vec<Arm>, Block), TemplateError> {
        let mark = self.scope.mark();
        let mut arms = Vec::new();
        let otherwise = loop {
            self.advance()?;
            let condition = self.closed_pipeline(opening.keyword)?;
            let (body, ending) = self.block(opening)?;
            arms.push(Arm { condition, body });
            if matches!(ending, Ending::End) {
                break Block::new();
            }
            self.skip_space();
            if self.word()? != opening.keyword {
                break self.last_block(opening)?;
            }
        };
        self.scope.leave(mark);
        Ok((arms, otherwise))
    }

    fn range(&mut self, opening: Opening) -> Result<Node, TemplateError> {
        let mark = self.scope.mark();
        self.advance()?;
        let pipeline = self.closed_pipeline(opening.keyword)?;
        self.loops += 1;
        let (body, ending) = self.block(opening)?;
        self.loops -= 1;
        let otherwise = match ending {
            Ending::Else => self.last_block(opening)?,
            Ending::End | Ending::Template => Block::new(),
        };
        self.scope.leave(mark);
        Ok(Node::Range { pipeline, body, otherwise })
    }

    /// Reads a block and its end. Its variables end with it.
    fn block(&mut self, opening: Opening) -> Result<(Block, Ending), TemplateError> {
        let mark = self.scope.mark();
        let mut block = Block::new();
        let ending = self.deeper(opening.at, |parser| parser.nodes(&mut block))?.0;
        self.scope.leave(mark);
        if matches!(ending, Ending::Template) {
            let kind = TemplateErrorKind::Unended { keyword: opening.keyword };
            return Err(TemplateError { at: opening.at, kind });
        }
        Ok((block, ending))
    }

    /// Reads a block that has no `else`.
    fn whole_block(&mut self, opening: Opening) -> Result<Block, TemplateError> {
        match self.block(opening)? {
            (_, Ending::Else) => Err(misplaced(opening.at, "else", BLOCKS)),
            (block, Ending::End | Ending::Template) => Ok(block),
        }
    }

    /// Reads the rest of `{{else}}` and its block.
    fn last_block(&mut self, opening: Opening) -> Result<Block, TemplateError> {
        self.close("`else`")?;
        self.whole_block(opening)
    }

    fn leave_loop(
        &mut self,
        at: usize,
        keyword: &'static str,
        node: Node,
    ) -> Result<Node, TemplateError> {
        self.advance()?;
        self.close("the action")?;
        if self.loops == 0 {
            return Err(misplaced(at, keyword, "`range`"));
        }
        Ok(node)
    }

    fn template_call(&mut self, at: usize) -> Result<Node, TemplateError> {
        self.advance()?;
        let name = self.template_name("`template`")?;
        self.skip_space();
        let argument = if self.peek()?.kind == TokenKind::Close {
            self.advance()?;
            None
        } else {
            Some(self.closed_pipeline("template")?)
        };
        Ok(Node::Template { at, name, argument })
    }

    /// `block`, which defines a template and calls it.
    fn block_call(&mut self, opening: Opening) -> Result<Node, TemplateError> {
        self.advance()?;
        let name = self.template_name("`block`")?;
        let argument = Some(self.closed_pipeline(opening.keyword)?);
        self.definition(opening, name.clone())?;
        Ok(Node::Template { at: opening.at, name, argument })
    }

    fn define(&mut self, opening: Opening) -> Result<(), TemplateError> {
        self.advance()?;
        if self.depth > 0 {
            return Err(misplaced(opening.at, "define", "the top level of the template"));
        }
        let name = self.template_name("`define`")?;
        self.close("`define`")?;
        self.definition(opening, name)
    }

    /// Reads the block of a template, which sees no variables of the block around it.
    fn definition(&mut self, opening: Opening, name: Arc<str>) -> Result<(), TemplateError> {
        let around = std::mem::replace(&mut self.scope, Scope::new());
        let loops = std::mem::take(&mut self.loops);
        let block = self.whole_block(opening)?;
        self.scope = around;
        self.loops = loops;
        // As in Go, a template may be defined again if one of the two is blank.
        let known = self.definitions.get(&name).map(|known| self.is_blank(known));
        match (known, self.is_blank(&block)) {
            (Some(false), true) => {}
            (Some(false), false) => {
                let kind = TemplateErrorKind::DefinedTwice { name: name.to_string() };
                return Err(TemplateError { at: opening.at, kind });
            }
            (None | Some(true), _) => {
                self.definitions.insert(name, block);
            }
        }
        Ok(())
    }

    fn is_blank(&self, block: &Block) -> bool {
        let is_blank = |range: &Range<usize>| self.text[range.clone()].trim().is_empty();
        block.iter().all(|node| matches!(node, Node::Text(range) if is_blank(range)))
    }

    fn template_name(&mut self, place: &'static str) -> Result<Arc<str>, TemplateError> {
        self.skip_space();
        let token = self.advance()?;
        if token.kind == TokenKind::Raw {
            return Ok(literal::raw(token.text).into());
        }
        if token.kind != TokenKind::Quoted {
            return Err(unexpected(token, place));
        }
        literal::quoted(token.text).map(Arc::from).ok_or_else(|| escape(token))
    }

    fn closed_pipeline(&mut self, place: &'static str) -> Result<Pipeline, TemplateError> {
        let pipeline = self.pipeline(place)?;
        self.close(place)?;
        Ok(pipeline)
    }

    /// Reads `}}`.
    fn close(&mut self, place: &'static str) -> Result<(), TemplateError> {
        self.skip_space();
        let token = self.advance()?;
        if token.kind == TokenKind::Close { Ok(()) } else { Err(unexpected(token, place)) }
    }

    /// Reads something nested.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.depth == DEEPEST {
            return Err(TemplateError { at, kind: TemplateErrorKind::TooDeep { most: DEEPEST } });
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    pub(super) fn skip_space(&mut self) {
        if self.tokens.get(self.next).is_some_and(|token| token.kind == TokenKind::Space) {
            self.next += 1;
        }
    }

    pub(super) fn peek(&self) -> Result<Token<'t>, TemplateError> {
        self.tokens.get(self.next).copied().ok_or_else(|| {
            let unclosed = TemplateErrorKind::UnclosedAction;
            self.broken.clone().unwrap_or(TemplateError { at: self.text.len(), kind: unclosed })
        })
    }

    pub(super) fn advance(&mut self) -> Result<Token<'t>, TemplateError> {
        let token = self.peek()?;
        self.next += 1;
        Ok(token)
    }

    /// The place in the tokens, for [`Parser::return_to`].
    pub(super) fn place(&self) -> usize {
        self.next
    }

    pub(super) fn return_to(&mut self, place: usize) {
        self.next = place;
    }
}

pub(super) fn unexpected(token: Token<'_>, place: &'static str) -> TemplateError {
    let found = match token.text {
        "" => "the end of the template".to_owned(),
        text => format!("`{text}`"),
    };
    TemplateError { at: token.at, kind: TemplateErrorKind::Unexpected { found, place } }
}

pub(super) fn escape(token: Token<'_>) -> TemplateError {
    let kind = TemplateErrorKind::Escape { text: token.text.to_owned() };
    TemplateError { at: token.at, kind }
}

fn misplaced(at: usize, keyword: &'static str, place: &'static str) -> TemplateError {
    TemplateError { at, kind: TemplateErrorKind::Misplaced { keyword, place } }
}
