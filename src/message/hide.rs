//! Hiding push tokens in input that may be no message: what stands in quarantine is read by people.

/// Fields whose values open a device, besides those that speak of a token: targets, and the parts of a Web Push
/// subscription (W3C Push API). In lower case.
const SECRET: [&str; 5] = ["targets", "subscription", "endpoint", "p256dh", "auth"];

/// The text with the values of such fields cut to their last four characters, and with all texts inside them
/// where they are lists or objects. The text may be of whatever shape otherwise: whole JSON, broken JSON, or JSON
/// inside a string of JSON.
#[must_use]
pub fn hide_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find('"').and_then(|at| Quoted::read(rest, at)) {
        let is_secret = is_key(rest.get(found.end..).unwrap_or_default()) && is_secret(found.text);
        // Any other text may hold JSON itself.
        let (before, after) = rest.split_at(if is_secret { found.end } else { found.begin });
        shown.push_str(before);
        rest = after;
        if !is_secret {
            continue;
        }
        let gap = after.len() - after.trim_start_matches(|it: char| it == ':' || it.is_whitespace()).len();
        let (colon, value) = after.split_at(gap);
        shown.push_str(colon);
        let end = match value.chars().next() {
            Some('[' | '{') => closing(value),
            Some('"' | '\\') => {
                let quote = value.find('"').and_then(|at| Quoted::read(value, at));
                quote.map_or(value.len(), |it| it.end)
            }
            _ => 0,
        };
        let (secret, after) = value.split_at(end);
        hide_all(secret, &mut shown);
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// Cuts every text in this that is not the name of a field.
fn hide_all(mut rest: &str, shown: &mut String) {
    while let Some(found) = rest.find('"').and_then(|at| Quoted::read(rest, at)) {
        let after = rest.get(found.end..).unwrap_or_default();
        if is_key(after) {
            shown.push_str(rest.get(..found.end).unwrap_or_default());
        } else {
            shown.push_str(rest.get(..found.begin).unwrap_or_default());
            let skip = found.text.chars().count().saturating_sub(4).max(1);
            shown.push('…');
            shown.extend(found.text.chars().skip(skip));
            shown.push_str(rest.get(found.begin + found.text.len()..found.end).unwrap_or_default());
        }
        rest = after;
    }
    shown.push_str(rest);
}

/// A text in quotes.
struct Quoted<'a> {
    text: &'a str,
    /// Where the text begins, and where its last quote ends.
    begin: usize,
    end: usize,
}

impl<'a> Quoted<'a> {
    /// The one whose first quote stands at `at`; its last stands behind no more backslashes than the first.
    /// One that is cut off is a text all the same.
    fn read(all: &'a str, at: usize) -> Option<Self> {
        let depth = backslashes(all.get(..at)?);
        let begin = at + 1;
        let inside = all.get(begin..)?;
        let last = inside.match_indices('"').find_map(|(it, _)| {
            let slashes = backslashes(inside.get(..it)?);
            (slashes <= depth).then_some((it, it - slashes))
        });
        let (quote, end) = last.map_or((inside.len(), inside.len()), |(quote, end)| (quote + 1, end));
        Some(Self { text: inside.get(..end)?, begin, end: begin + quote })
    }
}

/// Whether what follows a text makes it the name of a field.
fn is_key(after: &str) -> bool {
    after.trim_start().starts_with(':')
}

fn backslashes(text: &str) -> usize {
    text.len() - text.trim_end_matches('\\').len()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("token") || SECRET.contains(&name.as_str())
}

/// Where a list or an object ends; at the end of the text where it does not.
fn closing(text: &str) -> usize {
    let mut open = 0_u32;
    for (at, it) in text.char_indices() {
        match it {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            _ => continue,
        }
        if open == 0 {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_whatever_they_stand_in() {
        for (text, shown) in [
            (r#"{"token":"abcdefgh"}"#, r#"{"token":"…efgh"}"#),
            (r#"{"token" : "abc", "title": "token"}"#, r#"{"token" : "…bc", "title": "token"}"#),
            (
                r#"{"Token":"abcdefgh","deviceToken":"abcdefgh"}"#,
                r#"{"Token":"…efgh","deviceToken":"…efgh"}"#,
            ),
            (r#"{"token":7,"a":"bcdefghi"}"#, r#"{"token":7,"a":"bcdefghi"}"#),
            (r#"{"a":"{\"token\": \"ab\/cdefgh\"}"}"#, r#"{"a":"{\"token\": \"…efgh\"}"}"#),
            (r#"{"token":"ab\"cdefgh","b":1}"#, r#"{"token":"…efgh","b":1}"#),
            (r#"{"token":"abcdefgh"#, r#"{"token":"…efgh"#),
            (r#"{"token":["abcdefgh"],"b":"cdefghij"}"#, r#"{"token":["…efgh"],"b":"cdefghij"}"#),
            (
                r#"{"targets":["abcdefgh",{"kind":"token","value":"abcdefgh"}],"b":"cdefghij"}"#,
                r#"{"targets":["…efgh",{"kind":"…oken","value":"…efgh"}],"b":"cdefghij"}"#,
            ),
            (
                r#"{"a":"{\"targets\":[{\"x\":\"abcdefgh\"}]}","b":"cdefghij"}"#,
                r#"{"a":"{\"targets\":[{\"x\":\"…efgh\"}]}","b":"cdefghij"}"#,
            ),
            (r#"{"targets":["abcdefgh"#, r#"{"targets":["…efgh"#),
            (
                r#"{"endpoint":"https://x.example/send/secret","keys":{"p256dh":"BNcRd","auth":"tBHI"}}"#,
                r#"{"endpoint":"…cret","keys":{"p256dh":"…NcRd","auth":"…BHI"}}"#,
            ),
            ("", ""),
            ("no \"JSON\": \"한국어\"", "no \"JSON\": \"한국어\""),
            (r#""token":"한국어한국어""#, r#""token":"…어한국어""#),
        ] {
            assert_eq!(hide_tokens(text), shown, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_holds_no_such_field_stays_as_it_is(text in "[b-d\"\\\\:{}\\[\\] ]{0,60}") {
            proptest::prop_assert_eq!(hide_tokens(&text), text);
        }
    }
}
