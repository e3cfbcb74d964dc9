//! SVG plots of a report: the degrees of the nodes, and figures over the phases.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::report::Report;

const SIZE: (u32, u32) = (900, 480);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 30),
    RGBColor(23, 160, 120),
    RGBColor(150, 100, 190),
    RGBColor(200, 80, 140),
    RGBColor(110, 110, 110),
];
/// Figures that are drawn if two phases have them.
const OVER_PHASES: [&str; 9] = [
    "reliability",
    "largest",
    "components",
    "path_mean",
    "clustering",
    "last_hops",
    "last_ms",
    "redundancy",
    "heal_cycles",
];

impl Report {
    /// Draws what there is into a directory; returns the names of the files.
    pub fn plot(&self, dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
        let mut files = Vec::new();
        for (number, phase) in self.scenario.phase.iter().enumerate() {
            if phase.graph {
                let label = phase
                    .name
                    .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let name = format!("degrees-{label}.svg");
                self.degrees(number, &dir.join(&name))?;
                files.push(name);
            }
        }
        for figure in OVER_PHASES {
            let phases = 0..self.scenario.phase.len();
            let has = |phase: &usize| {
                self.variants
                    .iter()
                    .any(|v| v.spread(*phase, figure).is_some())
            };
            let phases: Vec<usize> = phases.filter(has).collect();
            if phases.len() > 1 {
                let name = format!("{figure}.svg");
                self.over_phases(figure, &phases, &dir.join(&name))?;
                files.push(name);
            }
        }
        Ok(files)
    }

    fn degrees(&self, phase: usize, path: &Path) -> Result<(), Box<dyn Error>> {
        let of = |variant: usize| {
            let mut sum: Vec<f64> = Vec::new();
            let runs = &self.variants[variant].runs;
            for run in runs {
                let degrees = &run.phases[phase].degrees;
                sum.resize(sum.len().max(degrees.len()), 0.0);
                for (degree, count) in degrees.iter().enumerate() {
                    sum[degree] += *count as f64 / runs.len() as f64;
                }
            }
            sum
        };
        let all: Vec<Vec<f64>> = (0..self.variants.len()).map(of).collect();
        let widest = all.iter().map(Vec::len).max().unwrap_or(0) as f64;
        let highest = all.iter().flatten().copied().fold(1.0, f64::max);
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!(
            "{}: degrees, {}",
            self.scenario.name, self.scenario.phase[phase].name
        );
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(-0.5..widest.max(1.0) - 0.5, 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .x_desc("neighbours")
            .y_desc("nodes")
            .draw()?;
        let width = 0.8 / all.len() as f64;
        for (variant, counts) in all.iter().enumerate() {
            let colour = COLOURS[variant % COLOURS.len()];
            let left = |degree: usize| degree as f64 - 0.4 + width * variant as f64;
            let bars = counts.iter().enumerate().map(|(degree, count)| {
                let corners = [(left(degree), 0.0), (left(degree) + width, *count)];
                Rectangle::new(corners, colour.filled())
            });
            let name = self.variants[variant].name.clone();
            chart.draw_series(bars)?.label(name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
            });
        }
        if all.len() > 1 {
            chart
                .configure_series_labels()
                .background_style(WHITE)
                .draw()?;
        }
        area.present()?;
        Ok(())
    }

    fn over_phases(
        &self,
        figure: &str,
        phases: &[usize],
        path: &Path,
    ) -> Result<(), Box<dyn Error>> {
        let spread = |variant: usize, phase: usize| self.variants[variant].spread(phase, figure);
        let variants = 0..self.variants.len();
        let all = variants
            .clone()
            .flat_map(|v| phases.iter().filter_map(move |p| spread(v, *p)));
        let all: Vec<_> = all.collect();
        let low = all.iter().map(|s| s.least).fold(f64::INFINITY, f64::min);
        let high = all.iter().map(|s| s.most).fold(f64::NEG_INFINITY, f64::max);
        let room = ((high - low) * 0.08).max(high.abs() * 0.01).max(1e-9);
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                format!("{}: {figure}", self.scenario.name),
                ("sans-serif", 18),
            )
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(-0.5..phases.len() as f64 - 0.5, low - room..high + room)?;
        let name = |at: &f64| {
            let phase = phases.get(at.round().max(0.0) as usize);
            let whole = (at - at.round()).abs() < 1e-6;
            phase
                .filter(|_| whole)
                .map_or(String::new(), |p| self.scenario.phase[*p].name.clone())
        };
        chart
            .configure_mesh()
            .x_labels(phases.len() * 2 + 1)
            .x_label_formatter(&name)
            .y_desc(figure)
            .draw()?;
        for variant in variants {
            let colour = COLOURS[variant % COLOURS.len()];
            let points = phases.iter().enumerate();
            let points =
                points.filter_map(|(at, phase)| Some((at as f64, spread(variant, *phase)?)));
            let points: Vec<_> = points.collect();
            let line = points.iter().map(|(at, spread)| (*at, spread.mean));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(self.variants[variant].name.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour));
            let ranges = points.iter().map(|(at, spread)| {
                PathElement::new(
                    [(*at, spread.least), (*at, spread.most)],
                    colour.stroke_width(1),
                )
            });
            chart.draw_series(ranges)?;
        }
        if self.variants.len() > 1 {
            chart
                .configure_series_labels()
                .background_style(WHITE)
                .draw()?;
        }
        area.present()?;
        Ok(())
    }
}
