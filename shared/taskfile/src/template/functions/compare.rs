//! `eq` and the other comparisons of Go's templates.

use std::cmp::Ordering;

use super::super::error::TemplateErrorKind;
use super::super::value::{Data, Value};
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::test("eq", 2, None, eq),
    Function::test("ne", 2, Some(2), ne),
    Function::test("lt", 2, Some(2), lt),
    Function::test("le", 2, Some(2), le),
    Function::test("gt", 2, Some(2), gt),
    Function::test("ge", 2, Some(2), ge),
];

type Result<T> = std::result::Result<T, TemplateErrorKind>;

/// Whether the first argument equals one of the others.
fn eq(call: &mut Call<'_>) -> Result<Value> {
    for other in call.from(1) {
        if equal(call, call.any(0), other)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn ne(call: &mut Call<'_>) -> Result<Value> {
    Ok((!equal(call, call.any(0), call.any(1))?).into())
}

fn lt(call: &mut Call<'_>) -> Result<Value> {
    Ok((order(call)? == Some(Ordering::Less)).into())
}

fn le(call: &mut Call<'_>) -> Result<Value> {
    Ok(matches!(order(call)?, Some(Ordering::Less | Ordering::Equal)).into())
}

fn gt(call: &mut Call<'_>) -> Result<Value> {
    // As in Go, the inverse of `le`, also for what is no number.
    Ok((!matches!(order(call)?, Some(Ordering::Less | Ordering::Equal))).into())
}

fn ge(call: &mut Call<'_>) -> Result<Value> {
    Ok((order(call)? != Some(Ordering::Less)).into())
}

fn equal(call: &Call<'_>, one: &Value, other: &Value) -> Result<bool> {
    match (&one.data, &other.data) {
        (Data::Bool(one), Data::Bool(other)) => Ok(one == other),
        (Data::Int(one), Data::Int(other)) => Ok(one == other),
        (Data::Float(one), Data::Float(other)) => Ok(one == other),
        (Data::Text(one), Data::Text(other)) => Ok(one == other),
        (Data::Nil, other) | (other, Data::Nil) => Ok(matches!(other, Data::Nil)),
        _ => Err(incomparable(call, one, other)),
    }
}

/// `None` for what is no number.
fn order(call: &Call<'_>) -> Result<Option<Ordering>> {
    let (one, other) = (call.any(0), call.any(1));
    match (&one.data, &other.data) {
        (Data::Int(one), Data::Int(other)) => Ok(Some(one.cmp(other))),
        (Data::Float(one), Data::Float(other)) => Ok(one.partial_cmp(other)),
        (Data::Text(one), Data::Text(other)) => Ok(Some(one.cmp(other))),
        _ => Err(incomparable(call, one, other)),
    }
}

fn incomparable(call: &Call<'_>, one: &Value, other: &Value) -> TemplateErrorKind {
    let (one, other) = (one.kind(), other.kind());
    call.fails(format!("it cannot compare {one} with {other}: convert with `int` or `toString`"))
}
