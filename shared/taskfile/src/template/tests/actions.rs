use super::*;

fn renders(cases: &[(&str, &str, &str)]) {
    for (template, json, output) in cases {
        let pieces = render(template, &data(json));
        let pieces = pieces.unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(text(&pieces), *output, "{template} with {json}");
    }
}

#[test]
fn task_files_render_as_in_the_original() {
    renders(&[
        (
            "image: {{.Run.Registry}}/app:{{.Run.ID}}\n",
            r#"{"Run": {"Registry": "r.io", "ID": "ca1"}}"#,
            "image: r.io/app:ca1\n",
        ),
        ("- {{ .Values.tag | default \"latest\" }}", r#"{"Values": {}}"#, "- latest"),
        ("{{ .Values.nope }}", r#"{"Values": {}}"#, ""),
        (
            "{{.Values.x | b64enc}} {{.Secrets.y | b64enc}}",
            r#"{"Values": {"x": "a"}, "Secrets": {}}"#,
            "YQ== ",
        ),
        (
            "steps:\n{{- range .Values.images }}\n  - build: -t {{ . }} .\n{{- end }}\n",
            r#"{"Values": {"images": ["a", "b"]}}"#,
            "steps:\n  - build: -t a .\n  - build: -t b .\n",
        ),
    ]);
}

#[test]
fn trim_markers_remove_the_space_beside_an_action() {
    print(&[
        ("a {{- 1 -}} b", "a1b"),
        ("a \n\t{{- 1 }} b", "a1 b"),
        ("a {{ 1 -}}\r\n b", "a 1b"),
        ("{{-3}}", "-3"),
        ("{{- 3 -}}", "3"),
        ("a {{- /* note */ -}} b", "ab"),
        ("a {{/* note */}} b", "a  b"),
        ("a {{/* }} {{ \" */}} b", "a  b"),
    ]);
}

#[test]
fn literals_are_those_of_go() {
    print(&[
        (r#"{{"a\tb\"\\\x41\101\u00e9\U0001F600"}}"#, "a\tb\"\\AAé😀"),
        ("{{`raw \\n \"q\" {{`}}", "raw \\n \"q\" {{"),
        ("{{'a'}} {{'\\n'}} {{'\\''}} {{'é'}}", "97 10 39 233"),
        (
            "{{12}} {{-5}} {{+5}} {{0x1F}} {{0o17}} {{017}} {{0b101}} {{1_000}}",
            "12 -5 5 31 15 15 5 1000",
        ),
        (
            "{{1.5}} {{1.0}} {{.5}} {{1e3}} {{1e6}} {{1e-7}} {{-0.25}}",
            "1.5 1 0.5 1000 1e+06 1e-07 -0.25",
        ),
        ("{{true}} {{false}}", "true false"),
        ("{{ print\n  \"a\"\n\t1 }}", "a1"),
    ]);
}

#[test]
fn fields_are_found_in_maps() {
    renders(&[
        ("{{.}}", r#""x""#, "x"),
        ("{{.a.b.c}} {{$.a.b.c}}", r#"{"a": {"b": {"c": 1}}}"#, "1 1"),
        ("{{(.a).b}} {{(index .a \"b\")}} {{$x := .a}}{{$x.b}}", r#"{"a": {"b": 2}}"#, "2 2 2"),
        ("{{.a}}|{{.a | default 3}}|{{(.a).b.c}}|{{$x := .a}}{{$x.b}}", "{}", "|3||"),
        ("{{.é_1}}", r#"{"é_1": 1}"#, "1"),
        ("{{(dict \"a\" 1).a}}", "{}", "1"),
    ]);
}

#[test]
fn variables_live_until_the_end_of_their_block() {
    print(&[
        ("{{$x := 1}}{{$x}}", "1"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{$x}}{{end}}{{$x}}", "22"),
        ("{{$x := 1}}{{$x := add $x 1}}{{$x}}", "2"),
        ("{{with $x := 5}}{{$x}}{{.}}{{end}}", "55"),
        ("{{if $x := 0}}{{else if $y := 2}}{{$x}}{{$y}}{{end}}", "02"),
        ("{{$x := 0}}{{range until 4}}{{$x = add $x .}}{{end}}{{$x}}", "6"),
        ("{{range until 2}}{{$y := .}}{{range until 2}}{{$y}}{{end}}{{end}}", "0011"),
        ("{{and false ($x := 1)}}{{$x}}", "false"),
        ("{{$ | len}}", "0"),
    ]);
}

#[test]
fn conditions_choose_a_block() {
    for (value, is_true) in [
        ("null", false),
        ("false", false),
        ("true", true),
        ("0", false),
        ("0.0", false),
        ("-1", true),
        ("\"\"", false),
        ("\"x\"", true),
        ("[]", false),
        ("[0]", true),
        ("{}", false),
        ("{\"a\": null}", true),
    ] {
        let json = format!("{{\"v\": {value}}}");
        let output = if is_true { "yes" } else { "no" };
        renders(&[("{{if .v}}yes{{else}}no{{end}}", &json, output)]);
    }
    print(&[
        ("{{if false}}a{{else if 0}}b{{else if 1}}c{{else}}d{{end}}", "c"),
        ("{{if false}}a{{else if 0}}b{{end}}", ""),
        ("{{with 0}}a{{else with 1}}b{{.}}{{else}}c{{end}}", "b1"),
        ("{{with 0}}a{{else}}{{.}}{{end}}", "map[]"),
    ]);
}

#[test]
fn ranges_go_over_lists_maps_and_numbers() {
    renders(&[
        ("{{range .}}<{{.}}>{{end}}", "[1, 2]", "<1><2>"),
        ("{{range $e := .}}{{$e}}{{end}}", "[1, 2]", "12"),
        ("{{range $i, $e := .}}{{$i}}={{$e}} {{end}}", "[\"a\", \"b\"]", "0=a 1=b "),
        ("{{range $k, $v := .}}{{$k}}={{$v}} {{end}}", r#"{"b": 2, "a": 1}"#, "a=1 b=2 "),
        ("{{range .}}a{{else}}none{{end}}", "[]", "none"),
        ("{{range .x}}a{{else}}none{{end}}", "{}", "none"),
        (
            "{{range 3}}{{.}}{{end}}{{range $i := 2}}{{$i}}{{end}}{{range 0}}a{{else}}b{{end}}",
            "{}",
            "01201b",
        ),
        (
            "{{range .}}{{if eq . 2}}{{continue}}{{end}}{{if eq . 4}}{{break}}{{end}}{{.}}{{end}}",
            "[1, 2, 3, 4, 5]",
            "13",
        ),
        ("{{range .y}}{{range $.y}}{{.}}{{end}}{{end}}", r#"{"y": [1, 2]}"#, "1212"),
        ("{{$i := 9}}{{$e := 9}}{{range $i, $e = .}}{{end}}{{$i}}{{$e}}", "[5, 6]", "16"),
    ]);
}

#[test]
fn templates_are_defined_and_called() {
    print(&[
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" 1}}{{template \"t\"}}", "<1><>"),
        ("{{template `t` \"x\"}}{{define `t`}}{{$}}{{end}}", "x"),
        ("{{block \"b\" 5}}[{{.}}]{{end}}{{template \"b\" 6}}", "[5][6]"),
        ("{{define \"t\"}} {{end}}{{define \"t\"}}a{{end}}{{template \"t\"}}", "a"),
        ("{{define \"t\"}}a{{end}}{{define \"t\"}}\n{{end}}{{template \"t\"}}", "a"),
        (
            "{{define \"d\"}}{{if gt . 0}}{{.}}{{template \"d\" (sub . 1)}}{{end}}{{end}}{{template \"d\" 3}}",
            "321",
        ),
    ]);
}

#[test]
fn pipelines_pass_the_value_as_the_last_argument() {
    print(&[
        ("{{1 | add 2 | mul 3}}", "9"),
        ("{{\"x\" | printf \"%s-%s\" \"a\"}}", "a-x"),
        ("{{(1 | add 2) | print (add 1 1)}}", "2 3"),
        ("{{add (add 1 2) (add 3 4)}}", "10"),
        ("{{list}}{{list | len}}", "[]0"),
        ("{{true | not}}", "false"),
        ("{{1 | }}", "1"),
    ]);
}
