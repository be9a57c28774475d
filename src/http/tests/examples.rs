//! The examples of the description: requests that are made here, and the answers that they are given.
//!
//! The same requests hold the schemas of bodies against what reads them: every member and every word that a
//! schema has is one that is taken, and a member that it has not is one that is not known.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use axum::{body::Body, http::Request};
use futures_util::StreamExt as _;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use url::form_urlencoded;

use super::{
    Answer, Callers, Fixture, Keys,
    deliveries::{Said, attempt, delivery_of},
    openapi::{described, operations},
};
use crate::{
    http::auth::{
        Key, Scope, Users,
        issuer::{Issuer, SECRET, claims, rules},
    },
    secret::Secret,
    store::Unreadable,
};

const EXAMPLES: &str = include_str!("../openapi/examples.json");
const SERVICE: &str = "secret of the app";
/// What is no example of itself.
const WITHOUT: [&str; 1] = ["showDescription"];
/// What stands for ids that are random.
const PLACEHOLDERS: [&str; 2] =
    ["01920000-0000-7000-8000-000000000001", "01920000-0000-7000-8000-000000000002"];
/// A member that no schema has.
const STRANGE: &str = "nobodyKnowsThis";

/// What the schemas of bodies describe, and where in the examples of an operation that stands.
const BODIES: [(&str, &str, &str); 18] = [
    ("sendMessages", "Message", ""),
    ("sendMessages", "Message", "/0"),
    ("sendMessages", "Messages", ""),
    ("sendMessages", "Message", "/messages/0"),
    ("sendReceipts", "Receipts", ""),
    ("sendReceipts", "Receipt", "/receipts/0"),
    ("putDevice", "Registration", ""),
    ("markInboxItems", "MarkWish", ""),
    ("markRecipientInboxItems", "MarkWish", ""),
    ("replayDeliveries", "ReplayWish", ""),
    ("retryDelivery", "RetryWish", ""),
    ("cancelDelivery", "CancelWish", ""),
    ("pauseProvider", "ControlWish", ""),
    ("resumeProvider", "ControlWish", ""),
    ("rebuildProjection", "RebuildWish", ""),
    ("rollBackProjection", "RollbackWish", ""),
    ("retryQuarantined", "DecisionNote", ""),
    ("discardQuarantined", "DecisionNote", ""),
];

/// What happens in the examples, one request after the other.
struct Story {
    it: Fixture,
    user: String,
    document: Value,
    told: BTreeMap<String, Vec<Value>>,
    /// Ids that are others each time.
    random: Vec<String>,
}

/// What a schema says of one place in a body.
#[derive(Debug, Default)]
struct Field {
    /// The only values that it may have; any, where there are none.
    words: BTreeSet<String>,
    has_members: bool,
    /// Whether it has no other members.
    is_closed: bool,
}

impl Story {
    async fn begin() -> Self {
        let key = Key::new("app", &Secret::new(SERVICE), vec![Scope::Admin]);
        let users = Users::with_secret(rules(&[Algorithm::HS256]), SECRET);
        let callers = Callers::new(Keys::new(vec![key]), Some(users));
        let patient = Duration::from_secs(30);
        let it = Fixture::called_by(callers, |settings| settings.wait_for_projection = patient).await;
        let user = Issuer::get().token(None, Algorithm::HS256, &claims(it.ledger.now(), &json!({})));
        Self { it, user, document: described(), told: BTreeMap::new(), random: Vec::new() }
    }

