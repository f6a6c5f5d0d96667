//! Checks the alert rules and the configuration that come with gantry with promtool.

use std::process::Command;

use crate::prometheus::repository;

#[test]
fn prometheus_configuration_and_alert_rules_are_valid() {
    promtool(&["check", "config", "deploy/prometheus/prometheus.yml"]);
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alerts.yml"]);
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() {
    promtool(&["test", "rules", "deploy/prometheus/alerts_test.yml"]);
}

#[test]
fn every_alert_is_tested() {
    let read = |name: &str| {
        std::fs::read_to_string(repository().join("deploy/prometheus").join(name)).unwrap()
    };
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut untested: Vec<&str> = alerts.collect();
    assert!(untested.len() > 5, "{rules}");
    untested.retain(|alert| !tests.contains(&format!("name: {alert} fires\n")));
    assert!(untested.is_empty(), "{untested:?}");
}

fn promtool(arguments: &[&str]) {
    let checked =
        Command::new("promtool").args(arguments).current_dir(repository()).output().unwrap();
    assert!(
        checked.status.success(),
        "promtool {arguments:?}\n{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
}
