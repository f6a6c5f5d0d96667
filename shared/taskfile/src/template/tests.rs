//! What templates render to, by area. Each case is a template, its data as JSON, and its output.

use super::*;

mod actions;
mod errors;
mod functions;
mod limits;
mod origins;
mod printing;

fn data(json: &str) -> Value {
    serde_json::from_str::<serde_json::Value>(json).unwrap().into()
}

fn render(template: &str, data: &Value) -> Result<Vec<Piece>, TemplateError> {
    Template::parse(template)?.render(data, Limits::default())
}

fn text(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

/// Templates that need no data, with their outputs.
fn print(cases: &[(&str, &str)]) {
    for (template, output) in cases {
        let pieces = render(template, &data("{}"));
        let pieces = pieces.unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(text(&pieces), *output, "{template}");
    }
}

/// The place and the message of the error.
fn error(template: &str, json: &str) -> (usize, String) {
    match render(template, &data(json)) {
        Ok(pieces) => panic!("{template} renders to {:?}", text(&pieces)),
        Err(error) => (error.at, error.to_string()),
    }
}
