//! Templates of task files from strangers.

use std::collections::BTreeMap;

use gantry_taskfile::template::{Data, Limits, Origin, PieceKind, Template, Trust, Value};

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "template",
    run: template,
    words: &[
        "{{ ",
        " }}",
        "{{- ",
        " -}}",
        "{{/* ",
        " */}}",
        "{{ if ",
        "{{ else }}",
        "{{ end }}",
        "{{ range ",
        "{{ with ",
        "{{ define \"a\" }}",
        "{{ template \"a\" . }}",
        "$x := ",
        " | ",
        ".Values.v",
        ".List",
        "printf \"%v\" ",
        "repeat 9 ",
        "default ",
        "index ",
        "regexReplaceAll ",
        "splitList ",
        "(",
        ")",
        "`",
        "\"",
    ],
};

/// A template renders to the same text each time, within its limits. What is not computed from a value has no origin.
fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let origin = Origin { name: ".Values.v".into(), trust: Trust::Given };
    let value = Value { data: Data::Text("7f3a".into()), origin: Some(origin) };
    let values = Value::from(BTreeMap::from([("v".to_owned(), value)]));
    let list = Value::from(vec![Value::from(1), Value::from("b")]);
    let data =
        Value::from(BTreeMap::from([("Values".to_owned(), values), ("List".to_owned(), list)]));
    let Ok(pieces) = template.render(&data, Limits::default()) else { return };
    assert_eq!(template.render(&data, Limits::default()).expect("it rendered before"), pieces);
    assert!(pieces.iter().map(|piece| piece.text.len()).sum::<usize>() <= 1 << 20);
    for piece in pieces {
        match piece.kind {
            PieceKind::Literal => assert_eq!(
                text.get(piece.at..piece.at + piece.text.len()),
                Some(piece.text.as_str())
            ),
            PieceKind::Output(Some(_)) | PieceKind::NoValue => {}
            PieceKind::Output(None) => {
                assert!(!piece.text.contains("7f3a") || text.contains("7f3a"), "{}", piece.text);
            }
        }
    }
}
