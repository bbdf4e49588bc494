//! The plot: one SVG with two panels, p99 latency by rate and memory by connections, on logarithmic axes.
//!
//! Written by hand: a plotting library would be the largest dependency of the workspace.

use std::fmt::Arguments;

use super::{ReportRow, SUBJECTS};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 400.0;
/// Space around a panel for titles, ticks and the legend.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
const LEGEND: f64 = 70.0;

/// One colour per subject, from the colour-blind-safe palette of Okabe and Ito.
const COLOURS: &[&str] = &["#999999", "#000000", "#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7"];

struct PlotLine {
    subject: &'static str,
    points: Vec<(f64, f64)>,
}

/// Returns the SVG with both panels.
pub(super) fn plots(rows: &[ReportRow]) -> String {
    let latency = lines(rows, "room", ReportRow::rate, |row| row.figure("delivery_ms.p99"));
    let memory =
        lines(rows, "idle", ReportRow::clients, |row| Some(row.node_kib_per_client()? * row.clients() / 1024.0));
    let (width, height) = (2.0 * WIDTH, HEIGHT + LEGEND);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    panel(&mut svg, 0.0, "p99 latency in a room, ms", "messages a second", &latency);
    panel(&mut svg, WIDTH, "memory of the nodes, MiB above the start", "idle connections", &memory);
    let named: Vec<&PlotLine> = latency.iter().chain(&memory).collect();
    let present = SUBJECTS.iter().filter(|subject| named.iter().any(|line| line.subject == **subject));
    for (at, subject) in present.enumerate() {
        let (x, y) = (LEFT + 320.0 * (at % 3) as f64, HEIGHT + 12.0 + 20.0 * (at / 3) as f64);
        put(
            &mut svg,
            format_args!("<rect x=\"{x}\" y=\"{}\" width=\"18\" height=\"4\" fill=\"{}\"/>", y - 6.0, colour(subject)),
        );
        put(&mut svg, format_args!("<text x=\"{}\" y=\"{y}\">{subject}</text>", x + 24.0));
    }
    svg += "</svg>\n";
    svg
}

fn lines(
    rows: &[ReportRow],
    scenario: &str,
    x: impl Fn(&ReportRow) -> f64,
    y: impl Fn(&ReportRow) -> Option<f64>,
) -> Vec<PlotLine> {
    let line = |subject: &&'static str| {
        let own = rows.iter().filter(|row| row.scenario == scenario && row.subject == *subject);
        let points = own.filter_map(|row| Some((x(row), y(row)?))).filter(|(x, y)| *x > 0.0 && *y > 0.0);
        PlotLine { subject, points: points.collect() }
    };
    SUBJECTS.iter().map(line).filter(|line| !line.points.is_empty()).collect()
}

fn colour(subject: &str) -> &'static str {
    let at = SUBJECTS.iter().position(|other| *other == subject).unwrap_or_default();
    COLOURS[at % COLOURS.len()]
}

/// Appends a line of text to the SVG.
fn put(svg: &mut String, line: Arguments<'_>) {
    svg.push_str(&line.to_string());
    svg.push('\n');
}

/// A logarithmic axis. Both ends are 1, 2 or 5 times a power of ten.
struct PlotAxis {
    from: f64,
    to: f64,
}

impl PlotAxis {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
        let from = steps().take_while(|step| *step <= least).last().unwrap_or(1e-3);
        let to = steps().find(|step| *step >= most && *step > from).unwrap_or(1e9);
        Self { from, to }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        steps().filter(|step| (self.from..=self.to).contains(step))
    }

    /// Returns the position of a value: 0 at the beginning of the axis, 1 at its end.
    fn place(&self, value: f64) -> f64 {
        (value / self.from).ln() / (self.to / self.from).ln()
    }
}

fn steps() -> impl Iterator<Item = f64> {
    (-3..10).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)))
}

fn panel(svg: &mut String, left: f64, title: &str, below: &str, lines: &[PlotLine]) {
    let (x0, x1, y0, y1) = (left + LEFT, left + WIDTH - RIGHT, HEIGHT - BOTTOM, TOP);
    let middle = f64::midpoint(x0, x1);
    put(
        svg,
        format_args!("<text x=\"{x0}\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{title}</text>", TOP - 16.0),
    );
    put(svg, format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{below}</text>", y0 + 40.0));
    let points = lines.iter().flat_map(|line| &line.points);
    if points.clone().next().is_none() {
        return put(
            svg,
            format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">not measured</text>", HEIGHT / 2.0),
        );
    }
    let (across, up) =
        (PlotAxis::over(points.clone().map(|point| point.0)), PlotAxis::over(points.map(|point| point.1)));
    let x = |value: f64| x0 + (x1 - x0) * across.place(value);
    let y = |value: f64| y0 + (y1 - y0) * up.place(value);
    for tick in across.ticks() {
        let at = x(tick);
        put(svg, format_args!("<path d=\"M{at:.1} {y0}V{y1}\" stroke=\"#dddddd\"/>"));
        put(svg, format_args!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", y0 + 18.0, short(tick)));
    }
    for tick in up.ticks() {
        let at = y(tick);
        put(svg, format_args!("<path d=\"M{x0} {at:.1}H{x1}\" stroke=\"#dddddd\"/>"));
        put(
            svg,
            format_args!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", x0 - 8.0, at + 4.0, short(tick)),
        );
    }
    for line in lines {
        let colour = colour(line.subject);
        let path: Vec<String> = line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        put(
            svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            ),
        );
        for (px, py) in &line.points {
            put(svg, format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*px), y(*py)));
        }
    }
}

fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        1.0.. => format!("{value:.0}"),
        _ => format!("{value:.3}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_holds_all_values_between_round_ends() {
        let axis = PlotAxis::over([30.0, 400.0].into_iter());
        assert_eq!((axis.from, axis.to), (20.0, 500.0));
        assert_eq!((axis.place(20.0), axis.place(500.0)), (0.0, 1.0));
        assert!((axis.place(100.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [20.0, 50.0, 100.0, 200.0, 500.0]);
        let point = PlotAxis::over([50.0].into_iter());
        assert!(point.from < point.to);
    }

    #[test]
    fn tick_labels_use_short_units() {
        assert_eq!([0.02, 5.0, 2000.0, 1e6].map(short), ["0.02", "5", "2k", "1M"]);
    }
}
