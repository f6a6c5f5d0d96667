//! Checks the allowed dependencies between crates, as in the table of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use gantry_domain::hook::Provider;

use super::documents::sources;

const ALLOWED: &[(&str, &[&str])] = &[
    ("gantry-domain", &[]),
    ("gantry-api", &[]),
    ("gantry-taskfile", &["gantry-domain"]),
    ("gantry-ops", &["gantry-domain"]),
    ("gantry-remote", &["gantry-domain", "gantry-ops"]),
    ("gantry-seams", &["gantry-domain", "gantry-taskfile"]),
    ("gantry-sqlite", &["gantry-domain", "gantry-seams"]),
    ("gantry-local", &["gantry-domain", "gantry-seams"]),
    ("gantry-amqp", &["gantry-domain", "gantry-seams"]),
    ("gantry-redis", &["gantry-domain", "gantry-seams"]),
    ("gantry-objects", &["gantry-seams"]),
    ("gantry-ingress", INGRESS),
    ("gantry-scheduler", SHARED),
    ("gantry-worker", SHARED),
];

/// What all three roles may depend on: not on each other, and on no adapter.
const SHARED: &[&str] =
    &["gantry-domain", "gantry-taskfile", "gantry-seams", "gantry-ops", "gantry-remote"];

/// Additional dependencies of the role that serves the API.
const INGRESS: &[&str] = &[
    "gantry-api",
    "gantry-domain",
    "gantry-taskfile",
    "gantry-seams",
    "gantry-ops",
    "gantry-remote",
];

/// These compose the others, and may depend on everything.
const COMPOSERS: &[&str] = &["gantry", "gantry-tests"];

#[test]
fn every_crate_knows_only_whom_it_may() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, known)| (*name, known.iter().copied().collect())).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|one| one["name"].as_str().unwrap()).collect();
    let mut mistakes = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if COMPOSERS.contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            mistakes.push(format!("{name} is not in the table"));
            continue;
        };
        // Tests may depend on an adapter; shipped code may not.
        let shipped = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap())
            .filter(|dependency| names.contains(dependency));
        mistakes.extend(
            shipped
                .filter(|dependency| !allowed.contains(dependency))
                .map(|dependency| format!("{name} knows {dependency}")),
        );
    }
    assert_eq!(mistakes, Vec::<String>::new());
}

/// Names that a part or file must not contain.
const BELOW: &[(&str, &[&str])] = &[
    ("cli/src/client", &["gantry_ingress"]),
    ("ingress/src/usecase", &["actix", "crate::api", "crate::error"]),
    ("ingress/src/refusal.rs", &["actix", "gantry_api", "crate::"]),
    ("ingress/src/access", &["crate::api"]),
    ("ingress/src/error.rs", &["crate::api"]),
    ("ingress/src/hooks", &["crate::api"]),
    ("ingress/src/logs", &["crate::api"]),
];

#[test]
fn no_part_names_what_stands_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut mistakes = Vec::new();
    for (part, above) in BELOW {
        let path = root.join(part);
        let files = if path.is_dir() { sources(&path) } else { vec![path] };
        assert!(!files.is_empty(), "{part} is empty");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let named = above.iter().filter(|word| text.contains(**word));
            mistakes.extend(named.map(|word| format!("{} names {word}", file.display())));
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
}

/// The only folder that distinguishes providers.
const PROVIDERS: &str = "ingress/src/hooks/provider";

#[test]
fn nothing_names_a_provider_but_its_module_and_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let table = Path::new(PROVIDERS).join("mod.rs");
    let (mut named, mut mistakes) = (0, Vec::new());
    for folder in ["shared", "ingress", "scheduler", "worker", "cli"] {
        for file in sources(&root.join(folder)) {
            let path = file.strip_prefix(root).unwrap();
            if is_test(path) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap();
            for provider in Provider::ALL {
                let module = format!("{}.rs", provider.as_str().replace('-', "_"));
                let module = Path::new(PROVIDERS).join(module);
                let names = [format!("Provider::{provider:?}"), format!("Sender::{provider:?}")];
                if !names.iter().any(|name| shipped.contains(name)) {
                    continue;
                } else if path == table || path == module {
                    named += 1;
                } else {
                    mistakes.push(format!("{} names {provider}", path.display()));
                }
            }
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
    assert_eq!(named, 2 * Provider::ALL.len(), "each is in the table and in its module");
}

fn is_test(path: &Path) -> bool {
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    parts.any(|part| part == "tests" || part == "tests.rs")
}
