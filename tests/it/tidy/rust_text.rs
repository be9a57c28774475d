//! Rust source cut into code and literals, far enough for the tidy tests to read it without being
//! misled by comments and strings. It knows no grammar.

use std::{iter::Peekable, str::CharIndices};

/// One source file.
#[derive(Debug)]
pub(crate) struct RustText {
    /// The text with comments, strings and characters blanked; line numbers stay as they are.
    pub(crate) code: String,
    /// The strings, raw ones and bytes too, each with the number of the line that it begins on.
    pub(crate) strings: Vec<(usize, String)>,
}

impl RustText {
    /// Cuts the text.
    pub(crate) fn new(text: &str) -> Self {
        let mut cutter = Cutter {
            text,
            chars: text.char_indices().peekable(),
            line: 1,
            cut: Self { code: String::with_capacity(text.len()), strings: Vec::new() },
        };
        cutter.run();
        cutter.cut
    }

    /// The names right behind each `crate::` (`use crate::{a, b::c}` gives `a` and `b`), and the line.
    pub(crate) fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|it| is_word(it) || it == '$') {
                continue; // another word that ends in `crate`, or a macro's own `$crate`
            }
            let line = 1 + self.code[..at].matches('\n').count();
            let path = &self.code[at + "crate::".len()..];
            names.extend(first_names(path).into_iter().map(|name| (line, name)));
        }
        names
    }

    /// The files' modules: `mod NAME;` with the number of its line.
    pub(crate) fn modules(&self) -> Vec<(usize, String)> {
        let module = |line: &str| {
            let line = line.trim().strip_suffix(';')?;
            let (head, name) = line.rsplit_once("mod ")?;
            let is_head = head.is_empty() || head.starts_with("pub") || head.starts_with("#[");
            (is_head && !name.is_empty() && name.chars().all(is_word)).then(|| name.to_owned())
        };
        let lines = self.code.lines().enumerate();
        lines.filter_map(|(index, line)| Some((index + 1, module(line)?))).collect()
    }
}

/// The first name of a path, or of each path in a group at its beginning.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| text.trim_start().chars().take_while(|it| is_word(*it)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut names, mut depth, mut begins) = (Vec::new(), 0_usize, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(word(&group[begins..at]));
                begins = at + 1;
                if char == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

struct Cutter<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
    cut: RustText,
}

impl Cutter<'_> {
    fn run(&mut self) {
        while let Some(&(at, char)) = self.chars.peek() {
            let rest = &self.text[at..];
            match char {
                '/' if rest.starts_with("//") => self.blank(rest.find('\n').unwrap_or(rest.len())),
                '/' if rest.starts_with("/*") => self.blank(block_comment(rest)),
                '"' => self.string(1, "\""),
                '\'' => match char_literal(rest) {
                    Some(length) => self.blank(length),
                    None => self.keep(1),
                },
                _ if is_word(char) => self.word(rest),
                _ => self.keep(1),
            }
        }
    }

    /// A name, a number, or the prefix of a raw string.
    fn word(&mut self, rest: &str) {
        let length = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
        let hashes = rest[length..].bytes().take_while(|it| *it == b'#').count();
        let is_raw = matches!(&rest[..length], "r" | "br" | "cr") && rest[length + hashes..].starts_with('"');
        self.keep(rest[..length].chars().count());
        if is_raw {
            self.string(hashes + 1, &format!("\"{}", "#".repeat(hashes)));
        }
    }

    /// A string whose opening has so many characters; with a closing quote alone, backslashes escape.
    fn string(&mut self, opening: usize, closing: &str) {
        let is_plain = closing == "\"" && !self.text[..self.offset()].ends_with(['r']);
        let begin = self.offset() + opening;
        let body = &self.text[begin..];
        let mut length = body.len();
        let mut escaped = false;
        for (at, char) in body.char_indices() {
            if !escaped && body[at..].starts_with(closing) {
                length = at;
                break;
            }
            escaped = is_plain && char == '\\' && !escaped;
        }
        self.cut.strings.push((self.line, body[..length].to_owned()));
        self.blank(opening + length + closing.len());
    }

    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            let Some((_, char)) = self.chars.next() else { return };
            self.line += usize::from(char == '\n');
            self.cut.code.push(char);
        }
    }

    /// Blanks so many bytes; ends of lines stay.
    fn blank(&mut self, bytes: usize) {
        let end = self.offset() + bytes;
        while let Some((_, char)) = self.chars.next_if(|(at, _)| *at < end) {
            self.line += usize::from(char == '\n');
            self.cut.code.push(if char == '\n' { '\n' } else { ' ' });
        }
    }
}

/// The length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a character literal; none for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?; // the escaped character, which may be a quote
        return chars.find(|(_, it)| *it == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, it)| *it == '\'').map(|(at, _)| at + 1)
}

#[test]
fn comments_and_literals_are_no_code() {
    let table: &[(&str, &str, &[&str])] = &[
        ("a // \"b\"\nc", "a       \nc", &[]),
        ("a /* x /* y */ \" */ b", "a                   b", &[]),
        (r#"f("a\"b", 1)"#, r"f(      , 1)", &[r#"a\"b"#]),
        (r##"f(r#"a"b\"#)"##, "f(r        )", &[r#"a"b\"#]),
        (r#"f(r"\", b"x")"#, "f(r   , b   )", &["\\", "x"]),
        ("fn f<'a>(x: &'a str) { '\"' == '\\'' }", "fn f<'a>(x: &'a str) {     ==      }", &[]),
    ];
    for (text, code, strings) in table {
        let cut = RustText::new(text);
        assert_eq!(&cut.code, code, "{text}");
        let found: Vec<&str> = cut.strings.iter().map(|(_, it)| it.as_str()).collect();
        assert_eq!(&found, strings, "{text}");
    }
}

#[test]
fn paths_and_modules_are_found() {
    let text = "pub mod a;\nuse crate::{\n    b::{c, d},\n    e,\n};\n#[cfg(test)] mod f;\nfn g() { crate::h::i() } // crate::j\n";
    let cut = RustText::new(text);
    let names = |list: Vec<(usize, String)>| list.into_iter().map(|(_, it)| it).collect::<Vec<_>>();
    assert_eq!(cut.modules(), [(1, "a".to_owned()), (6, "f".to_owned())]);
    assert_eq!(names(cut.crate_paths()), ["b", "e", "h"]);
}
