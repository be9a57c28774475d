//! Colours on a terminal, and none where they would be noise: in files and pipes, on a terminal that
//! knows none, and where the environment asks for none (`NO_COLOR`).

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
};

/// Paints texts, or leaves them as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// For what goes to standard output.
    pub(super) fn for_stdout() -> Self {
        let variable = |name| std::env::var_os(name);
        Self { on: wanted(io::stdout().is_terminal(), variable("NO_COLOR"), variable("TERM")) }
    }

    /// Without any colour.
    #[cfg(test)]
    pub(super) const fn plain() -> Self {
        Self { on: false }
    }

    /// With colours.
    #[cfg(test)]
    pub(super) const fn colourful() -> Self {
        Self { on: true }
    }

    /// What the eye is to find first.
    pub(super) fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }

    /// What stands back.
    pub(super) fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }

    /// What is well.
    pub(super) fn green(self, text: &str) -> String {
        self.sgr("32", text)
    }

    /// What is not.
    pub(super) fn red(self, text: &str) -> String {
        self.sgr("1;31", text)
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As <https://no-color.org> has it: set and not empty means no colour.
fn wanted(terminal: bool, no_color: Option<OsString>, term: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|it| it.is_empty()) && term.is_none_or(|it| it != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let set = |text: &str| Some(OsString::from(text));
        assert!(wanted(true, None, set("xterm-256color")));
        assert!(wanted(true, set(""), None));
        assert!(!wanted(true, set("1"), set("xterm")));
        assert!(!wanted(true, None, set("dumb")));
        assert!(!wanted(false, None, set("xterm")));
    }
}
