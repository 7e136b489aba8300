//! JSON in and out of templates, with the output of Python's `json.dumps` byte for byte.

use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use serde::Serialize;

/// Deepest nesting that is written.
const MAX_DEPTH: usize = 128;

/// Most spaces per level of `indent`; it bounds what one value can grow to.
const MAX_INDENT: usize = 16;

/// A template value of any serializable data.
pub(super) fn value_of(data: impl Serialize) -> Value {
    Value::from(Serde(data))
}

/// The `tojson` filter: `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let named_ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let named_indent: Option<Value> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    kwargs.assert_all_used()?;
    let indent = indent_of(indent.or(named_indent))?;
    let (item, key) = match separators {
        Some(pair) => match <[String; 2]>::try_from(pair) {
            Ok([item, key]) => (item, key),
            Err(_) => return Err(invalid("tojson separators must be two strings, for items and for keys")),
        },
        // With an indent every item ends its line, so Python drops the space after the comma.
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        state,
        ascii: ensure_ascii.or(named_ascii).unwrap_or(false),
        sort_keys: sort_keys.unwrap_or(false),
        indent,
        item,
        key,
        out: String::new(),
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

/// Spaces or text per level; `None` writes everything on one line.
fn indent_of(indent: Option<Value>) -> Result<Option<String>, Error> {
    let Some(indent) = indent.filter(|v| !v.is_none() && !v.is_undefined()) else { return Ok(None) };
    if let Some(text) = indent.as_str() {
        if text.len() <= MAX_INDENT {
            return Ok(Some(text.to_owned()));
        }
    } else if let Some(spaces) = indent.as_i64() {
        let spaces = usize::try_from(spaces).unwrap_or(0);
        if spaces <= MAX_INDENT {
            return Ok(Some(" ".repeat(spaces)));
        }
    }
    Err(invalid(format!("tojson indent must be at most {MAX_INDENT} spaces or characters")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

struct Writer<'a, 't, 'e> {
    state: &'a State<'t, 'e>,
    ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
    out: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson of a value nested deeper than {MAX_DEPTH} levels")));
        }
        self.pay(1)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            // Python's json.dumps has no form for these either.
            ValueKind::Undefined => {
                return Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value"));
            }
            kind => return Err(invalid(format!("tojson of a value of kind {kind}"))),
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in value.try_iter()? {
            self.separate(empty, depth + 1)?;
            self.value(&item, depth + 1)?;
            empty = false;
        }
        self.close(empty, depth, ']')
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys = Vec::new();
        for key in value.try_iter()? {
            self.pay(1)?;
            keys.push((key_text(&key)?, key));
        }
        if self.sort_keys {
            keys.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        for (i, (text, key)) in keys.iter().enumerate() {
            self.separate(i == 0, depth + 1)?;
            self.string(text)?;
            self.out.push_str(&self.key);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close(keys.is_empty(), depth, '}')
    }

    fn separate(&mut self, first: bool, depth: usize) -> Result<(), Error> {
        if !first {
            self.pay(self.item.len())?;
            self.out.push_str(&self.item);
        }
        self.new_line(depth)
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) -> Result<(), Error> {
        if !empty {
            self.new_line(depth)?;
        }
        self.out.push(bracket);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = &self.indent else { return Ok(()) };
        self.pay(indent.len() * depth)?;
        self.out.push('\n');
        for _ in 0..depth {
            self.out.push_str(indent);
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
        } else {
            self.out.push_str(&python_float(f64::try_from(value.clone())?));
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        // The longest escape of a byte is six characters.
        self.pay(text.len() * if self.ascii { 6 } else { 2 })?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                ' '..='~' => self.out.push(c),
                _ if self.ascii || c < ' ' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }

    /// Charges for `bytes` that are about to be written.
    fn pay(&self, bytes: usize) -> Result<(), Error> {
        super::python::pay(self.state, bytes)
    }
}

/// Python writes the keys of a dict as strings, whatever they are.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number if key.is_integer() => key.to_string(),
        ValueKind::Number => python_float(f64::try_from(key.clone())?),
        kind => return Err(invalid(format!("tojson of a dict with a key of kind {kind}"))),
    })
}

/// `repr(x)`: the shortest digits that read back equal, in exponent form outside 1e-4 <= |x| < 1e16.
pub(super) fn python_float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}");
    }
    let text = format!("{x:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}
