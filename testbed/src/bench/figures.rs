//! Measured figures, and the tables they are shown in.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What several measurements of one quantity came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Names the quantity in the results' file, its unit last.
    #[serde(skip)]
    pub key: String,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there were.
    pub n: usize,
}

impl Figure {
    /// None without measurements.
    #[must_use]
    pub fn of(key: impl Into<String>, mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let n = values.len();
        Some(Self {
            key: key.into(),
            median: f64::midpoint(values[(n - 1) / 2], values[n / 2]),
            min,
            max,
            n,
        })
    }
}

/// One quantity, perhaps of several competitors.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured, with the unit.
    pub label: String,
    /// One for each column; none where there is no such thing.
    pub cells: Vec<Option<Figure>>,
}

/// The figures of one section.
#[derive(Debug, Clone)]
pub struct Table {
    /// What they are about.
    pub title: String,
    /// The competitors; a table with one column shows the spread as well.
    pub columns: Vec<String>,
    /// The quantities.
    pub rows: Vec<Row>,
}

impl Table {
    /// A table for one competitor.
    #[must_use]
    pub fn single(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            columns: vec!["median [min..max]".to_owned()],
            rows: Vec::new(),
        }
    }

    /// Adds a row for one competitor.
    pub fn row(&mut self, label: &str, key: &str, values: Vec<f64>) {
        self.rows.push(Row {
            label: label.to_owned(),
            cells: vec![Figure::of(key, values)],
        });
    }

    fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.rows.iter().flat_map(|row| row.cells.iter().flatten())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.rows.iter().map(|row| row.label.chars().count()).max();
        let label = label.unwrap_or(0).max(self.title.chars().count());
        write!(f, "{:label$}", self.title)?;
        for column in &self.columns {
            write!(f, "  {column:>12}")?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:label$}", row.label)?;
            for (cell, column) in row.cells.iter().zip(&self.columns) {
                let width = column.chars().count().max(12);
                let text = match cell {
                    None => "-".to_owned(),
                    Some(figure) if self.columns.len() == 1 && figure.n > 1 => format!(
                        "{} [{}..{}]",
                        number(figure.median),
                        number(figure.min),
                        number(figure.max)
                    ),
                    Some(figure) => number(figure.median),
                };
                write!(f, "  {text:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits or so.
fn number(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.places$}")
}

/// A figure with the limit it is to keep.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// Names it in the results' file, the unit last.
    pub key: String,
    /// For people.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// What it is to be.
    pub limit: f64,
    /// Whether the limit is the least rather than the most.
    pub at_least: bool,
    /// Whether it is kept.
    pub pass: bool,
}

impl Target {
    /// A figure that is to be at most `limit`.
    #[must_use]
    pub fn at_most(key: &str, what: &str, value: f64, limit: f64) -> Self {
        Self {
            key: key.to_owned(),
            what: what.to_owned(),
            value,
            limit,
            at_least: false,
            pass: value <= limit,
        }
    }

    /// A figure that is to be at least `limit`.
    #[must_use]
    pub fn at_least(key: &str, what: &str, value: f64, limit: f64) -> Self {
        Self {
            at_least: true,
            pass: value >= limit,
            ..Self::at_most(key, what, value, limit)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.pass { "pass" } else { "FAIL" };
        let bound = if self.at_least { ">=" } else { "<=" };
        let (value, limit) = (number(self.value), number(self.limit));
        write!(f, "{verdict}  {value:>8} {bound} {limit:<8} {}", self.what)
    }
}

/// Everything a run came to.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// One table or more of each section that was run.
    pub tables: Vec<Table>,
    /// What they are to keep.
    pub targets: Vec<Target>,
}

impl Results {
    /// The content of the results' file: `about` tells the circumstances.
    #[must_use]
    pub fn json(&self, about: &serde_json::Value) -> serde_json::Value {
        let figures: BTreeMap<_, _> = self
            .tables
            .iter()
            .flat_map(Table::figures)
            .map(|figure| (figure.key.as_str(), figure))
            .collect();
        serde_json::json!({ "about": about, "figures": figures, "targets": self.targets })
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        if !self.targets.is_empty() {
            writeln!(f, "Targets")?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_its_spread() {
        let figure = Figure::of("x_ms", vec![3.0, 1.0, 2.0, 10.0]).unwrap();
        assert!((figure.median - 2.5).abs() < 1e-9);
        assert_eq!((figure.min, figure.max, figure.n), (1.0, 10.0, 4));
        assert_eq!(Figure::of("x_ms", Vec::new()), None);
    }

    #[test]
    fn the_file_names_each_figure_by_its_key() {
        let mut table = Table::single("Memory");
        table.row("resident, MiB", "appliance.resident_mib", vec![7.5]);
        let results = Results {
            tables: vec![table],
            targets: vec![Target::at_most(
                "appliance.resident_mib",
                "memory",
                7.5,
                16.0,
            )],
        };
        let json = results.json(&serde_json::json!({}));
        assert_eq!(json["figures"]["appliance.resident_mib"]["median"], 7.5);
        assert_eq!(json["targets"][0]["pass"], true);
        let text = results.to_string();
        assert!(
            text.contains("resident, MiB") && text.contains("pass"),
            "{text}"
        );
    }
}
