//! Checks the metrics in documents, rules and the dashboard against those of the program.

use std::collections::BTreeSet;

use gantry_ops::metrics::{self, Description};

use crate::prometheus::repository;

#[test]
fn the_table_of_metrics_in_the_documents_is_the_one_in_the_program() {
    let document = read("docs/telemetry.md");
    let table: Vec<&str> = document.lines().filter(|line| line.starts_with("| `gantry_")).collect();
    let program: Vec<String> = metrics::table().iter().map(row).collect();
    assert_eq!(table, program, "docs/telemetry.md should have:\n{}", program.join("\n"));
}

fn row(metric: &Description) -> String {
    let labels: Vec<String> = metric
        .labels
        .iter()
        .map(|(name, values)| match values.as_slice() {
            [] => format!("`{name}`"),
            [_only] => format!("`{name}`"),
            values => format!("`{name}`: {}", values.join(", ")),
        })
        .collect();
    let help = metric.help.trim_end_matches('.');
    format!("| `{}` | {} | {} | {help} |", metric.name, metric.kind, labels.join("; "))
}

#[test]
fn rules_and_dashboard_use_existing_metrics() {
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/dashboards/gantry.json"] {
        let asked = asked_for(&read(file));
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let unknown: Vec<&String> = asked.iter().filter(|name| !is_told(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn the_dashboard_shows_the_important_metrics() {
    let asked = asked_for(&read("deploy/grafana/dashboards/gantry.json"));
    let unseen: Vec<&str> = metrics::table()
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !asked.iter().any(|asked| asked.starts_with(name)))
        .collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// Whether a metric has a sample of this name.
fn is_told(name: &str) -> bool {
    metrics::table().iter().any(|metric| match metric.kind {
        "histogram" => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|part| name.strip_suffix(part) == Some(metric.name)),
        _ => name == metric.name,
    })
}

/// All words in a text that look like names of metrics.
fn asked_for(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("gantry_"))
        .map(str::to_owned)
        .collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}
