//! Maps, which sprig calls dicts.

use std::collections::BTreeMap;

use super::super::budget::STEP;
use super::super::error::TemplateErrorKind;
use super::super::format::plain;
use super::super::value::{Data, Value};
use super::{Call, Function, texts};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::parts("dict", 0, None, dict),
    Function::change("set", 3, Some(3), set),
    Function::change("unset", 2, Some(2), unset),
    Function::change("merge", 1, None, merge),
    Function::change("mergeOverwrite", 1, None, merge_overwrite),
    Function::parts("pluck", 1, None, pluck),
    Function::parts("keys", 0, None, keys),
    Function::parts("values", 1, Some(1), values),
    Function::parts("pick", 1, None, pick),
    Function::parts("omit", 1, None, omit),
    Function::parts("deepCopy", 1, Some(1), deep_copy),
    Function::test("hasKey", 2, Some(2), has_key),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;
type Entries = BTreeMap<String, Value>;

/// Keys and values in turn.
fn dict(call: &mut Call<'_>) -> Result {
    let mut entries = Entries::new();
    for pair in call.arguments.chunks(2) {
        let key = pair.first().unwrap_or(&Value::NIL);
        call.budget.read(key)?;
        entries.insert(plain(key), pair.get(1).cloned().unwrap_or_else(|| "".into()));
    }
    Ok(entries.into())
}

fn set(call: &mut Call<'_>) -> Result {
    let mut entries = copied(call)?;
    entries.insert(call.text(1)?.to_owned(), call.any(2).clone());
    Ok(entries.into())
}

fn unset(call: &mut Call<'_>) -> Result {
    let mut entries = copied(call)?;
    entries.remove(call.text(1)?);
    Ok(entries.into())
}

fn copied(call: &mut Call<'_>) -> Result<Entries> {
    let entries = call.map(0)?;
    call.budget.spend_times(entries.len(), STEP)?;
    Ok(entries.clone())
}

/// Adds the entries of the other maps that the first has not, or has empty.
fn merge(call: &mut Call<'_>) -> Result {
    merged(call, false)
}

/// Adds the entries of the other maps, each over those before it.
fn merge_overwrite(call: &mut Call<'_>) -> Result {
    merged(call, true)
}

fn merged(call: &mut Call<'_>, overwrites: bool) -> Result {
    let mut into = copied(call)?;
    for index in 1..call.arguments.len() {
        add_entries(call, &mut into, call.map(index)?, overwrites)?;
    }
    Ok(into.into())
}

fn add_entries(
    call: &mut Call<'_>,
    into: &mut Entries,
    from: &Entries,
    overwrites: bool,
) -> Result<()> {
    for (key, added) in from {
        call.budget.spend(STEP + key.len())?;
        let known = into.get(key).filter(|known| known.is_true());
        let replaces = match (known.map(|known| &known.data), &added.data) {
            (_, Data::Nil) => overwrites,
            (None, _) => true,
            (Some(Data::Map(known_entries)), Data::Map(added_entries)) => {
                call.budget.spend_times(known_entries.len(), STEP)?;
                let mut entries = known_entries.as_ref().clone();
                add_entries(call, &mut entries, added_entries, overwrites)?;
                let origin = known.and_then(|known| known.origin.clone());
                let entries = Value { data: Value::from(entries).data, origin };
                into.insert(key.clone(), entries.tainted(added.origin.as_ref()));
                false
            }
            // As in the original, a map replaces nothing else.
            (Some(_), Data::Map(_)) => false,
            (Some(_), _) => overwrites,
        };
        if replaces {
            into.insert(key.clone(), added.clone());
        }
    }
    Ok(())
}

/// The values of a key in several maps.
fn pluck(call: &mut Call<'_>) -> Result {
    let key = call.text(0)?;
    let mut found = Vec::new();
    for index in 1..call.arguments.len() {
        found.extend(call.map(index)?.get(key).cloned());
    }
    Ok(found.into())
}

/// Sorted, while the original has no order.
fn keys(call: &mut Call<'_>) -> Result {
    let mut keys = Vec::new();
    for index in 0..call.arguments.len() {
        let map = call.map(index)?;
        call.budget.spend_times(map.len(), STEP)?;
        keys.extend(map.keys().map(String::as_str));
    }
    Ok(texts(keys))
}

/// In the order of their keys, while the original has no order.
fn values(call: &mut Call<'_>) -> Result {
    Ok(call.map(0)?.values().cloned().collect::<Vec<_>>().into())
}

fn pick(call: &mut Call<'_>) -> Result {
    let map = call.map(0)?;
    let mut picked = Entries::new();
    for index in 1..call.arguments.len() {
        let key = call.text(index)?;
        picked.extend(map.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    Ok(picked.into())
}

fn omit(call: &mut Call<'_>) -> Result {
    let mut kept = copied(call)?;
    for index in 1..call.arguments.len() {
        kept.remove(call.text(index)?);
    }
    Ok(kept.into())
}

/// Values do not change, so a copy is the value itself.
fn deep_copy(call: &mut Call<'_>) -> Result {
    Ok(call.any(0).clone())
}

fn has_key(call: &mut Call<'_>) -> Result {
    Ok(call.map(0)?.contains_key(call.text(1)?).into())
}
