//! The study as a picture: every variant's difference to the baseline with its interval.

use std::fmt::Write;

use cchaha_cli::output::escape_xml;

use super::Difference;

const ROW: f64 = 26.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 480.0;
const TOP: f64 = 40.0;

/// One line per variant: its name, whether it is a placebo, its difference.
pub fn picture(rows: &[(&str, bool, Difference)]) -> String {
    let ends = rows.iter().flat_map(|row| [row.2.low, row.2.high, 0.0]);
    let (low, high) = ends.fold((0.0, 0.0), |(low, high): (f64, f64), x| (low.min(x), high.max(x)));
    let room = ((high - low) * 0.05).max(1e-4);
    let (low, high) = (low - room, high + room);
    let x = |value: f64| LEFT + WIDTH * (value - low) / (high - low);
    let height = TOP + ROW * rows.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\">bits per byte of held-out text less those of the baseline: left is better</text>\n\
         <path d=\"M{2:.1} {TOP}V{1:.1}\" stroke=\"#888\"/>\n",
        LEFT + WIDTH + 90.0,
        height - 30.0,
        x(0.0)
    );
    for (number, (name, placebo, difference)) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        let color = if *placebo { "#999" } else { "#4269d0" };
        // Writing into a string does not fail.
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"{color}\" stroke-width=\"2\"/>\
             <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\">{:+.4}</text>",
            LEFT - 10.0,
            y + 4.0,
            escape_xml(name),
            x(difference.low),
            x(difference.high),
            x(difference.mean),
            LEFT + WIDTH + 10.0,
            y + 4.0,
            difference.mean
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_row_for_each_variant() {
        let difference = Difference { mean: -0.02, low: -0.03, high: -0.01 };
        let svg = picture(&[("tokens", false, difference), ("tokens <lots>", true, difference)]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("tokens &lt;lots&gt;") && svg.ends_with("</svg>\n"));
    }
}
