//! Which format each tensor gets: the mixes users of GGUF know, as tables.
//!
//! The choices are those of llama.cpp (`llama-quant.cpp`), so that a `Q4_K_M` made here has the tensor types of one made
//! there. First come the user's own choices, then what is never quantized, then [`RULES`], then what the width allows.

use cchaha::gguf::{Dims, Metadata};
use cchaha::plan::Format;

use crate::exit::{Failure, Result};
use crate::source::SourceTensor;

/// A name for `--type`: what most tensors get, and which rules hold beside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    /// What tensors get that no rule names.
    pub(crate) base: Format,
    /// `general.file_type`.
    pub(crate) file_type: u32,
}

const fn mix(name: &'static str, base: Format, file_type: u32) -> Mix {
    Mix { name, base, file_type }
}

/// Every mix. The second name of a line is the same mix.
pub(crate) const MIXES: [Mix; 25] = [
    mix("F32", Format::F32, 0),
    mix("F16", Format::F16, 1),
    mix("BF16", Format::BF16, 32),
    mix("Q8_0", Format::Q8_0, 7),
    mix("Q6_K", Format::Q6_K, 18),
    mix("Q5_K_M", Format::Q5_K, 17),
    mix("Q5_K", Format::Q5_K, 17),
    mix("Q5_K_S", Format::Q5_K, 16),
    mix("Q5_1", Format::Q5_1, 9),
    mix("Q5_0", Format::Q5_0, 8),
    mix("Q4_K_M", Format::Q4_K, 15),
    mix("Q4_K", Format::Q4_K, 15),
    mix("Q4_K_S", Format::Q4_K, 14),
    mix("Q4_1", Format::Q4_1, 3),
    mix("Q4_0", Format::Q4_0, 2),
    mix("IQ4_NL", Format::IQ4_NL, 25),
    mix("IQ4_XS", Format::IQ4_XS, 30),
    mix("MXFP4_MOE", Format::MXFP4, 38),
    mix("MXFP4", Format::MXFP4, 38),
    mix("Q3_K_L", Format::Q3_K, 13),
    mix("Q3_K_M", Format::Q3_K, 12),
    mix("Q3_K", Format::Q3_K, 12),
    mix("Q3_K_S", Format::Q3_K, 11),
    mix("Q2_K", Format::Q2_K, 10),
    mix("Q2_K_S", Format::Q2_K, 21),
];

impl Mix {
    /// The mix of this name, letter case ignored.
    pub(crate) fn from_name(name: &str) -> std::result::Result<Mix, String> {
        MIXES.into_iter().find(|mix| mix.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names: Vec<&str> = MIXES.iter().map(|mix| mix.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.rule_name())
    }

    /// The name that rules use.
    fn rule_name(&self) -> &'static str {
        match self.name {
            "Q5_K" => "Q5_K_M",
            "Q4_K" => "Q4_K_M",
            "Q3_K" => "Q3_K_M",
            name => name,
        }
    }
}

/// What a tensor does, as far as rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// `output.weight`, or the token embedding where it serves as such.
    Output,
    TokenEmbd,
    /// Also fused QKV and compressed KV: errors of values go straight into the output.
    AttnV,
    AttnK,
    AttnOutput,
    FfnDown,
    Other,
}

/// Roles by a part of the name; the first that fits.
const ROLES: [(&str, Role); 9] = [
    ("token_embd.weight", Role::TokenEmbd),
    ("attn_qkv.weight", Role::AttnV),
    ("attn_kv_b.weight", Role::AttnV),
    ("attn_v.weight", Role::AttnV),
    ("attn_k.weight", Role::AttnK),
    ("attn_output.weight", Role::AttnOutput),
    ("ffn_up", Role::Other),
    ("ffn_gate", Role::Other),
    ("ffn_down", Role::FfnDown),
];

fn role(name: &str, tied: bool) -> Role {
    if name == "output.weight" {
        return Role::Output;
    }
    match ROLES.iter().find(|(part, _)| name.contains(part)).map_or(Role::Other, |row| row.1) {
        Role::TokenEmbd if tied => Role::Output,
        role => role,
    }
}

/// Parts of the names of matrices that are never quantized: small, or read in other ways than by products.
const KEPT: [&str; 9] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "position_embd",
    "token_types",
];

