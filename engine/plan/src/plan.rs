//! A plan: the steps of one forward pass, built once per model from its metadata.

use crate::{Bytes, Error, Format, MaskRule, Op, Result, RopeTable};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into the plan's table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(/** Index into [`Plan::buffers`]. */ BufferId);
id!(/** Index into [`Plan::weights`]. */ WeightId);
id!(/** Index into [`Plan::kv`]. */ KvSlot);
id!(/** Index into [`Plan::ropes`]. */ RopeId);
id!(/** Index into [`Plan::masks`]. */ MaskId);
id!(/** Index of a page selection, below [`Plan::selections`]. */ SelectionId);

/// What one row of a buffer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One token of the batch.
    Tokens,
    /// One token whose logits are wanted.
    Logits,
}

/// An activation buffer: rows of f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferSpec {
    /// For printing.
    pub name: &'static str,
    /// Values per row.
    pub width: usize,
    /// What a row stands for.
    pub rows: Rows,
}

/// `experts` row-major matrices of `rows` x `cols`; a vector has one row, an ordinary matrix one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Values per row (GGUF's first dimension).
    pub cols: usize,
    /// Rows per matrix.
    pub rows: usize,
    /// Matrices.
    pub experts: usize,
}

impl Shape {
    /// A vector.
    pub const fn vector(cols: usize) -> Shape {
        Shape { cols, rows: 1, experts: 1 }
    }

    /// A matrix.
    pub const fn matrix(rows: usize, cols: usize) -> Shape {
        Shape { cols, rows, experts: 1 }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match (self.experts, self.rows) {
            (1, 1) => format!("[{}]", self.cols),
            (1, rows) => format!("[{rows}, {}]", self.cols),
            (experts, rows) => format!("[{experts}, {rows}, {}]", self.cols),
        };
        f.pad(&text)
    }
}

/// A weight: its bytes stay where they are (usually in the mapped file).
#[derive(Clone, Debug)]
pub struct Weight {
    /// Tensor name in the file.
    pub name: String,
    /// Storage format.
    pub format: Format,
    /// Dimensions.
    pub shape: Shape,
    /// `experts * rows * format.row_bytes(cols)` bytes.
    pub bytes: Bytes,
}

impl Weight {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.shape.cols).expect("checked by Plan::validate")
    }
}

/// The key/value cache of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
}

/// A step: an op and where it stands in the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// Layer number; none before the first and after the last.
    pub layer: Option<u32>,
}

/// What to compute, never how: the steps of one forward pass over a batch.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Architecture name, as in `general.architecture`.
    pub architecture: String,
    /// In order of execution.
    pub steps: Vec<Step>,
    /// Activations.
    pub buffers: Vec<BufferSpec>,
    /// Weights, each once.
    pub weights: Vec<Weight>,
    /// One per layer with attention.
    pub kv: Vec<KvSpec>,
    /// Rotary tables.
    pub ropes: Vec<RopeTable>,
    /// Visibility rules.
    pub masks: Vec<MaskRule>,
    /// How many page selections a step may keep for later ones.
    pub selections: usize,
    /// Positions per token; axis 0 is the place in the sequence, the one masks look at.
    pub axes: usize,
    /// Where the logits end up, `[logits rows, vocab]`; of a part of a plan, `[logits rows, width]` of what it hands on.
    pub logits: BufferId,
    /// Whether it hands on something else than logits.
    pub hands_on: bool,
    /// Tokens the model knows.
    pub vocab: usize,
    /// Context length the model was trained for.
    pub context: usize,
}

impl Plan {
    /// A plan of nothing yet, with positions on one axis.
    pub fn new(architecture: impl Into<String>, vocab: usize, context: usize) -> Plan {
        Plan {
            architecture: architecture.into(),
            steps: Vec::new(),
            buffers: Vec::new(),
            weights: Vec::new(),
            kv: Vec::new(),
            ropes: Vec::new(),
            masks: Vec::new(),
            selections: 0,
            axes: 1,
            logits: BufferId(0),
            hands_on: false,
            vocab,
            context,
        }
    }

    /// The buffer's description.
    pub fn buffer(&self, id: BufferId) -> &BufferSpec {
        &self.buffers[id.index()]
    }

    /// The weight.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.index()]
    }

    /// Values in a row of what a batch gives back: of a whole model its vocabulary.
    pub fn outputs(&self) -> usize {
        self.buffer(self.logits).width
    }

    /// Bytes of all weights as stored.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.iter().map(|weight| weight.bytes.len() as u64).sum()
    }

    /// KV values (keys and values together) one cell holds over all layers.
    pub fn kv_values_per_cell(&self) -> usize {
        self.kv.iter().map(|kv| 2 * kv.n_kv_heads * kv.head_dim).sum()
    }

    /// Checks every id, width and shape of every step, so that back ends may rely on them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] naming the step and what does not fit.
    pub fn validate(&self) -> Result<()> {
        for weight in &self.weights {
            let Shape { cols, rows, experts } = weight.shape;
            let bytes = weight.format.row_bytes(cols).and_then(|b| b.checked_mul(rows)?.checked_mul(experts));
            if bytes != Some(weight.bytes.len()) || weight.bytes.is_empty() {
                return Err(Error::model(format!(
                    "weight {}: {} {} does not take {} bytes",
                    weight.name,
                    weight.format,
                    weight.shape,
                    weight.bytes.len()
                )));
            }
        }
        if self.axes == 0 {
            return Err(Error::model("a plan needs at least the position axis"));
        }
        for rope in &self.ropes {
            if rope.pairs.iter().any(|pair| usize::from(pair.axis) >= self.axes) {
                return Err(Error::model(format!(
                    "a rotary pair names an axis beyond the plan's {}",
                    self.axes
                )));
            }
        }
        for (number, step) in self.steps.iter().enumerate() {
            let check = crate::check::Check { plan: self };
            check.op(&step.op).map_err(|error| {
                Error::model(format!("step {number} ({}): {}", step.op.name(), error.message))
            })?;
        }
        let logits = self.buffers.get(self.logits.index());
        let Some(logits) = logits.filter(|buffer| buffer.width > 0 && buffer.rows == Rows::Logits) else {
            return Err(Error::model("the logits buffer must hold logits rows"));
        };
        if logits.width != self.vocab && !self.hands_on {
            return Err(Error::model(format!(
                "buffer {} holds {} logits per row, the vocabulary has {} tokens",
                logits.name, logits.width, self.vocab
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_as_many_as_tokens_unless_the_plan_hands_something_else_on() {
        let logits = |width, rows| {
            let buffers = vec![BufferSpec { name: "logits", width, rows }];
            Plan { buffers, ..Plan::new("test", 100, 64) }
        };
        assert_eq!(logits(100, Rows::Logits).validate(), Ok(()));
        assert!(Plan::new("test", 100, 64).validate().is_err(), "no logits at all");
        assert!(logits(100, Rows::Tokens).validate().is_err());
        let wrong = logits(99, Rows::Logits);
        let message = wrong.validate().unwrap_err().message;
        assert_eq!(message, "buffer logits holds 99 logits per row, the vocabulary has 100 tokens");
        assert_eq!(Plan { hands_on: true, ..wrong }.validate(), Ok(()));
    }
}
