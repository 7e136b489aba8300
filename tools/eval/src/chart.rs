//! Bars with intervals as an SVG picture.

use std::fmt::Write;

use cchaha_cli::output::escape_xml;

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

/// A picture of the bars.
pub(crate) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    const LEFT: usize = 230;
    const WIDTH: usize = 520;
    const STEP: usize = 24;
    let values = bars.iter().flat_map(|bar| [Some(bar.value), bar.interval.map(|(_, high)| high)]).flatten();
    let most = values.fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT as f64 + value.max(0.0) / most * WIDTH as f64;
    let height = 60 + STEP * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\">{}</text>\n",
        LEFT + WIDTH + 120,
        escape_xml(title)
    );
    for (i, bar) in bars.iter().enumerate() {
        let y = 44 + STEP * i;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" fill=\"#4878a8\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.4} {unit}</text>",
            LEFT - 8,
            y + 13,
            escape_xml(&bar.label),
            x(bar.value) - LEFT as f64,
            x(bar.interval.map_or(bar.value, |(_, high)| high.max(bar.value))) + 8.0,
            y + 13,
            bar.value
        );
        if let Some((low, high)) = bar.interval {
            let middle = y + 8;
            let _ = writeln!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>",
                x(low),
                x(high)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
