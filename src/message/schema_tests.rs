//! Holds `docs/message.schema.json` and the parser together, in both directions.
//!
//! What the generator makes is valid by the schema and is parsed. Where the two are compared on bad
//! input, every known field takes every value of a list of odd ones, in turn: what the schema
//! refuses the parser must refuse, and what the schema allows the parser must take, but for the few
//! rules that a schema cannot say ([`beyond_the_schema`]).

use std::{fmt::Write, sync::LazyLock};

use jsonschema::Validator;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::{
    Message, Rejection, RejectionCode, content,
    parse::{Outside, Parsed, parse},
};
use crate::clock::Timestamp;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/message.schema.json")).unwrap()
}

fn valid(document: &Value) -> bool {
    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::options().should_validate_formats(false).build(&schema()).unwrap());
    VALIDATOR.is_valid(document)
}

fn read(text: &str) -> Result<Parsed, Rejection> {
    parse(text.as_bytes(), Outside::default())
}

#[test]
fn the_schema_is_a_schema_and_its_examples_are_messages() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let examples = schema["examples"].as_array().unwrap();
    for example in examples {
        assert!(valid(example));
        assert_eq!(read(&example.to_string()).unwrap().unknown_fields, Vec::<String>::new());
    }
}

#[test]
fn the_schema_names_the_fields_of_the_message_and_no_others() {
    fn names(value: &Value) -> Vec<&String> {
        value.as_object().unwrap().keys().collect()
    }
    let schema = schema();
    let everything = &schema["examples"][1];
    let message = serde_json::to_value(read(&everything.to_string()).unwrap().message).unwrap();
    assert_eq!(names(&schema["properties"]), names(&message));
    assert_eq!(names(&schema["properties"]["push"]["properties"]), names(&message["push"]));
    assert_eq!(schema["required"], json!(["messageId", "notificationType", "recipientId", "title"]));
}

/// Whether a refusal rests on a rule that JSON Schema has no words for.
fn beyond_the_schema(rejection: &Rejection) -> bool {
    let field = rejection.field.as_deref().unwrap_or_default();
    match rejection.code {
        // Bytes, not characters.
        RejectionCode::TooLong => matches!(field, "body" | "push.body" | "data"),
        // What an address is, and which host it names; one alphabet and the last bits of base64.
        RejectionCode::BadValue => field.contains(".subscription."),
        // The calendar; the whole text.
        RejectionCode::BadTime | RejectionCode::TooLarge | RejectionCode::TooDeep => true,
        _ => false,
    }
}

/// Every place of the contract, as JSON pointers.
const PLACES: [&str; 31] = [
    "",
    "/messageId",
    "/notificationType",
    "/notificationType/0",
    "/recipientId",
    "/title",
    "/body",
    "/category",
    "/link",
    "/imageUrl",
    "/data",
    "/data/passId",
    "/locale",
    "/source",
    "/occurredAt",
    "/deliverAt",
    "/expiresAt",
    "/collapseKey",
    "/priority",
    "/push",
    "/push/provider",
    "/push/targets",
    "/push/targets/0",
    "/push/targets/0/token",
    "/push/targets/1/subscription",
    "/push/targets/1/subscription/endpoint",
    "/push/targets/1/subscription/keys",
    "/push/targets/1/subscription/keys/p256dh",
    "/push/targets/1/subscription/keys/auth",
    "/push/title",
    "/push/body",
];

