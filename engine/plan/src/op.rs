//! The ops: about a dozen, each with one meaning that the oracle spells out.

use crate::plan::{BufferId, KvSlot, MaskId, RopeId, SelectionId, WeightId};

/// Normalization of a vector of `n` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps)` (arXiv 1910.07467).
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps)` (arXiv 1607.06450).
    Layer,
}

/// Nonlinearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (arXiv 1606.08415, the tanh form).
    GeluTanh,
}

/// How router scores become the weights of the chosen experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Softmax over all experts, keep the `k` largest, divide by their sum (qwen3moe).
    SoftmaxThenTopKRenormalized,
    /// Keep the `k` largest scores, softmax over those (gpt-oss).
    TopKThenSoftmax,
}

/// One operation of a plan. Buffers hold one row of f32 values per token (or per wanted logits row), `t` below.
/// `x` and `out` may be the same buffer only where the op says "in place".
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `out[t, :] = scale * table[token[t], :]`.
    Embed {
        /// `[vocab, width]`.
        table: WeightId,
        /// Factor on every value (gemma: `sqrt(width)`).
        scale: f32,
        /// `[t, width]`.
        out: BufferId,
    },
    /// Each run of `group` values of a row is normalized by itself, then multiplied by `weight` (+ `bias`), both of
    /// length `group`. `group` is the row width for block norms and head_dim for QK-norm. In place.
    Norm {
        /// Which normalization.
        kind: NormKind,
        /// Added under the root.
        eps: f32,
        /// `[group]`.
        weight: WeightId,
        /// `[group]`.
        bias: Option<WeightId>,
        /// Values normalized together; divides the row width.
        group: usize,
        /// `[t, width]`.
        x: BufferId,
        /// `[t, width]`.
        out: BufferId,
    },
    /// `out[t, r] = sum_c weight[r, c] * x[t, c] (+ bias[r]) (+ residual[t, r])`. `residual` may be `out` itself.
    MatMul {
        /// `[rows, cols]`.
        weight: WeightId,
        /// `[rows]`.
        bias: Option<WeightId>,
        /// `[t, rows]`.
        residual: Option<BufferId>,
        /// `[t, cols]`.
        x: BufferId,
        /// `[t, rows]`.
        out: BufferId,
    },
    /// `out[t, :] = activation(gate[r, :] . x[t, :]) * (up[r, :] . x[t, :])`: the fusion of two MatMuls and an Activate;
    /// [`Op::expand`] is its definition.
    GatedMatMul {
        /// `[rows, cols]`.
        gate: WeightId,
        /// `[rows, cols]`.
        up: WeightId,
        /// Applied to the gate.
        activation: Activation,
        /// `[t, cols]`.
        x: BufferId,
        /// Scratch of the expansion, `[t, rows]`; undefined after the op.
        scratch: BufferId,
        /// `[t, rows]`.
        out: BufferId,
    },
    /// Turns the rotary pairs of every head of `x`. In place.
    Rope {
        /// Frequencies, axes and layout.
        table: RopeId,
        /// Values per head; the row width is a multiple of it.
        head_dim: usize,
        /// `[t, n_heads * head_dim]`, changed in place.
        x: BufferId,
    },
    /// Writes the keys and values of every token into its cell.
    KvStore {
        /// Which layer's cache.
        slot: KvSlot,
        /// `[t, n_kv_heads * head_dim]`.
        k: BufferId,
        /// `[t, n_kv_heads * head_dim]`.
        v: BufferId,
    },
    /// Keeps the query of every token until that of the 16th token after it takes its place, for [`crate::Runner::fold`]: the queries
    /// are those of the last tokens that ran, so only one sequence can be folded in turn.
    QueryStore {
        /// `[t, n_heads * head_dim]`, after Rope.
        q: BufferId,
        /// Whose keys and values are folded.
        slot: KvSlot,
        /// Query heads.
        n_heads: usize,
        /// Factor on scores, as that of Attend.
        scale: f32,
    },
    /// Per token and KV head, chooses up to `pages` pages among those of the token's sequence that hold a cell which is
    /// causal but hidden by `mask`: those with the largest
    /// `max over the group's query heads of sum_d (q_d * middle_d + PAGE_SPREAD * |q_d| * radius_d)`, where `middle` and
    /// `radius` are those of the range of the page's keys, per dimension, over its written cells. With the whole radius
    /// this is a bound on `q . k` (Quest, arXiv 2406.10774), which no key comes near in all dimensions at once. Ties: the
    /// earlier page in the sequence's page list. Cells written by later tokens of the same batch count, so the choice is
    /// independent of how a prompt is cut into batches only where the mask's window spans a page or more.
    SelectPages {
        /// `[t, n_heads * head_dim]`, after Rope.
        q: BufferId,
        /// Whose keys.
        slot: KvSlot,
        /// Query heads.
        n_heads: usize,
        /// What is visible without selection.
        mask: MaskId,
        /// Budget per token and KV head.
        pages: usize,
        /// Where the choice is kept for [`Op::Attend`].
        out: SelectionId,
    },
    /// `out[t, h, :] = sum_c softmax_c(cap(scale * q[t, h, :] . k[c, kv(h), :])) * v[c, kv(h), :]` over the visible cells `c`,
    /// with `kv(h) = h / (n_heads / n_kv_heads)` (GQA, arXiv 2305.13245) and `cap(s) = softcap * tanh(s / softcap)`.
    Attend {
        /// `[t, n_heads * head_dim]`.
        q: BufferId,
        /// Whose keys and values.
        slot: KvSlot,
        /// Query heads.
        n_heads: usize,
        /// Factor on scores, usually `1 / sqrt(head_dim)`.
        scale: f32,
        /// Soft cap on scores.
        softcap: Option<f32>,
        /// Which cells are visible.
        mask: MaskId,
        /// Pages visible beside the mask.
        selection: Option<SelectionId>,
        /// `[n_heads]`: a learned score per head that joins the softmax's denominator only (gpt-oss).
        sink_scores: Option<WeightId>,
        /// `[t, n_heads * head_dim]`.
        out: BufferId,
    },
    /// `out = activation(x)`, or `activation(x) * up` where `up` is given. In place: `out` may be `x` or `up`.
    Activate {
        /// Which nonlinearity.
        activation: Activation,
        /// `[t, width]`.
        x: BufferId,
        /// `[t, width]`.
        up: Option<BufferId>,
        /// `[t, width]`.
        out: BufferId,
    },
    /// `out = a + b`. In place in `a`.
    Add {
        /// `[t, width]`.
        a: BufferId,
        /// `[t, width]`.
        b: BufferId,
        /// `[t, width]`.
        out: BufferId,
    },
    /// `x *= factor`, in place.
    Scale {
        /// The factor.
        factor: f32,
        /// `[t, width]`.
        x: BufferId,
    },
    /// `x = cap * tanh(x / cap)`, in place.
    Softcap {
        /// The bound.
        cap: f32,
        /// `[t, width]`.
        x: BufferId,
    },
    /// `out[l, :] = x[rows wanted as logits [l], :]`: everything after it runs on those rows only.
    TakeRows {
        /// `[t, width]`.
        x: BufferId,
        /// `[logits rows, width]`.
        out: BufferId,
    },
    /// Mixture of experts: `out[t] = sum_j w_j * down_e(j) (activation(gate_e(j) x) * up_e(j) x)` over the `top_k` experts `e(j)`
    /// chosen by the router scores (arXiv 1701.06538). Ties: the lower expert.
    Experts {
        /// Router scores, `[t, n_experts]`.
        router: BufferId,
        /// How scores become weights.
        routing: Routing,
        /// Experts per token.
        top_k: usize,
        /// `[n_experts, rows, cols]`.
        gate: WeightId,
        /// `[n_experts, rows, cols]`.
        up: WeightId,
        /// `[n_experts, cols, rows]`.
        down: WeightId,
        /// Applied to the gate.
        activation: Activation,
        /// `[t, cols]`.
        x: BufferId,
        /// `[t, cols]`.
        out: BufferId,
    },
    /// The `k` largest values of each row, descending, and their indices as whole f32 numbers (exact below 2^24).
    /// Ties: the lower index.
    TopK {
        /// `[t, width]`.
        x: BufferId,
        /// How many.
        k: usize,
        /// `[t, k]`.
        values: BufferId,
        /// `[t, k]`.
        indices: BufferId,
    },
}

