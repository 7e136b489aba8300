//! What the architecture files build their plans with: weights by name and shape, buffers, and the few steps
//! that every decoder is made of.

use std::collections::HashMap;

use cchaha_gguf::{Gguf, TensorInfo};
use cchaha_plan::{
    Activation, BufferId, BufferSpec, Bytes, Format, KvSlot, KvSpec, MaskId, MaskRule, NormKind, Op, Plan,
    RopeId, RopeTable, Rows, Shape, Step, Weight, WeightId,
};

use super::keys::Keys;
use crate::error::{Error, Result};

/// No model comes near it; it bounds what a hostile file can make us allocate before its tensors are looked at.
const MAX_HEAD_DIM: usize = 1 << 16;

/// The sizes every decoder has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// Layers.
    pub(crate) n_layers: usize,
    /// Values of the residual stream.
    pub(crate) n_embd: usize,
    /// Query heads.
    pub(crate) n_heads: usize,
    /// Key/value heads.
    pub(crate) n_kv_heads: usize,
    /// Values of a head.
    pub(crate) head_dim: usize,
    /// Values of a head that turn.
    pub(crate) rotary_dim: usize,
    /// Hidden values of the feed-forward block.
    pub(crate) n_ff: usize,
    /// Tokens of context the model was trained for.
    pub(crate) context: usize,
}

/// Whether a product has a bias, by the tensor named `{name}.bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    /// There is none.
    None,
    /// Where the file has one.
    Optional,
    /// Always.
    Required,
}

/// A normalization used all over a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
}

/// What attention needs to know beside its inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) mask: MaskId,
    /// Factor on scores.
    pub(crate) scale: f32,
    /// Soft cap on scores.
    pub(crate) softcap: Option<f32>,
}

/// A plan in the making. Names of tensors are those after `blk.N.` inside a layer.
pub(crate) struct Builder<'a> {
    gguf: &'a Gguf,
    keys: Keys<'a>,
    plan: Plan,
    weights: HashMap<&'a str, WeightId>,
    layer: Option<u32>,
    dims: Dims,
}

impl<'a> Builder<'a> {
    pub(super) fn new(gguf: &'a Gguf, architecture: &str) -> Result<Builder<'a>> {
        let keys = Keys::new(gguf, architecture);
        let dims = Dims::read(&keys)?;
        if dims.n_layers > gguf.tensors().len() {
            let found = gguf.tensors().len();
            return Err(
                keys.error("block_count", format!("is {}, but the file has {found} tensors", dims.n_layers))
            );
        }
        let table = tensor(gguf, architecture, "token_embd.weight")?;
        let vocab = table.dims.rows();
        if let Some(declared) = keys.u32_above_0("vocab_size")?
            && declared as usize != vocab
        {
            return Err(
                keys.error("vocab_size", format!("is {declared}, but token_embd.weight has {vocab} rows"))
            );
        }
        let plan = Plan {
            architecture: architecture.to_owned(),
            steps: Vec::new(),
            buffers: Vec::new(),
            weights: Vec::new(),
            kv: Vec::new(),
            ropes: Vec::new(),
            masks: Vec::new(),
            selections: 0,
            axes: 1,
            logits: BufferId(0),
            vocab,
            context: dims.context,
        };
        Ok(Builder { gguf, keys, plan, weights: HashMap::new(), layer: None, dims })
    }

    /// The architecture's metadata.
    pub(crate) fn keys(&self) -> &Keys<'a> {
        &self.keys
    }

    /// The model's sizes.
    pub(crate) fn dims(&self) -> Dims {
        self.dims
    }

    /// RMSNorm with the file's epsilon.
    pub(crate) fn rms_norm(&self) -> Result<Norm> {
        let eps = self.keys.positive("attention.layer_norm_rms_epsilon")? as f32;
        Ok(Norm { kind: NormKind::Rms, eps })
    }

    /// LayerNorm with the file's epsilon.
    pub(crate) fn layer_norm(&self) -> Result<Norm> {
        let eps = self.keys.positive("attention.layer_norm_epsilon")? as f32;
        Ok(Norm { kind: NormKind::Layer, eps })
    }

    /// A rotary table for [`Builder::rotate`].
    pub(crate) fn rope(&mut self, table: RopeTable) -> RopeId {
        self.plan.ropes.push(table);
        RopeId(self.plan.ropes.len() as u32 - 1)
    }

