//! Lists.

use super::super::budget::{Budget, STEP};
use super::super::error::TemplateErrorKind;
use super::super::value::{Data, Value};
use super::numbers::to_int;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::parts("list", 0, None, list),
    Function::parts("tuple", 0, None, list),
    Function::parts("first", 1, Some(1), first),
    Function::parts("last", 1, Some(1), last),
    Function::parts("rest", 1, Some(1), rest),
    Function::parts("initial", 1, Some(1), initial),
    Function::parts("append", 2, Some(2), append),
    Function::parts("push", 2, Some(2), append),
    Function::parts("prepend", 2, Some(2), prepend),
    Function::parts("reverse", 1, Some(1), reverse),
    Function::parts("compact", 1, Some(1), compact),
    Function::parts("uniq", 1, Some(1), uniq),
    Function::parts("without", 1, None, without),
    Function::parts("slice", 1, None, slice),
    Function::parts("concat", 0, None, concat),
    Function::test("has", 2, Some(2), has),
];

type Result<T = Value> = std::result::Result<T, TemplateErrorKind>;

fn list(call: &mut Call<'_>) -> Result {
    Ok(call.arguments.to_vec().into())
}

fn first(call: &mut Call<'_>) -> Result {
    Ok(call.list(0)?.first().cloned().unwrap_or(Value::NIL))
}

fn last(call: &mut Call<'_>) -> Result {
    Ok(call.list(0)?.last().cloned().unwrap_or(Value::NIL))
}

fn rest(call: &mut Call<'_>) -> Result {
    Ok(call.list(0)?.get(1..).unwrap_or(&[]).to_vec().into())
}

fn initial(call: &mut Call<'_>) -> Result {
    let list = call.list(0)?;
    Ok(list[..list.len().saturating_sub(1)].to_vec().into())
}

fn append(call: &mut Call<'_>) -> Result {
    let mut list = call.list(0)?.to_vec();
    list.push(call.any(1).clone());
    Ok(list.into())
}

fn prepend(call: &mut Call<'_>) -> Result {
    let mut list = vec![call.any(1).clone()];
    list.extend_from_slice(call.list(0)?);
    Ok(list.into())
}

fn reverse(call: &mut Call<'_>) -> Result {
    Ok(call.list(0)?.iter().rev().cloned().collect::<Vec<_>>().into())
}

/// The elements that are not empty.
fn compact(call: &mut Call<'_>) -> Result {
    let list = call.list(0)?;
    call.budget.spend_times(list.len(), STEP)?;
    Ok(list.iter().filter(|value| value.is_true()).cloned().collect::<Vec<_>>().into())
}

fn uniq(call: &mut Call<'_>) -> Result {
    let mut unique: Vec<Value> = Vec::new();
    for value in call.list(0)? {
        if !is_in(&unique, value, call.budget)? {
            unique.push(value.clone());
        }
    }
    Ok(unique.into())
}

fn without(call: &mut Call<'_>) -> Result {
    let mut kept = Vec::new();
    for value in call.list(0)? {
        if !is_in(call.from(1), value, call.budget)? {
            kept.push(value.clone());
        }
    }
    Ok(kept.into())
}

/// The elements from a start to an end, or to the end of the list.
fn slice(call: &mut Call<'_>) -> Result {
    let list = call.list(0)?;
    if list.is_empty() {
        return Ok(Value::NIL);
    }
    let bound = |index: usize, default: usize| match call.arguments.get(index) {
        Some(bound) => usize::try_from(to_int(bound)).ok(),
        None => Some(default),
    };
    let range = bound(1, 0).zip(bound(2, list.len()));
    let part = range.and_then(|(start, end)| list.get(start..end));
    let too_short =
        || call.fails(format!("the bounds are out of range: it has {} elements", list.len()));
    Ok(part.ok_or_else(too_short)?.to_vec().into())
}

fn concat(call: &mut Call<'_>) -> Result {
    let mut all = Vec::new();
    for index in 0..call.arguments.len() {
        let list = call.list(index)?;
        call.budget.spend_times(list.len(), STEP)?;
        // The elements leave their list, but not its origin.
        let origin = call.any(index).origin.as_ref();
        all.extend(list.iter().map(|value| value.clone().tainted(origin)));
    }
    Ok(all.into())
}

fn has(call: &mut Call<'_>) -> Result {
    if call.any(1).is_nil() {
        return Ok(false.into());
    }
    Ok(is_in(call.list(1)?, call.any(0), call.budget)?.into())
}

fn is_in(list: &[Value], value: &Value, budget: &mut Budget) -> Result<bool> {
    for element in list {
        if deep_equal(element, value, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two values are of one type and equal, wherever they are from.
pub(super) fn deep_equal(one: &Value, other: &Value, budget: &mut Budget) -> Result<bool> {
    budget.spend(STEP)?;
    match (&one.data, &other.data) {
        (Data::Text(one), Data::Text(other)) => {
            budget.spend(one.len())?;
            Ok(one == other)
        }
        (Data::List(one), Data::List(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other.iter()) {
                if !deep_equal(one, other, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Data::Map(one), Data::Map(other)) if one.len() == other.len() => {
            for ((key, one), (other_key, other)) in one.iter().zip(other.iter()) {
                if key != other_key || !deep_equal(one, other, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Data::List(_), Data::List(_)) | (Data::Map(_), Data::Map(_)) => Ok(false),
        (one, other) => Ok(one == other),
    }
}
