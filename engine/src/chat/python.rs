//! Python's methods on template values, and the filters and tests in which the engine differs from Jinja2.
//!
//! The methods are minijinja-contrib's. The engine charges for a result only once it exists, which is too late
//! where a result can be far larger than its input, so those are paid for here first.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::json;

/// Bytes of one list slot, as the engine counts them.
const SLOT_BYTES: usize = 32;

/// Widest `indent`.
const MAX_WIDTH: usize = 256;

/// Calls `value.method(*args)`.
pub(super) fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or("");
    let result_bytes = match method {
        "replace" => {
            let old = args.first().and_then(Value::as_str).unwrap_or("");
            let new = args.get(1).and_then(Value::as_str).unwrap_or("");
            text.matches(old).count().saturating_mul(new.len()).saturating_add(text.len())
        }
        "join" => args.first().and_then(Value::len).unwrap_or(0).saturating_mul(text.len()),
        "split" | "splitlines" => text.len().saturating_mul(SLOT_BYTES),
        "format" => widths(text).saturating_add(text.len()),
        _ => text.len(),
    };
    pay(state, result_bytes)?;
    unknown_method_callback(state, value, method, args)
}

/// The sum of all numbers in a format string: no field is padded to more than the width written there.
fn widths(format: &str) -> usize {
    format
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .fold(0, |sum: usize, digits| sum.saturating_add(digits.parse().unwrap_or(usize::MAX)))
}

/// The `string` filter.
pub(super) fn string(value: &Value) -> String {
    float(value).unwrap_or_else(|| value.to_string())
}

/// `{{ value }}`.
pub(super) fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match float(value) {
        Some(text) => Ok(out.write_str(&text)?),
        None => escape_formatter(out, state, value),
    }
}

/// A float in Python's words; the engine's own never use an exponent.
fn float(value: &Value) -> Option<String> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok().filter(|x| x.is_finite()).map(json::python_float)
}

/// The `iterable` test: Jinja2 can loop over an undefined value and not over none.
pub(super) fn is_iterable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::None => false,
        ValueKind::Undefined => true,
        _ => value.try_iter().is_ok(),
    }
}

/// The `indent` filter, `indent(text, width=4, first=False, *, blank=False)`: every line end becomes `\n`, a last
/// line end stays, and blank lines are indented only on request.
pub(super) fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let named_width: Option<Value> = kwargs.get("width")?;
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let width = width.or(named_width).unwrap_or(Value::from(4));
    let pad = match (width.as_str(), width.as_usize()) {
        (Some(pad), _) if pad.len() <= MAX_WIDTH => pad.to_owned(),
        (None, Some(spaces)) if spaces <= MAX_WIDTH => " ".repeat(spaces),
        _ => {
            let message = format!("indent must be at most {MAX_WIDTH} spaces or characters");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    };
    let lines = text.split('\n').count().saturating_mul(pad.len());
    pay(state, lines.saturating_add(text.len()))?;
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&pad);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Charges for `bytes` that are about to be written.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes as u64).div_ceil(64))
}
