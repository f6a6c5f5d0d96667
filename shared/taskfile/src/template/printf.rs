//! `printf`, with the verbs and the complaints of Go's `fmt`.

use super::budget::Budget;
use super::error::TemplateErrorKind;
use super::format::{
    self, general, not_finite, plain, quoted, scientific_in_go, type_name, write_in_go,
};
use super::value::{Data, Value};

/// Prints `arguments` as `format` says. What does not fit is complained about in the text itself, as in Go.
pub(super) fn printf(
    format: &str,
    arguments: &[Value],
    budget: &mut Budget,
) -> Result<String, TemplateErrorKind> {
    let mut printer = Printer {
        rest: format,
        arguments,
        next: 0,
        is_reordered: false,
        is_lost: false,
        out: String::new(),
        budget,
    };
    printer.print()?;
    Ok(printer.out)
}

/// What stands between `%` and the verb.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    /// `+`
    plus: bool,
    /// `-`
    minus: bool,
    /// `#`
    sharp: bool,
    /// A space.
    space: bool,
    /// `0`
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// The largest width and precision that Go accepts.
const WIDEST: usize = 1_000_000;

struct Printer<'a> {
    rest: &'a str,
    arguments: &'a [Value],
    next: usize,
    /// Whether an explicit index like `[1]` was used.
    is_reordered: bool,
    /// Whether an index of the current verb names no argument.
    is_lost: bool,
    out: String,
    budget: &'a mut Budget,
}

impl<'a> Printer<'a> {
    fn print(&mut self) -> Result<(), TemplateErrorKind> {
        while let Some((literal, verb)) = self.rest.split_once('%') {
            self.out.push_str(literal);
            self.rest = verb;
            self.verb()?;
        }
        self.out.push_str(self.rest);
        let extra = self.arguments.get(self.next..).unwrap_or(&[]);
        if !self.is_reordered && !extra.is_empty() {
            let extra: Vec<String> = extra.iter().map(complaint).collect();
            self.out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
        }
        Ok(())
    }

