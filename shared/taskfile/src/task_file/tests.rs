//! What is accepted and refused, with the messages that authors read.

use proptest::prelude::*;

use super::*;
use crate::template::{Data, Trust};

/// The mistakes of a file, one a line.
fn mistakes(source: &str) -> String {
    let found = match compile(source, &Inputs::default()) {
        Ok(compiled) => compiled.warnings,
        Err(mistakes) => mistakes,
    };
    found.iter().map(|mistake| format!("{mistake}\n")).collect()
}

fn with_value(name: &str, value: &str, trust: Trust) -> Inputs {
    let mut inputs = Inputs::default();
    inputs.values.set(name, Data::Text(value.into()), trust);
    inputs
}

fn words(compiled: &Compiled, place: usize) -> Vec<&str> {
    match &compiled.task.steps[place].work {
        StepWork::Cmd(cmd) => {
            std::iter::once(&cmd.image).chain(&cmd.arguments).map(Traced::exposed).collect()
        }
        StepWork::Build(_) | StepWork::Push(_) => panic!("step {place} is no command"),
    }
}

#[test]
fn every_mistake_is_told_with_its_place_and_remedy() {
    for (source, expected) in [
        ("steps: {a: b}", "1:8: error: `steps` is a list, not a map: begin each entry with `- `\n"),
        (
            "version: 1.1.0\nsteps:\n- cmd: x\n  id: a b\n- {}\n",
            "1:10: error: `1.1.0` is no version of task files: write `v1.1.0` or `v1.0.0`\n\
             4:7: error: `a b` is no step id: 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit\n\
             5:3: error: the step does nothing: add `cmd`, `build` or `push`\n",
        ),
        (
            "steps:\n- {cmd: x, build: y}",
            "2:3: error: the step has several of `cmd`, `build` and `push`: write one step for each\n",
        ),
        (
            "steps:\n- {cmd: x, id: acb_root}",
            "2:16: error: the id `acb_root` is reserved: choose another\n",
        ),
        (
            "steps:\n- {id: a, cmd: x}\n- {id: a, cmd: x}",
            "3:3: error: another step has the id `a`: choose another\n",
        ),
        (
            "steps:\n- cmd: x\n  timeout: 5m\n  retries: -1\n  when: b",
            "3:12: error: `timeout` is a whole number without quotes or unit, not `5m`\n\
             4:12: error: `retries` is at least 0 and at most 1000, not -1\n\
             5:9: error: `when` is a list, not a text: write `when: [...]`\n",
        ),
        (
            "steps:\n- cmd: x\n  privileged: maybe\n  env: [A, =b]",
            "3:15: error: `privileged` is `true` or `false` without quotes, not `maybe`\n\
             4:9: error: the variable `A` has no value: write `NAME=VALUE`\n\
             4:12: error: `` is not a name for a variable: write `NAME=VALUE`\n",
        ),
        (
            "steps:\n- {id: builder, cmd: x}\n- {id: b, cmd: x, when: [bilder]}\n- {id: c, cmd: x, when: [c]}",
            "3:26: error: no step has the id `bilder`: did you mean `builder`?\n\
             4:26: error: the step `c` waits for itself: remove it from `when`\n",
        ),
        (
            "steps:\n- {id: a, cmd: x, when: [c]}\n- {id: b, cmd: x}\n- {id: c, cmd: x, when: [b, b]}",
            "2:3: error: these steps wait for each other: a → c → b → a: remove one from its `when`\n",
        ),
        (
            "steps:\n- {id: a, cmd: x}\n- {cmd: x, when: [\"-\", a]}",
            "3:19: error: `-` means at once, so it stands alone: remove it or the other ids\n",
        ),
        (
            "steps:\n- cmd: x | y\n",
            "2:8: error: `|` needs a shell, and none runs on the worker: run one in the container, `IMAGE sh -c '…'`, or put quotes around it\n",
        ),
        (
            "steps:\n- cmd: -it",
            "2:8: error: the command names no image: write `cmd: IMAGE ARGUMENTS`\n",
        ),
        (
            "steps:\n- cmd: --mem 1g x",
            "2:8: error: `docker run` has no option `--mem`: did you mean `--memory`?\n",
        ),
        (
            "steps:\n- cmd: --restart always x",
            "2:8: error: `docker run --restart` is not supported in a step: remove it\n",
        ),
        (
            "steps:\n- build: --push .",
            "2:10: error: a build step does not push: add a step with `push:`\n",
        ),
        (
            "steps:\n- build: -t A .",
            "2:10: error: `A` is not a name for an image: `library/A` is no repository: words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by `/`, at most 255 characters\n",
        ),
        (
            "volumes:\n- name: v 1\n  secret: {f: \"%\"}\n- name: w\nsteps: [{cmd: x, volumeMounts: [{name: u, mountPath: m}]}]",
            "2:9: error: `v 1` is not a name for a volume: use letters, digits, `-` or `_`\n\
             3:15: error: the content of `f` is not base64: write `{{ … | b64enc }}`\n\
             4:3: error: a volume has files: add `secret: {NAME: BASE64}`, the only source there is\n\
             5:9: error: the task has no volume `u`: did you mean `w`?\n\
             5:33: error: `m` is not an absolute path: begin `mountPath` with `/`\n",
        ),
        (
            "secrets: [{keyvault: x}, {id: a}]\nsteps: [{cmd: x}]",
            "1:11: error: a secret has an `id`: templates read it as `.Secrets.ID`\n\
             1:26: error: the secret `a` says not where it is: add `keyvault: URL`\n",
        ),
        (
            "a: [b",
            "1:6: error: this is not valid YAML: while parsing a flow sequence, expected ',' or ']'\n",
        ),
        (
            "steps: []\u{E000}",
            "1:10: error: this character is for private use and cannot stand in a task file: remove it\n",
        ),
        (
            "{{ if false }}x{{ end }}",
            "1:1: error: nothing is left of the file when its template is rendered\n",
        ),
    ] {
        assert_eq!(mistakes(source), expected, "{source}");
    }
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    for (source, expected) in [
        ("", "1:1: warning: the file has no steps, so a run does nothing: add `steps:`\n"),
        (
            "steps:\n- cmd: x {{ .Values.a }}{{ .Values.b | default \"c\" }}",
            "2:10: warning: `{{ .Values.a }}` prints nothing, because there is no such value: give it, or add `| default` and a text\n",
        ),
        (
            "steps:\n- cmd: x\n  tiemout: 5\n  id: a\n  id: b",
            "3:3: warning: a step has no property `tiemout`, and it is ignored: did you mean `timeout`?\n\
             5:3: warning: `id` is written twice, and the last one counts: remove one\n",
        ),
        (
            "steps:\n- {id: a, cmd: x, when: [\"-\"]}\n- {id: b, cmd: x, when: [\"-\"]}\n- {id: c, cmd: x}",
            "4:3: warning: this step waits for `b` only, and `a` may still run: if it needs both, write `when: [a, b]`\n",
        ),
        (
            "steps: [{cmd: x $HOME, exitedWith: [0]}]",
            "1:15: warning: `$HOME` is passed on as it is written, because no shell runs on the worker: put single quotes around it if a shell in the container is to expand it\n\
             1:36: warning: `exitedWith` has no effect, as in the original: the exit code 0 is success\n",
        ),
        (
            "steps: [{cmd: x, env: [A='b']}]",
            "1:24: warning: the quotes are a part of the variable's value: remove them, or put them around the whole entry\n",
        ),
    ] {
        assert_eq!(mistakes(source), expected, "{source}");
    }
}

