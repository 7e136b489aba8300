//! Bars with intervals as an SVG picture.

use std::fmt::Write;

use cchaha_cli::output::escape_xml;

/// What bars show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The largest fills the width.
    BitsPerByte,
    /// 100 fills the width.
    Percent,
}

impl Measure {
    /// A value as it stands behind its bar.
    fn print(self, value: f64) -> String {
        match self {
            Measure::BitsPerByte => format!("{value:.4}"),
            // Three digits that count.
            Measure::Percent if value < 9.995 => format!("{value:.2} %"),
            Measure::Percent if value < 99.95 => format!("{value:.1} %"),
            Measure::Percent => format!("{value:.0} %"),
        }
    }

    /// The value whose bar fills the width.
    fn most(self, bars: &[Bar]) -> f64 {
        let values = bars.iter().flat_map(|bar| [Some(bar.value), bar.interval.map(|(_, high)| high)]);
        match self {
            Measure::BitsPerByte => values.flatten().fold(f64::MIN_POSITIVE, f64::max),
            Measure::Percent => 100.0,
        }
    }
}

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// A whisker.
    pub(crate) interval: Option<(f64, f64)>,
}

/// A picture of the bars, whose intervals are those of [`crate::stats::bootstrap`] over these things, as in `files`.
pub(crate) fn bars(title: &str, measure: Measure, over: &str, bars: &[Bar]) -> String {
    const LEFT: usize = 230;
    const WIDTH: usize = 520;
    const STEP: usize = 24;
    let most = measure.most(bars);
    let x = |value: f64| LEFT as f64 + value.max(0.0) / most * WIDTH as f64;
    let bottom = 44 + STEP * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\">{}</text>\n",
        LEFT + WIDTH + 120,
        bottom + 28,
        escape_xml(title)
    );
    for (i, bar) in bars.iter().enumerate() {
        let y = 44 + STEP * i;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" fill=\"#4878a8\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            LEFT - 8,
            y + 13,
            escape_xml(&bar.label),
            x(bar.value) - LEFT as f64,
            x(bar.interval.map_or(bar.value, |(_, high)| high.max(bar.value))) + 8.0,
            y + 13,
            measure.print(bar.value)
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
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-size=\"12\" fill=\"#555\">\
         whiskers: 95% interval by bootstrap over {over}</text>",
        bottom + 14
    );
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_digits_that_count() {
        for (value, text) in
            [(34.3461, "34.3 %"), (3.7037, "3.70 %"), (9.999, "10.0 %"), (99.99, "100 %"), (0.0, "0.00 %")]
        {
            assert_eq!(Measure::Percent.print(value), text);
        }
        assert_eq!(Measure::BitsPerByte.print(0.82716), "0.8272");
    }

    #[test]
    fn percentages_are_drawn_up_to_100() {
        let bar = Bar { label: "a < b".to_owned(), value: 25.0, interval: Some((20.0, 40.0)) };
        let picture = |measure| bars("title", measure, "holes", std::slice::from_ref(&bar));
        let percent = picture(Measure::Percent);
        assert!(percent.contains("width=\"130.0\"") && percent.contains("25.0 %"), "{percent}");
        assert!(percent.contains("a &lt; b"), "{percent}");
        assert!(percent.contains("whiskers: 95% interval by bootstrap over holes"), "{percent}");
        // The whisker's end is what fills the width.
        assert!(picture(Measure::BitsPerByte).contains("width=\"325.0\""));
    }
}