/// What rules look at.
struct Facts {
    /// Which of how many tensors of the role it is, in the order of layers; of experts, which layer.
    layer: usize,
    layers: usize,
    /// Query heads for each KV head.
    gqa: usize,
    experts: usize,
    imatrix: bool,
    /// A llama or qwen2 of 80 layers whose KV heads are shared: small value matrices.
    seventy_b: bool,
}

impl Facts {
    /// The first and last eighth of the layers and every third between: where errors cost most.
    fn more_bits(&self) -> bool {
        let eighth = self.layers / 8;
        self.layer < eighth || self.layer >= 7 * self.layers / 8 || (self.layer - eighth) % 3 == 2
    }

    fn first_eighth(&self) -> bool {
        self.layer < self.layers / 8
    }
}

/// In these mixes, tensors of this role get `format` where `when` holds.
struct Rule {
    mixes: &'static [&'static str],
    role: Role,
    when: fn(&Facts) -> bool,
    format: Format,
}

const fn rule(mixes: &'static [&'static str], role: Role, when: fn(&Facts) -> bool, format: Format) -> Rule {
    Rule { mixes, role, when, format }
}

const ANY: fn(&Facts) -> bool = |_| true;
const EIGHT_EXPERTS: fn(&Facts) -> bool = |facts| facts.experts == 8;
const SHARED_KV: fn(&Facts) -> bool = |facts| facts.gqa >= 4;
const MORE_BITS: fn(&Facts) -> bool = Facts::more_bits;
/// Every mix that quantizes.
const QUANTIZED: &[&str] = &[
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL",
    "IQ4_XS", "MXFP4", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S",
];

/// The first rule that fits decides.
const RULES: &[Rule] = &[
    rule(&["MXFP4_MOE", "Q8_0"], Role::Output, ANY, Format::Q8_0),
    rule(QUANTIZED, Role::Output, ANY, Format::Q6_K),
    // With eight experts the attention is a small part of the model.
    rule(QUANTIZED, Role::AttnV, EIGHT_EXPERTS, Format::Q8_0),
    rule(QUANTIZED, Role::AttnK, EIGHT_EXPERTS, Format::Q8_0),
    rule(&["Q4_K_M", "Q5_K_M"], Role::AttnV, MORE_BITS, Format::Q6_K),
    rule(&["Q4_K_S"], Role::AttnV, |facts| facts.layer < 4, Format::Q5_K),
    rule(&["Q3_K_M"], Role::AttnV, |facts| facts.layer < 2 || facts.seventy_b, Format::Q5_K),
    rule(&["Q3_K_M"], Role::AttnV, ANY, Format::Q4_K),
    rule(&["Q3_K_L"], Role::AttnV, ANY, Format::Q5_K),
    rule(&["IQ4_NL", "IQ4_XS"], Role::AttnV, SHARED_KV, Format::Q5_K),
    rule(&["Q2_K"], Role::AttnV, |facts| facts.seventy_b, Format::Q5_K),
    rule(&["Q2_K", "Q2_K_S"], Role::AttnV, SHARED_KV, Format::Q4_K),
    rule(&["Q2_K"], Role::AttnV, ANY, Format::Q3_K),
    rule(&["Q4_K_M", "Q4_K_S", "Q3_K_S"], Role::AttnV, |facts| facts.seventy_b, Format::Q5_K),
    rule(&["Q4_K_M", "Q5_K_M"], Role::FfnDown, MORE_BITS, Format::Q6_K),
    rule(&["Q4_K_S"], Role::FfnDown, Facts::first_eighth, Format::Q5_K),
    rule(&["IQ4_NL", "IQ4_XS"], Role::FfnDown, |facts| facts.first_eighth() && !facts.imatrix, Format::Q5_K),
    rule(&["Q3_K_M"], Role::FfnDown, |facts| facts.layer < facts.layers / 16, Format::Q5_K),
    rule(&["Q3_K_M"], Role::FfnDown, ANY, Format::Q4_K),
    rule(&["Q3_K_L"], Role::FfnDown, ANY, Format::Q5_K),
    rule(&["Q2_K"], Role::FfnDown, ANY, Format::Q3_K),
    rule(&["Q2_K_S"], Role::FfnDown, Facts::first_eighth, Format::Q4_K),
    rule(&["Q4_0"], Role::FfnDown, |facts| facts.first_eighth() && facts.imatrix, Format::Q4_1),
    rule(&["Q5_0"], Role::FfnDown, |facts| facts.first_eighth() && facts.imatrix, Format::Q5_1),
    rule(
        &["Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M"],
        Role::AttnOutput,
        EIGHT_EXPERTS,
        Format::Q5_K,
    ),
    rule(&["Q2_K"], Role::AttnOutput, |facts| facts.experts != 8, Format::Q3_K),
    rule(&["Q3_K_M"], Role::AttnOutput, |facts| facts.experts != 8, Format::Q4_K),
    rule(&["Q3_K_L"], Role::AttnOutput, |facts| facts.experts != 8, Format::Q5_K),
];

