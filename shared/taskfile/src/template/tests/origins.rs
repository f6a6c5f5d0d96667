use super::*;

/// `.Values.saved`, `.Values.given`, `.Values.list`, `.Values.flag`, `.Values.number` and `.Secrets.key`, each from
/// where its name says.
fn values() -> Value {
    let from = |name: &str, trust: Trust, value: Value| {
        let (map, key) = name[1..].split_once('.').unwrap();
        let origin = Origin { name: name.into(), trust };
        (map.to_owned(), key.to_owned(), value.from_origin(origin))
    };
    let list = Value::from(vec![Value::from("a"), Value::from("b")]);
    let mut root = std::collections::BTreeMap::new();
    for (map, key, value) in [
        from(".Values.saved", Trust::Saved, "s".into()),
        from(".Values.given", Trust::Given, "g".into()),
        from(".Values.list", Trust::Given, list),
        from(".Values.flag", Trust::Given, true.into()),
        from(".Values.number", Trust::Given, 5.into()),
        from(".Secrets.key", Trust::Secret, "k".into()),
    ] {
        let map: &mut std::collections::BTreeMap<_, _> = root.entry(map).or_default();
        map.insert(key, value);
    }
    root.into_iter()
        .map(|(key, map)| (key, Value::from(map)))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into()
}

/// The pieces in a line: literals as they are, and outputs as `<text from origin>`.
fn shown(template: &str) -> String {
    let pieces = render(template, &values());
    let pieces = pieces.unwrap_or_else(|error| panic!("{template}: {error}"));
    let show = |piece: Piece| match piece.kind {
        PieceKind::Literal => {
            assert!(template[piece.at..].starts_with(&piece.text), "{template}");
            piece.text
        }
        PieceKind::NoValue => "<>".to_owned(),
        PieceKind::Output(origin) => {
            assert!(template[piece.at..].starts_with("{{"), "{template}");
            match origin {
                None => format!("<{}>", piece.text),
                Some(origin) => format!("<{} from {}>", piece.text, origin.name),
            }
        }
    };
    pieces.into_iter().map(show).collect()
}

fn shows(cases: &[(&str, &str)]) {
    for (template, pieces) in cases {
        assert_eq!(shown(template), *pieces, "{template}");
    }
}

#[test]
fn an_output_knows_where_it_is_from() {
    shows(&[
        ("a {{.Values.saved}} b", "a <s from .Values.saved> b"),
        ("{{\"x\"}}{{.Values.nope}}{{1}}", "<x><><1>"),
        (
            "{{$x := .Values.given}}{{$x}}{{with $x}}{{.}}{{end}}",
            "<g from .Values.given><g from .Values.given>",
        ),
        ("{{.Values.saved | upper | printf \"%s!\"}}", "<S! from .Values.saved>"),
        ("{{add .Values.number 1}}", "<6 from .Values.number>"),
        ("{{len .Values.given}}", "<1 from .Values.given>"),
        ("{{.Secrets.key | b64enc | quote}}", "<\"aw==\" from .Secrets.key>"),
    ]);
}

#[test]
fn the_least_trusted_origin_counts() {
    shows(&[
        ("{{print .Values.saved .Values.given}}", "<sg from .Values.given>"),
        ("{{print .Values.given .Secrets.key .Values.saved}}", "<gks from .Secrets.key>"),
        ("{{print .Values.given .Values.flag}}", "<gtrue from .Values.given>"),
        ("{{replace \"x\" .Secrets.key \"axb\"}}", "<akb from .Secrets.key>"),
        ("{{.Values.list | join \",\"}}", "<a,b from .Values.list>"),
        ("{{list \"x\" .Secrets.key | join \",\"}}", "<x,k from .Secrets.key>"),
        ("{{.Values | toJson | trunc 9}}", "<{\"flag\":t from .Values.flag>"),
        ("{{. | toJson | trunc 2}}", "<{\" from .Secrets.key>"),
    ]);
}

#[test]
fn elements_are_from_where_their_list_or_map_is_from() {
    shows(&[
        (
            "{{index .Values.list 0}}{{first .Values.list}}{{last .Values.list}}",
            "<a from .Values.list><a from .Values.list><b from .Values.list>",
        ),
        ("{{range .Values.list}}({{.}}){{end}}", "(<a from .Values.list>)(<b from .Values.list>)"),
        (
            "{{range $k, $v := dict \"x\" .Secrets.key}}{{$k}}{{$v}}{{end}}",
            "<x from .Secrets.key><k from .Secrets.key>",
        ),
        (
            "{{index .Values \"saved\"}}{{(index . \"Values\").given}}",
            "<s from .Values.saved><g from .Values.given>",
        ),
        ("{{range keys .Values | initial | initial}}{{.}},{{end}}", "<flag>,<given>,<list>,"),
        ("{{(dict \"a\" (list .Values.given)).a | first}}", "<g from .Values.given>"),
        (
            "{{(split \"\" .Values.given)._0}}{{concat .Values.list (list \"x\") | first}}",
            "<g from .Values.given><a from .Values.list>",
        ),
        ("{{$d := dict}}{{$_ := set $d \"a\" .Secrets.key}}{{$d.a}}", "<k from .Secrets.key>"),
        ("{{(merge (dict \"a\" \"x\") (dict \"b\" .Secrets.key)).b}}", "<k from .Secrets.key>"),
    ]);
}

#[test]
fn a_choice_is_from_where_the_chosen_value_is_from() {
    shows(&[
        (
            "{{.Values.nope | default \"d\"}}{{.Values.given | default \"d\"}}",
            "<d><g from .Values.given>",
        ),
        (
            "{{default .Secrets.key .Values.saved}}{{coalesce .Values.nope .Values.saved .Secrets.key}}",
            "<s from .Values.saved><s from .Values.saved>",
        ),
        (
            "{{ternary \"a\" .Secrets.key .Values.flag}}{{and .Secrets.key \"x\"}}{{or .Values.saved .Secrets.key}}",
            "<a><x><s from .Values.saved>",
        ),
    ]);
}

#[test]
fn tests_and_literals_are_from_the_template() {
    shows(&[
        (
            "{{eq .Secrets.key \"x\"}}{{not .Values.flag}}{{empty .Secrets.key}}",
            "<false><false><false>",
        ),
        (
            "{{contains \"k\" .Secrets.key}}{{hasPrefix \"x\" .Secrets.key}}{{has \"a\" .Values.list}}",
            "<true><false><true>",
        ),
        ("{{if eq .Secrets.key \"k\"}}yes{{end}}", "yes"),
        ("{{.Values.flag}}", "<true from .Values.flag>"),
        (
            "{{define \"t\"}}-{{.}}-{{end}}{{template \"t\" .Values.given}}",
            "-<g from .Values.given>-",
        ),
    ]);
}

#[test]
fn no_error_shows_a_value() {
    for (template, message) in [
        ("{{fail .Secrets.key}}", "the template fails with a message that contains `.Secrets.key`"),
        (
            "{{fail (print \"x\" .Values.given)}}",
            "the template fails with a message that contains `.Values.given`",
        ),
        ("{{semver .Secrets.key}}", "`semver` fails: the text is not a semantic version"),
        ("{{.Secrets.key.a}}", "`.Secrets.key` is text, so it has no field `a`"),
        (
            "{{regexMatch (print .Secrets.key \"(\") \"\"}}",
            "`regexMatch` fails: the pattern is not a regular expression, or has a class like `\\p{L}`, which is not available",
        ),
    ] {
        assert_eq!(render(template, &values()).unwrap_err().to_string(), message);
    }
}
