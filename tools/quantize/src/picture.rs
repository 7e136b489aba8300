//! A picture of the errors of all tensors, as SVG: layers to the right, relative error upwards, one colour for each kind
//! of tensor.

use std::fmt::Write;

use cchaha_cli::output::escape_xml;

use crate::commands::compare::{Divergence, TensorError};
use crate::recipe::layer;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;

/// Kinds of tensors that have a colour of their own (Okabe and Ito's, which all eyes can tell apart).
const KINDS: [(&str, &str); 9] = [
    ("attn_q", "#0072b2"),
    ("attn_k", "#56b4e9"),
    ("attn_v", "#009e73"),
    ("attn_output", "#f0e442"),
    ("ffn_gate", "#e69f00"),
    ("ffn_up", "#d55e00"),
    ("ffn_down", "#cc79a7"),
    ("token_embd", "#000000"),
    ("output", "#777777"),
];

/// Draws it.
pub(crate) fn errors(title: &str, tensors: &[TensorError], divergence: Option<&Divergence>) -> String {
    let shown: Vec<(&TensorError, usize, &str, &str)> = tensors
        .iter()
        .filter(|tensor| tensor.relative > 0.0)
        .filter_map(|tensor| {
            let kind = tensor.name.split('.').rev().nth(1)?;
            let (kind, colour) = *KINDS.iter().find(|row| row.0 == kind)?;
            Some((tensor, layer(&tensor.name).map_or(0, |layer| layer + 1), kind, colour))
        })
        .collect();
    let layers = shown.iter().map(|row| row.1).max().unwrap_or(0).max(1);
    let exponents = shown.iter().map(|row| row.0.relative.log10());
    let low = exponents.clone().fold(0.0, f64::min).floor();
    let high = exponents.fold(low + 1.0, f64::max).ceil();
    let x = |layer: usize| LEFT + (WIDTH - LEFT - RIGHT) * layer as f64 / layers as f64;
    let y = |exponent: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (exponent - low) / (high - low);

    let mut svg = String::new();
    let mut add = |line: std::fmt::Arguments<'_>| {
        // A string takes whatever is written.
        let _ = writeln!(svg, "{line}");
    };
    add(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    ));
    add(format_args!(r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#));
    add(format_args!(r#"<text x="{LEFT}" y="24" font-size="15">{}</text>"#, escape_xml(title)));
    if let Some(divergence) = divergence {
        let (mean, error) = divergence.mean();
        add(format_args!(
            r#"<text x="{LEFT}" y="44">KL divergence {mean:.5} ± {error:.5} nats, top-1 agreement {:.2}%</text>"#,
            100.0 * divergence.agreement()
        ));
    }
    for exponent in low as i32..=high as i32 {
        let at = y(f64::from(exponent));
        add(format_args!(r##"<path d="M{LEFT} {at:.1}H{:.1}" stroke="#ddd"/>"##, x(layers)));
        add(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 4.0,
            10f64.powi(exponent)
        ));
    }
    for number in (0..=layers).step_by((layers / 12).max(1)) {
        let name = if number == 0 { "in/out".to_owned() } else { (number - 1).to_string() };
        add(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{name}</text>"#,
            x(number),
            HEIGHT - BOTTOM + 18.0
        ));
    }
    let middle = 0.5 * (LEFT + WIDTH - RIGHT);
    add(format_args!(r#"<text x="{middle}" y="{:.1}" text-anchor="middle">layer</text>"#, HEIGHT - 10.0));
    add(format_args!(
        r#"<text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle">relative RMSE</text>"#,
        0.5 * (TOP + HEIGHT - BOTTOM)
    ));
    for (tensor, layer, _, colour) in &shown {
        add(format_args!(
            r#"<circle cx="{:.1}" cy="{:.1}" r="4" fill="{colour}" fill-opacity="0.8"><title>{} {}: {:.5}</title></circle>"#,
            x(*layer),
            y(tensor.relative.log10()),
            escape_xml(&tensor.name),
            escape_xml(&tensor.to),
            tensor.relative
        ));
    }
    let kinds = KINDS.iter().filter(|kind| shown.iter().any(|row| row.2 == kind.0));
    for (i, (kind, colour)) in kinds.enumerate() {
        let at = TOP + 20.0 * i as f64;
        add(format_args!(r#"<circle cx="{:.1}" cy="{at:.1}" r="5" fill="{colour}"/>"#, WIDTH - RIGHT + 30.0));
        add(format_args!(r#"<text x="{:.1}" y="{:.1}">{kind}</text>"#, WIDTH - RIGHT + 42.0, at + 4.0));
    }
    add(format_args!("</svg>"));
    svg
}