#[test]
fn a_place_is_told_in_the_file_however_the_text_was_changed_before() {
    let source = "# a comment\nversion: v1.1.0\nalias:\n  values: {long: {{ \"a longer text\" }} }\n# another\nsteps:\n- {cmd: $long, env: [{{ \"x\" }}], id: a b}\n";
    assert_eq!(
        mistakes(source),
        "7:22: error: the variable `x` has no value: write `NAME=VALUE`\n\
         7:38: error: `a b` is no step id: 1 to 63 letters, digits, `-` or `_`, beginning with a letter or digit\n"
    );
}

#[test]
fn a_value_adds_no_step_key_or_argument() {
    let source = "steps:\n- id: a\n  cmd: x {{ .Values.v }} 'y {{ .Values.v }}'\n  env: [\"A={{ .Values.v }}\"]\n";
    for value in [
        "b c",
        "'",
        "\"",
        "]}\n- cmd: evil",
        "\n  privileged: true",
        "$(evil) `evil` ; evil",
        "#",
        "{{ .Run.ID }}",
    ] {
        for trust in [Trust::Given, Trust::Secret] {
            let compiled = compile(source, &with_value("v", value, trust)).unwrap();
            assert_eq!(compiled.task.steps.len(), 1, "{value}");
            assert_eq!(words(&compiled, 0), ["x", value, &format!("y {value}")]);
            let StepWork::Cmd(cmd) = &compiled.task.steps[0].work else { panic!("no command") };
            assert_eq!(
                (cmd.container.env[0].1.exposed(), cmd.container.privileged),
                (value, false)
            );
        }
    }
    // An option would change what the command means.
    let error = compile(
        "steps: [{cmd: \"{{ .Values.v }} x\"}]",
        &with_value("v", "--privileged", Trust::Given),
    );
    let error = error.unwrap_err()[0].message.clone();
    assert_eq!(
        error,
        "`.Values.v` begins with `-`, so it would be an option: write the option in the file"
    );
    let error = compile(
        "steps: [{cmd: x, \"{{ .Values.v }}\": 1}]",
        &with_value("v", "user", Trust::Saved),
    );
    let error = error.unwrap_err()[0].message.clone();
    assert_eq!(error, "`.Values.v` is in the name of a property: write the name out");
}

