//! Which answers mean what, and which rules are refused.

use super::*;
use serde_json::json;

fn rules(outcomes: Value) -> Result<Vec<Rule>, String> {
    let read = |outcomes| {
        let mut settings = Settings::new("acme", json!({ "outcomes": outcomes }))?;
        settings.take_tables("outcomes")?.into_iter().map(Rule::take).collect::<Result<_, _>>()
    };
    read(outcomes).map_err(|error: BuildError| error.to_string())
}

fn class_of(rules: &[Rule], status: u16, header: Option<&'static str>, json: &Value) -> Class {
    let mut headers = HeaderMap::new();
    if let Some(value) = header {
        headers.insert("x-note", value.parse().unwrap());
    }
    judge(rules, &Seen { status, headers: &headers, json: Some(json) }).0
}

#[test]
fn without_a_rule_the_status_decides_and_never_condemns_a_target() {
    use FailureClass::{AuthConfig, Permanent, Retry};
    for status in 100..=599 {
        let expected = match status {
            200..=299 => Class::Accepted,
            401 | 403 => Class::Failed(AuthConfig),
            408 | 425 | 429 | 500.. => Class::Failed(Retry),
            _ => Class::Failed(Permanent),
        };
        assert_eq!(class_of(&[], status, None, &json!({})), expected, "{status}");
    }
}

#[test]
fn the_first_rule_that_holds_decides() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry, Unknown};
    let rules = rules(json!([
        {"status": 200, "pointer": "/id", "equals": "", "class": "invalid_target"},
        {"pointer": "/errors/invalid", "class": "invalid_target"},
        {"status": ["4xx", 503], "header": {"name": "X-Note", "contains": "quota"}, "class": "retry"},
        {"header": {"name": "x-note", "equals": "gone"}, "class": "permanent"},
        {"header": {"name": "x-note", "exists": true}, "class": "auth_config"},
        {"status": "2xx", "pointer": "/code", "equals": 7.0, "class": "unknown"},
        {"status": 409, "class": "accepted"},
        {"status": "2xx", "pointer": "/errors", "contains": "full", "class": "retry"},
        {"status": 418, "pointer": "/why", "exists": false, "class": "retry"},
    ]))
    .unwrap();
    let failed = Class::Failed;
    for (status, header, json, expected) in [
        (200, None, json!({"id": ""}), failed(InvalidTarget)),
        (200, None, json!({"id": "x"}), Class::Accepted),
        (500, None, json!({"id": "", "errors": {"invalid": null}}), failed(InvalidTarget)),
        (402, Some("the quota is used up"), json!({}), failed(Retry)),
        (503, Some("quota"), json!({}), failed(Retry)),
        (500, Some("quota"), json!({}), failed(AuthConfig)),
        (500, Some("gone"), json!({}), failed(Permanent)),
        (204, None, json!({"code": 7}), failed(Unknown)),
        (204, None, json!({"code": "7"}), Class::Accepted),
        (409, None, json!([]), Class::Accepted),
        (200, None, json!({"errors": ["full"]}), failed(Retry)),
        (200, None, json!({"errors": "is full now"}), failed(Retry)),
        (200, None, json!({"errors": {"full": 1}}), Class::Accepted),
        (418, None, json!({}), failed(Retry)),
        (418, None, json!({"why": 1}), failed(Permanent)),
        (404, None, json!({"id": ""}), failed(Permanent)),
    ] {
        assert_eq!(class_of(&rules, status, header, &json), expected, "{status} {header:?} {json}");
    }
}

#[test]
fn a_place_is_read_as_text() {
    let place = |text: &str| {
        let mut settings = Settings::new("acme", json!({ "id": text })).unwrap();
        Place::take(&mut settings, "id").map(Option::unwrap)
    };
    let mut headers = HeaderMap::new();
    headers.insert("apns-id", "A-1".parse().unwrap());
    let json = json!({"a": [{"id": "x"}], "n": 42, "e": "", "t": {}});
    let seen = Seen { status: 200, headers: &headers, json: Some(&json) };
    for (text, expected) in [
        ("/a/0/id", Some("x")),
        ("/n", Some("42")),
        ("/e", None),
        ("/t", None),
        ("/no", None),
        ("header:APNs-Id", Some("A-1")),
        ("header: x-other", None),
    ] {
        assert_eq!(place(text).unwrap().read(&seen).as_deref(), expected, "{text}");
    }
    for text in ["id", "", "header:", "header:a b"] {
        assert_eq!(place(text).unwrap_err().problem, format!("is {text:?}"));
    }
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused() {
    for (rule, expected) in [
        (json!({"class": "retry"}), "outcomes[0] would hold for every answer"),
        (json!({"status": 429}), "outcomes[0].class is missing"),
        (json!({"status": 429, "class": "later"}), "outcomes[0].class is \"later\"; make it one of: accep"),
        (json!({"status": 99, "class": "retry"}), "outcomes[0].status cannot be used"),
        (json!({"status": "6xx", "class": "retry"}), "outcomes[0].status cannot be used"),
        (json!({"status": [], "class": "retry"}), "outcomes[0].status cannot be used"),
        (json!({"pointer": "code", "class": "retry"}), "outcomes[0].pointer is \"code\""),
        (json!({"status": 200, "equals": 1, "class": "retry"}), "outcomes[0] has equals, contains or exists"),
        (
            json!({"pointer": "/a", "equals": 1, "exists": true, "class": "retry"}),
            "outcomes[0] has more than one of",
        ),
        (json!({"header": {"equals": "x"}, "class": "retry"}), "outcomes[0].header.name is missing"),
        (json!({"status": 200, "clas": "retry", "class": "retry"}), "outcomes[0].clas is not a known key"),
    ] {
        let error = rules(json!([rule])).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