    /// A request of this operation, with the parameters where the description has them.
    fn request(&self, operation: &str, parameters: &Value, body: Option<&Value>) -> Request<Body> {
        let operations = operations(&self.document);
        let (name, described) = operations.iter().find(|(_, it)| it["operationId"] == operation).unwrap();
        let (method, path) = name.split_once(' ').unwrap();
        let (mut path, mut query) = (path.to_owned(), form_urlencoded::Serializer::new(String::new()));
        let mut request = Request::builder().method(method);
        for (name, value) in parameters.as_object().unwrap() {
            let known = described["parameters"].as_array().unwrap().iter().find(|it| it["name"] == *name);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match known.and_then(|it| it["in"].as_str()) {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &text),
                Some("query") => _ = query.append_pair(name, &text),
                Some("header") => request = request.header(name, text),
                _ => panic!("{operation} has no parameter {name}"),
            }
        }
        let is_own = described["security"] == json!([{"endUser": []}]);
        let bearer = if is_own { &self.user } else { SERVICE };
        let request = request.uri(format!("{path}?{}", query.finish()));
        let request = request.header("authorization", format!("Bearer {bearer}"));
        request.body(body.map_or_else(Body::empty, |it| Body::from(it.to_string()))).unwrap()
    }

    /// Makes it when all is folded, while others fold what is appended.
    async fn ask(&self, operation: &str, parameters: &Value, body: Option<&Value>) -> Answer {
        self.it.project().await;
        let is_over = Cell::new(false);
        let ask = async {
            let answer = self.it.call(self.request(operation, parameters, body)).await;
            is_over.set(true);
            answer
        };
        let fold = async {
            while !is_over.get() {
                self.it.project().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(ask, fold).0
    }

    /// Makes it an example.
    async fn tell(&mut self, operation: &str, name: &str, parameters: Value, body: Option<Value>) -> Value {
        let answer = self.ask(operation, &parameters, body.as_ref()).await;
        assert!(answer.status.is_success(), "{operation}: {answer}");
        let text = || json!(String::from_utf8_lossy(&answer.body));
        let told = serde_json::from_slice(&answer.body).unwrap_or_else(|_| text());
        self.keep(operation, name, parameters, body, answer.status.as_u16(), told.clone());
        told
    }

    fn keep(
        &mut self,
        operation: &str,
        name: &str,
        parameters: Value,
        body: Option<Value>,
        status: u16,
        answer: Value,
    ) {
        let mut example = json!({ "name": name, "status": status });
        example["parameters"] = parameters;
        if let Some(body) = body {
            example["body"] = body;
        }
        if answer != json!("") {
            example["answer"] = answer;
        }
        self.told.entry(operation.to_owned()).or_default().push(example);
    }

    async fn send(&mut self) {
        let parameters = json!({ "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" });
        let target = subscription();
        let message = json!({
            "messageId": "m-1", "notificationType": ["APP_NOTIFICATION", "PUSH"], "recipientId": "user-1",
            "title": "Your pass expires tomorrow", "body": "Renew it in the app and keep your seat.",
            "category": "pass", "link": "app://pass/7", "imageUrl": "https://img.example/pass-7.png",
            "data": { "passId": "7" }, "locale": "ko-KR", "source": "billing-batch",
            "occurredAt": "2026-11-22T08:59:00Z", "deliverAt": "2026-11-22T09:00:00Z",
            "expiresAt": "2026-11-23T09:00:00Z", "collapseKey": "pass-7", "priority": "high",
            "push": {
                "provider": "acme",
                "targets": [
                    { "token": "device-token-1234" }, { "subscription": target }, { "topic": "passes" },
                    { "alias": "user-1" },
                ],
                "title": "Pass ends soon", "body": "One day left.",
            },
        });
        self.tell("sendMessages", "one", parameters, Some(message)).await;
        let push = |id: &str, targets: Value| {
            json!({
                "messageId": id, "notificationType": "PUSH", "recipientId": "user-1", "title": "The gym is open",
                "push": { "targets": targets },
            })
        };
        let many = json!({ "messages": [
            push("m-2", json!([{ "token": "device-token-1234" }])),
            push("m-3", json!([{ "topic": "gym" }])),
        ] });
        self.tell("sendMessages", "many", json!({}), Some(many)).await;
        let item = |id: &str| {
            json!({
                "messageId": id, "notificationType": "APP_NOTIFICATION", "recipientId": "user-1",
                "title": "A new class", "category": "pass",
            })
        };
        self.tell("sendMessages", "list", json!({}), Some(json!([item("m-4"), item("m-5")]))).await;
    }

    async fn register(&mut self) {
        let device = |id: &str| json!({ "recipient": "user-1", "device": id });
        let phone = json!({
            "platform": "ios", "app": "pass", "kind": "apns", "environment": "production",
            "token": "device-token-1234", "locale": "ko-KR", "timeZone": "Asia/Seoul",
            "lastSeenAt": "2026-11-22T08:59:00Z",
        });
        self.tell("putDevice", "phone", device("phone-1"), Some(phone)).await;
        let browser = json!({ "platform": "web", "kind": "webpush", "subscription": subscription() });
        self.tell("putDevice", "browser", device("browser-1"), Some(browser)).await;
        self.tell("showDevice", "phone", device("phone-1"), None).await;
        self.tell("listDevices", "both", json!({ "recipient": "user-1" }), None).await;
        self.tell("removeDevice", "browser", device("browser-1"), None).await;
    }

    async fn deliver(&mut self) {
        self.it.project().await;
        attempt(&self.it, "m-1", 1, Said::No).await;
        attempt(&self.it, "m-2", 1, Said::No).await;
        let failed = json!({ "status": "failed", "provider": "acme", "limit": 1 });
        let next = self.tell("listDeliveries", "failed", failed, None).await["next"].clone();
        let path = |id: &str, delivery: &Value| json!({ "message": id, "delivery": delivery });
        let first = path("m-1", &json!(delivery_of("m-1").to_string()));
        self.tell("showDelivery", "failed", first.clone(), None).await;
        let receipt = json!({
            "messageId": "m-1", "deliveryId": delivery_of("m-1").to_string(), "kind": "opened",
            "at": "2026-11-22T09:00:01Z", "detail": "from the lock screen",
        });
        self.tell("sendReceipts", "one", json!({}), Some(json!({ "receipts": [receipt] }))).await;
        self.tell("replayDeliveries", "count", json!({}), Some(json!({ "reason": "an outage" }))).await;
        let replay = json!({
            "filter": {
                "status": ["failed"], "provider": "acme", "class": "permanent", "recipient": "user-1",
                "since": "2026-11-22T00:00:00Z", "until": "2026-11-23T00:00:00Z",
            },
            "provider": "acme", "ratePerS": 50.0, "reason": "an outage", "dryRun": false,
            "startAt": "2026-11-22T10:00:00Z", "after": next,
        });
        self.tell("replayDeliveries", "deliver", json!({}), Some(replay)).await;
        let retry = json!({ "reason": "the provider is back", "provider": "acme" });
        self.tell("retryDelivery", "now", first, Some(retry)).await;
        let shown = self.tell("showMessage", "whole", json!({ "message": "m-3" }), None).await;
        let second = path("m-3", &shown["deliveries"][0]["deliveryId"]);
        self.tell("cancelDelivery", "waiting", second, Some(json!({ "reason": "a slip" }))).await;
        let list = json!({ "recipient": "user-1", "limit": 2, "since": "2026-11-22T00:00:00Z" });
        self.tell("listMessages", "newest", list, None).await;
        self.it.project().await;
        let days = json!({ "since": "2026-11-21", "until": "2026-11-22", "category": "pass", "by": "day" });
        self.tell("showStats", "days", days, None).await;
        let categories = json!({ "since": "2026-11-22", "until": "2026-11-22", "by": "category" });
        self.tell("showStats", "categories", categories, None).await;
        let why = Some(json!({ "reason": "their status page is red" }));
        self.tell("pauseProvider", "outage", json!({ "name": "acme" }), why).await;
        self.tell("listProviders", "paused", json!({}), None).await;
        let why = Some(json!({ "reason": "their status page is green" }));
        self.tell("resumeProvider", "over", json!({ "name": "acme" }), why).await;
    }

    async fn quarantine(&mut self) {
        let good = super::message("m-7", "user-1");
        for (body, code, reason) in [
            (good.as_str(), "missing_id", "messageId is missing; send one"),
            (r#"{"title":7}"#, "wrong_type", "title is a number, not a text; send a text"),
        ] {
            let input = Unreadable {
                source: "sqs:notifications message 5fea".to_owned(),
                code: code.to_owned(),
                reason: reason.to_owned(),
                body: body.as_bytes().to_vec(),
                size: body.len() as u64,
                attributes: r#"{"SentTimestamp":"1795338000000"}"#.to_owned(),
            };
            self.it.ledger.store().quarantine_hold(&[input], self.it.ledger.now()).await.unwrap();
            self.it.clock.advance(Duration::from_secs(1));
        }
        let held = json!({ "state": "held", "limit": 10 });
        let held = self.tell("listQuarantine", "held", held, None).await;
        let id = |at: usize| held["inputs"][at]["id"].clone();
        self.random = [id(0), id(1)].map(|it| it.as_str().unwrap().to_owned()).to_vec();
        self.tell("showQuarantined", "one", json!({ "id": id(1) }), None).await;
        let note = |text: &str| Some(json!({ "note": text }));
        let retry = note("the source sends ids now");
        self.tell("retryQuarantined", "mended", json!({ "id": id(0) }), retry).await;
        let discard = note("a test of the source's");
        self.tell("discardQuarantined", "useless", json!({ "id": id(1) }), discard).await;
    }

    async fn read(&mut self, door: &str, whose: &Value) {
        let with = |fields: Value| {
            let mut all: Map<String, Value> = whose.as_object().unwrap().clone();
            all.extend(fields.as_object().unwrap().clone());
            Value::Object(all)
        };
        let name = |verb: &str, rest: &str| format!("{verb}{door}Inbox{rest}");
        let list = with(json!({ "status": "all", "archived": "exclude", "category": "pass", "limit": 2 }));
        let listed = self.tell(&name("list", ""), "newest", list, None).await;
        self.tell(&name("count", ""), "all", with(json!({})), None).await;
        let read = with(json!({ "message": "m-1", "verb": "read" }));
        self.tell(&name("mark", "Item"), "read", read, None).await;
        let named = Some(json!({ "messageIds": ["m-4", "m-9"] }));
        self.tell(&name("mark", "Items"), "named", with(json!({ "verb": "seen" })), named).await;
        let shown = Some(json!({
            "upTo": listed["cursor"], "status": "unread", "archived": "exclude", "category": "pass",
            "since": "2026-11-22T00:00:00Z", "until": "2026-11-23T00:00:00Z",
        }));
        self.tell(&name("mark", "Items"), "shown", with(json!({ "verb": "read" })), shown).await;

        self.it.project().await;
        let stream = self.request(&name("stream", ""), &with(json!({ "after": listed["cursor"] })), None);
        let answer = self.it.router.clone().oneshot(stream).await.unwrap();
        let status = answer.status().as_u16();
        // Behind how long a client that is cut off waits, which is any time.
        let mut blocks = answer.into_body().into_data_stream().skip(1);
        let first = blocks.next().await.unwrap().unwrap();
        let first = json!(String::from_utf8_lossy(&first));
        let from = with(json!({ "after": listed["cursor"] }));
        self.keep(&name("stream", ""), "changed", from, None, status, first);
        if door == "Recipient" {
            let past = with(json!({ "asOf": listed["cursor"], "limit": 1 }));
            self.tell(&name("list", ""), "past", past, None).await;
            let points = with(json!({ "from": listed["cursor"], "limit": 1 }));
            self.tell("compareRecipientInbox", "since", points, None).await;
        }
    }

    async fn operate(&mut self) {
        for (operation, name) in
            [("showHealth", "up"), ("showReadiness", "ready"), ("listProjections", "all")]
        {
            self.tell(operation, name, json!({}), None).await;
        }
        let inbox = json!({ "name": "inbox" });
        self.tell("showProjection", "one", inbox.clone(), None).await;
        let wish = Some(json!({ "restart": false, "accept": false }));
        self.tell("rebuildProjection", "begun", inbox.clone(), wish).await;
        self.it.rebuilt().await;
        self.tell("rollBackProjection", "back", inbox.clone(), Some(json!({ "accept": false }))).await;
        self.tell("dropOldSlot", "dropped", inbox.clone(), None).await;
        self.tell("abortRebuild", "nothing to do", inbox, None).await;
        let answer = self.ask("showMetrics", &json!({}), None).await;
        let text = String::from_utf8(answer.body).unwrap();
        let line = text.lines().find(|it| it.starts_with("# TYPE notification_ledger_http_streams")).unwrap();
        self.keep("showMetrics", "one of them", json!({}), None, 200, json!(format!("{line}\n")));
    }

    /// All of it.
    async fn tell_all(&mut self) {
        self.register().await;
        self.send().await;
        self.deliver().await;
        self.quarantine().await;
        self.read("Recipient", &json!({ "recipient": "user-1" })).await;
        let item = super::message("m-8", "user-1");
        let item = serde_json::from_str(&item).unwrap();
        assert!(self.ask("sendMessages", &json!({}), Some(&item)).await.status.is_success());
        self.read("", &json!({})).await;
        self.operate().await;
    }

    fn written(&self) -> String {
        let text = format!("{:#}\n", json!(self.told));
        let named = self.random.iter().zip(PLACEHOLDERS);
        named.fold(text, |text, (random, placeholder)| text.replace(random, placeholder))
    }

    /// Every example of an operation that has something at this place.
    fn examples(&self, operation: &str, place: &str) -> Vec<(Value, Value)> {
        let examples = self.told[operation].iter();
        let with_body = examples.filter_map(|it| Some((it["parameters"].clone(), it.get("body")?.clone())));
        with_body.filter(|(_, body)| body.pointer(place).is_some()).collect()
    }

    /// Whether a body is taken, and all that is in it.
    async fn takes(&self, operation: &str, parameters: &Value, mut body: Value, id: &str) -> bool {
        if operation == "sendMessages" {
            rename(&mut body, id);
        }
        let answer = self.ask(operation, parameters, Some(&body)).await;
        assert!(!answer.status.is_server_error(), "{operation} {body}: {answer}");
        let is_refused = matches!(answer.status.as_u16(), 400 | 422);
        // What is not possible any more, as the story has it done, is taken all the same.
        !is_refused && answer.json()["rejected"].as_u64().unwrap_or_default() == 0
    }
}

/// Messages with ids of their own, which nobody sent before.
fn rename(body: &mut Value, id: &str) {
    match body {
        Value::Object(members) if members.contains_key("messageId") => {
            members.insert("messageId".to_owned(), json!(id));
        }
        Value::Object(members) => members.values_mut().for_each(|it| rename(it, id)),
        Value::Array(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                rename(item, &format!("{id}-{n}"));
            }
        }
        _ => {}
    }
}

fn subscription() -> Value {
    json!({
        "endpoint": "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV",
        "expirationTime": null,
        "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        },
    })
}

/// What a schema says of every place in its bodies; a star stands for each item of a list.
fn fields(document: &Value, schema: &Value, place: &str, fields_of: &mut BTreeMap<String, Field>) {
    if place.len() > 200 {
        return; // Anything in anything, for ever.
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.trim_start_matches('#')).unwrap();
        let is_anything = reference.ends_with("storable");
        if !is_anything {
            fields(document, named, place, fields_of);
        }
    }
    for part in ["oneOf", "anyOf", "allOf"].iter().filter_map(|it| schema[it].as_array()).flatten() {
        fields(document, part, place, fields_of);
    }
    let field = fields_of.entry(place.to_owned()).or_default();
    field.words.extend(schema["enum"].as_array().into_iter().flatten().map(Value::to_string));
    field.is_closed |= schema["additionalProperties"] == false;
    if let Some(members) = schema["properties"].as_object() {
        field.has_members = true;
        for (name, schema) in members {
            fields(document, schema, &format!("{place}/{name}"), fields_of);
        }
    }
    if !schema["items"].is_null() {
        fields(document, &schema["items"], &format!("{place}/*"), fields_of);
    }
}