    /// Reads what follows a `%`, and prints it.
    fn verb(&mut self) -> Result<(), TemplateErrorKind> {
        let mut flags = self.flags();
        self.is_lost = false;
        self.index();
        if self.skip('*') {
            match self.number_argument() {
                Some(width) => {
                    flags.minus |= width < 0;
                    flags.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            self.index();
        } else {
            flags.width = self.digits();
        }
        if self.skip('.') {
            self.index();
            if self.skip('*') {
                match self.number_argument() {
                    Some(precision) => flags.precision = usize::try_from(precision).ok(),
                    None => self.out.push_str("%!(BADPREC)"),
                }
                self.index();
            } else {
                flags.precision = Some(self.digits().unwrap_or(0));
            }
        }
        self.index();
        // A minus means spaces on the right, so zeros on the left mean nothing.
        flags.zero &= !flags.minus;
        let mut letters = self.rest.chars();
        let verb = letters.next();
        self.rest = letters.as_str();
        match verb {
            None => self.out.push_str("%!(NOVERB)"),
            Some('%') => self.out.push('%'),
            Some(verb) if self.is_lost => {
                self.out.push_str(&format!("%!{verb}(BADINDEX)"));
            }
            Some(verb) => match self.argument() {
                Some(argument) => {
                    let longest = flags.width.unwrap_or(0).max(flags.precision.unwrap_or(0));
                    // An argument may be printed many times.
                    self.budget.read(argument)?;
                    self.budget.spend_times(scalars(argument), longest)?;
                    if verb == 'v' {
                        // It only matters for structs.
                        flags.plus = false;
                    }
                    write(&mut self.out, verb, flags, argument);
                }
                None => self.out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
        Ok(())
    }

    fn flags(&mut self) -> Flags {
        let mut flags = Flags::default();
        loop {
            if self.skip('+') {
                flags.plus = true;
            } else if self.skip('-') {
                flags.minus = true;
            } else if self.skip('#') {
                flags.sharp = true;
            } else if self.skip(' ') {
                flags.space = true;
            } else if self.skip('0') {
                flags.zero = true;
            } else {
                return flags;
            }
        }
    }

    /// Reads `[2]`, if it is there.
    fn index(&mut self) {
        let Some(after) = self.rest.strip_prefix('[') else { return };
        self.is_reordered = true;
        let (index, rest) = after.split_once(']').unwrap_or(("", after));
        self.rest = rest;
        let index = index.parse().ok().and_then(|index: usize| index.checked_sub(1));
        match index.filter(|index| *index < self.arguments.len()) {
            Some(index) => self.next = index,
            None => self.is_lost = true,
        }
    }

    fn skip(&mut self, letter: char) -> bool {
        let rest = self.rest.strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn digits(&mut self) -> Option<usize> {
        let rest = self.rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let digits = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        digits.parse().ok().filter(|number| *number <= WIDEST)
    }

    fn argument(&mut self) -> Option<&'a Value> {
        let argument = self.arguments.get(self.next)?;
        self.next += 1;
        Some(argument)
    }

    fn number_argument(&mut self) -> Option<i64> {
        self.argument()?.as_int().filter(|number| number.unsigned_abs() <= WIDEST as u64)
    }
}

fn write(out: &mut String, verb: char, flags: Flags, value: &Value) {
    if verb == 'T' {
        out.push_str(&pad(type_name(value), flags));
        return;
    }
    if verb == 'v' && flags.sharp {
        write_in_go(out, value);
        return;
    }
    match &value.data {
        Data::List(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write(out, verb, flags, element);
            }
            out.push(']');
        }
        Data::Map(map) => {
            out.push_str("map[");
            for (index, (key, element)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write(out, verb, flags, &Value::from(key.as_str()));
                out.push(':');
                write(out, verb, flags, element);
            }
            out.push(']');
        }
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) => {
            match scalar(verb, flags, value) {
                Some(text) => out.push_str(&text),
                None => out.push_str(&format!("%!{verb}({})", padded_complaint(value, flags))),
            }
        }
    }
}

/// How often a verb prints for this value.
fn scalars(value: &Value) -> usize {
    match &value.data {
        Data::List(list) => list.iter().map(scalars).sum(),
        Data::Map(map) => map.values().map(|element| 1 + scalars(element)).sum(),
        Data::Nil | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(_) => 1,
    }
}

/// A value that is no list and no map; `None` if the verb does not fit.
fn scalar(verb: char, flags: Flags, value: &Value) -> Option<String> {
    match &value.data {
        Data::Nil if verb == 'v' => Some(pad("<nil>", flags)),
        Data::Bool(value) if matches!(verb, 't' | 'v') => Some(pad(&value.to_string(), flags)),
        Data::Int(number) => integer(verb, flags, *number),
        Data::Float(number) => float(verb, flags, *number),
        Data::Text(text) => string(verb, flags, text),
        Data::Nil | Data::Bool(_) | Data::List(_) | Data::Map(_) => None,
    }
}

fn string(verb: char, flags: Flags, text: &str) -> Option<String> {
    let cut: String = match flags.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let shown = match verb {
        's' | 'v' => cut,
        'q' => quoted(&cut),
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..flags.precision.unwrap_or(text.len()).min(text.len())];
            let hex =
                |byte: &u8| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
            bytes.iter().map(hex).collect::<Vec<_>>().join(if flags.space { " " } else { "" })
        }
        _ => return None,
    };
    Some(pad(&shown, flags))
}