/// Values that are wrong somewhere, most of them right somewhere else.
fn odd_values() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!([]),
        json!([null]),
        json!(["PUSH"]),
        json!(["PUSH", "PUSH"]),
        json!(["PUSH", "EMAIL"]),
        json!(["PUSH", 1]),
        json!([{}]),
        json!([{"token": "t"}, {"topic": "o", "alias": null}]),
        json!([{"token": "t"}, "t"]),
        json!({}),
        json!({"token": "t"}),
        json!({"token": ""}),
        json!({"token": "t", "topic": ""}),
        json!({"token": "t", "topic": "o"}),
        json!({"token": null, "topic": "o"}),
        json!({"token": 1, "topic": "o"}),
        json!({"alias": "a", "sound": {"name": "x"}}),
        subscription(1),
        json!({"token": "t", "subscription": null}),
        json!({"token": "t", "subscription": {}}),
        json!({"subscription": "s"}),
        json!({"subscription": null}),
        json!({"subscription": {}}),
        json!({"sound": "x\0"}),
        json!({"a\0": 1}),
        json!({"a": [{"b": "\0"}]}),
        json!({"a": "b\u{1}"}),
    ];
    for text in [
        "",
        " ",
        "a",
        "a ",
        " a",
        "\u{3000}a",
        "a\u{a0}b",
        "a b",
        "a/b",
        "é",
        "ａ",
        "A.z_0:9-",
        "PUSH",
        "push",
        "APP_NOTIFICATION",
        "EMAIL",
        "normal",
        "high",
        "HIGH",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "a\u{b}b",
        "a\u{9f}b",
        "a\u{b}b",
        "a\u{1f}b",
        "a\u{7f}b",
        "a\u{80}b",
        "a\u{9f}b",
        "\u{2028}",
        "a\n",
        "a\u{feff}",
        "2026-11-22T09:00:00Z",
        "2026-11-22T09:00:00.1+09:00",
        "2026-11-22T09:00:00-00:00",
        "2026-11-22T09:00:00",
        "2026-11-22T09:00:00.Z",
        "2026-11-22T09:00:00z",
        "2026-11-22t09:00:00Z",
        "2026-11-22 09:00:00Z",
        "2026-11-22",
        "2026-02-30T09:00:00Z",
        "1969-12-31T23:59:59Z",
        "2026-11-22T09:00:00+0900",
        "2026-11-22T09:00Z",
        "2026-11-22T09:00:00Z ",
        "+2026-11-22T09:00:00Z",
        "２026-11-22T09:00:00Z",
        "2026-11-22T09:00:60Z",
        "2026-11-22T09:00:00,1Z",
    ] {
        values.push(json!(text));
    }
    for limit in [35, 64, 128, 512, 2048, 4096, 8192] {
        values.extend([limit, limit + 1].map(|length| json!("x".repeat(length))));
        values.extend([limit, limit + 1].map(|length| json!("é".repeat(length))));
    }
    values.extend([100, 101].map(|length| json!(vec![json!({"token": "t"}); length])));
    values.extend([65_528, 65_529].map(|length| json!({"a": "x".repeat(length)})));
    values.push((0..40).fold(json!(1), |inner, _| json!({"a": inner})));
    values
}

/// Every control character inside a text, every white space at either end of one.
fn odd_texts() -> Vec<Value> {
    let characters = || (0..=0xffff).filter_map(char::from_u32);
    let controls = characters().filter(|c| c.is_control()).map(|c| json!(format!("a{c}b")));
    let spaces = characters().filter(|c| c.is_whitespace());
    controls.chain(spaces.flat_map(|c| [json!(format!("a{c}")), json!(format!("{c}a"))])).collect()
}

#[test]
fn schema_and_parser_agree_on_every_odd_value_in_every_place() {
    let everything = schema()["examples"][1].clone();
    let (mut taken, mut refused) = (0, 0);
    for place in PLACES {
        let one_of_each_rule = ["/recipientId", "/title", "/body"].contains(&place);
        let texts = if one_of_each_rule { odd_texts() } else { vec![] };
        for value in odd_values().into_iter().chain(texts) {
            let mut document = everything.clone();
            *document.pointer_mut(place).unwrap() = value.clone();
            let shown: String = value.to_string().chars().take(80).collect();
            match (valid(&document), read(&document.to_string())) {
                (true, Ok(_)) => taken += 1,
                (false, Err(_)) => refused += 1,
                (true, Err(rejection)) if beyond_the_schema(&rejection) => {}
                (true, Err(rejection)) => panic!("{place} = {shown}: the schema allows, but {rejection}"),
                (false, Ok(_)) => panic!("{place} = {shown}: the schema refuses, the parser does not"),
            }
        }
    }
    assert!(taken > 500 && refused > 500, "{taken} taken, {refused} refused");
}

#[test]
fn schema_and_parser_agree_on_every_missing_field() {
    for name in schema()["properties"].as_object().unwrap().keys() {
        let mut document = schema()["examples"][1].clone();
        document.as_object_mut().unwrap().remove(name);
        assert_eq!(valid(&document), read(&document.to_string()).is_ok(), "{name}");
    }
}

/// Text of `chars` characters that stands in one line.
fn line(chars: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    let plain = any::<char>().prop_filter("no control characters", |c| !c.is_control());
    vec(plain, chars).prop_map(String::from_iter)
}

fn lines() -> impl Strategy<Value = String> {
    (line(0..=60), select(vec!["", "\n", "\r\n", "\t"]), line(0..=60)).prop_map(|(a, b, c)| a + b + &c)
}

fn time() -> impl Strategy<Value = String> {
    let offsets = select(vec!["Z", "+00:00", "+09:00", "-03:30"]);
    (86_400_000_000..253_402_000_000_000_000_i64, offsets)
        .prop_map(|(micros, offset)| Timestamp::from_micros(micros).to_string().replace('Z', offset))
}

