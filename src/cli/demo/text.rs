//! How the demo looks: lines that are aligned, not too wide, and painted last. Pure.

use std::fmt::Write as _;

use super::paint::Paint;

/// The columns of a terminal that are used at the most.
pub(super) const WIDTH: usize = 100;
/// Where the text of a line begins.
const INDENT: usize = 16;

/// Folded rows do not begin further right.
const HANG_MAX: usize = 60;
/// How wide the value of a setting is, where it is not wider.
const VALUE: usize = 42;

/// One thing that happened, and whether it came out as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    label: &'static str,
    text: String,
    wrong: Option<String>,
}

impl Line {
    /// What happened; a line break in the text begins a new row below its beginning.
    pub(super) fn new(label: &'static str, text: impl Into<String>) -> Self {
        Self { label, text: text.into(), wrong: None }
    }

    /// The same with an expectation; the first that does not hold is what is wrong.
    pub(super) fn expect(mut self, holds: bool, otherwise: &str) -> Self {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(otherwise.to_owned());
        }
        self
    }

    /// What did not come out as expected.
    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.as_ref().map(|it| format!("{}: {it}", self.label))
    }

    /// As shown.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mark = if self.wrong.is_none() { paint.green("✓") } else { paint.red("✗") };
        let label = paint.bold(&pad(self.label, INDENT - 4));
        let mut rows = self.text.lines().flat_map(|row| wrap(row, 0, WIDTH - INDENT)).collect::<Vec<_>>();
        rows.extend(self.wrong.iter().flat_map(|it| {
            let text = format!("not as expected: {it}");
            wrap(&text, 0, WIDTH - INDENT).into_iter().map(|row| paint.red(&row)).collect::<Vec<_>>()
        }));
        let mut out = format!("  {mark} {label}");
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                let _ = write!(out, "\n{:INDENT$}", "");
            }
            out.push_str(row);
        }
        out
    }
}

/// A title, with a blank line above.
pub(super) fn heading(title: &str, aside: &str, paint: Paint) -> String {
    format!("\n{}{}", paint.bold(title), paint.dim(&if_any("  ", aside)))
}

/// A name and what it stands for, aligned with the lines.
pub(super) fn setting(name: &str, value: &str, aside: &str, paint: Paint) -> String {
    let line = format!("    {}{}", pad(name, INDENT - 4), pad(value, VALUE));
    let room = WIDTH.saturating_sub(columns(&line) + columns(aside) + 2);
    let gap = if room == 0 { format!("\n{:INDENT$}", "") } else { "  ".to_owned() };
    format!("{line}{}", if aside.is_empty() { String::new() } else { gap + &paint.dim(aside) })
}

/// The timeline of a message, as `audit message` prints it, folded where it is too wide: what follows
/// stands below the last column. Times and places stand back.
pub(super) fn timeline(text: &str, paint: Paint) -> String {
    let mut out = String::new();
    for line in text.trim_end().lines() {
        let hang = line.rfind("  ").map_or(0, |at| columns(&line[..at + 2]));
        for (at, row) in wrap(line, hang.min(HANG_MAX), WIDTH - 2).iter().enumerate() {
            let (back, front) = row.split_at(if at == 0 { place(row) } else { 0 });
            let _ = writeln!(out, "{}", format!("  {}{front}", paint.dim(back)).trim_end());
        }
    }
    out.trim_end().to_owned()
}

/// A command to copy, and what it is for.
pub(super) fn command(what: &str, command: &str, paint: Paint) -> String {
    let comment = paint.dim(&format!("  # {what}"));
    let command = command.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
    format!("{comment}\n{command}")
}

