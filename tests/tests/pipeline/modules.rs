//! The modules of `scheduler` and `worker` have no cyclic dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The dependencies between the top-level modules of a crate, by paths that begin with `crate::`, without tests.
fn edges(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(source).unwrap();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            let text = std::fs::read_to_string(&path).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap();
            let named = edges.entry(module.to_owned()).or_default();
            for (place, _) in shipped.match_indices("crate::") {
                let rest = &shipped[place + "crate::".len()..];
                named.extend(first_segments(rest).filter(|name| name != module));
            }
        }
    }
    edges
}

/// The first segments of a path; several if it has braces.
fn first_segments(rest: &str) -> impl Iterator<Item = String> {
    let listed = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap().split(','));
    let names: Vec<&str> = match listed {
        Some(listed) => listed.collect(),
        None => vec![rest],
    };
    names.into_iter().map(|name| {
        let name = name.trim();
        let end = name.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(name.len());
        name[..end].to_owned()
    })
}

/// A dependency cycle, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    edges.keys().find_map(|start| way(edges, start, start, &mut BTreeSet::new()))
}

fn way(
    edges: &BTreeMap<String, BTreeSet<String>>,
    from: &String,
    to: &String,
    seen: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    for next in edges.get(from)? {
        if next == to {
            return Some(vec![from.clone(), to.clone()]);
        }
        if seen.insert(next.clone())
            && let Some(mut rest) = way(edges, next, to, seen)
        {
            rest.insert(0, from.clone());
            return Some(rest);
        }
    }
    None
}

#[test]
fn scheduler_and_worker_modules_have_no_cycles() {
    for name in ["scheduler", "worker"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let edges = edges(&source);
        assert!(edges.values().flatten().count() >= 8, "{name}: {edges:?}");
        // No module depends on the one that composes the others.
        let composes = if name == "worker" { "worker" } else { "scheduler" };
        let leaning = edges.iter().filter(|(from, to)| *from != "lib" && to.contains(composes));
        assert_eq!(leaning.count(), 0, "{name}: somebody names {composes}");
        assert_eq!(cycle(&edges), None, "{name}");
    }
}

#[test]
fn a_cycle_is_found() {
    let edges = |list: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in list {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(cycle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = cycle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found, Some(vec!["b".to_owned(), "c".to_owned(), "b".to_owned()]));
    assert_eq!(first_segments("{a::B, c_d::E};").collect::<Vec<_>>(), ["a", "c_d"]);
}
