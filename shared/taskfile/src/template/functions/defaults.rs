//! Functions that choose one of their arguments, and `fail`.

use super::super::error::TemplateErrorKind;
use super::super::value::Value;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::chosen("default", 1, None, default),
    Function::chosen("coalesce", 0, None, coalesce),
    Function::chosen("ternary", 3, Some(3), ternary),
    Function::test("empty", 1, Some(1), empty),
    Function::whole("fail", 1, Some(1), fail),
    Function::whole("env", 1, Some(1), nothing),
    Function::whole("expandenv", 1, Some(1), nothing),
    Function::whole("hello", 0, Some(0), hello),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

/// sprig's notion of what is empty is the opposite of Go's truth.
fn default(call: &mut Call<'_>) -> Result {
    let given = call.any(1);
    Ok(if given.is_true() { given } else { call.any(0) }.clone())
}

fn coalesce(call: &mut Call<'_>) -> Result {
    let first = call.arguments.iter().find(|value| value.is_true());
    Ok(first.cloned().unwrap_or(Value::NIL))
}

fn ternary(call: &mut Call<'_>) -> Result {
    Ok(if call.bool(2)? { call.any(0) } else { call.any(1) }.clone())
}

fn empty(call: &mut Call<'_>) -> Result {
    Ok((!call.any(0).is_true()).into())
}

fn fail(call: &mut Call<'_>) -> Result {
    let message = call.text(0)?.to_owned();
    Err(match &call.any(0).origin {
        None => TemplateErrorKind::Failed { message },
        Some(origin) => TemplateErrorKind::FailedOn { origin: origin.name.to_string() },
    })
}

/// The environment of the worker is none of a task's business.
fn nothing(call: &mut Call<'_>) -> Result {
    call.text(0)?;
    Ok("".into())
}

fn hello(_: &mut Call<'_>) -> Result {
    Ok("Hello!".into())
}