#[test]
fn a_value_that_was_saved_with_the_task_may_be_several_words() {
    let inputs = with_value("v", "-a 'b c'", Trust::Saved);
    let compiled = compile("steps: [{cmd: \"x {{ .Values.v }}\"}]", &inputs).unwrap();
    assert_eq!(words(&compiled, 0), ["x", "-a", "b c"]);
}

#[test]
fn conditions_see_the_true_values() {
    let source = "steps:\n{{ range $i, $e := splitList \",\" .Values.v }}- cmd: x {{ $e }}\n{{ end }}{{ if eq .Run.Branch \"main\" }}- push: [a]\n{{ end }}";
    let mut inputs = with_value("v", "a b,c", Trust::Given);
    inputs.run.branch = "main".to_owned();
    let compiled = compile(source, &inputs).unwrap();
    assert_eq!(compiled.task.steps.len(), 3);
    assert_eq!((words(&compiled, 0), words(&compiled, 1)), (vec!["x", "a b"], vec!["x", "c"]));
}

#[test]
fn a_value_is_typed_like_text_in_its_place() {
    let source = "steps: [{cmd: x, timeout: {{ .Values.v }}, ignoreErrors: {{ .Values.v }}}]";
    let error = compile(source, &with_value("v", "7", Trust::Given)).unwrap_err();
    assert_eq!(
        error[0].to_string(),
        "1:58: error: `ignoreErrors` is `true` or `false` without quotes, not `7`"
    );
    let compiled =
        compile("steps: [{cmd: x, timeout: {{ .Values.v }}}]", &with_value("v", "7", Trust::Given));
    assert_eq!(compiled.unwrap().task.steps[0].timeout.as_secs(), 7);
}

#[test]
fn secrets_are_named_before_they_are_known_and_never_shown() {
    let source = "secrets: [{id: a, keyvault: \"https://v.test/secrets/a\"}]\nsteps: [{cmd: \"x {{ .Secrets.a }}\", env: [\"B={{ .Secrets.a | b64enc }}\"]}]";
    let needs = needs(source, &Inputs::default()).unwrap();
    assert_eq!(needs.secrets.len(), 1);
    let mut inputs = Inputs::default();
    inputs.secrets.set("a", "s3cret");
    let compiled = compile(source, &inputs).unwrap();
    inputs.values.set("b", Data::Text("s3cret".into()), Trust::Secret);
    let shown = format!("{:?} {} {:?}", compiled, compiled.rendered, inputs.values);
    assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
    assert!(compiled.rendered.exposed().contains("x s3cret"));
    let warning = &compiled.warnings[0].message;
    assert!(warning.starts_with("`.Secrets.a` is an argument, which other processes"), "{warning}");
}

