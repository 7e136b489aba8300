//! `bench --plot`: the roofline as a picture. Operations per byte to the right, operations per second upwards, both in decades.

use std::fmt::Write as _;

use cchaha::kernels::Roofs;

use super::roofline::Point;
use crate::output::escape_xml;

/// What one number of threads reached.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) roofs: Roofs,
    pub(super) tests: Vec<Point>,
    /// One token and a prompt in turns.
    pub(super) kernels: Vec<Point>,
}

/// Pixels: the picture, the frame of the chart, and the columns of the list beside it.
const WIDTH: f64 = 1010.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 570.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 56.0;
const LIST: f64 = 600.0;
const COLUMNS: [(f64, &str); 3] = [(855.0, "ops/byte"), (925.0, "Gop/s"), (990.0, "of roof")];
const ROW: f64 = 20.0;

/// Okabe and Ito's colours, which all eyes can tell apart, without the yellow.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

#[derive(Clone, Copy)]
enum Mark {
    Test,
    OneToken,
    Prompt,
}

impl Mark {
    fn draw(self, x: f64, y: f64, colour: &str, title: &str) -> String {
        let title = format!("<title>{}</title>", escape_xml(title));
        let open = format!(r#"fill="none" stroke="{colour}" stroke-width="2""#);
        match self {
            Mark::Test => {
                format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{colour}">{title}</circle>"#)
            }
            Mark::OneToken => {
                format!(r#"<path d="M{x:.1} {y:.1}m-6 0l6 -6 6 6 -6 6z" {open}>{title}</path>"#)
            }
            Mark::Prompt => format!(r#"<path d="M{x:.1} {y:.1}m-5 -5h10v10h-10z" {open}>{title}</path>"#),
        }
    }
}

/// Decimal logarithms of where an axis begins and ends: twice as far as its `values`, those above 0.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = values.filter(|x| *x > 0.0).fold(ends, |(low, high), x| (low.min(x), high.max(x)));
    ((low / 2.0).log10(), (high * 2.0).log10())
}

/// Where an axis has lines: at these multiples of powers of ten, in its span.
fn ticks((low, high): (f64, f64), multiples: &[f64]) -> Vec<f64> {
    let powers = (low.floor() as i32..=high.floor() as i32).map(|exponent| 10f64.powi(exponent));
    let all = powers.flat_map(|power| multiples.iter().map(move |multiple| multiple * power));
    all.filter(|value| (low..=high).contains(&value.log10())).collect()
}

impl Chart {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.tests.iter().chain(&self.kernels)
    }

    fn height(&self) -> f64 {
        (TOP + ROW * (self.points().count() + 3) as f64).max(400.0) + BOTTOM
    }

    fn draw(&self, svg: &mut String) {
        let bottom = self.height() - BOTTOM;
        let ridge = self.roofs.ops_per_s / self.roofs.bytes_per_s;
        // Both roofs are seen for a decade.
        let (west, east) =
            span(self.points().map(|p| p.work.intensity()).chain([ridge / 10.0, ridge * 10.0]));
        let top = self.roofs.ops_per_s;
        let (south, north) = span(self.points().map(Point::ops_per_s).chain([top / 10.0, top]));
        let (across, up) = ((RIGHT - LEFT) / (east - west), (bottom - TOP) / (north - south));
        let x = |intensity: f64| LEFT + across * (intensity.log10() - west);
        let y = |ops_per_s: f64| bottom - up * (ops_per_s.log10() - south);

        let mut add = |line: std::fmt::Arguments<'_>| {
            // A string takes whatever is written.
            let _ = writeln!(svg, "{line}");
        };
        add(format_args!(r#"<text x="{LEFT}" y="24" font-size="15">{}</text>"#, escape_xml(&self.title)));
        for value in ticks((west, east), &[1.0]) {
            let at = x(value);
            add(format_args!(
                r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{value}</text>"##,
                bottom + 18.0
            ));
        }
        for value in ticks((south, north), &[1.0, 2.0, 5.0]) {
            let at = y(value);
            add(format_args!(
                r##"<path d="M{LEFT} {at:.1}H{RIGHT}" stroke="#ddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
                LEFT - 8.0,
                at + 4.0,
                value / 1e9
            ));
        }
        add(format_args!(r##"<path d="M{LEFT} {TOP}V{bottom}H{RIGHT}" fill="none" stroke="#888"/>"##));
        add(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">operations per byte</text>"#,
            0.5 * (LEFT + RIGHT),
            bottom + 40.0
        ));
        add(format_args!(
            r#"<text transform="translate(18 {:.1}) rotate(-90)" text-anchor="middle">billion operations per second</text>"#,
            0.5 * (TOP + bottom)
        ));

        // The roofs, from where the slope enters the frame.
        let foot = 10f64.powf(west).max(10f64.powf(south) / self.roofs.bytes_per_s);
        let top = y(top);
        add(format_args!(
            r##"<path d="M{:.1} {:.1}L{:.1} {top:.1}H{RIGHT}" fill="none" stroke="#444" stroke-width="2"/>"##,
            x(foot),
            y(foot * self.roofs.bytes_per_s),
            x(ridge)
        ));
        // Close to the ridge, where few points come.
        let end = ridge / 1.2;
        add(format_args!(
            r#"<text transform="translate({:.1} {:.1}) rotate({:.1})" y="-8" text-anchor="end">reads {:.1} GB/s</text>"#,
            x(end),
            y(end * self.roofs.bytes_per_s),
            -up.atan2(across).to_degrees(),
            self.roofs.bytes_per_s / 1e9
        ));
        // On white, so that no line goes through it.
        add(format_args!(
            r#"<rect x="{:.1}" y="{:.1}" width="196" height="16" fill="white"/>"#,
            RIGHT - 200.0,
            top - 20.0
        ));
        add(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">multiplies {:.0} Gop/s in 8 bits</text>"#,
            RIGHT - 6.0,
            top - 8.0,
            self.roofs.ops_per_s / 1e9
        ));

        let tests = self.tests.iter().map(|point| (Mark::Test, point)).enumerate();
        let kernels = self.kernels.iter().enumerate().map(|(i, point)| {
            // The two of a kernel have one colour.
            (i / 2, (if i % 2 == 0 { Mark::OneToken } else { Mark::Prompt }, point))
        });
        let mut at = TOP + 4.0;
        for (column, head) in COLUMNS {
            add(format_args!(
                r##"<text x="{column}" y="{at:.1}" text-anchor="end" fill="#666">{head}</text>"##
            ));
        }
        let groups: [(&str, Vec<_>); 2] =
            [("tests", tests.collect()), ("matrix kernels alone", kernels.collect())];
        for (head, points) in groups.into_iter().filter(|group| !group.1.is_empty()) {
            add(format_args!(r##"<text x="{LIST}" y="{at:.1}" fill="#666">{head}</text>"##));
            at += ROW;
            for (colour, (mark, point)) in points {
                let colour = COLOURS[colour % COLOURS.len()];
                let fields = point.under(self.roofs);
                let cells = [
                    format!("{:.1}", point.work.intensity()),
                    format!("{:.1}", point.ops_per_s() / 1e9),
                    format!("{:.0} %", 100.0 * fields.roof_fraction),
                ];
                let place = (x(point.work.intensity()), y(point.ops_per_s()));
                add(format_args!("{}", mark.draw(place.0, place.1, colour, &point.name)));
                add(format_args!("{}", mark.draw(LIST + 8.0, at - 4.0, colour, &point.name)));
                add(format_args!(
                    r#"<text x="{}" y="{at:.1}">{}</text>"#,
                    LIST + 22.0,
                    escape_xml(&point.name)
                ));
                for ((column, _), cell) in COLUMNS.into_iter().zip(cells) {
                    add(format_args!(r#"<text x="{column}" y="{at:.1}" text-anchor="end">{cell}</text>"#));
                }
                at += ROW;
            }
        }
    }
}

/// The charts, one below the other.
pub(super) fn svg(charts: &[Chart]) -> String {
    let height: f64 = charts.iter().map(Chart::height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut y = 0.0;
    for chart in charts {
        let _ = writeln!(svg, r#"<g transform="translate(0 {y:.0})">"#);
        chart.draw(&mut svg);
        svg.push_str("</g>\n");
        y += chart.height();
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use cchaha::kernels::Work;

    use super::*;

    #[test]
    fn points_stand_where_their_axes_say() {
        let roofs = Roofs { bytes_per_s: 1e10, ops_per_s: 1e11 };
        // 10 operations per byte is the ridge; half of the roof.
        let test = Point { name: "tg1 <x>".into(), work: Work { ops: 5e10, bytes: 5e9 }, seconds: 1.0 };
        let chart = Chart { title: "t".into(), roofs, tests: vec![test], kernels: Vec::new() };
        let picture = svg(&[chart]);
        // 0.5 to 200 operations per byte and 5 to 200 G operations per second.
        let across = (10f64 / 0.5).log10() / (200f64 / 0.5).log10();
        let up = (50f64 / 5.0).log10() / (200f64 / 5.0).log10();
        let (x, y) = (LEFT + (RIGHT - LEFT) * across, 400.0 - (400.0 - TOP) * up);
        assert!(picture.contains(&format!(r#"<circle cx="{x:.1}" cy="{y:.1}""#)), "{picture}");
        assert!(picture.contains("tg1 &lt;x&gt;") && picture.contains(">50 %<"));
        assert!(picture.contains("reads 10.0 GB/s") && picture.contains("multiplies 100 Gop/s"));
        assert_eq!(picture.matches("<circle").count(), 2);
    }

    #[test]
    fn an_axis_has_room_around_its_values() {
        let (low, high) = span([3.0, 0.0, 250.0].into_iter());
        assert_eq!((low, high), (1.5f64.log10(), 500f64.log10()));
        assert_eq!(ticks((low, high), &[1.0]), [10.0, 100.0]);
        assert_eq!(ticks((low, high), &[1.0, 2.0, 5.0]), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
    }
}
