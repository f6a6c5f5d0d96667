//! The functions of Go's templates and of sprig 2.22.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::budget::Budget;
use super::error::TemplateErrorKind;
use super::value::{Data, Value};

mod builtin;
mod cases;
mod compare;
mod defaults;
mod dicts;
mod encoding;
mod json;
mod kinds;
mod lists;
mod numbers;
mod paths;
mod patterns;
mod text;
mod unavailable;
mod urls;
mod versions;
mod wrap;

/// A function that a template can call.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// The fewest arguments.
    least: usize,
    /// The most arguments; `None` if there may be any number.
    most: Option<usize>,
    pub(super) origins: Origins,
    pub(super) behaviour: Behaviour,
}

/// Where the result of a function is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origins {
    /// From all of its arguments and everything in them.
    Whole,
    /// From its arguments. What it takes out of lists and maps is also from where it was before.
    Parts,
    /// From the one argument that it returns.
    Chosen,
    /// From nowhere: it is `true` or `false`, which tell too little to matter.
    Test,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Call(Run),
    /// Changes the variable that is its first argument.
    Change(Run),
    /// Returns the first argument with this truth, or the last, and does not evaluate the others.
    Decide(bool),
}

pub(super) type Run = fn(&mut Call<'_>) -> Result<Value, TemplateErrorKind>;

impl Function {
    /// A function whose result is from all of its arguments.
    const fn whole(name: &'static str, least: usize, most: Option<usize>, run: Run) -> Self {
        Self { name, least, most, origins: Origins::Whole, behaviour: Behaviour::Call(run) }
    }

    /// A function that takes lists and maps apart, or makes them.
    const fn parts(name: &'static str, least: usize, most: Option<usize>, run: Run) -> Self {
        Self { name, least, most, origins: Origins::Parts, behaviour: Behaviour::Call(run) }
    }

    /// A function that changes a map.
    const fn change(name: &'static str, least: usize, most: Option<usize>, run: Run) -> Self {
        Self { name, least, most, origins: Origins::Parts, behaviour: Behaviour::Change(run) }
    }

    /// A function that returns one of its arguments.
    const fn chosen(name: &'static str, least: usize, most: Option<usize>, run: Run) -> Self {
        Self { name, least, most, origins: Origins::Chosen, behaviour: Behaviour::Call(run) }
    }

    /// A function that returns `true` or `false`.
    const fn test(name: &'static str, least: usize, most: Option<usize>, run: Run) -> Self {
        Self { name, least, most, origins: Origins::Test, behaviour: Behaviour::Call(run) }
    }

    /// Checks the number of arguments.
    pub(super) fn check_count(&self, got: usize) -> Result<(), TemplateErrorKind> {
        if got >= self.least && self.most.is_none_or(|most| got <= most) {
            return Ok(());
        }
        let wanted = match self.most {
            Some(1) if self.least == 1 => "1 argument".to_owned(),
            Some(most) if self.least == most => format!("{most} arguments"),
            Some(most) => format!("{} to {most} arguments", self.least),
            None if self.least == 1 => "at least 1 argument".to_owned(),
            None => format!("at least {} arguments", self.least),
        };
        Err(TemplateErrorKind::ArgumentCount { function: self.name, wanted, got })
    }
}

/// What a name means.
pub(super) enum Lookup {
    Found(&'static Function),
    /// sprig has it, and we do not, for this reason.
    Unavailable(&'static str),
    Unknown,
}

/// Finds a function by its name.
pub(super) fn find(name: &str) -> Lookup {
    if let Some(function) = FUNCTIONS.get(name) {
        return Lookup::Found(function);
    }
    unavailable::reason(name).map_or(Lookup::Unknown, Lookup::Unavailable)
}

/// All functions by their names.
pub(super) static FUNCTIONS: LazyLock<BTreeMap<&'static str, &'static Function>> =
    LazyLock::new(|| {
        let tables: [&'static [Function]; 16] = [
            builtin::FUNCTIONS,
            cases::FUNCTIONS,
            compare::FUNCTIONS,
            defaults::FUNCTIONS,
            dicts::FUNCTIONS,
            encoding::FUNCTIONS,
            json::FUNCTIONS,
            kinds::FUNCTIONS,
            lists::FUNCTIONS,
            numbers::FUNCTIONS,
            paths::FUNCTIONS,
            patterns::FUNCTIONS,
            text::FUNCTIONS,
            urls::FUNCTIONS,
            versions::FUNCTIONS,
            wrap::FUNCTIONS,
        ];
        tables.into_iter().flatten().map(|function| (function.name, function)).collect()
    });

/// One call of a function. Its number of arguments has been checked.
pub(super) struct Call<'a> {
    pub(super) function: &'static str,
    /// A piped value is the last.
    pub(super) arguments: &'a [Value],
    pub(super) budget: &'a mut Budget,
}

static NIL: Value = Value::NIL;
static NO_ENTRIES: BTreeMap<String, Value> = BTreeMap::new();

impl<'a> Call<'a> {
    /// An argument of any type. Arguments are numbered from 0.
    fn any(&self, index: usize) -> &'a Value {
        self.arguments.get(index).unwrap_or(&NIL)
    }

    /// The arguments from this one on.
    fn from(&self, index: usize) -> &'a [Value] {
        self.arguments.get(index..).unwrap_or(&[])
    }

    fn text(&self, index: usize) -> Result<&'a str, TemplateErrorKind> {
        self.any(index).as_text().ok_or_else(|| self.wrong_type(index, "text"))
    }

    fn int(&self, index: usize) -> Result<i64, TemplateErrorKind> {
        self.any(index).as_int().ok_or_else(|| self.wrong_type(index, "a whole number"))
    }

    /// A number that a text or a list can be long.
    fn length(&self, index: usize) -> Result<usize, TemplateErrorKind> {
        usize::try_from(self.int(index)?).map_err(|_| self.fails("a length is negative"))
    }

    fn bool(&self, index: usize) -> Result<bool, TemplateErrorKind> {
        let Data::Bool(value) = self.any(index).data else {
            return Err(self.wrong_type(index, "true or false"));
        };
        Ok(value)
    }

    fn list(&self, index: usize) -> Result<&'a [Value], TemplateErrorKind> {
        let Data::List(list) = &self.any(index).data else {
            return Err(self.wrong_type(index, "a list"));
        };
        Ok(list)
    }

    /// A map. Nil is an empty one, as Go's nil map is.
    fn map(&self, index: usize) -> Result<&'a BTreeMap<String, Value>, TemplateErrorKind> {
        let value = self.any(index);
        if value.is_nil() {
            return Ok(&NO_ENTRIES);
        }
        let Data::Map(map) = &value.data else {
            return Err(self.wrong_type(index, "a map"));
        };
        Ok(map)
    }

    fn wrong_type(&self, index: usize, wanted: &'static str) -> TemplateErrorKind {
        let got = self.any(index).kind();
        let position = index + 1;
        TemplateErrorKind::ArgumentType { function: self.function, position, wanted, got }
    }

    fn fails(&self, problem: impl Into<String>) -> TemplateErrorKind {
        TemplateErrorKind::FunctionFails { function: self.function, problem: problem.into() }
    }

    /// The bytes from `start` to `end`, as Go slices a text.
    fn cut(&self, text: &'a str, start: usize, end: usize) -> Result<&'a str, TemplateErrorKind> {
        if start > end || end > text.len() {
            return Err(self.fails("the text is shorter than that"));
        }
        text.get(start..end).ok_or_else(|| {
            self.fails("it counts bytes, and would cut inside a character: choose another length")
        })
    }
}

/// A list of texts as a value.
fn texts<T: Into<Arc<str>>>(texts: impl IntoIterator<Item = T>) -> Value {
    texts.into_iter().map(|text| Data::Text(text.into()).into()).collect::<Vec<Value>>().into()
}