/// "1 message", "2 messages".
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        return format!("1 {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) if noun.ends_with("ry") => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

/// Where the time and the place of an event at the beginning of a row end.
fn place(row: &str) -> usize {
    let is_time = row.starts_with("20") && row.as_bytes().get(10) == Some(&b'T');
    let rest = row.find("  ").filter(|_| is_time).map(|at| at + 2);
    rest.and_then(|rest| Some(rest + row[rest..].find("  ")?)).unwrap_or_default()
}

fn if_any(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

/// Folds a line between words; all rows but the first begin with `hang` spaces. A word that is wider
/// than the room for it stays whole.
fn wrap(line: &str, hang: usize, width: usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut row = String::new();
    let mut empty = true;
    // Two spaces in a row hold an empty word, so that columns stay where they are.
    for (at, word) in line.split(' ').enumerate() {
        let gap = usize::from(at > 0 && (!empty || rows.is_empty()));
        if !empty && columns(&row) + gap + columns(word) > width {
            rows.push(std::mem::replace(&mut row, " ".repeat(hang)).trim_end().to_owned());
            empty = true;
        } else if gap > 0 {
            row.push(' ');
        }
        row.push_str(word);
        empty &= word.is_empty();
    }
    rows.push(row.trim_end().to_owned());
    rows
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// How many columns of a terminal a text takes: most letters of East Asia take two.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

/// Letters of Korean, Chinese and Japanese and what goes with them, after Unicode's `EastAsianWidth`.
const fn is_wide(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_folded_between_words_and_hang() {
        assert_eq!(wrap("one two three", 0, 100), ["one two three"]);
        assert_eq!(wrap("one two three", 2, 8), ["one two", "  three"]);
        assert_eq!(wrap("a  b  cc dd", 6, 9), ["a  b  cc", "      dd"]);
        assert_eq!(wrap("a immeasurable b", 1, 6), ["a", " immeasurable", " b"]);
        assert_eq!(wrap("  led in by spaces", 4, 10), ["  led in", "    by", "    spaces"]);
        assert_eq!(wrap("", 4, 10), [""]);
    }

    #[test]
    fn korean_takes_two_columns_a_letter() {
        assert_eq!((columns("쿠폰"), columns("→ …"), pad("한", 4).as_str()), (4, 3, "한  "));
        assert_eq!(wrap("정기권이 내일", 0, 9), ["정기권이", "내일"]);
    }

    #[test]
    fn what_is_wrong_is_marked_and_said() {
        let line = Line::new("sent", "11 messages\nand more");
        assert_eq!(line.render(Paint::plain()), "  ✓ sent        11 messages\n                and more");
        let line = line.expect(true, "never").expect(false, "12 were sent").expect(false, "later");
        assert_eq!(line.wrong().as_deref(), Some("sent: 12 were sent"));
        let shown = line.render(Paint::plain());
        assert!(shown.starts_with("  ✗ sent") && shown.ends_with("not as expected: 12 were sent"), "{shown}");
    }

    #[test]
    fn paint_changes_no_text() {
        let text = "message m\n\n2026-11-22T09:00:00.000Z  0-1  attempt 1: retry  acme → token:…a001, HTTP \
                    503, overloaded, \"{}\", 1 ms; again at 2026-11-22T09:00:00.300Z (schedule step 1: 0.3 s)";
        let (plain, painted) = (timeline(text, Paint::plain()), timeline(text, Paint::colourful()));
        assert!(plain.lines().all(|it| columns(it) <= WIDTH) && plain.lines().count() > 3, "{plain}");
        assert!(painted.contains("\x1b[2m2026-11-22T09:00:00.000Z  0-1\x1b[0m"), "{painted}");
        assert_eq!(painted.replace("\x1b[2m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn nouns_are_counted() {
        let counted = [count(1, "delivery"), count(2, "delivery"), count(0, "call"), count(3, "day")];
        assert_eq!(counted, ["1 delivery", "2 deliveries", "0 calls", "3 days"]);
    }

    #[test]
    fn an_aside_that_does_not_fit_stands_below() {
        let long = "x".repeat(80);
        assert_eq!(
            setting("folder", "a", "b", Paint::plain()),
            format!("    folder      a{}  b", " ".repeat(41))
        );
        assert_eq!(setting("folder", &long, "below", Paint::plain()).lines().count(), 2);
    }
}