impl Op {
    /// The op's name, as tables and profiles print it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "Embed",
            Op::Norm { .. } => "Norm",
            Op::MatMul { .. } => "MatMul",
            Op::GatedMatMul { .. } => "GatedMatMul",
            Op::Rope { .. } => "Rope",
            Op::KvStore { .. } => "KvStore",
            Op::QueryStore { .. } => "QueryStore",
            Op::SelectPages { .. } => "SelectPages",
            Op::Attend { .. } => "Attend",
            Op::Activate { .. } => "Activate",
            Op::Add { .. } => "Add",
            Op::Scale { .. } => "Scale",
            Op::Softcap { .. } => "Softcap",
            Op::TakeRows { .. } => "TakeRows",
            Op::Experts { .. } => "Experts",
            Op::TopK { .. } => "TopK",
        }
    }

    /// The unfused ops a fused op stands for, or `None` for an op that is its own definition.
    pub fn expand(&self) -> Option<Vec<Op>> {
        match *self {
            Op::GatedMatMul { gate, up, activation, x, scratch, out } => Some(vec![
                Op::MatMul { weight: gate, bias: None, residual: None, x, out: scratch },
                Op::MatMul { weight: up, bias: None, residual: None, x, out },
                Op::Activate { activation, x: scratch, up: Some(out), out },
            ]),
            _ => None,
        }
    }
}
