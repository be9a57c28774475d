//! The other sides of the push services that are programs of their own, each around a library that is
//! not ours: Google's token endpoint, receivers of webhooks, a Web Push service.

use std::{collections::HashMap, process::Command};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{
    free_port, http_client,
    server::{Server, double},
    variable,
};

/// A server that answers `GET /` with what it remembers.
#[derive(Debug)]
pub(crate) struct Counterpart {
    #[expect(dead_code, reason = "held for its drop, which ends the server")]
    server: Server,
    client: reqwest::Client,
    port: u16,
}

impl Counterpart {
    /// Google's token endpoint for a service account with this public key: `PyJWT` verifies.
    pub(crate) async fn google_token(public_pem: &str, key_id: &str, email: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("key.pem");
        std::fs::write(&key_file, public_pem).unwrap();
        let mut command = Command::new(variable("LEDGER_TEST_PYTHON"));
        let port = free_port();
        command.args(["-B", &double("google_token.py"), &port.to_string()]).arg(key_file);
        command.args([key_id, email]);
        Self::start(command, folder, port).await
    }

    /// A receiver of webhooks with this secret: Python's `standardwebhooks` verifies.
    pub(crate) async fn python_webhooks(secret: &str) -> Self {
        let (mut command, port) = (Command::new(variable("LEDGER_TEST_PYTHON")), free_port());
        command.args(["-B", &double("webhooks.py"), &port.to_string(), secret]);
        Self::start(command, tempfile::tempdir().unwrap(), port).await
    }

    /// A receiver of webhooks with this secret: Node's `standardwebhooks` verifies.
    pub(crate) async fn node_webhooks(secret: &str) -> Self {
        let (mut command, port) = (Command::new("node"), free_port());
        command.args([&double("webhooks.mjs"), &port.to_string(), secret]);
        Self::start(command, tempfile::tempdir().unwrap(), port).await
    }

    /// A Web Push service, which decrypts what it gets.
    pub(crate) async fn web_push() -> Self {
        let (mut command, port) = (Command::new("node"), free_port());
        let program = format!("{}/web-push-testing/src/bin/server.js", variable("LEDGER_TEST_NODE_MODULES"));
        command.args(["--require", &double("loopback.cjs"), &program, &port.to_string()]);
        Self::start(command, tempfile::tempdir().unwrap(), port).await
    }

    async fn start(command: Command, folder: tempfile::TempDir, port: u16) -> Self {
        let (client, url) = (http_client(), format!("http://127.0.0.1:{port}/"));
        let server = Server::start(command, folder, async || client.get(&url).send().await.is_ok()).await;
        Self { server, client, port }
    }

    /// Its address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it remembers.
    pub(crate) async fn remembered(&self) -> Value {
        self.client.get(self.url("/")).send().await.unwrap().json().await.unwrap()
    }

    /// A Web Push service: one more browser that trusts this key of an application's.
    pub(crate) async fn subscribe(&self, application_key: &str) -> Value {
        let key = json!({"applicationServerKey": application_key});
        let mut answer = self.web_push_says("subscribe", &key).await;
        answer["data"].take()
    }

    /// A Web Push service: what a browser was told, decrypted.
    pub(crate) async fn notifications(&self, client_hash: &str) -> Vec<String> {
        let answer = self.web_push_says("get-notifications", &json!({"clientHash": client_hash})).await;
        serde_json::from_value(answer["data"]["messages"].clone()).unwrap()
    }

    /// A Web Push service: the browser takes back its permission.
    pub(crate) async fn expire(&self, client_hash: &str) {
        self.web_push_says(&format!("expire-subscription/{client_hash}"), &json!({})).await;
    }

    async fn web_push_says(&self, path: &str, body: &Value) -> Value {
        let answer = self.client.post(self.url(&format!("/{path}"))).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// A pair of keys, as PEM.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) private_pem: String,
    pub(crate) public_pem: String,
    /// The public one bare, where it is on a curve.
    point: Vec<u8>,
}

impl Keys {
    /// For RS256, as of a Google service account.
    pub(crate) fn rsa() -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
            point: Vec::new(),
        }
    }

    /// For ES256, as of an Apple developer or a Web Push application.
    pub(crate) fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            private_pem: pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
            point: pair.public_key().as_ref().to_vec(),
        }
    }

    /// The public key as browsers take it, where it is on a curve.
    pub(crate) fn point_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.point)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The JSON schema of what FCM takes, from Google's published description of it: unknown fields are
/// refused, and a message has exactly one target.
pub(crate) fn fcm_schema() -> Value {
    let text = std::fs::read_to_string(variable("LEDGER_TEST_FCM_DESCRIPTION")).unwrap();
    let mut description: Value = serde_json::from_str(&text).unwrap();
    let mut definitions = description["schemas"].take();
    strictly(&mut definitions);
    let targets = ["token", "fid", "topic", "condition"].map(|it| json!({"required": [it]}));
    definitions["Message"]["oneOf"] = json!(targets);
    definitions["SendMessageRequest"]["required"] = json!(["message"]);
    json!({"$ref": "#/$defs/SendMessageRequest", "$defs": definitions})
}

/// Says in JSON Schema what a description by Google says in its own words.
fn strictly(at: &mut Value) {
    match at {
        Value::Array(list) => list.iter_mut().for_each(strictly),
        Value::Object(table) => {
            if let Some(Value::String(reference)) = table.get_mut("$ref") {
                *reference = format!("#/$defs/{reference}");
            }
            let formats = HashMap::from([("google-duration", r"^-?[0-9]+(\.[0-9]{1,9})?s$")]);
            if let Some(pattern) = table.get("format").and_then(|it| formats.get(it.as_str()?)) {
                table.insert("pattern".to_owned(), json!(pattern));
            }
            if table.get("type") == Some(&json!("any")) {
                table.remove("type");
            }
            if table.get("properties").is_some_and(Value::is_object) {
                table.insert("additionalProperties".to_owned(), json!(false));
            }
            for name in ["id", "readOnly", "deprecated", "enumDescriptions", "enumDeprecated", "format"] {
                // Words of the description, where they are not names of properties.
                if !table.get(name).is_some_and(Value::is_object) {
                    table.remove(name);
                }
            }
            table.values_mut().for_each(strictly);
        }
        _ => {}
    }
}
