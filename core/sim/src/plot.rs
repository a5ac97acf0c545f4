//! Curves of a history as a picture.

use std::fmt::Write as _;

use crate::Figures;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;
const MARGIN: f64 = 48.0;

impl Figures {
    /// Utilisation and queue over time, as an SVG document.
    pub fn to_svg(&self) -> String {
        let hours: Vec<f64> = self.curve.iter().map(|p| p.hours).collect();
        let last = hours.last().copied().unwrap_or(0.0).max(1e-9);
        let used: Vec<f64> = self.curve.iter().map(|p| p.utilisation * 100.0).collect();
        let queued: Vec<f64> = self.curve.iter().map(|p| p.queued as f64).collect();
        let most = queued.iter().copied().fold(1.0, f64::max);
        let height = 2.0 * (HEIGHT + MARGIN) + MARGIN;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            WIDTH + 2.0 * MARGIN
        );
        panel(
            &mut out,
            MARGIN,
            "cores in use, %",
            (&hours, last),
            (&used, 100.0),
        );
        let below = 2.0 * MARGIN + HEIGHT;
        panel(
            &mut out,
            below,
            "tasks waiting",
            (&hours, last),
            (&queued, most),
        );
        out.push_str("</svg>\n");
        out
    }
}

fn panel(
    out: &mut String,
    top: f64,
    title: &str,
    (xs, x_most): (&[f64], f64),
    (ys, y_most): (&[f64], f64),
) {
    let bottom = top + HEIGHT;
    let _ = writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"{:.0}\">{title}</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{y_most:.0}</text>\n\
         <text x=\"{:.0}\" y=\"{bottom:.0}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{x_most:.2} h</text>\n\
         <path d=\"M{MARGIN} {top} V{bottom} H{:.0}\" fill=\"none\" stroke=\"black\"/>",
        top - 8.0,
        MARGIN - 4.0,
        top + 10.0,
        MARGIN - 4.0,
        MARGIN + WIDTH,
        bottom + 16.0,
        MARGIN + WIDTH,
    );
    out.push_str("<polyline fill=\"none\" stroke=\"#0a6\" stroke-width=\"1.5\" points=\"");
    for (x, y) in xs.iter().zip(ys) {
        let at = (MARGIN + WIDTH * x / x_most, bottom - HEIGHT * y / y_most);
        let _ = write!(out, "{:.1},{:.1} ", at.0, at.1);
    }
    out.push_str("\"/>\n");
}
