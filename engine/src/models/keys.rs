//! An architecture's metadata keys, with a record of which have been used: what nobody used would be ignored,
//! and what is ignored may change the result.

use std::cell::RefCell;
use std::collections::BTreeSet;

use cchaha_gguf::{Gguf, Metadata, Value};

use crate::error::{Error, Result};

/// Keys that say nothing a forward pass depends on.
const HARMLESS: &[&str] = &[
    "pooling_type",
    "rope.scaling.finetuned",
    // Of use to YaRN only, which reads it.
    "rope.scaling.original_context_length",
    "tensor_data_layout",
];

/// Groups of keys that begin like those of the architecture `cchaha` and are none of them: the tokenizer reads its own,
/// checksums are `quantize verify`'s.
const OTHERS: &[&str] = &["tokenizer.", "checksum."];

/// Keys whose value, where it is this one, asks for nothing.
const NEUTRAL: &[(&str, f64)] = &[
    ("attention.causal", 1.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.sliding_window", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("embedding_scale", 1.0),
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scale_linear", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("rope.scaling.yarn_attn_factor", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
    ("use_parallel_residual", 0.0),
];

/// Reads `{architecture}.*` keys by what follows the dot.
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    file: &'a str,
    prefix: String,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(gguf: &'a Gguf, architecture: &str) -> Keys<'a> {
        Keys {
            metadata: gguf.metadata(),
            file: gguf.name(),
            prefix: format!("{architecture}."),
            used: RefCell::default(),
        }
    }

    /// The whole key, noted as used.
    fn used(&self, name: &str) -> String {
        self.used.borrow_mut().insert(name.to_owned());
        format!("{}{name}", self.prefix)
    }

    /// A count, `default` where the key is absent. It is at least 1 and at most 2^31, so that products of a few
    /// counts stay within 64 bits where they are checked.
    pub(crate) fn count_or(&self, name: &str, default: usize) -> Result<usize> {
        let found = self.metadata.usize(&self.used(name))?.unwrap_or(default);
        if found == 0 || found > 1 << 31 {
            return Err(self.error(name, format!("is {found}, expected 1 to 2147483648")));
        }
        Ok(found)
    }

    /// A count that must be given.
    pub(crate) fn count(&self, name: &str) -> Result<usize> {
        self.metadata.require_usize(&self.used(name))?;
        self.count_or(name, 0)
    }

    /// An integer that may be absent; 0 is absent too.
    pub(crate) fn u32_above_0(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.metadata.u32(&self.used(name))?.filter(|&value| value > 0))
    }

    /// A finite number that may be absent.
    pub(crate) fn f64(&self, name: &str) -> Result<Option<f64>> {
        let found = self.metadata.f32(&self.used(name))?;
        match found.filter(|value| !value.is_finite()) {
            Some(value) => Err(self.error(name, format!("is {value}, expected a finite number"))),
            None => Ok(found.map(f64::from)),
        }
    }

    /// A number above 0, `default` where the key is absent.
    pub(crate) fn positive_or(&self, name: &str, default: f64) -> Result<f64> {
        match self.f64(name)?.unwrap_or(default) {
            value if value > 0.0 => Ok(value),
            value => Err(self.error(name, format!("is {value}, expected a number above 0"))),
        }
    }

    /// A number above 0 that must be given.
    pub(crate) fn positive(&self, name: &str) -> Result<f64> {
        self.metadata.require_f32(&self.used(name))?;
        self.positive_or(name, 0.0)
    }

    /// The bound of a soft cap; 0 or absent is none.
    pub(crate) fn cap(&self, name: &str) -> Result<Option<f32>> {
        match self.f64(name)? {
            None | Some(0.0) => Ok(None),
            Some(cap) if cap > 0.0 => Ok(Some(cap as f32)),
            Some(cap) => Err(self.error(name, format!("is {cap}, expected a number above 0, or 0 for none"))),
        }
    }

    /// A text that may be absent.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.metadata.str(&self.used(name))?)
    }

    /// A yes or no that may be absent.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>> {
        Ok(self.metadata.bool(&self.used(name))?)
    }

    /// A list of yes and no, or a number, or nothing.
    pub(crate) fn bools_or_u32(&self, name: &str) -> Result<Option<BoolsOrU32<'a>>> {
        let key = self.used(name);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(_)) => Ok(self.metadata.bools(&key)?.map(BoolsOrU32::Bools)),
            Some(_) => Ok(self.metadata.u32(&key)?.map(BoolsOrU32::U32)),
        }
    }

    /// An error about a key.
    pub(crate) fn error(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(format!("{}: key \"{}{name}\" {problem}", self.file, self.prefix))
    }

    /// An error about a tensor.
    pub(crate) fn tensor_error(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        Error::model(format!("{}: tensor \"{name}\" {problem}", self.file))
    }

    /// That no key of the architecture is left over.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.borrow();
        for (key, value) in self.metadata.iter() {
            let Some(name) = key.strip_prefix(&self.prefix) else { continue };
            if OTHERS.iter().any(|group| name.starts_with(group)) {
                continue;
            }
            let neutral = || NEUTRAL.iter().any(|row| row.0 == name && number(value) == Some(row.1));
            if !used.contains(name) && !HARMLESS.contains(&name) && !neutral() {
                return Err(self.error(
                    name,
                    format!(
                        "is {value}, which this engine does not know; ignoring it would give wrong results"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The two ways a pattern over layers is written.
pub(crate) enum BoolsOrU32<'a> {
    /// One per layer.
    Bools(&'a [bool]),
    /// The length of a period.
    U32(u32),
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::F32(value) => Some(f64::from(*value)),
        Value::F64(value) => Some(*value),
        Value::U8(value) => Some(f64::from(*value)),
        Value::I8(value) => Some(f64::from(*value)),
        Value::U16(value) => Some(f64::from(*value)),
        Value::I16(value) => Some(f64::from(*value)),
        Value::U32(value) => Some(f64::from(*value)),
        Value::I32(value) => Some(f64::from(*value)),
        // Rounding does not make one of the small numbers it is compared with.
        Value::U64(value) => Some(*value as f64),
        Value::I64(value) => Some(*value as f64),
        Value::Str(_) | Value::Array(_) => None,
    }
}
