//! A model of nonsense with the shapes and formats of a real one, for measuring speed where there is no file of that size:
//!
//! ```text
//! cargo run --release -p cchaha-benches --bin synthetic-model -- OUT.gguf [LAYERS | tiny]
//! ```
//!
//! The shapes are those of LLaMA with 7 billion weights (arXiv 2302.13971), the formats those of a Q4_K_M file: Q4_K, and Q6_K for
//! the output and, in half of the layers, for attn_v and ffn_down. With fewer LAYERS than 32 it is smaller and as wide; `tiny` is one
//! that even a software adapter gets through.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;

use cchaha_gguf::{Array, Dims, Metadata, TensorSpec, Value, write};
use cchaha_plan::Format;

/// Sizes of a model.
#[derive(Clone, Copy)]
struct Shapes {
    layers: usize,
    width: usize,
    hidden: usize,
    vocab: usize,
}

const LARGE: Shapes = Shapes { layers: 32, width: 4096, hidden: 11008, vocab: 32000 };
const TINY: Shapes = Shapes { layers: 2, width: 512, hidden: 1536, vocab: 2048 };
const HEAD_DIM: usize = 128;
const CONTEXT: u32 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), layers, None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: synthetic-model OUT.gguf [LAYERS | tiny]".into());
    };
    let shapes = match layers.as_deref() {
        None => LARGE,
        Some("tiny") => TINY,
        Some(layers) => Shapes { layers: layers.parse()?, ..LARGE },
    };
    let tensors = tensors(shapes).ok_or("a tensor without dimensions")?;
    let mut random = Random(1);
    write(Path::new(&path), &metadata(shapes), &tensors, |i, out| {
        let bytes = tensors[i].dims.n_bytes(tensors[i].format).ok_or(io::ErrorKind::InvalidInput)?;
        random.fill(tensors[i].format, bytes, out)
    })?;
    Ok(())
}

fn metadata(shapes: Shapes) -> Metadata {
    let mut metadata = Metadata::new();
    metadata
        .set("general.architecture", Value::Str("llama".into()))
        .set("general.name", Value::Str("synthetic".into()))
        .set("llama.block_count", Value::U32(shapes.layers as u32))
        .set("llama.context_length", Value::U32(CONTEXT))
        .set("llama.embedding_length", Value::U32(shapes.width as u32))
        .set("llama.feed_forward_length", Value::U32(shapes.hidden as u32))
        .set("llama.attention.head_count", Value::U32((shapes.width / HEAD_DIM) as u32))
        .set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .set("llama.rope.dimension_count", Value::U32(HEAD_DIM as u32))
        .set("tokenizer.ggml.model", Value::Str("llama".into()));
    // SentencePiece types: 1 ordinary, 2 unknown, 3 control, 6 byte.
    let piece = |id: usize| match id {
        0 => ("<unk>".to_owned(), 2),
        1 => ("<s>".to_owned(), 3),
        2 => ("</s>".to_owned(), 3),
        3..259 => (format!("<0x{:02X}>", id - 3), 6),
        _ => (format!("\u{2581}w{id}"), 1),
    };
    let (pieces, types): (Vec<String>, Vec<i32>) = (0..shapes.vocab).map(piece).unzip();
    let scores = (0..shapes.vocab).map(|id| -(id as f32)).collect();
    metadata
        .set("tokenizer.ggml.tokens", Value::Array(Array::Strings(pieces.into_iter().collect())))
        .set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)))
        .set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))
        .set("tokenizer.ggml.bos_token_id", Value::U32(1))
        .set("tokenizer.ggml.eos_token_id", Value::U32(2))
        .set("tokenizer.ggml.unknown_token_id", Value::U32(0));
    metadata
}

fn tensors(shapes: Shapes) -> Option<Vec<TensorSpec>> {
    let Shapes { layers, width, hidden, vocab } = shapes;
    let mut tensors = Vec::new();
    let mut add = |name: String, format, dims: &[usize]| {
        tensors.push(TensorSpec { name, format, dims: Dims::new(dims)? });
        Some(())
    };
    add("token_embd.weight".into(), Format::Q4_K, &[width, vocab])?;
    for layer in 0..layers {
        let finer = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let better = if finer { Format::Q6_K } else { Format::Q4_K };
        let mut add = |name, format, dims: &[usize]| add(format!("blk.{layer}.{name}.weight"), format, dims);
        add("attn_norm", Format::F32, &[width])?;
        add("attn_q", Format::Q4_K, &[width, width])?;
        add("attn_k", Format::Q4_K, &[width, width])?;
        add("attn_v", better, &[width, width])?;
        add("attn_output", Format::Q4_K, &[width, width])?;
        add("ffn_norm", Format::F32, &[width])?;
        add("ffn_gate", Format::Q4_K, &[width, hidden])?;
        add("ffn_up", Format::Q4_K, &[width, hidden])?;
        add("ffn_down", better, &[hidden, width])?;
    }
    add("output_norm.weight".into(), Format::F32, &[width])?;
    add("output.weight".into(), Format::Q6_K, &[width, vocab])?;
    Some(tensors)
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Random blocks whose values lie around zero with a deviation of about 1 / 50, so that activations stay ordinary; norms of 1.
    fn fill(&mut self, format: Format, bytes: usize, out: &mut dyn Write) -> io::Result<()> {
        if format == Format::F32 {
            return out.write_all(&1f32.to_le_bytes().repeat(bytes / 4));
        }
        let size = format.block_bytes();
        let mut row = vec![0; size.next_multiple_of(8)];
        for _ in 0..bytes / size {
            for word in row.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes());
            }
            // f16: 2^-14, and 7.5 times that, which takes the mean of 4-bit values away.
            let (scale, offset) = ([0x00, 0x04], [0x80, 0x0F]);
            if format == Format::Q4_K {
                row[..2].copy_from_slice(&scale);
                row[2..4].copy_from_slice(&offset);
            } else {
                row[192..208].iter_mut().for_each(|scale| *scale = (*scale % 32).wrapping_sub(16));
                row[208..210].copy_from_slice(&scale);
            }
            out.write_all(&row[..size])?;
        }
        Ok(())
    }
}
