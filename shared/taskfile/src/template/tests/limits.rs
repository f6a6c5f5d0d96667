use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::template::functions::FUNCTIONS;

/// The message of the error, which comes quickly.
fn refused(template: &str) -> String {
    refused_with(template, "{}")
}

fn refused_with(template: &str, json: &str) -> String {
    let data = data(json);
    let begins = Instant::now();
    let rendered = render(template, &data);
    let took = begins.elapsed();
    let start: String = template.chars().take(80).collect();
    let refused = match rendered {
        Ok(pieces) => panic!("{start}… renders to {} bytes", text(&pieces).len()),
        Err(error) => error.to_string(),
    };
    assert!(took < Duration::from_secs(10), "{start}… took {took:?}");
    refused
}

const TOO_MUCH_WORK: &str =
    "the template takes more than 10000000 units of work: shorten its loops and its texts";

#[test]
fn nesting_is_bounded() {
    let deep = "it is nested more than 100 deep";
    assert_eq!(refused(&"{{if 1}}".repeat(100_000)), deep);
    assert_eq!(refused(&format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000))), deep);
    assert_eq!(
        refused(&format!("{{{{print {}1{}}}}}", "(list ".repeat(101), ")".repeat(101))),
        deep
    );
    assert_eq!(refused("{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}"), deep);
    assert_eq!(refused("{{$l := list}}{{range until 1000}}{{$l = list $l}}{{end}}"), deep);
    let json = format!("{}{}", "[".repeat(120), "]".repeat(120));
    assert_eq!(refused_with("{{.}}", &json), deep);
    // As deep as it may be, in blocks, parentheses and templates together.
    let nested = format!(
        "{{{{define \"t\"}}}}{}{{{{template \"t\" {}1{}}}}}{}{{{{end}}}}{{{{template \"t\"}}}}",
        "{{if 1}}".repeat(50),
        "(print ".repeat(49),
        ")".repeat(49),
        "{{end}}".repeat(50),
    );
    assert_eq!(refused(&nested), "it is nested more than 250 deep");
    let chain = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(50_000));
    assert_eq!(text(&render(&chain, &data("{}")).unwrap()), "");
}

#[test]
fn the_output_is_bounded() {
    let long = "the output is longer than 1048576 bytes";
    assert_eq!(refused("{{repeat 1048577 \"a\"}}"), long);
    assert_eq!(refused("{{range until 1000}}{{repeat 2000 \"a\"}}{{end}}"), long);
    assert_eq!(text(&render("{{repeat 1048576 \"a\"}}", &data("{}")).unwrap()).len(), 1 << 20);
    let limits = Limits { output: 3, ..Limits::default() };
    let render = |text: &str| Template::parse(text).unwrap().render(&Value::NIL, limits);
    assert_eq!(render("abc").unwrap().len(), 1);
    assert_eq!(render("ab{{12}}").unwrap_err().to_string(), "the output is longer than 3 bytes");
}

#[test]
fn the_work_is_bounded() {
    for template in [
        "{{repeat 1000000000000 \"a\"}}",
        "{{repeat 9223372036854775807 \"ab\"}}",
        "{{indent 1000000000000 \"a\"}}",
        "{{until 9223372036854775807}}",
        "{{untilStep 0 -9223372036854775807 -1}}",
        "{{range 9223372036854775807}}{{end}}",
        "{{range $i := until 100000}}{{range until 100000}}{{end}}{{end}}",
        "{{$x := \"ab\"}}{{range until 100}}{{$x = print $x $x}}{{end}}",
        "{{$l := list 1}}{{range until 90}}{{$l = concat $l $l}}{{end}}",
        "{{$l := list 1}}{{range until 90}}{{$l = list $l $l}}{{end}}",
        "{{$d := dict \"a\" 1}}{{range until 90}}{{$d = dict \"a\" $d \"b\" $d}}{{end}}",
        "{{$l := until 10000}}{{range until 10000}}{{has -1 $l}}{{end}}",
        "{{uniq (until 100000)}}",
        "{{without (until 10000) (until 10000)}}{{range until 9999}}{{compact (until 9999)}}{{end}}",
        "{{$a := repeat 100000 \"a\"}}{{replace \"a\" $a $a}}",
        "{{$a := repeat 100000 \"a\"}}{{replace \"\" $a $a}}",
        "{{$a := repeat 100000 \"a\"}}{{trimAll $a $a}}",
        "{{$a := repeat 100000 \"a\"}}{{splitList \"\" $a | join $a}}",
        "{{$a := repeat 100000 \"a\"}}{{wrapWith 1 $a $a}}",
        "{{$a := repeat 100000 \"a\"}}{{regexReplaceAll \"(a)\" $a $a}}",
        "{{$a := repeat 100000 \"a\"}}{{regexReplaceAll \"(.*)\" $a (repeat 1000 \"$1\")}}",
        "{{regexFindAll \"a[^z]*z|a\" (repeat 10000 \"a\") -1}}",
        "{{range until 1000000}}{{regexMatch \"v[0-9]+\" \"v1\"}}{{end}}",
        "{{$a := repeat 1000000 \"a\"}}{{regexMatch \"(a{500}|b){2}\" $a}}",
        "{{$a := repeat 1000000 \"a\"}}{{range until 1000}}{{eq $a $a}}{{end}}",
        "{{$a := repeat 1000000 \"a\"}}{{range until 1000}}{{sha256sum $a}}{{end}}",
        "{{printf (repeat 1000 \"%[1]1000000d\") 1}}",
        "{{printf (repeat 1000 \"%[1]s\") (repeat 100000 \"a\")}}",
        "{{printf \"%1000000d\" (until 1000)}}",
        "{{printf \"%.1000000d\" (until 1000)}}",
        "{{printf \"%*d\" 1000000 (until 1000)}}",
        "{{define \"t\"}}{{range until 1000}}{{template \"u\"}}{{end}}{{end}}{{define \"u\"}}{{range until 1000}}{{end}}{{end}}{{template \"t\"}}",
    ] {
        assert_eq!(refused(template), TOO_MUCH_WORK, "{template}");
    }
}

