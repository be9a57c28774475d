//! What a benchmark found, as a table for people and as JSON for machines.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{samples::median, stage::Stage};

/// All that one benchmark found, and on what.
#[derive(Debug)]
pub(super) struct Report {
    /// Which benchmark.
    pub(super) name: &'static str,
    /// What it was told to do: name and value.
    pub(super) setup: Vec<(&'static str, String)>,
    /// The machine and the database.
    pub(super) machine: Machine,
    /// What it found.
    pub(super) figures: Vec<Figure>,
}

/// What the figures were measured on.
#[derive(Debug)]
pub(super) struct Machine {
    cores: usize,
    system: String,
    engine: String,
    settings: Vec<(String, String)>,
    sync_ms: Option<f64>,
    is_durable: bool,
}

/// One thing that was measured.
#[derive(Debug)]
pub(super) struct Figure {
    /// What.
    pub(super) what: String,
    /// What the numbers are.
    pub(super) unit: Unit,
    /// Ours, round by round.
    pub(super) ours: Vec<f64>,
    /// What it is held against.
    pub(super) raw: Option<Raw>,
    /// What it should reach.
    pub(super) target: Option<Target>,
}

/// What a figure is held against, measured in the same rounds.
#[derive(Debug)]
pub(super) struct Raw {
    /// What was done.
    pub(super) what: String,
    /// Round by round.
    pub(super) rounds: Vec<f64>,
}

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// How many in a second.
    PerSecond,
    /// A time in milliseconds.
    Millis,
    /// A size in MiB.
    Mebibytes,
    /// One number over another.
    Times,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// So many times the raw figure, at least.
    Ratio(f64),
    /// Less than this.
    Below(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Figure {
    /// Ours: the median of the rounds.
    pub(super) fn value(&self) -> f64 {
        median(&self.ours)
    }

    /// Ours over raw: the median of the rounds' own ratios, since machines and disks change between
    /// rounds.
    pub(super) fn ratio(&self) -> Option<f64> {
        let raw = self.raw.as_ref()?;
        let pairs = self.ours.iter().zip(&raw.rounds).filter(|(_, raw)| **raw > 0.0);
        let ratios: Vec<f64> = pairs.map(|(ours, raw)| ours / raw).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// Whether the target is reached, where there is one.
    pub(super) fn is_met(&self) -> Option<bool> {
        Some(match self.target? {
            Target::Ratio(least) => self.ratio()? >= least,
            Target::Below(bound) => self.value() < bound,
            Target::AtMost(most) => self.value() <= most,
        })
    }

    fn cells(&self) -> [String; 6] {
        let raw = self.raw.as_ref();
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        [
            self.what.clone(),
            self.unit.show(self.value()),
            raw.map_or(String::new(), |it| self.unit.show(median(&it.rounds))),
            self.ratio().map_or(String::new(), |it| format!("{it:.2}")),
            self.target.map_or(String::new(), |it| it.show(self.unit)),
            met.to_owned(),
        ]
    }

    fn to_json(&self) -> Value {
        let side = |rounds: &[f64]| json!({ "median": median(rounds), "rounds": rounds });
        let mut json = json!({
            "figure": self.what,
            "unit": self.unit.name(),
            "ours": side(&self.ours),
            "ratio": self.ratio(),
            "target": self.target.map(Target::to_json),
            "met": self.is_met(),
        });
        if let Some(raw) = &self.raw {
            json["raw"] = side(&raw.rounds);
            json["raw"]["what"] = raw.what.clone().into();
        }
        json
    }
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per_second",
            Self::Millis => "ms",
            Self::Mebibytes => "mib",
            Self::Times => "times",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Millis => format!("{value:.2} ms"),
            Self::Mebibytes => format!("{value:.0} MiB"),
            Self::Times => format!("{value:.2} ×"),
        }
    }
}

impl Target {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::Ratio(least) => format!("≥ {least:.2}"),
            Self::Below(bound) => format!("< {}", unit.show(bound)),
            Self::AtMost(most) => format!("≤ {}", unit.show(most)),
        }
    }

    fn to_json(self) -> Value {
        match self {
            Self::Ratio(least) => json!({ "ratioAtLeast": least }),
            Self::Below(bound) => json!({ "below": bound }),
            Self::AtMost(most) => json!({ "atMost": most }),
        }
    }
}

impl Machine {
    /// This machine with the stage's database.
    pub(super) fn new(stage: &Stage) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            engine: stage.engine.name.clone(),
            settings: stage.engine.settings.clone(),
            sync_ms: stage.sync_ms,
            is_durable: stage.engine.is_durable,
        }
    }

    fn line(&self) -> String {
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let cores = if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) };
        let mut parts = vec![cores, self.system.clone(), self.engine.clone(), settings.join(", ")];
        parts.extend(self.sync_ms.map(|it| format!("fdatasync {it:.2} ms")));
        parts.join(" · ")
    }

    /// Why the figures do not count, if they do not.
    fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if cfg!(debug_assertions) {
            warnings.push("this is a debug build: only figures of a release build count");
        }
        if !self.is_durable {
            warnings.push("a commit of this database does not wait for the disk: the figures do not count");
        }
        if self.sync_ms.is_some_and(|it| it < 0.01) {
            warnings.push("the folder is in memory, not on a disk: the figures do not count");
        }
        warnings
    }
}

