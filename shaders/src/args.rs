//! What kernels are told with every dispatch, as immediates: the twins of the `Args` structs in `wgsl/`. A test compares names,
//! types and offsets with what naga reflects.
//!
//! `twin` is where the output is wanted rounded (`lib/rounded`), with the stride of the output; NONE where it is not.
//!
//! Places in the arena and strides count floats, planes count vec4s, places in `vectors` and `frame` count their elements.

use bytemuck::{Pod, Zeroable};

/// For optional places: there is none.
pub(crate) const NONE: u32 = u32::MAX;

/// A struct of immediates.
pub(crate) trait Args: Pod {
    /// Names and types of the fields, in order.
    const FIELDS: &'static [(&'static str, &'static str)];
}

macro_rules! args {
    ($($(#[$doc:meta])* $name:ident $module:literal { $($field:ident: $type:ident),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Pod, Zeroable)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type),*
            }

            impl Args for $name {
                const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($type))),*];
            }
        )*

        /// Module and fields of every struct.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &[(&str, &str)])] = &[$(($module, $name::FIELDS)),*];
    };
}

args! {
    /// Matrix kernels.
    MatMul "lib/matmul" {
        x: u32, x_stride: u32, out: u32, out_stride: u32, residual: u32, residual_stride: u32, bias: u32, first: u32,
        rows: u32, runs: u32, tokens: u32, activation: u32, plane0: u32, plane1: u32, plane2: u32, plane3: u32, twin: u32,
    }
    /// Rows of a table.
    Embed "ops/embed" {
        out: u32, out_stride: u32, scale: f32, record: u32, first: u32, rows: u32, runs: u32, tokens: u32,
        plane0: u32, plane1: u32, plane2: u32, plane3: u32, fed: u32,
    }
    /// Norm of groups.
    Norm "ops/norm" {
        x: u32, x_stride: u32, out: u32, out_stride: u32, group: u32, weight: u32, bias: u32, kind: u32, eps: f32,
        twin: u32,
    }
    /// Rotary turn in place.
    Rope "ops/rope" {
        x: u32, x_stride: u32, heads: u32, head_dim: u32, pairs: u32, interleaved: u32, table: u32, magnitude: f32,
        record: u32,
    }
    /// Keys and values to their cells.
    KvStore "ops/kv_store" {
        k: u32, k_stride: u32, v: u32, v_stride: u32, kv_heads: u32, head_dim: u32, record: u32,
    }
    /// Norm, rotary turn and store in one.
    Heads "ops/heads" {
        q: u32, q_stride: u32, k: u32, k_stride: u32, v: u32, v_stride: u32, heads: u32, kv_heads: u32, pairs: u32,
        interleaved: u32, table: u32, magnitude: f32, record: u32, q_norm: u32, k_norm: u32, eps: f32,
    }
    /// Attention and the merge of its parts.
    Attend "lib/attention" {
        q: u32, q_stride: u32, out: u32, out_stride: u32, parts: u32, splits: u32, heads: u32, kv_heads: u32, record: u32,
        cells: u32, selection: u32, pages: u32, window: u32, sinks: u32, rules: u32, sink_scores: u32, scale: f32,
        softcap: f32, tokens: u32, twin: u32, k: u32, v: u32, pairs: u32, interleaved: u32, table: u32, magnitude: f32,
        q_norm: u32, k_norm: u32, eps: f32,
    }
    /// Queries of the last tokens.
    QueryStore "ops/query_store" {
        q: u32, q_stride: u32, width: u32, record: u32, queries: u32, queries_stride: u32, tokens: u32,
    }
    /// Folding of old cells.
    Fold "ops/fold" {
        queries: u32, queries_stride: u32, heads: u32, kv_heads: u32, scale: f32, list: u32, weights: u32, scores: u32,
        cells: u32, pages: u32, old: u32, sinks: u32, keep: u32,
    }
    /// Choice of pages.
    SelectPages "ops/select_pages" {
        q: u32, q_stride: u32, heads: u32, kv_heads: u32, record: u32, cells: u32, selection: u32, bounds: u32,
        pages: u32, budget: u32, window: u32, sinks: u32, rules: u32, spread: f32,
    }
    /// Every value by itself.
    Elementwise "ops/elementwise" {
        x: u32, x_stride: u32, y: u32, y_stride: u32, out: u32, out_stride: u32, width: u32, mode: u32, activation: u32,
        factor: f32, twin: u32,
    }
    /// Rows whose logits are wanted.
    TakeRows "ops/take_rows" {
        x: u32, x_stride: u32, out: u32, out_stride: u32, width: u32, wanted: u32, twin: u32,
    }
    /// Largest values; also the routing of experts.
    TopK "ops/top_k" {
        x: u32, x_stride: u32, values: u32, values_stride: u32, indices: u32, indices_stride: u32, width: u32, k: u32,
        softmax: u32,
    }
    /// Activations as integers.
    Quantize "ops/quantize" { x: u32, x_stride: u32, out: u32, out_stride: u32, runs: u32 }
    /// The greatest value.
    ArgMax "ops/arg_max" { x: u32, from_index: u32, values: u32, indices: u32, width: u32, share: u32 }
    /// One matrix of the chosen experts.
    ExpertGemv "ops/expert_gemv" {
        x: u32, x_stride: u32, out: u32, out_stride: u32, indices: u32, indices_stride: u32, top_k: u32, share: u32,
        rows: u32, runs: u32, first: u32, held: u32, plane0: u32, plane1: u32, plane2: u32, plane3: u32,
    }
    /// Reading of memory.
    Probe "ops/probe" { rows: u32, stride: u32 }
    /// Sum of the chosen experts' outputs.
    ExpertSum "ops/expert_sum" {
        x: u32, x_stride: u32, out: u32, out_stride: u32, shares: u32, shares_stride: u32, width: u32, top_k: u32,
    }
}