#[test]
fn a_secret_is_no_name_and_stands_in_no_message() {
    let mut inputs = Inputs::default();
    inputs.secrets.set("s", "s3cret value");
    for step in [
        "{cmd: x, id: '{{.Secrets.s}}'}",
        "{cmd: x, when: ['{{.Secrets.s}}']}",
        "{cmd: x, workingDirectory: '{{.Secrets.s}}'}",
        "{cmd: x, timeout: {{.Secrets.s}}}",
        "{cmd: x, privileged: {{.Secrets.s}}}",
        "{cmd: x, ports: ['{{.Secrets.s}}']}",
        "{cmd: x, volumeMounts: [{name: '{{.Secrets.s}}', mountPath: /m}]}",
        "{cmd: '--memory {{.Secrets.s}} x'}",
        "{cmd: '-w {{.Secrets.s}} x'}",
        "{cmd: '{{.Secrets.s}}'}",
        "{build: '-t {{.Secrets.s}} .'}",
        "{build: '--build-arg {{.Secrets.s}}=1 .'}",
        "{push: ['{{.Secrets.s}}']}",
        "{cmd: x, '{{.Secrets.s}}': y}",
        "{cmd: x, env: ['{{.Secrets.s}}']}",
    ] {
        let mistakes = compile(&format!("steps:\n- {step}"), &inputs).unwrap_err();
        assert!(!format!("{mistakes:?}").contains("s3cret"), "{step}: {mistakes:?}");
    }
}

#[test]
fn a_version_is_read_in_any_case() {
    let mut inputs = Inputs::default();
    inputs.run.id = "ca1".to_owned();
    for (version, expected) in [("V1.1.0", "ca1"), ("v1.1.0", "ca1"), ("v1.0.0", "$ID")] {
        let compiled =
            compile(&format!("version: {version}\nsteps: [{{cmd: x $ID}}]"), &inputs).unwrap();
        assert_eq!(words(&compiled, 0), ["x", expected], "{version}");
    }
}

#[test]
fn alias_files_are_named_and_then_used() {
    let source = "version: v1.1.0\nalias:\n  src: [./a.yaml, \"https://x.test/b.yaml\"]\n  values: {c: own}\nsteps: [{cmd: $a $b $c}]";
    let mut inputs = Inputs::default();
    assert_eq!(needs(source, &inputs).unwrap().alias_files, ["./a.yaml", "https://x.test/b.yaml"]);
    inputs.alias_files.insert("./a.yaml".to_owned(), "a: first\nb: first\nc: first".to_owned());
    inputs.alias_files.insert("https://x.test/b.yaml".to_owned(), "b: second".to_owned());
    assert_eq!(words(&compile(source, &inputs).unwrap(), 0), ["first", "second", "own"]);

    inputs.alias_files.insert("./a.yaml".to_owned(), "a-b: x".to_owned());
    let error = compile(source, &inputs).unwrap_err();
    assert_eq!(
        error[0].to_string(),
        "3:9: error: ./a.yaml:1:1: `a-b` is not a name for an alias: use ASCII letters and digits"
    );
}

#[test]
fn the_value_of_an_alias_is_no_template_again() {
    let source = "version: v1.1.0\nalias: {values: {a: \"{{ .Values.v }}\"}}\nsteps: [{cmd: x $a}]";
    let compiled = compile(source, &with_value("v", "{{ .Run.ID }} b", Trust::Given)).unwrap();
    assert_eq!(words(&compiled, 0), ["x", "{{ .Run.ID }} b"]);
    let source = source
        .replace("x $a", "x {{ upper \\\"$a\\\" }}")
        .replace("cmd: x", "cmd: \"x")
        .replace("}}}]", "}}\"}]");
    let error = compile(&source, &with_value("v", "b", Trust::Given)).unwrap_err();
    assert!(error[0].message.starts_with("this alias contains a value"), "{error:?}");
}

#[test]
fn yaml_that_refers_to_itself_costs_no_more_than_its_size() {
    let mut bomb = "a: &a [x]\n".to_owned();
    for level in 0..30 {
        let (own, other) = ((b'b' + level % 20) as char, (b'a' + level % 20) as char);
        bomb.push_str(&format!("{own}{level}: &{own} [*{other}, *{other}, *{other}, *{other}]\n"));
    }
    bomb.push_str("steps: [{cmd: x, env: *c}]");
    assert!(mistakes(&bomb).contains("error"), "{}", mistakes(&bomb));

    let entries: String = (0..500).map(|n| format!("k{n}: v, ")).collect();
    let merges = "- {<<: *m}\n".repeat(2000);
    let bomb = format!("m: &m {{{entries}}}\nsteps:\n{merges}");
    assert!(mistakes(&bomb).contains("aliases of YAML copy more than 1048576 bytes"));

    let bomb = format!("a: &a {}\nsteps:\n{}", "x".repeat(10_000), "- {cmd: *a}\n".repeat(1000));
    assert!(mistakes(&bomb).contains("aliases of YAML copy more than 1048576 bytes"));

    let inputs = with_value("v", &"x".repeat(10_000), Trust::Given);
    let bomb = format!(
        "version: v1.1.0\nalias: {{values: {{a: \"{{{{ .Values.v }}}}\"}}}}\nsteps: [{{cmd: \"x {}\"}}]",
        "$a ".repeat(1000)
    );
    let error = compile(&bomb, &inputs).unwrap_err();
    assert_eq!(error[0].message, "the file with all its values is longer than 2097152 bytes");
}

