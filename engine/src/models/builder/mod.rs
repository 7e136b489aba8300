//! What the architecture files build their plans with: weights by name and shape, buffers, single steps, and in
//! `blocks` the groups of steps that most decoders share.

mod blocks;
mod dims;

use std::collections::HashMap;

use cchaha_gguf::{Gguf, TensorInfo};
use cchaha_plan::{
    Activation, BufferId, BufferSpec, Bytes, Format, MaskId, MaskRule, NormKind, Op, Plan, RopeId,
    RopeLayout, RopeTable, Rows, Shape, Step, Weight, WeightId,
};

pub(crate) use blocks::Attention;
pub(crate) use dims::Dims;

use super::keys::{BoolsOrU32, Keys};
use crate::error::{Error, Result};
use crate::rope::Rotary;

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
        let plan = Plan::new(architecture, vocab, dims.context);
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

    /// Factor on scores: the file's `attention.scale`, or the usual one.
    pub(crate) fn attention_scale(&self) -> Result<f32> {
        Ok(self.keys.f64("attention.scale")?.map_or(self.dims.attention_scale(), |scale| scale as f32))
    }

    /// The unscaled rotary positions of the file's `rope.freq_base`, `base` where it has none.
    pub(crate) fn rotary(&self, layout: RopeLayout, base: f64) -> Result<Rotary> {
        let base = self.keys.positive_or("rope.freq_base", base)?;
        Ok(Rotary { dim: self.dims.rotary_dim, base, context: self.dims.context, layout })
    }

    /// A rotary table for [`Attention`].
    pub(crate) fn rope(&mut self, table: RopeTable) -> RopeId {
        self.plan.ropes.push(table);
        RopeId(self.plan.ropes.len() as u32 - 1)
    }

    /// A visibility rule for [`Attention`].
    pub(crate) fn mask(&mut self, rule: MaskRule) -> MaskId {
        let known = self.plan.masks.iter().position(|mask| *mask == rule);
        MaskId(known.unwrap_or_else(|| {
            self.plan.masks.push(rule);
            self.plan.masks.len() - 1
        }) as u32)
    }

    /// Causal, within the file's sliding window if it has one.
    pub(crate) fn window_mask(&mut self) -> Result<MaskId> {
        let window = self.keys.u32_above_0("attention.sliding_window")?;
        Ok(self.mask(MaskRule { window, ..MaskRule::CAUSAL }))
    }

    /// Which layers see only the window of `attention.sliding_window`, by `attention.sliding_window_pattern`: one flag
    /// per layer, or the period in which every last layer sees everything (`period` where the file has none).
    pub(crate) fn windowed_layers(&self, period: u32) -> Result<Vec<bool>> {
        const KEY: &str = "attention.sliding_window_pattern";
        let n_layers = self.dims.n_layers;
        let periodic = |period: u32| self.layers().map(|layer| (layer + 1) % period != 0).collect();
        match self.keys.bools_or_u32(KEY)? {
            Some(BoolsOrU32::Bools(list)) if list.len() == n_layers => Ok(list.to_vec()),
            Some(BoolsOrU32::Bools(list)) => Err(self
                .keys
                .error(KEY, format!("has {} entries, expected {n_layers}, one per layer", list.len()))),
            Some(BoolsOrU32::U32(0)) => Ok(vec![true; n_layers]),
            Some(BoolsOrU32::U32(period)) => Ok(periodic(period)),
            None => Ok(periodic(period)),
        }
    }

    /// A second axis of positions: that of scopes.
    pub(crate) fn scope_axis(&mut self) {
        self.plan.axes = 2;
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

    /// `x = activation(x)`.
    pub(crate) fn activate(&mut self, activation: Activation, x: BufferId) {
        self.step(Op::Activate { activation, x, up: None, out: x });
    }

    /// `residual += x`.
    pub(crate) fn add(&mut self, x: BufferId, residual: BufferId) {
        self.step(Op::Add { a: residual, b: x, out: residual });
    }

    /// `x *= factor`; a factor of 1 is no step.
    pub(crate) fn scale(&mut self, factor: f32, x: BufferId) {
        if factor != 1.0 {
            self.step(Op::Scale { factor, x });
        }
    }

    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn softcap(&mut self, cap: f32, x: BufferId) {
        self.step(Op::Softcap { cap, x });
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

fn tensor<'a>(gguf: &'a Gguf, architecture: &str, name: &str) -> Result<&'a TensorInfo> {
    gguf.tensor(name).ok_or_else(|| missing(gguf, architecture, name))
}

fn missing(gguf: &Gguf, architecture: &str, name: &str) -> Error {
    Error::model(format!(
        "{}: tensor \"{name}\" is missing, which a {architecture} model needs; get the model again",
        gguf.name()
    ))
}