impl Report {
    /// For people.
    pub(super) fn to_text(&self) -> String {
        let setup: Vec<_> = self.setup.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let mut text = format!("bench {} · {}\n{}\n\n", self.name, setup.join(", "), self.machine.line());
        text.push_str(&table(&self.figures));
        let mut told = Vec::new();
        for raw in self.figures.iter().filter_map(|it| it.raw.as_ref()) {
            if !told.contains(&&raw.what) {
                told.push(&raw.what);
            }
        }
        for (at, what) in told.into_iter().enumerate() {
            let _ = write!(text, "\n{}  {what}", if at == 0 { "raw:" } else { "    " });
        }
        for warning in self.machine.warnings() {
            let _ = write!(text, "\n\nAttention: {warning}.");
        }
        text
    }

    /// For machines.
    pub(super) fn to_json(&self) -> Value {
        let map = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
        let setup = self.setup.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        let settings = self.machine.settings.iter().map(|(name, value)| (name.clone(), value.clone().into()));
        json!({
            "bench": self.name,
            "setup": map(setup.collect()),
            "machine": {
                "cores": self.machine.cores,
                "system": self.machine.system,
                "database": self.machine.engine,
                "settings": map(settings.collect()),
                "fdatasyncMs": self.machine.sync_ms,
            },
            "version": env!("CARGO_PKG_VERSION"),
            "figures": self.figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
            "warnings": self.machine.warnings(),
        })
    }
}

/// Columns as wide as what stands in them; numbers to the right.
fn table(figures: &[Figure]) -> String {
    let head = ["figure", "ours", "raw", "ours/raw", "target", "met"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(Figure::cells)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = widths[at];
            let _ = match at {
                0 => write!(line, "{cell:<width$}"),
                5 => write!(line, "  {cell}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A whole number with its thousands apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: &[f64], raw: &[f64], target: Option<Target>) -> Figure {
        let raw = Raw { what: "plain inserts".to_owned(), rounds: raw.to_vec() };
        let raw = (!raw.rounds.is_empty()).then_some(raw);
        Figure { what: "append".to_owned(), unit: Unit::PerSecond, ours: ours.to_vec(), raw, target }
    }

    fn report(figures: Vec<Figure>) -> Report {
        let machine = Machine {
            cores: 2,
            system: "linux x86_64".to_owned(),
            engine: "PostgreSQL 15.20".to_owned(),
            settings: vec![("fsync".to_owned(), "on".to_owned())],
            sync_ms: None,
            is_durable: true,
        };
        Report { name: "append", setup: vec![("messages", "1000".to_owned())], machine, figures }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // The machine was half as fast in the second round, for both.
        let it = figure(&[800.0, 400.0, 700.0], &[1000.0, 500.0, 1000.0], Some(Target::Ratio(0.8)));
        assert!((it.ratio().unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(it.is_met(), Some(true));
        assert_eq!(figure(&[1.0], &[], Some(Target::Ratio(0.8))).is_met(), None);
        assert_eq!(figure(&[1.0], &[0.0], None).ratio(), None);
    }

    #[test]
    fn targets_are_bounds() {
        for (value, target, met) in [
            (4.9, Target::Below(5.0), true),
            (5.0, Target::Below(5.0), false),
            (1.3, Target::AtMost(1.3), true),
            (1.31, Target::AtMost(1.3), false),
        ] {
            assert_eq!(figure(&[value], &[], Some(target)).is_met(), Some(met), "{value}");
        }
    }

    #[test]
    fn the_table_is_aligned() {
        let figures = vec![
            figure(&[31_234.4], &[1_042_000.0], Some(Target::Ratio(0.7))),
            Figure {
                what: "accept to call, p50".to_owned(),
                unit: Unit::Millis,
                ours: vec![2.345],
                raw: None,
                target: Some(Target::Below(4.0)),
            },
        ];
        let expected = "\
figure                   ours          raw  ours/raw     target  met
append               31,234/s  1,042,000/s      0.03     ≥ 0.70  no
accept to call, p50   2.35 ms                         < 4.00 ms  yes
";
        assert_eq!(table(&figures), expected);
        let text = report(figures).to_text();
        assert!(text.starts_with("bench append · messages 1000\n2 cores · linux x86_64 · "), "{text}");
        assert!(text.contains("\nraw:  plain inserts"), "{text}");
    }

    #[test]
    fn machines_get_every_round() {
        let json = report(vec![figure(&[2.0, 4.0], &[4.0, 4.0], Some(Target::Ratio(0.7)))]).to_json();
        let figure = &json["figures"][0];
        assert_eq!(figure["ours"], json!({ "median": 3.0, "rounds": [2.0, 4.0] }));
        assert_eq!(figure["raw"], json!({ "median": 4.0, "rounds": [4.0, 4.0], "what": "plain inserts" }));
        assert_eq!((&figure["ratio"], &figure["met"]), (&json!(0.75), &json!(true)));
        assert_eq!(json["machine"]["settings"]["fsync"], "on");
    }
}
