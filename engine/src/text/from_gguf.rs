//! The tokenizer a GGUF file describes with its `tokenizer.ggml.*` keys.

use cchaha_gguf::Metadata;

use super::pre::Rule;
use super::vocab::{FimTokens, Pieces};
use super::{HybridSpec, Tokenizer, TokenizerError, VocabModel, VocabSpec};

impl Tokenizer {
    /// Reads `tokenizer.ggml.*`. What is absent has the defaults of the format's reference: for SentencePiece,
    /// ids 1, 2 and 0 for BOS, EOS and the unknown token, a BOS and a space prefix; for BPE, the rule's own.
    pub fn from_gguf(meta: &Metadata) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::new(VocabSpec::from_gguf(meta)?)
    }
}

impl VocabSpec {
    /// What the `tokenizer.ggml.*` keys say.
    pub fn from_gguf(meta: &Metadata) -> Result<VocabSpec, TokenizerError> {
        let model = match meta.require_str("tokenizer.ggml.model")? {
            "gpt2" => VocabModel::Bpe,
            "llama" => VocabModel::Spm,
            "cchaha" => VocabModel::Hybrid,
            other => return Err(TokenizerError::UnknownModel { name: other.to_owned() }),
        };
        let tokens: Pieces = meta.require_strings("tokenizer.ggml.tokens")?.iter().collect();
        let n_tokens = tokens.len();
        let mut spec = VocabSpec::new(model, tokens);
        spec.types = meta.i32s("tokenizer.ggml.token_type")?.map(|types| types.into_owned());

        let id = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
            let id = meta.u32(key)?;
            match id.filter(|&id| id as usize >= n_tokens) {
                Some(id) => Err(TokenizerError::Id { key, id, tokens: n_tokens }),
                None => Ok(id),
            }
        };
        let flag = |key, default| Ok::<_, TokenizerError>(meta.bool(key)?.unwrap_or(default));

        let add_bos = match model {
            VocabModel::Bpe => {
                if let Some(pre) = meta.str("tokenizer.ggml.pre")? {
                    spec.pre = pre.to_owned();
                }
                spec.merges = meta.require_strings("tokenizer.ggml.merges")?.iter().collect();
                Rule::find(&spec.pre).is_some_and(|rule| rule.add_bos)
            }
            VocabModel::Spm => {
                spec.scores = meta.f32s("tokenizer.ggml.scores")?.map(|scores| scores.into_owned());
                spec.add_space_prefix = flag("tokenizer.ggml.add_space_prefix", true)?;
                spec.remove_extra_whitespaces = flag("tokenizer.ggml.remove_extra_whitespaces", false)?;
                let default = |id: u32| Some(id).filter(|&id| (id as usize) < n_tokens);
                (spec.bos, spec.eos, spec.unk) = (default(1), default(2), default(0));
                true
            }
            VocabModel::Hybrid => {
                spec.hybrid = HybridSpec::from_gguf(meta)?;
                false
            }
        };
        spec.add_bos = flag("tokenizer.ggml.add_bos_token", add_bos)?;
        spec.add_eos = flag("tokenizer.ggml.add_eos_token", false)?;
        spec.bos = id("tokenizer.ggml.bos_token_id")?.or(spec.bos);
        spec.eos = id("tokenizer.ggml.eos_token_id")?.or(spec.eos);
        spec.eot = id("tokenizer.ggml.eot_token_id")?;
        spec.eom = id("tokenizer.ggml.eom_token_id")?;
        spec.unk = id("tokenizer.ggml.unknown_token_id")?.or(spec.unk);
        spec.pad = id("tokenizer.ggml.padding_token_id")?;

        let either = |new, old| Ok::<_, TokenizerError>(id(new)?.or(id(old)?));
        spec.fim = FimTokens {
            prefix: either("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")?,
            suffix: either("tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id")?,
            middle: either("tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id")?,
            pad: id("tokenizer.ggml.fim_pad_token_id")?,
            repo: id("tokenizer.ggml.fim_rep_token_id")?,
            sep: id("tokenizer.ggml.fim_sep_token_id")?,
        };
        Ok(spec)
    }
}
