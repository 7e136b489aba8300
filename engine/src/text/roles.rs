//! Tokens with a role in generation: those that end it and those that frame fill-in-the-middle prompts.
//!
//! Many files name only one end token, and few name those of fill-in-the-middle, so the others are known by
//! their text.

use super::VocabSpec;
use super::vocab::{FimTokens, TokenKind, Vocab};

/// Texts of tokens that end a generation, in the model families people use. Not `</s>`: in some vocabularies it is
/// HTML, and where it is not, files name its id.
const END: &[&str] = &[
    "<|eot_id|>",            // Llama 3
    "<|eom_id|>",            // Llama 3, before a tool call
    "<|end_of_text|>",       // Llama 3, Granite
    "<|im_end|>",            // ChatML: Qwen, SmolLM
    "<|endoftext|>",         // GPT-2, StarCoder, Qwen
    "<|end|>",               // Phi 3
    "<end_of_turn>",         // Gemma
    "<eos>",                 // Gemma
    "<|EOT|>",               // DeepSeek Coder
    "<｜end▁of▁sentence｜>", // DeepSeek
    "<EOT>",
    "▁<EOT>", // CodeLlama
];

/// Gives one of the fill-in-the-middle ids.
type FimField = fn(&mut FimTokens) -> &mut Option<u32>;

/// Their texts. Qwen; StarCoder; StarCoder 2, Granite and SantaCoder; DeepSeek Coder; CodeLlama; Codestral.
const FIM: &[(FimField, &[&str])] = &[
    (
        |fim| &mut fim.prefix,
        &["<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "▁<PRE>", "<PRE>", "[PREFIX]"],
    ),
    (
        |fim| &mut fim.suffix,
        &["<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "<｜fim▁hole｜>", "▁<SUF>", "<SUF>", "[SUFFIX]"],
    ),
    (
        |fim| &mut fim.middle,
        &["<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>", "▁<MID>", "<MID>", "[MIDDLE]"],
    ),
    (|fim| &mut fim.pad, &["<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<PAD>"]),
    (|fim| &mut fim.repo, &["<|repo_name|>", "<repo_name>", "<reponame>", "<|fim_repo|>", "<REPO>"]),
    (|fim| &mut fim.sep, &["<|file_sep|>", "<file_sep>"]),
];

/// Completes `spec.fim` by name and gives the ids that end a generation, ascending.
///
/// A token found so is a control token from now on, whatever the file calls it, so that no text can forge it.
/// By name, only those count that the file itself does not call normal text.
pub(super) fn assign(vocab: &mut Vocab, spec: &mut VocabSpec, has_types: bool) -> Vec<u32> {
    let by_name = |vocab: &Vocab, name: &str| {
        let id = vocab.id_of(name.as_bytes())?;
        // CodeLlama's files call these, which no merge makes, normal.
        let marked = !has_types || name.starts_with('▁') || vocab.kind(id) != TokenKind::Normal;
        marked.then_some(id)
    };
    for (field, names) in FIM {
        let id = field(&mut spec.fim);
        *id = id.or_else(|| names.iter().find_map(|name| by_name(vocab, name)));
    }
    let named = END.iter().filter_map(|name| by_name(vocab, name));
    let fim = &spec.fim;
    let mut end: Vec<u32> = named
        .chain([spec.eos, spec.eot, spec.eom, fim.pad, fim.repo, fim.sep].into_iter().flatten())
        .collect();
    end.sort_unstable();
    end.dedup();

    let framing = [spec.bos, fim.prefix, fim.suffix, fim.middle].into_iter().flatten();
    for id in end.iter().copied().chain(framing) {
        vocab.mark_control(id);
    }
    end
}
