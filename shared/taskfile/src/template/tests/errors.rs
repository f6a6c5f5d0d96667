use super::*;

fn fails(cases: &[(&str, usize, &str)]) {
    for (template, at, message) in cases {
        let json = r#"{"Values": {"text": "t", "number": 1}}"#;
        assert_eq!(error(template, json), (*at, (*message).to_owned()), "{template}");
    }
}

#[test]
fn a_template_that_cannot_be_parsed_says_where() {
    fails(&[
        ("a {{ .x", 2, "the action is not closed: add `}}`"),
        ("a {{/* x", 2, "the comment is not closed: add `*/}}`"),
        (
            "{{/* x */ 1}}",
            0,
            "a comment must be alone in its action: write `}}` directly after `*/`",
        ),
        ("{{ \"a }}", 3, "the quote \" is not closed on the same line: add \""),
        ("{{ 'a }}", 3, "the quote ' is not closed on the same line: add '"),
        ("{{ `a }}", 3, "the raw string is not closed: add a backquote"),
        ("{{ (1 }}", 3, "the parenthesis is not closed: add `)`"),
        ("{{ 1) }}", 4, "unexpected `)` in an action"),
        ("{{ $x+1 }}", 5, "unexpected `+` in an action"),
        ("{{ .a! }}", 5, "unexpected `!` in an action"),
        ("{{ 1.2.3 }}", 3, "`1.2.3` is not a number that a template can hold"),
        ("{{ 1i }}", 3, "`1i` is not a number that a template can hold"),
        (
            "{{ 9223372036854775808 }}",
            3,
            "`9223372036854775808` is not a number that a template can hold",
        ),
        (
            r#"{{ "\q" }}"#,
            3,
            "\"\\q\" has an escape that Go does not know: use a raw string in backquotes",
        ),
        ("{{ nope 1 }}", 3, "there is no function `nope`"),
        ("{{ Run.ID }}", 3, "there is no function `Run`: did you mean `.Run`?"),
        (
            "{{ $x }}",
            3,
            "the variable `$x` is not declared here: write `$x :=` in this block or around it",
        ),
        (
            "{{ $x = 1 }}",
            3,
            "the variable `$x` is not declared here: write `$x :=` in this block or around it",
        ),
        (
            "{{if true}}{{$x := 1}}{{else}}{{$x}}{{end}}",
            32,
            "the variable `$x` is not declared here: write `$x :=` in this block or around it",
        ),
        (
            "{{$x := 1}}{{define \"t\"}}{{$x}}{{end}}",
            27,
            "the variable `$x` is not declared here: write `$x :=` in this block or around it",
        ),
        ("{{}}", 2, "the action has no value"),
        ("{{if}}{{end}}", 4, "if has no value"),
        ("{{print ()}}", 9, "the parenthesis has no value"),
        ("{{1 | 2}}", 6, "only a function can follow `|`"),
        ("{{ | 2}}", 3, "unexpected `|` in the action"),
        ("{{nil}}", 2, "`nil` cannot stand alone"),
        ("{{\"a\".b}}", 5, "unexpected `.b` in a literal"),
        ("{{print if}}", 8, "unexpected `if` in the action"),
        ("{{$a, $b := 1}}", 4, "unexpected `,` in the action"),
        ("a {{if true}} b", 2, "`if` is not ended: add `{{end}}`"),
        ("{{range .}}{{else}}", 0, "`range` is not ended: add `{{end}}`"),
        ("a {{end}}", 2, "`end` is not inside `if`, `with` or `range`"),
        ("a {{else}}", 2, "`else` is not inside `if`, `with` or `range`"),
        ("{{if 1}}{{else}}{{else}}{{end}}", 0, "`else` is not inside `if`, `with` or `range`"),
        ("{{if 1}}{{else with 2}}{{end}}", 15, "unexpected `with` in `else`"),
        ("{{break}}", 0, "`break` is not inside `range`"),
        (
            "{{range .}}{{block \"b\" .}}{{continue}}{{end}}{{end}}",
            26,
            "`continue` is not inside `range`",
        ),
        (
            "{{if 1}}{{define \"t\"}}{{end}}{{end}}",
            8,
            "`define` is not inside the top level of the template",
        ),
        ("{{template x}}", 11, "unexpected `x` in `template`"),
        (
            "{{define \"t\"}}a{{end}}{{define \"t\"}}b{{end}}",
            22,
            "the template `t` is defined twice",
        ),
    ]);
}

#[test]
fn what_does_not_render_the_same_each_time_is_refused() {
    fails(&[
        (
            "{{ randAlpha 5 }}",
            3,
            "`randAlpha` is not available: a task file renders to the same text each time",
        ),
        (
            "{{ now }}",
            3,
            "`now` is not available: a task file does not read the clock or a time zone: use `.Run.Date`, or a value given to the run",
        ),
        (
            "{{ genCA \"a\" 1 }}",
            3,
            "`genCA` is not available: a task file does not make keys or passwords: give them as secrets",
        ),
        ("{{ call .f }}", 3, "`call` is not available: no value is a function"),
    ]);
}

