//! The description of the API held against a process that serves: by validators of others, and by
//! Schemathesis, which makes thousands of good and bad requests out of it and looks at every answer.

use std::{path::Path, time::Duration};

use jsonwebtoken::{EncodingKey, Header, encode};
use notification_ledger::clock::{Clock, SystemClock};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::support::{
    database::{Kind, TestDb},
    http_client,
    ledger::body,
    script::python,
    service::Service,
    variable,
};

const SECRET: &str = "the secret of the contract's key";
/// What the tokens of users are signed with.
const LOGIN: &str = "the secret of the login of the contract's users";

/// How long Schemathesis may make requests, and how long all of it may take on a busy machine.
const BUDGET_S: &str = "60";
const PATIENCE: Duration = Duration::from_mins(3);

const SERVICE: &str = r#"
[database]
url = "{url}"
[api]
bind = "127.0.0.1:{port}"
# Many requests name cursors that nobody ever wrote: they need not wait long for them.
wait_for_projection_ms = 20
[[api.keys]]
name = "contract"
secret = "env:CONTRACT_SECRET"
scopes = ["admin"]
[api.users]
issuer = "https://login.example"
audience = "contract"
algorithms = ["HS256"]
secret = "env:CONTRACT_LOGIN"
# That of a user would end most of the requests, and 429 is not what this is about.
[api.limits]
user_per_s = 2000
user_burst = 4000
[providers.acme]
kind = "log"
"#;

/// Who calls where. 504 is an answer of the contract: a cursor that does not show yet. 413 is one to a list
/// that is too long.
const CHECKS: &str = r#"
headers = { Authorization = "Bearer {key}" }
[[operations]]
include-path-regex = "^/v1/inbox"
headers = { Authorization = "Bearer {token}" }
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "413", "422", "504"]
"#;

/// Validators of others: of the whole, and of each example by the schema beside it.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

document = json.load(open(sys.argv[1]))
OpenAPIV31SpecValidator(document).validate()

def contents(operation):
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        yield from response.get("content", {}).values()

seen = 0
for item in document["paths"].values():
    for operation in item.values():
        for content in contents(operation):
            schema = {**content["schema"], "components": document["components"]}
            for example in content.get("examples", {}).values():
                Draft202012Validator(schema).validate(example["value"])
                seen += 1
assert seen > len(document["paths"]), seen
"#;

/// What is not held against the answers, and why.
const LEFT_OUT: [(&str, &str); 1] = [(
    "positive_data_acceptance",
    "no schema says which cursors and places a ledger has given to its callers",
)];

#[tokio::test]
async fn the_description_is_openapi_for_others_too() {
    let document = include_str!("../../docs/openapi.json");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document).unwrap();
    python(VALIDATE, &[&file.to_string_lossy()]).await;
}

#[tokio::test]
async fn every_answer_is_one_that_the_description_promises_on_sqlite() {
    no_answer_is_another(Kind::Sqlite).await;
}

#[tokio::test]
async fn every_answer_is_one_that_the_description_promises_on_postgres() {
    no_answer_is_another(Kind::Postgres).await;
}

/// No request makes the service fail, and every answer is one that the description promises: its status, its
/// content type, its headers, its body; what the description does not allow is refused.
async fn no_answer_is_another(kind: Kind) {
    let db = TestDb::new(kind).await;
    let service = Service::new(&SERVICE.replace("{url}", db.url()));
    let mut service = service.with_variable("CONTRACT_SECRET", SECRET).with_variable("CONTRACT_LOGIN", LOGIN);
    service.start().await;
    for n in 0..5 {
        let message = body(&format!("m-{n}"), "user-1", json!({"category": "pass"}));
        let request = http_client().post(service.url("/v1/messages")).bearer_auth(SECRET).body(message);
        assert_eq!(request.send().await.unwrap().status(), 201, "{}", service.output());
    }
    let token = token("user-1");
    let own = http_client().get(service.url("/v1/inbox/counts")).bearer_auth(&token);
    assert_eq!(own.send().await.unwrap().status(), 200, "the login is the one that the service knows");
    let checks = CHECKS.replace("{key}", SECRET).replace("{token}", &token);
    let config = service.file("schemathesis.toml", checks.as_bytes());
    let program = Path::new(&variable("LEDGER_TEST_PYTHON")).with_file_name("schemathesis");
    let mut command = Command::new(program);
    command
        .args(["--config-file", &config, "run", &service.url("/openapi.json")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"])
        .args(["--max-time", BUDGET_S, "--warnings", "off"])
        // A stream has no end.
        .args(["--exclude-path-regex", "/stream$"])
        .args(["--exclude-checks", &LEFT_OUT.map(|(check, _)| check).join(",")])
        .current_dir(service.folder())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("Test cases"), "{text}{errors}");
}

/// What the login of an app gives this recipient.
fn token(recipient: &str) -> String {
    let now = SystemClock.now().as_micros() / 1_000_000;
    let claims = json!({
        "iss": "https://login.example", "aud": "contract", "sub": recipient, "exp": now + 3600,
    });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(LOGIN.as_bytes())).unwrap()
}