/// The places of a value that a schema's place stands for.
fn places(value: &Value, place: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in place.split('/').skip(1) {
        let within = |at: &String| match (value.pointer(at), part) {
            (Some(Value::Array(items)), "*") => (0..items.len()).map(|it| format!("{at}/{it}")).collect(),
            (Some(Value::Object(members)), _) if members.contains_key(part) => vec![format!("{at}/{part}")],
            _ => Vec::new(),
        };
        found = found.iter().flat_map(within).collect();
    }
    found
}

#[tokio::test]
async fn the_examples_are_requests_that_were_made_and_their_answers() {
    let mut story = Story::begin().await;
    story.tell_all().await;
    let operations: BTreeSet<_> = operations(&story.document)
        .iter()
        .map(|(_, it)| it["operationId"].as_str().unwrap().to_owned())
        .collect();
    let told: BTreeSet<_> = story.told.keys().cloned().chain(WITHOUT.map(str::to_owned)).collect();
    assert_eq!(operations, told, "every operation has an example");
    let written = story.written();
    if written != EXAMPLES {
        let place = std::env::temp_dir().join("examples.json");
        std::fs::write(&place, written).unwrap();
        let place = place.display();
        panic!(
            "src/http/openapi/examples.json is not what was asked and answered; look at it, and renew it:\n\
             cp {place} src/http/openapi/examples.json && cargo run -- openapi > docs/openapi.json"
        );
    }
}

