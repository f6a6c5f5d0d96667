//! Task files and files of values from strangers.

use gantry_taskfile::task_file::{self, Inputs, Mistake, Values};
use gantry_taskfile::template::{Data, Trust};

use super::Target;

pub(super) const TASK_FILE: Target = Target {
    name: "task_file",
    run: task_file,
    words: &[
        "version: v1.1.0\n",
        "alias:\n  values: {a: b}\n",
        "steps:\n- cmd: ",
        "\n  when: [\"-\"]",
        "\n  env: [A=b]",
        "\n- build: -t a .",
        "\n- push: [a]",
        "$a",
        "$$",
        "{{ .Values.v }}",
        "{{ .Secrets.s }}",
        "{{ .Run.Branch }}",
        "{{ range ",
        "{{ end }}",
        "&a ",
        "*a",
        "<<: ",
        "'",
        "\"",
        "|\n  ",
        ">-\n  ",
        "\u{e000}0\u{e001}",
    ],
};

pub(super) const VALUES: Target = Target {
    name: "values",
    run: values,
    words: &["a: ", "- ", "[", "{", "&a ", "*a", "<<: ", "1e9", "~", "\n"],
};

/// No source has it.
const SECRET: &str = "never-shown-7f3a";

/// A file compiles to the same task each time; its mistakes are few and short; its secret is never shown.
fn task_file(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let mut inputs = Inputs::default();
    inputs.values.set("v", Data::Text("]}\n- cmd: x '\" {{ $(y)".into()), Trust::Given);
    inputs.secrets.set("s", SECRET);
    let shown = match task_file::compile(source, &inputs) {
        Ok(compiled) => {
            let again = task_file::compile(source, &inputs).expect("it compiled before");
            assert_eq!((&again.task, &again.rendered), (&compiled.task, &compiled.rendered));
            assert!(compiled.task.steps.len() <= 1000);
            assert_short(&compiled.warnings);
            format!("{:?} {}", compiled, compiled.rendered)
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert_short(&mistakes);
            format!("{mistakes:?}")
        }
    };
    assert!(!shown.contains(SECRET), "{shown}");
    let _needs = task_file::needs(source, &inputs);
}

fn assert_short(mistakes: &[Mistake]) {
    assert!(mistakes.len() <= 200, "{}", mistakes.len());
    for mistake in mistakes {
        assert!(mistake.position.line > 0 && mistake.position.column > 0);
    }
}

/// A file is read, or refused with a reason.
fn values(bytes: &[u8]) {
    let Ok(file) = std::str::from_utf8(bytes) else { return };
    if let Err(mistakes) = Values::default().add_file(file, Trust::Saved) {
        assert!(!mistakes.is_empty());
        assert_short(&mistakes);
    }
}