/// What serves where a row is no whole number of 256-value blocks.
const FALLBACKS: [(Format, Format); 6] = [
    (Format::IQ4_XS, Format::IQ4_NL),
    (Format::Q2_K, Format::Q4_0),
    (Format::Q3_K, Format::Q4_0),
    (Format::Q4_K, Format::Q5_0),
    (Format::Q5_K, Format::Q5_1),
    (Format::Q6_K, Format::Q8_0),
];

/// `format`, or what serves in its place for rows of this width.
pub(crate) fn fitting(format: Format, cols: usize) -> Format {
    let fits = |format: Format| cols.is_multiple_of(format.block_len());
    if fits(format) {
        return format;
    }
    let fallback = FALLBACKS.iter().find(|row| row.0 == format).map(|row| row.1);
    fallback.filter(|&format| fits(format)).unwrap_or(Format::F16)
}

/// The user's own choice for tensors whose name holds `pattern`.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) pattern: String,
    pub(crate) format: Format,
}

/// Everything that decides.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) mix: Mix,
    /// The first that fits decides.
    pub(crate) overrides: Vec<Override>,
    pub(crate) output: Option<Format>,
    pub(crate) embedding: Option<Format>,
    /// Without rules: every tensor that is quantized gets the same format.
    pub(crate) pure: bool,
    pub(crate) imatrix: bool,
}

/// Whether a tensor may be quantized at all: a matrix that products read.
pub(crate) fn is_quantizable(tensor: &SourceTensor) -> bool {
    let matrix = tensor.dims.iter().skip(1).any(|&len| len > 1);
    matrix && tensor.name.ends_with("weight") && !KEPT.iter().any(|part| tensor.name.contains(part))
}

/// The layer in a tensor's name, `blk.N.`.
pub(crate) fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

impl Recipe {
    /// The format of every tensor.
    ///
    /// # Errors
    /// Where the metadata has a key of the wrong type, or a choice does not fit its tensor.
    pub(crate) fn formats(&self, metadata: &Metadata, tensors: &[SourceTensor]) -> Result<Vec<Format>> {
        let model = ModelFacts::new(metadata, tensors, self.imatrix)?;
        for Override { pattern, .. } in &self.overrides {
            if !tensors.iter().any(|tensor| tensor.name.contains(pattern)) {
                return Err(Failure::usage(format!(
                    "--tensor-type {pattern}: no tensor's name holds {pattern:?}"
                )));
            }
        }
        tensors.iter().enumerate().map(|(i, tensor)| self.format(&model, tensors, i, tensor)).collect()
    }

    fn format(
        &self,
        model: &ModelFacts,
        tensors: &[SourceTensor],
        index: usize,
        tensor: &SourceTensor,
    ) -> Result<Format> {
        let SourceTensor { name, dims, format, .. } = tensor;
        let chosen = self.overrides.iter().find(|choice| name.contains(&choice.pattern));
        if !is_quantizable(tensor) {
            // Norms and biases are read as f32; what is no plain number stays as it is.
            return Ok(if format.block_len() == 1 { Format::F32 } else { *format });
        }
        let role = role(name, model.tied);
        let named = chosen.map(|choice| choice.format).or_else(|| self.named(name, role));
        if let Some(format) = named {
            return explicit(format, name, *dims);
        }
        if self.pure || self.mix.base.block_len() == 1 {
            return Ok(fitting(self.mix.base, dims.cols()));
        }
        if self.mix.is(&["MXFP4_MOE"]) && role != Role::Output {
            return Ok(if dims.len() > 2 {
                fitting(Format::MXFP4, dims.cols())
            } else {
                fitting(Format::Q8_0, dims.cols())
            });
        }
        if role == Role::Output && !dims.cols().is_multiple_of(self.mix.base.block_len()) {
            return Ok(fitting(Format::Q8_0, dims.cols()));
        }
        let facts = model.facts(tensors, index, role);
        let fits = |rule: &&Rule| self.mix.is(rule.mixes) && rule.role == role && (rule.when)(&facts);
        let format = RULES.iter().find(fits).map_or(self.mix.base, |rule| rule.format);
        Ok(fitting(format, dims.cols()))
    }