#[test]
fn a_large_file_is_read_or_refused_whatever_is_in_it() {
    for unit in [
        "- cmd: x\n",
        "{{ .Values.x }}",
        "$a$$b",
        "[",
        "- ",
        "# x\n",
        "'",
        "\n",
        "\\\n",
        "a: &a\n",
        "{{",
        "x: ",
        "\t",
        "- {cmd: x, env: [A=b]}\n",
    ] {
        let size = LONGEST / 8;
        mistakes(&format!("version: v1.1.0\nsteps:\n{}", unit.repeat(size / unit.len())));
        // On one line, and as one value as well.
        mistakes(&format!(
            "version: v1.1.0\nsteps: [{}",
            unit.replace('\n', ", ").repeat(size / unit.len())
        ));
        mistakes(&format!("version: v1.1.0\nx: [{}]", "a,".repeat(size / 2)));
        let text = unit.replace('\'', "''").replace('\n', "\n  ").repeat(size / unit.len());
        mistakes(&format!("version: v1.1.0\nsteps:\n- cmd: '{text}'"));
    }
    assert_eq!(
        mistakes(&"#".repeat(LONGEST + 1)),
        "1:1: error: the file is longer than 1048576 bytes\n"
    );
}

/// A value of the schema's type, as YAML.
fn example(property: &serde_json::Value) -> String {
    if let Some(first) = property["enum"].as_array().and_then(|values| values.first()) {
        return first.to_string();
    }
    let of_type = |name: &str| property["type"] == name || property["type"][0] == name;
    match property["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        Some("integer") => "1".to_owned(),
        Some("boolean") => "true".to_owned(),
        Some("env") => "[A=b]".to_owned(),
        Some(other) => format!("{{{other}: x}}"),
        None if of_type("array") => format!("[{}]", example(&property["items"])),
        None if of_type("object") => "{}".to_owned(),
        None if of_type("boolean") => "true".to_owned(),
        None if of_type("integer") => "1".to_owned(),
        None => "x".to_owned(),
    }
}

#[test]
fn the_schema_for_editors_names_the_properties_that_are_read() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../acr-task.schema.json")).unwrap();
    let names = |object: &serde_json::Value| -> Vec<String> {
        let properties = object["properties"].as_object().unwrap();
        properties.iter().map(|(name, property)| format!("{name}: {}", example(property))).collect()
    };
    let step = &schema["definitions"]["step"];
    let of_step = names(step).join(", ");
    let of_task =
        names(&schema).into_iter().filter(|name| !name.starts_with("steps:")).collect::<Vec<_>>();
    let lists = ["secrets", "networks", "volumes"].map(|list| {
        format!("{list}: [{{{}}}]", names(&schema["properties"][list]["items"]).join(", "))
    });
    let mounts = names(&step["properties"]["volumeMounts"]["items"]).join(", ");
    for source in [
        format!("{}\nsteps: [{{{of_step}}}]", of_task.join("\n")),
        format!("{}\nsteps: [{{cmd: x, volumeMounts: [{{{mounts}}}]}}]", lists.join("\n")),
    ] {
        let found = mistakes(&source);
        assert!(!found.contains("has no property"), "{source}\n{found}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(source in "(\\PC|[\n:\\-\\[\\]{}$'\"|>&*#. ]|steps|cmd|when|\\{\\{|\\}\\}){0,60}") {
        mistakes(&format!("version: v1.1.0\n{source}"));
        mistakes(&format!("steps:\n- cmd: {source}"));
    }

    #[test]
    fn no_value_adds_a_word(value in "\\PC*") {
        let compiled = compile("steps: [{cmd: \"x {{ .Values.v }} y\"}]", &with_value("v", &value, Trust::Given));
        let Ok(compiled) = compiled else { return Err(TestCaseError::fail("refused")) };
        let expected = if value.is_empty() { vec!["x", "y"] } else { vec!["x", value.as_str(), "y"] };
        prop_assert_eq!(words(&compiled, 0), expected);
    }
}
