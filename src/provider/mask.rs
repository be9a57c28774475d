//! Taking secrets and device tokens out of what providers say, before it is recorded for ever.
//!
//! Providers like to echo what they were sent, each in its own encoding. So a text counts as found
//! however its characters are written: plainly, as JSON escapes (`\/`, `\u003d`) or as `%3D`.

use crate::message::{Target, subscription::Subscription};

/// Longest provider's code or message id that is recorded, in bytes.
const NAME_MAX: usize = 256;

/// Texts that must not be seen, each with what is shown instead.
#[derive(Clone, Default)]
pub(crate) struct Mask(Vec<(String, String)>);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} texts)", self.0.len())
    }
}

impl Mask {
    /// This mask with one more text to hide; the empty text is everywhere and hides nothing.
    #[must_use]
    pub(crate) fn and(mut self, hidden: &str, shown: impl Into<String>) -> Self {
        if !hidden.is_empty() {
            self.0.push((hidden.to_owned(), shown.into()));
            // The longest first: one text may be the beginning of another.
            self.0.sort_by_key(|(hidden, _)| std::cmp::Reverse(hidden.len()));
        }
        self
    }

    /// This mask with what is secret about a push's target.
    #[must_use]
    pub(crate) fn and_target(self, target: &Target) -> Self {
        let shown = || format!("[{}]", target.masked());
        match target {
            Target::Token(secret) => self.and(secret, shown()),
            Target::Subscription(text) => {
                let parts = Subscription::read(text).map(|it| it.secrets()).unwrap_or_default();
                parts.iter().fold(self.and(text, shown()), |mask, it| mask.and(it, shown()))
            }
            Target::Topic(_) | Target::Alias(_) => self,
        }
    }

    /// A provider's code or id as it may be recorded: without secrets, control characters, and great length.
    pub(crate) fn name(&self, text: &str) -> String {
        cut(&self.apply(text).replace(char::is_control, " "), NAME_MAX).to_owned()
    }

    /// The text with everything hidden that must be.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = self.0.iter().find_map(|(hidden, shown)| Some((found_at(rest, hidden)?, shown)));
            let taken = found.map_or(first.len_utf8(), |(len, _)| len);
            match found {
                Some((_, shown)) => masked.push_str(shown),
                None => masked.push(first),
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        masked
    }

    /// The same for a text of which the end was cut off: what may be the beginning of something hidden
    /// is cut off too.
    pub(crate) fn apply_to_cut(&self, text: &str) -> String {
        let masked = self.apply(text);
        cut(&masked, masked.len().saturating_sub(self.longest())).to_owned()
    }

    /// The most bytes that writing something hidden can take: six (`\u003d`) for each of its own.
    pub(crate) fn longest(&self) -> usize {
        self.0.iter().map(|(hidden, _)| hidden.len() * 6).max().unwrap_or(0)
    }
}

/// The beginning of a text, of at most so many bytes and without half a character.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

/// How many bytes of `text` write `hidden`, where `text` begins with it in whatever way.
fn found_at(text: &str, hidden: &str) -> Option<usize> {
    // A backslash or a percent sign may stand for itself or begin an escape: follow both readings.
    let mut ends = vec![0];
    for wanted in hidden.chars() {
        let step = |at: usize| {
            let rest = text.get(at..).unwrap_or_default();
            let ways = [plain(rest, wanted), escaped(rest, wanted), percent(rest, wanted)];
            ways.into_iter().flatten().map(move |len| at + len)
        };
        ends = ends.into_iter().flat_map(step).collect();
        ends.sort_unstable();
        ends.dedup();
        if ends.is_empty() {
            return None;
        }
    }
    ends.pop()
}

fn plain(text: &str, wanted: char) -> Option<usize> {
    text.starts_with(wanted).then(|| wanted.len_utf8())
}

/// `\/` and the like, and `\u003d`.
fn escaped(text: &str, wanted: char) -> Option<usize> {
    let after = text.strip_prefix('\\')?;
    if let Some(digits) = after.strip_prefix('u').and_then(|it| it.get(..4)) {
        let code = u32::from_str_radix(digits, 16).ok()?;
        return (code == u32::from(wanted)).then_some(6);
    }
    let short = match wanted {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        other => other,
    };
    after.starts_with(short).then(|| 1 + short.len_utf8())
}

/// `%3D`, one for each byte of the character.
fn percent(text: &str, wanted: char) -> Option<usize> {
    let mut len = 0;
    for byte in wanted.encode_utf8(&mut [0; 4]).bytes() {
        let digits = text.get(len..)?.strip_prefix('%')?.get(..2)?;
        if u8::from_str_radix(digits, 16).ok()? != byte {
            return None;
        }
        len += 3;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask::default().and("a/b=", "[token]").and("a/b=c", "[key]").and("", "never").and("한%4", "[word]")
    }

    #[test]
    fn a_hidden_text_is_found_however_it_is_written() {
        for (said, recorded) in [
            ("say a/b= twice: a/b=", "say [token] twice: [token]"),
            ("{\"k\":\"a\\/b=c\"}", "{\"k\":\"[key]\"}"),
            ("a/b\\u003dc a/b\\u003Dx", "[key] [token]x"),
            ("?t=a%2fb%3D&a%2Fb=c", "?t=[token]&[key]"),
            ("\\u0061\\/%62=", "[token]"),
            ("한%4 %ED%95%9C%254 \\ud55c%4", "[word] [word] [word]"),
            ("a/b", "a/b"),
            ("", ""),
            ("100 % of \\ and %zz 한 \\u12", "100 % of \\ and %zz 한 \\u12"),
        ] {
            assert_eq!(mask().apply(said), recorded, "{said}");
        }
    }

    #[test]
    fn the_parts_of_a_subscription_are_secrets_like_the_whole() {
        let text = r#"{"endpoint":"https://push.example.net/send/s3cr3t-path","keys":{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}"#;
        let mask = Mask::default().and_target(&Target::Subscription(text.to_owned()));
        for said in [
            text,
            "no such endpoint: https://push.example.net/send/s3cr3t-path",
            "bad BTBZMqHH6r4Tts7J_aSIgg",
        ] {
            let recorded = mask.apply(said);
            assert!(!recorded.contains("s3cr3t") && !recorded.contains("BTBZ"), "{recorded}");
        }
        assert_eq!(Mask::default().and_target(&Target::Topic("news".into())).apply("news"), "news");
    }

    #[test]
    fn half_a_secret_at_the_end_of_a_cut_text_is_not_kept() {
        let mask = Mask::default().and("s3cret", "[key]");
        let said = format!("{} s3cr", "x".repeat(100));
        assert!(!mask.apply_to_cut(&said).contains("s3"), "{said}");
        assert_eq!(Mask::default().apply_to_cut("all of it"), "all of it");
    }

    #[test]
    fn a_cut_keeps_characters_whole() {
        assert_eq!((cut("한글", 4), cut("한글", 99)), ("한", "한글"));
    }
}