#[tokio::test]
async fn what_the_schemas_of_bodies_say_is_what_is_read() {
    let mut story = Story::begin().await;
    story.tell_all().await;
    let mut faults = Vec::new();
    let mut id = 0;
    for (operation, schema, place) in BODIES {
        let whole = &story.document["components"]["schemas"][schema];
        let required: Vec<_> =
            whole["required"].as_array().into_iter().flatten().map(|it| it.as_str().unwrap()).collect();
        let mut examples = story.examples(operation, place);
        examples.retain(|(_, body)| required.iter().all(|it| !body.pointer(place).unwrap()[it].is_null()));
        assert!(!examples.is_empty(), "{operation} has an example with {schema} at {place:?}");
        let mut described = BTreeMap::new();
        fields(&story.document, whole, "", &mut described);
        for (field, Field { words, has_members, is_closed }) in described {
            let holds =
                |(_, body): &&(Value, Value)| !places(body.pointer(place).unwrap(), &field).is_empty();
            let fitting: Vec<_> = examples.iter().filter(holds).collect();
            // A message among many need not have everything.
            if fitting.is_empty() && (schema != "Message" || place.is_empty()) {
                faults.push(format!("{operation}: no example has {schema}{field}"));
            }
            for word in words {
                let value: Value = serde_json::from_str(&word).unwrap();
                let mut is_taken = fitting.is_empty();
                for (parameters, body) in &fitting {
                    let at = &places(body.pointer(place).unwrap(), &field)[0];
                    let mut body = body.clone();
                    *body.pointer_mut(&format!("{place}{at}")).unwrap() = value.clone();
                    id += 1;
                    is_taken |= story.takes(operation, parameters, body, &format!("w-{id}")).await;
                }
                if !is_taken {
                    faults.push(format!("{operation}: {schema}{field} is not taken as {word}"));
                }
            }
            for (parameters, body) in fitting.iter().take(usize::from(has_members)) {
                let at = &places(body.pointer(place).unwrap(), &field)[0];
                let mut body = body.clone();
                let Some(members) = body.pointer_mut(&format!("{place}{at}")).unwrap().as_object_mut() else {
                    continue;
                };
                members.insert(STRANGE.to_owned(), json!(1));
                id += 1;
                if story.takes(operation, parameters, body, &format!("s-{id}")).await == is_closed {
                    let word = if is_closed { "taken" } else { "refused" };
                    faults.push(format!("{operation}: {schema}{field}/{STRANGE} is {word}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_body_is_held_against_what_reads_it() {
    let document = described();
    let with_body = operations(&document).into_iter().filter(|(_, it)| !it["requestBody"].is_null());
    let with_body: BTreeSet<_> =
        with_body.map(|(_, it)| it["operationId"].as_str().unwrap().to_owned()).collect();
    let held: BTreeSet<_> = BODIES.iter().map(|(operation, ..)| (*operation).to_owned()).collect();
    assert_eq!(with_body, held);
}
