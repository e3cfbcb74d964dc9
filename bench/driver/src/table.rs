//! Tables in Markdown, aligned so that they can be read as text too.

use std::fmt::Write;

/// A table being built.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table without the columns that are empty in all rows.
    pub(crate) fn text(&self) -> String {
        let used: Vec<usize> = (0..self.heading.len())
            .filter(|&column| {
                let mut cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.any(|cell| !cell.is_empty())
            })
            .collect();
        let keep = |row: &Vec<String>| -> Vec<String> {
            let cells = used.iter().filter_map(|&column| row.get(column));
            cells.cloned().collect()
        };
        let table = Self {
            heading: keep(&self.heading),
            rows: self.rows.iter().map(keep).collect(),
        };
        table.aligned()
    }

    fn aligned(&self) -> String {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| {
                let lines = self.rows.iter().chain([&self.heading]);
                let cells = lines.filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(text, "| {cell:<width$} ");
            }
            text.push_str("|\n");
        };
        line(&self.heading);
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        line(&rule);
        for row in &self.rows {
            line(row);
        }
        text
    }
}

/// Three significant digits, with `k` and `M` for large numbers.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 999_500.0 => (value / 1e6, " M"),
        v if v >= 9_995.0 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.0995 || v == 0.0 => 2,
        _ => 4,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["a", "nothing", "long"]);
        table.row(vec!["wide µ".into(), String::new(), "x".into()]);
        assert_eq!(
            table.text(),
            "| a      | long |\n| ------ | ---- |\n| wide µ | x    |\n"
        );
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.0123, 0.5, 12.345, 1234.5, 123_456.0, 1_234_567.0].map(short);
        assert_eq!(
            texts,
            ["0.00", "0.0123", "0.50", "12.3", "1234", "123 k", "1.23 M"]
        );
    }
}