    /// The file's divisors of rotary frequencies, if it has some.
    pub(crate) fn rope_factors(&mut self) -> Result<Option<Vec<f32>>> {
        let Some(id) = self.find("rope_freqs.weight", Shape::vector(self.dims.rotary_dim / 2))? else {
            return Ok(None);
        };
        let weight = self.plan.weight(id);
        if weight.format != Format::F32 {
            return Err(self
                .keys
                .tensor_error("rope_freqs.weight", format!("has type {}, expected F32", weight.format)));
        }
        let bytes = weight.bytes.as_slice().chunks_exact(4);
        Ok(Some(bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
    }

    /// A visibility rule for [`Attention`].
    pub(crate) fn mask(&mut self, rule: MaskRule) -> MaskId {
        let known = self.plan.masks.iter().position(|mask| *mask == rule);
        MaskId(known.unwrap_or_else(|| {
            self.plan.masks.push(rule);
            self.plan.masks.len() - 1
        }) as u32)
    }

    /// Layer numbers; call [`Builder::enter`] with each.
    pub(crate) fn layers(&self) -> std::ops::Range<u32> {
        0..self.dims.n_layers as u32
    }

    /// What follows belongs to this layer.
    pub(crate) fn enter(&mut self, layer: u32) {
        self.layer = Some(layer);
    }

    fn step(&mut self, op: Op) {
        self.plan.steps.push(Step { op, layer: self.layer });
    }

    fn full_name(&self, name: &str) -> String {
        self.layer.map_or_else(|| name.to_owned(), |layer| format!("blk.{layer}.{name}"))
    }

    /// The weight of this name, which must have this shape, or none.
    fn find(&mut self, name: &str, shape: Shape) -> Result<Option<WeightId>> {
        let gguf = self.gguf;
        let Some(info) = gguf.tensor(&self.full_name(name)) else { return Ok(None) };
        let found = match info.dims[..] {
            [cols] => Some(Shape::vector(cols)),
            [cols, rows] => Some(Shape::matrix(rows, cols)),
            [cols, rows, experts] => Some(Shape { cols, rows, experts }),
            _ => None,
        };
        if found != Some(shape) {
            let dims: Vec<String> = [shape.cols, shape.rows, shape.experts]
                .iter()
                .take(if shape.experts > 1 {
                    3
                } else if shape.rows > 1 || info.dims.len() > 1 {
                    2
                } else {
                    1
                })
                .map(usize::to_string)
                .collect();
            return Err(self.keys.tensor_error(
                &info.name,
                format!("has dimensions {}, expected {} by the metadata", info.dims, dims.join(" x ")),
            ));
        }
        if let Some(&id) = self.weights.get(info.name.as_str()) {
            return Ok(Some(id));
        }
        let id = WeightId(self.plan.weights.len() as u32);
        let (format, bytes): (Format, Bytes) = (info.format, info.data.clone());
        self.plan.weights.push(Weight { name: info.name.clone(), format, shape, bytes });
        self.weights.insert(&info.name, id);
        Ok(Some(id))
    }

    /// The weight of this name, which must be there and have this shape.
    fn weight(&mut self, name: &str, shape: Shape) -> Result<WeightId> {
        self.find(name, shape)?
            .ok_or_else(|| missing(self.gguf, &self.plan.architecture, &self.full_name(name)))
    }

    fn bias(&mut self, name: &str, bias: Bias, len: usize) -> Result<Option<WeightId>> {
        let (name, shape) = (format!("{name}.bias"), Shape::vector(len));
        match bias {
            Bias::None => Ok(None),
            Bias::Optional => self.find(&name, shape),
            Bias::Required => self.weight(&name, shape).map(Some),
        }
    }

    /// The buffer of this name whose rows are those of `like`; a second call gives the same buffer.
    fn buffer(&mut self, name: &'static str, width: usize, like: BufferId) -> BufferId {
        let rows = self.plan.buffer(like).rows;
        self.buffer_of(BufferSpec { name, width, rows })
    }

    fn buffer_of(&mut self, spec: BufferSpec) -> BufferId {
        let known = self.plan.buffers.iter().position(|buffer| *buffer == spec);
        BufferId(known.unwrap_or_else(|| {
            self.plan.buffers.push(spec);
            self.plan.buffers.len() - 1
        }) as u32)
    }

    fn width(&self, id: BufferId) -> usize {
        self.plan.buffer(id).width
    }

    /// Token embeddings times `scale`: the start of the residual stream.
    pub(crate) fn embed(&mut self, scale: f32) -> Result<BufferId> {
        let width = self.dims.n_embd;
        let out = self.buffer_of(BufferSpec { name: "residual", width, rows: Rows::Tokens });
        let table = self.weight("token_embd.weight", Shape::matrix(self.plan.vocab, width))?;
        self.step(Op::Embed { table, scale, out });
        Ok(out)
    }

    /// Normalizes whole rows into a buffer of its own.
    pub(crate) fn norm(&mut self, norm: Norm, name: &str, x: BufferId) -> Result<BufferId> {
        let out = self.buffer("normed", self.width(x), x);
        self.norm_groups(norm, name, self.width(x), x, out)?;
        Ok(out)
    }

    /// Normalizes whole rows in place.
    pub(crate) fn norm_in_place(&mut self, norm: Norm, name: &str, x: BufferId) -> Result<()> {
        self.norm_groups(norm, name, self.width(x), x, x)
    }

    /// Normalizes every head in place.
    pub(crate) fn norm_heads(&mut self, norm: Norm, name: &str, x: BufferId) -> Result<()> {
        self.norm_groups(norm, name, self.dims.head_dim, x, x)
    }

    fn norm_groups(
        &mut self,
        norm: Norm,
        name: &str,
        group: usize,
        x: BufferId,
        out: BufferId,
    ) -> Result<()> {
        let weight = self.weight(&format!("{name}.weight"), Shape::vector(group))?;
        let bias = match norm.kind {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.weight(&format!("{name}.bias"), Shape::vector(group))?),
        };
        self.step(Op::Norm { kind: norm.kind, eps: norm.eps, weight, bias, group, x, out });
        Ok(())
    }

    /// `out = W x (+ bias)`, of `width` values.
    pub(crate) fn linear(
        &mut self,
        name: &'static str,
        bias: Bias,
        x: BufferId,
        width: usize,
    ) -> Result<BufferId> {
        let out = self.buffer(name, width, x);
        self.product(name, bias, x, None, out)?;
        Ok(out)
    }

    /// `residual += W x (+ bias)`.
    pub(crate) fn linear_add(
        &mut self,
        name: &str,
        bias: Bias,
        x: BufferId,
        residual: BufferId,
    ) -> Result<()> {
        self.product(name, bias, x, Some(residual), residual)
    }

    fn product(
        &mut self,
        name: &str,
        bias: Bias,
        x: BufferId,
        residual: Option<BufferId>,
        out: BufferId,
    ) -> Result<()> {
        let (rows, cols) = (self.width(out), self.width(x));
        let weight = self.weight(&format!("{name}.weight"), Shape::matrix(rows, cols))?;
        let bias = self.bias(name, bias, rows)?;
        self.step(Op::MatMul { weight, bias, residual, x, out });
        Ok(())
    }

    /// `out = activation(gate x) * (up x)`: the gated half of a feed-forward block (arXiv 2002.05202).
    pub(crate) fn gated(&mut self, activation: Activation, x: BufferId) -> Result<BufferId> {
        let shape = Shape::matrix(self.dims.n_ff, self.width(x));
        let gate = self.weight("ffn_gate.weight", shape)?;
        let up = self.weight("ffn_up.weight", shape)?;
        let scratch = self.buffer("ffn_gate", self.dims.n_ff, x);
        let out = self.buffer("ffn_up", self.dims.n_ff, x);
        self.step(Op::GatedMatMul { gate, up, activation, x, scratch, out });
        Ok(out)
    }

    /// `x = activation(x)`.
    pub(crate) fn activate(&mut self, activation: Activation, x: BufferId) {
        self.step(Op::Activate { activation, x, up: None, out: x });
    }

    /// `residual += x`.
    pub(crate) fn add(&mut self, x: BufferId, residual: BufferId) {
        self.step(Op::Add { a: residual, b: x, out: residual });
    }

    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn softcap(&mut self, cap: f32, x: BufferId) {
        self.step(Op::Softcap { cap, x });
    }

    /// Turns every head by its token's position.
    pub(crate) fn rotate(&mut self, table: RopeId, x: BufferId) {
        self.step(Op::Rope { table, head_dim: self.dims.head_dim, x });
    }

    /// Stores keys and values and attends to all that are visible; the layer's only attention.
    pub(crate) fn attend(&mut self, attention: Attention, q: BufferId, k: BufferId, v: BufferId) -> BufferId {
        let Dims { n_heads, n_kv_heads, head_dim, .. } = self.dims;
        self.plan.kv.push(KvSpec { n_kv_heads, head_dim });
        let slot = KvSlot(self.plan.kv.len() as u32 - 1);
        let out = self.buffer("attended", n_heads * head_dim, q);
        self.step(Op::KvStore { slot, k, v });
        let Attention { mask, scale, softcap } = attention;
        self.step(Op::Attend {
            q,
            slot,
            n_heads,
            scale,
            softcap,
            mask,
            selection: None,
            sink_scores: None,
            out,
        });
        out
    }

    /// In the last layer, goes on with the rows whose logits are wanted: call it after the attention.
    pub(crate) fn wanted_rows<const N: usize>(&mut self, buffers: [BufferId; N]) -> [BufferId; N] {
        if self.layer.is_none_or(|layer| layer as usize + 1 != self.dims.n_layers) {
            return buffers;
        }
        buffers.map(|x| {
            let spec = BufferSpec { rows: Rows::Logits, ..self.plan.buffer(x).clone() };
            let out = self.buffer_of(spec);
            self.step(Op::TakeRows { x, out });
            out
        })
    }

    /// Final norm and output product; the embeddings serve where the file has no `output.weight`.
    pub(crate) fn output(&mut self, norm: Norm, x: BufferId) -> Result<BufferId> {
        self.layer = None;
        let x = self.norm(norm, "output_norm", x)?;
        let logits = self.buffer("logits", self.plan.vocab, x);
        let shape = Shape::matrix(self.plan.vocab, self.dims.n_embd);
        let weight = match self.find("output.weight", shape)? {
            Some(weight) => weight,
            None => self.weight("token_embd.weight", shape)?,
        };
        self.step(Op::MatMul { weight, bias: None, residual: None, x, out: logits });
        self.plan.logits = logits;
        Ok(logits)
    }

    /// The plan, if nothing in the file was left over and everything fits.
    pub(super) fn finish(self) -> Result<Plan> {
        self.keys.finish()?;
        let unused = self.gguf.tensors().iter().find(|info| !self.weights.contains_key(info.name.as_str()));
        if let Some(info) = unused {
            return Err(self.keys.tensor_error(
                &info.name,
                format!(
                    "is not one of a {} model's that this engine knows; ignoring it would give wrong results",
                    self.plan.architecture
                ),
            ));
        }
        self.plan
            .validate()
            .map_err(|error| Error::model(format!("{}: {}", self.gguf.name(), error.message)))?;
        Ok(self.plan)
    }
}

impl Dims {
    fn read(keys: &Keys<'_>) -> Result<Dims> {
        let n_embd = keys.count("embedding_length")?;
        let n_heads = keys.count("attention.head_count")?;
        let n_kv_heads = keys.count_or("attention.head_count_kv", n_heads)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(keys.error(
                "attention.head_count",
                format!("is {n_heads}, which {n_kv_heads} KV heads (attention.head_count_kv) do not divide"),
            ));
        }
        let head_dim = keys.count_or("attention.key_length", (n_embd / n_heads).max(1))?;
        let value_dim = keys.count_or("attention.value_length", head_dim)?;
        if value_dim != head_dim {
            return Err(keys.error(
                "attention.value_length",
                format!("is {value_dim}, supported is only the {head_dim} of attention.key_length"),
            ));
        }
        if head_dim > MAX_HEAD_DIM {
            return Err(
                keys.error("attention.key_length", format!("is {head_dim}, expected {MAX_HEAD_DIM} at most"))
            );
        }
        let rotary_dim = keys.count_or("rope.dimension_count", head_dim)?;
        if rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            return Err(keys.error(
                "rope.dimension_count",
                format!("is {rotary_dim}, expected an even number up to the {head_dim} values of a head"),
            ));
        }
        let n_layers = keys.count("block_count")?;
        let (n_ff, context) = (keys.count("feed_forward_length")?, keys.count("context_length")?);
        Ok(Dims { n_layers, n_embd, n_heads, n_kv_heads, head_dim, rotary_dim, n_ff, context })
    }

    /// Values of all query heads.
    pub(crate) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Values of all key (or value) heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The usual factor on scores, `1 / sqrt(head_dim)`.
    pub(crate) fn attention_scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }
}

fn tensor<'a>(gguf: &'a Gguf, architecture: &str, name: &str) -> Result<&'a TensorInfo> {
    gguf.tensor(name).ok_or_else(|| missing(gguf, architecture, name))
}

fn missing(gguf: &Gguf, architecture: &str, name: &str) -> Error {
    Error::model(format!(
        "{}: tensor \"{name}\" is missing, which a {architecture} model needs; get the model again",
        gguf.name()
    ))
}