#[test]
fn widths_beyond_those_of_go_are_left_out() {
    print(&[
        ("{{printf \"%100000d\" 1 | len}} {{printf \"%.70000f\" 1.5 | len}}", "100000 70002"),
        ("{{printf \"%.70000e\" 1.5 | len}} {{printf \"%.70000d\" 1 | len}}", "70006 70000"),
        ("{{printf \"%.70000g\" 1.5 | len}} {{printf \"%070000.1f\" 1.5 | len}}", "3 70000"),
        ("{{printf \"%9999999d\" 1}} {{printf \"%99999999999999999999d\" 1}}", "1 1"),
    ]);
}

#[test]
fn patterns_made_to_cost_are_refused() {
    for pattern in ["(a{1000}){1000}", "((a{100}){100}){100}", "(?i)[a-z]{1000}{100}"] {
        let refused = refused(&format!("{{{{regexMatch `{pattern}` `a`}}}}"));
        assert_eq!(refused, "`regexMatch` fails: the pattern is too large: repeat less");
    }
    let nested = format!("{{{{regexMatch `{}` `a`}}}}", "(".repeat(10_000));
    assert!(refused(&nested).starts_with("`regexMatch` fails: the pattern is not a regular"));
}

#[test]
fn parsing_takes_time_linear_in_the_text() {
    for piece in [
        "{{1}}",
        "{{$x := 1}}",
        "{{print 1 2 3}}",
        "{{- /* c */ -}} ",
        "x{{/*",
        "{{\"",
        "{{range .}}{{end}}",
        "{",
        "{{(",
        "{{if 1}}{{else if 2}}{{end}}",
    ] {
        let text = piece.repeat((1 << 20) / piece.len());
        let begins = Instant::now();
        let _ = Template::parse(&text);
        let took = begins.elapsed();
        assert!(took < Duration::from_secs(10), "{piece} took {took:?}");
    }
    let variables: String = (0..50_000).map(|n| format!("{{{{$v{n} := 1}}}}")).collect();
    let uses = "{{$v1}}".repeat(50_000);
    let begins = Instant::now();
    assert!(render(&format!("{variables}{uses}"), &Value::NIL).is_ok());
    assert!(begins.elapsed() < Duration::from_secs(10));
}

/// Templates that are nearly right.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        "\n",
        "(",
        ")",
        "|",
        ":=",
        "=",
        ",",
        ".",
        ".a",
        ".b.c",
        "$",
        "$x",
        "\"s\"",
        "`r`",
        "'c'",
        "1",
        "-2",
        "0x1F",
        "1.5",
        "nil",
        "true",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "block",
        "template",
        "break",
        "continue",
        "/*",
        "*/",
        "é",
        "list",
        "dict",
        "index",
        "printf",
        "\"%d%s\"",
        "print",
        "eq",
        "and",
        "or",
        "default",
        "split",
        "until",
        "substr",
        "trunc",
        "abbrev",
        "wrap",
        "slice",
        "set",
        "regexSplit",
        "{{end}}",
        "{{if .a}}",
        "{{range .b}}",
        "{{$x := .b}}",
        "{{else}}",
        "{{. | toJson}}",
        "{{.a}}",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_template_panics_and_each_renders_the_same_twice(template in prop_oneof![any::<String>(), fragments()]) {
        let data = data(r#"{"a": "é", "b": {"c": [1, 2.5, null]}}"#);
        prop_assert_eq!(render(&template, &data), render(&template, &data));
    }

    #[test]
    fn no_argument_makes_a_function_panic(
        name in prop::sample::select(FUNCTIONS.keys().copied().collect::<Vec<_>>()),
        arguments in prop::collection::vec(
            prop::sample::select(vec![
                "nil", "true", "0", "-1", "2", "9223372036854775807", "-9223372036854775807", "1.5", "1e300", "\"\"",
                "\"aé b\"", "\"%v%5.3q%*d%[9]d%\"", "\"(a*)+\"", "\"1.2.3-b\"", "(list)", "(list 1 nil \"é\")",
                "(dict)", "(dict \"host\" \"é:8\" \"path\" 1)", "\"http://u:p@h:1/%C3%A9?q#f\"",
            ]),
            0..5,
        ),
    ) {
        let _ = render(&format!("{{{{{name} {}}}}}", arguments.join(" ")), &Value::NIL);
    }

    #[test]
    fn a_text_without_actions_renders_to_itself(template in "[^{]*") {
        prop_assert_eq!(text(&render(&template, &Value::NIL).unwrap()), template);
    }

    #[test]
    fn a_quoted_text_is_read_back(value in any::<String>()) {
        let quoted = format::quoted(&value);
        prop_assert_eq!(literal::quoted(&quoted), Some(value));
    }
}
