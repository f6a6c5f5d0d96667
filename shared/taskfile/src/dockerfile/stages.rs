//! The stages of a Dockerfile: their bases and the sources they copy from, and thus the images that a target needs.

use std::collections::BTreeMap;

use super::arguments::Arguments;
use super::lines::{Instruction, Lines};
use super::operands::{Named, SourceOperand, flags, sources};
use super::{BuildInputs, DockerfileError, ImageUse, Role};

/// The empty base, which is not an image.
const SCRATCH: &str = "scratch";

pub(super) struct Stages {
    stages: Vec<Stage>,
    /// The index of the last stage with each name.
    by_name: BTreeMap<String, usize>,
}

impl Stages {
    pub(super) fn read(lines: &Lines, inputs: BuildInputs<'_>) -> Result<Self, DockerfileError> {
        let mut arguments = Arguments::new(lines.escape, inputs);
        let mut this = Self { stages: Vec::new(), by_name: BTreeMap::new() };
        for instruction in &lines.instructions {
            match (instruction.keyword.as_str(), this.stages.last_mut()) {
                ("from", _) => this.begin(instruction, &arguments)?,
                ("arg", None) => arguments.declare(instruction)?,
                (_, Some(stage)) => stage.read(instruction)?,
                (keyword, None) => {
                    let keyword = keyword.to_uppercase();
                    return Err(DockerfileError::BeforeFrom { line: instruction.line, keyword });
                }
            }
        }
        if this.stages.is_empty() { Err(DockerfileError::NoStage) } else { Ok(this) }
    }

    fn begin(
        &mut self,
        from: &Instruction,
        arguments: &Arguments<'_>,
    ) -> Result<(), DockerfileError> {
        let line = from.line;
        let (_, rest) = flags(from.arguments.piece(), from.flag_escape);
        let words = rest.trim().words();
        let (word, name) = match words.as_slice() {
            [word] => (*word, None),
            [word, r#as, name] if r#as.text.eq_ignore_ascii_case("as") => {
                (*word, Some(stage_name(line, name.text)?))
            }
            _ => return Err(DockerfileError::FromWords { line }),
        };
        let Some(operand) = word.range() else {
            return Err(DockerfileError::FromWords { line });
        };
        let text = arguments.expand(line, word.text)?;
        if text.is_empty() {
            return Err(DockerfileError::EmptyBase { line, word: word.text.to_owned() });
        }
        let base = match self.by_name.get(&text) {
            Some(&stage) => Base::Stage(stage),
            None if text == SCRATCH => Base::Scratch,
            None => Base::Image(Named { line, text, operand }),
        };
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), self.stages.len());
        }
        self.stages.push(Stage { name, base, sources: Vec::new(), onbuild: Vec::new() });
        Ok(())
    }

    /// Adds the images that are named up to the target, or that it needs.
    pub(super) fn collect(
        &self,
        target: Option<&str>,
        images: &mut Vec<ImageUse>,
    ) -> Result<(), DockerfileError> {
        let target = self.target(target)?;
        let needed = self.needed_by(target)?;
        let runtime = self.root_of(target);
        let mut onbuild_needed = vec![false; self.stages.len()];
        for (stage, _) in self.stages.iter().zip(&needed).filter(|(_, needed)| **needed) {
            if let Base::Stage(base) = stage.base {
                onbuild_needed[base] = true;
            }
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let from_here = needed[index];
            // Operands are checked in all stages, because the engine refuses an invalid one in any of them.
            let mut add = |used: ImageUse| {
                if used.needed || index <= target {
                    images.push(used);
                }
            };
            if let Base::Image(named) = &stage.base {
                let role = if index == runtime { Role::Runtime } else { Role::BuildTime };
                add(named.used(role, from_here)?);
            }
            for from in &stage.sources {
                if self.is_image(from)? {
                    add(from.named.used(Role::BuildTime, from_here)?);
                }
            }
            for from in &stage.onbuild {
                if self.is_image(from)? {
                    if onbuild_needed[index] {
                        let (line, image) = (from.named.line, from.named.text.clone());
                        return Err(DockerfileError::OnbuildImage { line, image });
                    }
                    add(from.named.used(Role::BuildTime, false)?);
                }
            }
        }
        Ok(())
    }

    fn target(&self, target: Option<&str>) -> Result<usize, DockerfileError> {
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        self.by_name.get(&target.to_lowercase()).copied().ok_or_else(|| DockerfileError::Target {
            target: target.to_owned(),
            stages: self.stages.iter().filter_map(|stage| stage.name.clone()).collect(),
        })
    }

    /// The first stage in the chain of bases of `stage`.
    fn root_of(&self, stage: usize) -> usize {
        let mut root = stage;
        // A base precedes the stages that are built on it, so this ends.
        while let Base::Stage(base) = self.stages[root].base {
            root = base;
        }
        root
    }

    fn needed_by(&self, target: usize) -> Result<Vec<bool>, DockerfileError> {
        let mut needed = vec![false; self.stages.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            let stage = &self.stages[index];
            let mut sources: Vec<&SourceOperand> = stage.sources.iter().collect();
            if let Base::Stage(base) = stage.base {
                open.push(base);
                sources.extend(&self.stages[base].onbuild);
            }
            for from in sources {
                open.extend(self.stage_of(from)?);
            }
        }
        Ok(needed)
    }

    fn is_image(&self, from: &SourceOperand) -> Result<bool, DockerfileError> {
        Ok(self.stage_of(from)?.is_none() && from.named.text != SCRATCH)
    }

    /// The stage that a `from=` refers to; `None` if it is an image.
    fn stage_of(&self, from: &SourceOperand) -> Result<Option<usize>, DockerfileError> {
        let Named { line, text, .. } = &from.named;
        if from.may_be_index && text.parse::<i64>().is_ok() {
            let stages = self.stages.len();
            let index = text.parse().ok().filter(|index| *index < stages);
            let refused =
                || DockerfileError::StageIndex { line: *line, index: text.clone(), stages };
            return index.ok_or_else(refused).map(Some);
        }
        Ok(self.by_name.get(&text.to_lowercase()).copied())
    }
}

#[derive(Debug)]
enum Base {
    Stage(usize),
    Scratch,
    Image(Named),
}

#[derive(Debug)]
struct Stage {
    name: Option<String>,
    base: Base,
    /// The operands of `COPY --from` and `RUN --mount=from`.
    sources: Vec<SourceOperand>,
    /// The same of its ONBUILD instructions, which run in the stages that are built on it.
    onbuild: Vec<SourceOperand>,
}

impl Stage {
    fn read(&mut self, instruction: &Instruction) -> Result<(), DockerfileError> {
        match instruction.kept_by_onbuild() {
            Some(kept) => self.onbuild.extend(sources(&kept)?),
            None => self.sources.extend(sources(instruction)?),
        }
        Ok(())
    }
}

fn stage_name(line: usize, text: &str) -> Result<String, DockerfileError> {
    let name = text.to_lowercase();
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(letters) {
        Ok(name)
    } else {
        Err(DockerfileError::StageName { line, name: text.to_owned() })
    }
}
