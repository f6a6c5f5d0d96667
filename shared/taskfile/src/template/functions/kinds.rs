//! Functions that tell what a value is.

use super::super::error::TemplateErrorKind;
use super::super::format::type_name;
use super::super::value::{Data, Value};
use super::lists::deep_equal;
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::parts("kindOf", 1, Some(1), kind_of),
    Function::test("kindIs", 2, Some(2), kind_is),
    Function::parts("typeOf", 1, Some(1), type_of),
    Function::test("typeIs", 2, Some(2), type_is),
    Function::test("typeIsLike", 2, Some(2), type_is),
    Function::test("deepEqual", 2, Some(2), equals),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

fn kind_of(call: &mut Call<'_>) -> Result {
    Ok(kind(call.any(0)).into())
}

fn kind_is(call: &mut Call<'_>) -> Result {
    Ok((call.text(0)? == kind(call.any(1))).into())
}

fn type_of(call: &mut Call<'_>) -> Result {
    Ok(type_name(call.any(0)).into())
}

fn type_is(call: &mut Call<'_>) -> Result {
    Ok((call.text(0)? == type_name(call.any(1))).into())
}

fn equals(call: &mut Call<'_>) -> Result {
    Ok(deep_equal(call.any(0), call.any(1), call.budget)?.into())
}

fn kind(value: &Value) -> &'static str {
    match &value.data {
        Data::Nil => "invalid",
        Data::Bool(_) => "bool",
        Data::Int(_) => "int",
        Data::Float(_) => "float64",
        Data::Text(_) => "string",
        Data::List(_) => "slice",
        Data::Map(_) => "map",
    }
}
