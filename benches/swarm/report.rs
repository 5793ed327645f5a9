//! Figures, told as lines for people and kept as JSON for programs.

use serde_json::json;

/// A figure, taken several times.
pub(crate) struct Figure {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Figure {
    pub(crate) fn of(mut taken: Vec<f64>) -> Self {
        taken.sort_by(f64::total_cmp);
        let at = |index: usize| taken.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(taken.len() / 2),
            least: at(0),
            most: at(taken.len().saturating_sub(1)),
        }
    }
}

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<serde_json::Value>,
}

impl Report {
    pub(crate) fn scenario(&mut self, words: &str) {
        println!("\n{words}");
    }

    /// A figure of one server, and how it stands to another's.
    pub(crate) fn tell(
        &mut self,
        scenario: &str,
        what: &str,
        unit: &str,
        figure: &Figure,
        beside: Option<(&str, f64)>,
    ) {
        let Figure { median, least, most } = figure;
        let spread = if least < most {
            format!(" ({least:.2} to {most:.2})")
        } else {
            String::new()
        };
        let ratio = beside.map(|(other, value)| (other, median / value));
        let words = ratio.map_or_else(String::new, |(other, ratio)| format!("   {ratio:.2} times {other}"));
        println!("  {what:<44} {median:>9.2} {unit}{spread}{words}");
        self.rows.push(json!({
            "scenario": scenario, "figure": what, "unit": unit, "median": median, "least": least, "most": most,
            "beside": ratio.map(|(other, _)| other), "ratio": ratio.map(|(_, ratio)| ratio),
        }));
    }

    pub(crate) fn json(&self) -> String {
        serde_json::Value::from(self.rows.clone()).to_string()
    }
}
