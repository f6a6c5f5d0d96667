//! Arithmetic and conversions to numbers.

use std::num::IntErrorKind;

use super::super::budget::STEP;
use super::super::error::TemplateErrorKind;
use super::super::format::plain;
use super::super::value::{Data, Value};
use super::{Call, Function};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::whole("int", 1, Some(1), int),
    Function::whole("int64", 1, Some(1), int),
    Function::whole("float64", 1, Some(1), float64),
    Function::whole("atoi", 1, Some(1), atoi),
    Function::whole("toDecimal", 1, Some(1), to_decimal),
    Function::whole("add1", 1, Some(1), add1),
    Function::whole("add", 0, None, add),
    Function::whole("sub", 2, Some(2), sub),
    Function::whole("mul", 1, None, mul),
    Function::whole("div", 2, Some(2), div),
    Function::whole("mod", 2, Some(2), modulo),
    Function::whole("max", 1, None, max),
    Function::whole("biggest", 1, None, max),
    Function::whole("min", 1, None, min),
    Function::whole("ceil", 1, Some(1), ceil),
    Function::whole("floor", 1, Some(1), floor),
    Function::whole("round", 2, None, round),
    Function::whole("until", 1, Some(1), until),
    Function::whole("untilStep", 3, Some(3), until_step),
    Function::whole("plural", 3, Some(3), plural),
];

type Result = std::result::Result<Value, TemplateErrorKind>;

/// A value as a whole number. What is no number is 0.
pub(super) fn to_int(value: &Value) -> i64 {
    match &value.data {
        Data::Bool(value) => i64::from(*value),
        Data::Int(number) => *number,
        Data::Float(number) => truncated(*number),
        Data::Text(text) => text.parse().unwrap_or(0),
        Data::Nil | Data::List(_) | Data::Map(_) => 0,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "`as` takes the nearest number")]
fn truncated(number: f64) -> i64 {
    number as i64
}

fn to_float(value: &Value) -> f64 {
    match &value.data {
        Data::Float(number) => *number,
        Data::Text(text) => text.parse().unwrap_or(0.0),
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::List(_) | Data::Map(_) => {
            to_int(value) as f64
        }
    }
}

fn ints(call: &Call<'_>) -> impl Iterator<Item = i64> {
    call.arguments.iter().map(to_int)
}

fn int(call: &mut Call<'_>) -> Result {
    Ok(to_int(call.any(0)).into())
}

fn float64(call: &mut Call<'_>) -> Result {
    Ok(to_float(call.any(0)).into())
}

fn atoi(call: &mut Call<'_>) -> Result {
    let number = match call.text(0)?.parse() {
        Ok(number) => number,
        Err(error) => limit(&error),
    };
    Ok(number.into())
}

/// What Go's `Atoi` returns beside its error, which sprig ignores.
fn limit(error: &std::num::ParseIntError) -> i64 {
    if *error.kind() == IntErrorKind::PosOverflow {
        i64::MAX
    } else if *error.kind() == IntErrorKind::NegOverflow {
        i64::MIN
    } else {
        0
    }
}

/// The number whose octal digits are written.
fn to_decimal(call: &mut Call<'_>) -> Result {
    Ok(i64::from_str_radix(&plain(call.any(0)), 8).unwrap_or(0).into())
}

fn add1(call: &mut Call<'_>) -> Result {
    Ok(to_int(call.any(0)).wrapping_add(1).into())
}

fn add(call: &mut Call<'_>) -> Result {
    Ok(ints(call).fold(0, i64::wrapping_add).into())
}

fn sub(call: &mut Call<'_>) -> Result {
    Ok(to_int(call.any(0)).wrapping_sub(to_int(call.any(1))).into())
}

fn mul(call: &mut Call<'_>) -> Result {
    Ok(ints(call).fold(1, i64::wrapping_mul).into())
}

fn div(call: &mut Call<'_>) -> Result {
    match to_int(call.any(1)) {
        0 => Err(call.fails("it cannot divide by zero")),
        by => Ok(to_int(call.any(0)).wrapping_div(by).into()),
    }
}

fn modulo(call: &mut Call<'_>) -> Result {
    match to_int(call.any(1)) {
        0 => Err(call.fails("it cannot divide by zero")),
        by => Ok(to_int(call.any(0)).wrapping_rem(by).into()),
    }
}

fn max(call: &mut Call<'_>) -> Result {
    Ok(ints(call).max().unwrap_or(0).into())
}

fn min(call: &mut Call<'_>) -> Result {
    Ok(ints(call).min().unwrap_or(0).into())
}

fn ceil(call: &mut Call<'_>) -> Result {
    Ok(to_float(call.any(0)).ceil().into())
}

fn floor(call: &mut Call<'_>) -> Result {
    Ok(to_float(call.any(0)).floor().into())
}

/// Rounds up from the fraction that is the third argument, or from a half.
fn round(call: &mut Call<'_>) -> Result {
    let power = 10_f64.powf(to_float(&call.int(1)?.into()));
    let up_from = match call.from(2) {
        [] => 0.5,
        [up_from, ..] if matches!(up_from.data, Data::Int(_) | Data::Float(_)) => to_float(up_from),
        _ => return Err(call.wrong_type(2, "a number")),
    };
    let shifted = to_float(call.any(0)) * power;
    let rounded = if shifted.fract() >= up_from { shifted.ceil() } else { shifted.floor() };
    Ok((rounded / power).into())
}

fn until(call: &mut Call<'_>) -> Result {
    let count = call.int(0)?;
    steps(call, 0, count, if count < 0 { -1 } else { 1 })
}

fn until_step(call: &mut Call<'_>) -> Result {
    let (start, stop, step) = (call.int(0)?, call.int(1)?, call.int(2)?);
    steps(call, start, stop, step)
}

fn steps(call: &mut Call<'_>, start: i64, stop: i64, step: i64) -> Result {
    let mut list = Vec::new();
    let mut next = Some(start);
    while let Some(number) = next {
        let is_inside =
            if stop < start { step < 0 && number > stop } else { step > 0 && number < stop };
        if !is_inside {
            break;
        }
        call.budget.spend(STEP)?;
        list.push(Value::from(number));
        next = number.checked_add(step);
    }
    Ok(list.into())
}

fn plural(call: &mut Call<'_>) -> Result {
    let (one, many) = (call.text(0)?, call.text(1)?);
    Ok(if call.int(2)? == 1 { one } else { many }.into())
}