/// Any JSON that is not very deep.
fn anything() -> impl Strategy<Value = Value> {
    let text = || {
        let any = any::<char>().prop_filter("not U+0000", |&c| c != '\0');
        vec(any, 0..8).prop_map(String::from_iter)
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

fn object(names: &'static str) -> impl Strategy<Value = Value> {
    vec((names, anything()), 0..4).prop_map(|it| Value::Object(it.into_iter().collect()))
}

fn subscription(number: u16) -> Value {
    json!({"subscription": {
        "endpoint": format!("https://push.example.net/{number}"),
        "expirationTime": null,
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    }})
}

fn target() -> impl Strategy<Value = Value> {
    (select(vec!["token", "topic", "alias", "subscription"]), line(1..=200), any::<u16>()).prop_map(
        |(kind, name, number)| match kind {
            "subscription" => subscription(number),
            kind => json!({kind: name}),
        },
    )
}

fn push() -> impl Strategy<Value = Value> {
    let texts = (option::of(line(0..=64)), option::of(line(0..=512)), option::of(lines()));
    (texts, option::of(vec(target(), 0..5))).prop_map(|((provider, title, body), targets)| {
        json!({"provider": provider, "title": title, "body": body, "targets": targets})
    })
}

/// A message as some producer might write it: absent fields absent or null, unknown ones among them.
fn message() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        select(vec![json!("PUSH"), json!("APP_NOTIFICATION")]),
        vec(select(vec!["PUSH", "APP_NOTIFICATION"]), 1..4).prop_map(Value::from),
    ];
    let recipient = line(1..=128).prop_filter("trimmed", |it| it.trim() == it);
    let required = ("[A-Za-z0-9._:-]{1,128}", types, recipient, line(1..=512));
    let texts = (
        option::of(lines()),
        vec(option::of(line(0..=35)), 6),
        option::of(object("[a-zA-Z]{0,6}")),
        vec(option::of(time()), 3),
        option::of(select(vec!["normal", "high"])),
        option::of(push()),
    );
    let unknown = object("x[a-z]{0,6}");
    (required, texts, unknown, any::<bool>()).prop_map(|(required, optional, unknown, keep_nulls)| {
        let (id, types, recipient, title) = required;
        let (body, texts, data, times, priority, push) = optional;
        let mut message = json!({
            "messageId": id, "notificationType": types, "recipientId": recipient, "title": title, "body": body,
            "category": texts[0], "link": texts[1], "imageUrl": texts[2], "locale": texts[3],
            "source": texts[4], "collapseKey": texts[5], "data": data, "occurredAt": times[0],
            "deliverAt": times[1], "expiresAt": times[2], "priority": priority, "push": push,
        });
        let members = message.as_object_mut().unwrap();
        members.retain(|_, value| keep_nulls || !value.is_null());
        members.extend(unknown.as_object().unwrap().clone());
        message
    })
}

/// The same JSON in another hand: members backwards, white space, escapes, whole numbers as `1.0`.
fn rewritten(value: &Value) -> String {
    let quoted = |text: &str| {
        let units = text.encode_utf16().fold(String::new(), |mut out, unit| {
            let _ = write!(out, "\\u{unit:04X}");
            out
        });
        format!("\"{units}\"")
    };
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) if whole.abs() < 1 << 53 => format!("{whole}.0"),
            _ => number.to_string(),
        },
        Value::String(text) => quoted(text),
        Value::Array(list) => format!("[ {} ]", list.iter().map(rewritten).collect::<Vec<_>>().join(" ,")),
        Value::Object(object) => {
            let member =
                |(name, value): (&String, &Value)| format!("{} :\t{}", quoted(name), rewritten(value));
            format!("{{\n{}}}", object.iter().rev().map(member).collect::<Vec<_>>().join(",\n"))
        }
        other => other.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_valid_message_is_parsed(document in message()) {
        prop_assert!(valid(&document), "{document}");
        let parsed = read(&document.to_string());
        prop_assert!(parsed.is_ok(), "{document}: {parsed:?}");
    }

    #[test]
    fn a_message_reads_back_from_the_log_as_it_was(document in message()) {
        let parsed = read(&document.to_string()).unwrap();
        let payload = serde_json::to_string(&parsed.message).unwrap();
        let back: Message = serde_json::from_str(&payload).unwrap();
        prop_assert_eq!(content::hash(&back), parsed.content_hash);
        prop_assert_eq!(back, parsed.message);
    }

    #[test]
    fn a_message_written_in_another_hand_has_the_same_hash(document in message()) {
        let (one, other) = (read(&document.to_string()).unwrap(), read(&rewritten(&document)).unwrap());
        prop_assert_eq!(one.content_hash, other.content_hash);
    }

    #[test]
    fn what_was_parsed_is_itself_a_valid_message(document in message()) {
        let parsed = read(&document.to_string()).unwrap();
        let mut written = serde_json::to_value(&parsed.message).unwrap();
        let unknown = written.as_object_mut().unwrap().remove("unknown").unwrap_or_else(|| Map::new().into());
        prop_assert!(valid(&written), "{written}");
        let again = read(&written.to_string()).unwrap().message;
        prop_assert_eq!(Message { unknown: unknown.as_object().unwrap().clone(), ..again }, parsed.message);
    }
}
