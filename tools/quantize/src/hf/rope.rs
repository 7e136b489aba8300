//! Rotary positions: `rope_theta` and `rope_scaling`, or the `rope_parameters` that newer files have instead.

use cchaha::gguf::Metadata;

use super::json::Object;
use crate::exit::Result;

/// What is known about rotary positions once the keys have been written.
#[derive(Debug, Default)]
pub(super) struct Rope {
    /// Llama 3's divisor per rotary pair, for `rope_freqs.weight`.
    pub(super) factors: Option<Vec<f32>>,
}

/// Writes `{arch}.rope.*`. `base` is what the architecture takes where the file is silent.
pub(super) fn convert(
    config: &Object,
    arch: &str,
    base: f32,
    head_dim: u32,
    metadata: &mut Metadata,
) -> Result<Rope> {
    let parameters = config.object("rope_parameters")?;
    // Models with two kinds of layers have one set of parameters for each.
    let parameters = match &parameters {
        Some(kinds) => kinds.object("full_attention")?.or(parameters),
        None => config.object("rope_scaling")?,
    };
    let (scaling, empty) = (parameters, Object::default());
    let scaling = scaling.as_ref().unwrap_or(&empty);
    let base = scaling.f32("rope_theta")?.or(config.f32("rope_theta")?).unwrap_or(base);
    let key = |name: &str| format!("{arch}.rope.{name}");
    metadata.set(key("freq_base"), base);
    for key in ["partial_rotary_factor", "partial_rotary_factors"] {
        for object in [config, scaling] {
            if object.f32(key)?.is_some_and(|factor| factor != 1.0) {
                return Err(
                    object.error(key, "is not 1; a part of a head that does not turn is not supported")
                );
            }
        }
    }

    let kind = scaling.str("rope_type")?.or(scaling.str("type")?).unwrap_or("default");
    let factor =
        || scaling.f32("factor")?.filter(|factor| *factor > 0.0).ok_or_else(|| scaling.missing("factor"));
    match kind {
        "default" => {}
        "linear" => {
            metadata.set(key("scaling.type"), "linear".to_owned());
            metadata.set(key("scaling.factor"), factor()?);
        }
        "yarn" => yarn(config, scaling, factor()?, arch, metadata)?,
        "llama3" => return Ok(Rope { factors: Some(llama3(scaling, factor()?, base, head_dim)?) }),
        "dynamic" => {
            tracing::warn!(
                "dynamic rope scaling begins past the trained context, which GGUF cannot express; it is left out"
            );
        }
        _ => {
            let supported = "supported are default, linear, yarn, llama3 and dynamic";
            return Err(scaling.error("rope_type", format_args!("is {kind:?}; {supported}")));
        }
    }
    Ok(Rope::default())
}

/// YaRN (arXiv 2309.00071). GGUF's `attn_factor` comes on top of the usual `1 + 0.1 ln(factor)`.
fn yarn(config: &Object, scaling: &Object, factor: f32, arch: &str, metadata: &mut Metadata) -> Result {
    let key = |name: &str| format!("{arch}.rope.scaling.{name}");
    let original = match scaling.u32("original_max_position_embeddings")? {
        Some(original) => Some(original),
        None => config.u32("max_position_embeddings")?,
    };
    metadata.set(key("type"), "yarn".to_owned());
    metadata.set(key("factor"), factor);
    if let Some(original) = original {
        metadata.set(key("original_context_length"), original);
    }
    if let Some(attention_factor) = scaling.f32("attention_factor")? {
        let usual = if factor > 1.0 { 1.0 + 0.1 * f64::from(factor).ln() } else { 1.0 };
        metadata.set(key("attn_factor"), (f64::from(attention_factor) / usual) as f32);
    }
    for (name, gguf) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
        if let Some(beta) = scaling.f32(name)? {
            metadata.set(key(gguf), beta);
        }
    }
    for name in ["mscale", "mscale_all_dim"] {
        if scaling.get(name).is_some() {
            return Err(scaling.error(name, "is given, which is not supported"));
        }
    }
    if scaling.bool("truncate")? == Some(false) {
        return Err(scaling.error("truncate", "is false, supported is only true"));
    }
    Ok(())
}

/// Llama 3.1 (arXiv 2407.21783): with `L` the original context, a pair that turns more than `high` times in it keeps
/// its frequency, one that turns less than `low` times is slowed by `factor`, and a ramp joins the two.
fn llama3(scaling: &Object, factor: f32, base: f32, head_dim: u32) -> Result<Vec<f32>> {
    let read = |key| scaling.f32(key)?.map(f64::from).ok_or_else(|| scaling.missing(key));
    let original = read("original_max_position_embeddings")?;
    let (low, high) = (read("low_freq_factor")?, read("high_freq_factor")?);
    if !(low > 0.0 && high > low && original > 0.0 && base > 0.0) {
        return Err(scaling.error(
            "high_freq_factor",
            format_args!("is {high}, expected more than the {low} of low_freq_factor"),
        ));
    }
    let (dim, factor) = (f64::from(head_dim), f64::from(factor));
    let divisor = |i: u32| {
        let frequency = f64::from(base).powf(-2.0 * f64::from(i) / dim);
        let turns = original * frequency / std::f64::consts::TAU;
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    Ok((0..head_dim / 2).map(divisor).collect())
}