#[test]
fn a_field_of_nothing_says_how_to_write_it() {
    fails(&[
        (
            "{{ .Values.a.b }}",
            3,
            "`.Values.a` is not set, so it has no field `b`: if it may be missing, write `(.Values.a).b | default \"…\"`, or use `with`",
        ),
        (
            "{{ $.a.b.c }}",
            3,
            "`$.a` is not set, so it has no field `b`: if it may be missing, write `($.a).b | default \"…\"`, or use `with`",
        ),
        ("{{ .Values.text.b }}", 3, "`.Values.text` is text, so it has no field `b`"),
        ("{{ (list 1).b }}", 3, "`(list 1)` is a list, so it has no field `b`"),
        (
            "{{ range list 1 }}{{ .a }}{{ end }}",
            21,
            "`.` is a whole number, so it has no field `a`",
        ),
    ]);
}

#[test]
fn functions_check_their_arguments() {
    fails(&[
        ("{{ upper 1 }}", 3, "argument 1 of `upper` must be text, and is a whole number"),
        (
            "{{ .Values.nope | upper }}",
            18,
            "argument 1 of `upper` must be text, and is nil: give a value, or a `default`",
        ),
        (
            "{{ \"5\" | repeat \"a\" }}",
            9,
            "argument 1 of `repeat` must be a whole number, and is text",
        ),
        (
            "{{ trunc 1.0 \"a\" }}",
            3,
            "argument 1 of `trunc` must be a whole number, and is a number with a fraction",
        ),
        ("{{ trunc }}", 3, "`trunc` takes 2 arguments, and gets 0"),
        ("{{ upper \"a\" \"b\" }}", 3, "`upper` takes 1 argument, and gets 2"),
        ("{{ eq 1 }}", 3, "`eq` takes at least 2 arguments, and gets 1"),
        (
            "{{ ternary 1 2 3 }}",
            3,
            "argument 3 of `ternary` must be true or false, and is a whole number",
        ),
        (
            "{{ first nil }}",
            3,
            "argument 1 of `first` must be a list, and is nil: give a value, or a `default`",
        ),
        ("{{ keys 1 }}", 3, "argument 1 of `keys` must be a map, and is a whole number"),
        (
            "{{ eq 1 \"1\" }}",
            3,
            "`eq` fails: it cannot compare a whole number with text: convert with `int` or `toString`",
        ),
        (
            "{{ lt nil 1 }}",
            3,
            "`lt` fails: it cannot compare nil with a whole number: convert with `int` or `toString`",
        ),
        (
            "{{ index (list 1) 1 }}",
            3,
            "`index` fails: the index is out of range: it has 1 elements",
        ),
        (
            "{{ index (list 1) -1 }}",
            3,
            "`index` fails: the index is out of range: it has 1 elements",
        ),
        (
            "{{ index (list 1) \"a\" }}",
            3,
            "argument 2 of `index` must be a whole number, and is text",
        ),
        ("{{ index nil 1 }}", 3, "`index` fails: nil has no elements"),
        (
            "{{ slice (list 1) 2 }}",
            3,
            "`slice` fails: the bounds are out of range: it has 1 elements",
        ),
        ("{{ div 1 0 }}", 3, "`div` fails: it cannot divide by zero"),
        ("{{ repeat -1 \"a\" }}", 3, "`repeat` fails: a length is negative"),
        (
            "{{ trunc 1 \"é\" }}",
            3,
            "`trunc` fails: it counts bytes, and would cut inside a character: choose another length",
        ),
        ("{{ substr 3 -1 \"a\" }}", 3, "`substr` fails: the text is shorter than that"),
        ("{{ b64dec \"!\" }}", 3, "`b64dec` fails: the text is not Base64"),
        ("{{ b64dec \"/w==\" }}", 3, "`b64dec` fails: the decoded bytes are not UTF-8"),
        (
            "{{ regexMatch \"(\" \"\" }}",
            3,
            "`regexMatch` fails: the pattern is not a regular expression, or has a class like `\\p{L}`, which is not available",
        ),
        ("{{ semver \"x\" }}", 3, "`semver` fails: the text is not a semantic version"),
        (
            "{{ semverCompare \"=>=1\" \"1\" }}",
            3,
            "`semverCompare` fails: the first argument is not a constraint on versions",
        ),
        (
            "{{ urlParse \"http://a:b\" }}",
            3,
            "`urlParse` fails: the text is not a URL: check its port and its `%` escapes",
        ),
        ("{{ .Values.text 1 }}", 3, "`.Values.text` is no function, so it takes no arguments"),
        ("{{ 1 | .Values.text }}", 7, "`.Values.text` is no function, so it takes no arguments"),
        (
            "{{ range \"abc\" }}{{ end }}",
            9,
            "`range` goes over a list, a map or a whole number, and this is text",
        ),
        ("{{ range $a, $b := 3 }}{{ end }}", 9, "`range` over a number has one variable"),
        ("{{ template \"t\" }}", 0, "the template `t` is not defined: add `{{define \"t\"}}`"),
        ("{{ fail \"use v2\" }}", 3, "the template fails: use v2"),
    ]);
}

#[test]
fn a_mistake_in_a_branch_that_is_not_taken_does_not_matter() {
    print(&[("{{if false}}{{template \"t\"}}{{div 1 0}}{{upper 1}}{{end}}", "")]);
}
