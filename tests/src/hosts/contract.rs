//! Checks requests against an extract of an OpenAPI document.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;

use super::server::Asked;

/// The operations of an extract.
pub(super) struct Contract(Vec<Operation>);

/// An operation: what its requests must be, and an example of its answer.
pub(super) struct Operation {
    method: String,
    /// A word is a parameter if it is in braces.
    path: Vec<String>,
    parameters: Vec<Parameter>,
    body: Option<Validator>,
    /// The status of a successful answer.
    pub(super) status: u16,
    /// The published example of an answer.
    pub(super) example: Value,
}

struct Parameter {
    name: String,
    place: String,
    is_required: bool,
    schema: Validator,
}

#[derive(Deserialize)]
struct Extract {
    paths: BTreeMap<String, BTreeMap<String, Described>>,
}

#[derive(Deserialize)]
struct Described {
    parameters: Vec<DescribedParameter>,
    body: Option<Value>,
    answer: DescribedAnswer,
}

#[derive(Deserialize)]
struct DescribedParameter {
    name: String,
    #[serde(rename = "in")]
    place: String,
    required: bool,
    schema: Value,
}

#[derive(Deserialize)]
struct DescribedAnswer {
    status: u16,
    example: Value,
}

impl Contract {
    /// Reads an extract.
    pub(super) fn parse(extract: &str) -> Self {
        let extract: Extract = serde_json::from_str(extract).expect("an extract");
        let mut operations = Vec::new();
        for (path, methods) in extract.paths {
            let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
            for (method, described) in methods {
                operations.push(Operation::new(method.to_uppercase(), path.clone(), described));
            }
        }
        Self(operations)
    }

    /// The operation of a request; otherwise what is wrong with the request.
    pub(super) fn check(&self, asked: &Asked) -> Result<&Operation, String> {
        let words = asked.words();
        let operation = self.0.iter().find(|operation| operation.is_at(&asked.method, &words));
        let operation =
            operation.ok_or_else(|| format!("no operation {} {words:?}", asked.method))?;
        operation.check(asked, &words)?;
        Ok(operation)
    }
}

impl Operation {
    fn new(method: String, path: Vec<String>, described: Described) -> Self {
        let parameter = |parameter: DescribedParameter| Parameter {
            schema: validator(&parameter.schema),
            name: parameter.name,
            place: parameter.place,
            is_required: parameter.required,
        };
        Self {
            method,
            path,
            parameters: described.parameters.into_iter().map(parameter).collect(),
            body: described.body.as_ref().map(validator),
            status: described.answer.status,
            example: described.answer.example,
        }
    }

    fn is_at(&self, method: &str, words: &[&str]) -> bool {
        let is_word = |(own, word): (&String, &&str)| own.starts_with('{') || own == word;
        self.method == method
            && self.path.len() == words.len()
            && self.path.iter().zip(words).all(is_word)
    }

    fn check(&self, asked: &Asked, words: &[&str]) -> Result<(), String> {
        let in_path = self.path.iter().zip(words).filter_map(|(own, word)| {
            Some((own.strip_prefix('{')?.strip_suffix('}')?, *word, "path"))
        });
        let query =
            asked.query.iter().map(|(name, value)| (name.as_str(), value.as_str(), "query"));
        let given: Vec<(&str, &str, &str)> = in_path.chain(query).collect();
        for (name, text, place) in &given {
            let known = self.parameters.iter().find(|it| it.name == *name && it.place == *place);
            let known = known.ok_or_else(|| format!("no parameter `{name}` in the {place}"))?;
            // A number is sent as its digits.
            let number = text.parse::<u64>().ok().map(Value::from);
            let as_text = Value::from(*text);
            if !known.schema.is_valid(&as_text)
                && !number.is_some_and(|number| known.schema.is_valid(&number))
            {
                return Err(format!("`{text}` is no value of `{name}`"));
            }
        }
        let missing = self.parameters.iter().find(|parameter| {
            parameter.is_required && !given.iter().any(|(name, ..)| *name == parameter.name)
        });
        if let Some(missing) = missing {
            return Err(format!("`{}` is missing", missing.name));
        }
        match (&self.body, &asked.body) {
            (None, Value::Null) => Ok(()),
            (None, _) => Err("it has no body".to_owned()),
            (Some(schema), body) => check_body(schema, body),
        }
    }
}

fn check_body(schema: &Validator, body: &Value) -> Result<(), String> {
    let wrong: Vec<String> = schema
        .iter_errors(body)
        .map(|error| format!("the body at `{}`: {error}", error.instance_path()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// A body with a field that the document does not have is a misspelt one.
fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut()
        && fields.contains_key("properties")
        && !fields.contains_key("additionalProperties")
    {
        fields.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    jsonschema::draft202012::new(&schema).expect("a JSON schema")
}