fn integer(verb: char, flags: Flags, number: i64) -> Option<String> {
    let size = number.unsigned_abs();
    let (prefix, digits) = match verb {
        'd' | 'v' => ("", size.to_string()),
        'b' => (if flags.sharp { "0b" } else { "" }, format!("{size:b}")),
        'o' => (if flags.sharp { "0" } else { "" }, format!("{size:o}")),
        'O' => ("0o", format!("{size:o}")),
        'x' => (if flags.sharp { "0x" } else { "" }, format!("{size:x}")),
        'X' => (if flags.sharp { "0X" } else { "" }, format!("{size:X}")),
        'c' | 'q' | 'U' => return Some(pad(&character(verb, number), flags)),
        _ => return None,
    };
    let digits = match flags.precision {
        Some(0) if number == 0 => String::new(),
        Some(least) => fill('0', least, &digits) + &digits,
        None => digits,
    };
    // A precision already says how many zeros there are.
    let flags = Flags { zero: flags.zero && flags.precision.is_none(), ..flags };
    Some(pad_number(number < 0, flags, &format!("{prefix}{digits}")))
}

fn character(verb: char, number: i64) -> String {
    let code = u32::try_from(number).ok();
    let letter = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match verb {
        'U' => format!("U+{number:04X}"),
        'q' => {
            let mut out = String::from("'");
            format::write_escaped(&mut out, letter, '\'');
            out.push('\'');
            out
        }
        _ => letter.to_string(),
    }
}

fn float(verb: char, flags: Flags, number: f64) -> Option<String> {
    let size = number.abs();
    let shown = match verb {
        'e' | 'E' => {
            let (shown, zeros) = precise(flags, |digits| format!("{size:.digits$e}"));
            let (mantissa, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
            scientific_in_go(&format!("{mantissa}{zeros}e{exponent}"))
        }
        'f' | 'F' => {
            let (shown, zeros) = precise(flags, |digits| format!("{size:.digits$}"));
            shown + &zeros
        }
        'g' | 'G' | 'v' => match flags.precision {
            None => format::float(size),
            Some(digits) => {
                let digits = digits.clamp(1, MOST_DIGITS);
                general(size, &format!("{size:.*e}", digits - 1), digits)
            }
        },
        _ => return None,
    };
    if let Some(name) = not_finite(number) {
        let flags = Flags { zero: false, ..flags };
        return Some(pad(if flags.plus { name } else { name.trim_start_matches('+') }, flags));
    }
    let shown = if verb.is_uppercase() { shown.to_uppercase() } else { shown };
    Some(pad_number(number.is_sign_negative(), flags, &shown))
}

/// No float has more digits than this; the others are zeros.
const MOST_DIGITS: usize = 1100;

/// A float with the digits that it has, and the zeros that are missing to its precision.
fn precise(flags: Flags, show: impl Fn(usize) -> String) -> (String, String) {
    let digits = flags.precision.unwrap_or(6);
    let shown = digits.min(MOST_DIGITS);
    (show(shown), "0".repeat(digits - shown))
}

/// Adds the sign, and zeros between it and the number.
fn pad_number(is_negative: bool, flags: Flags, digits: &str) -> String {
    let sign = match (is_negative, flags.plus, flags.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    };
    if flags.zero {
        let width = flags.width.unwrap_or(0).saturating_sub(sign.len());
        return format!("{sign}{}{digits}", fill('0', width, digits));
    }
    pad(&format!("{sign}{digits}"), flags)
}

fn pad(text: &str, flags: Flags) -> String {
    let fill = fill(if flags.zero { '0' } else { ' ' }, flags.width.unwrap_or(0), text);
    if flags.minus { format!("{text}{fill}") } else { format!("{fill}{text}") }
}

/// What is missing to `width` characters. Rust's own `format!` panics on a width above 65535.
fn fill(with: char, width: usize, text: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    std::iter::repeat_n(with, missing).collect()
}

/// A value as a complaint shows it: `string=x`.
fn complaint(value: &Value) -> String {
    padded_complaint(value, Flags::default())
}

fn padded_complaint(value: &Value, flags: Flags) -> String {
    if value.is_nil() {
        return "<nil>".to_owned();
    }
    let shown = scalar('v', flags, value).unwrap_or_else(|| plain(value));
    format!("{}={shown}", type_name(value))
}