    /// What `--output-type` and `--embedding-type` say. Where one tensor is both, the output's counts.
    fn named(&self, name: &str, role: Role) -> Option<Format> {
        let embedding = if name.contains("token_embd.weight") { self.embedding } else { None };
        match role {
            Role::Output => self.output.or(embedding),
            Role::TokenEmbd => embedding,
            _ => None,
        }
    }
}

/// A format asked for by name must fit.
fn explicit(format: Format, name: &str, dims: Dims) -> Result<Format> {
    if dims.cols().is_multiple_of(format.block_len()) {
        return Ok(format);
    }
    let block = format.block_len();
    Err(Failure::usage(format!(
        "{name} has rows of {} values, which {format} cannot hold in blocks of {block}; {} fits",
        dims.cols(),
        fitting(format, dims.cols())
    )))
}

/// What rules need to know of the whole model.
struct ModelFacts {
    tied: bool,
    gqa: usize,
    experts: usize,
    layers: usize,
    seventy_b: bool,
    imatrix: bool,
}

impl ModelFacts {
    fn new(metadata: &Metadata, tensors: &[SourceTensor], imatrix: bool) -> Result<ModelFacts> {
        let read = || -> std::result::Result<ModelFacts, cchaha::gguf::Error> {
            let architecture = metadata.str("general.architecture")?.unwrap_or_default();
            let number = |key: &str| metadata.usize(&format!("{architecture}.{key}"));
            let layers = number("block_count")?.unwrap_or_else(|| {
                tensors.iter().filter_map(|t| layer(&t.name)).max().map_or(0, |last| last + 1)
            });
            // Some models give these for each layer; the rules were made for those that do not.
            let heads = number("attention.head_count").unwrap_or(None).unwrap_or(1);
            let kv_heads = number("attention.head_count_kv").unwrap_or(None).unwrap_or(heads);
            let eighty =
                layers == 80 && (architecture == "qwen2" || architecture == "llama" && heads != kv_heads);
            Ok(ModelFacts {
                tied: !tensors.iter().any(|tensor| tensor.name == "output.weight"),
                gqa: heads.checked_div(kv_heads).unwrap_or(1),
                experts: number("expert_count")?.unwrap_or(0),
                layers,
                seventy_b: eighty,
                imatrix,
            })
        };
        Ok(read().map_err(cchaha::Error::from)?)
    }

    fn facts(&self, tensors: &[SourceTensor], index: usize, wanted: Role) -> Facts {
        let own = layer(&tensors[index].name).unwrap_or(0);
        let same =
            || tensors.iter().enumerate().filter(|(_, tensor)| role(&tensor.name, self.tied) == wanted);
        let before =
            same().filter(|(i, tensor)| (layer(&tensor.name).unwrap_or(0), *i) < (own, index)).count();
        let (layer, layers) = match wanted {
            Role::AttnV => (before, same().count()),
            _ if self.experts > 1 => (own, self.layers),
            _ => (before, self.layers),
        };
        Facts {
            layer,
            layers,
            gqa: self.gqa,
            experts: self.experts,
            imatrix: self.imatrix,
            seventy_b: self.seventy_b,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_mixes_that_exist() {
        for rule in RULES {
            for name in rule.mixes {
                assert!(MIXES.iter().any(|mix| mix.rule_name() == *name), "{name}");
            }
        }
        for name in QUANTIZED {
            assert!(MIXES.iter().any(|mix| mix.name == *name && mix.base.block_len() > 1), "{name}");
        }
    }

    #[test]
    fn widths_that_do_not_fit_fall_back() {
        assert_eq!(fitting(Format::Q4_K, 512), Format::Q4_K);
        assert_eq!(fitting(Format::Q4_K, 896), Format::Q5_0);
        assert_eq!(fitting(Format::Q6_K, 896), Format::Q8_0);
        assert_eq!(fitting(Format::IQ4_XS, 32), Format::IQ4_NL);
        assert_eq!(fitting(Format::Q4_K, 172), Format::F16);
        assert_eq!(fitting(Format::Q8_0, 172), Format::F16);
    }
}
