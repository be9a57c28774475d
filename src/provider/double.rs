//! A vendor's double for tests: a real server on the loopback that answers as it is told and remembers what
//! it saw; and throw-away keys as vendors give them.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    Failure, Outcome,
    exchange::{Answer, BodyEnd},
};

/// One call that the server saw.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }
}

/// What the server answers: status, headers, body.
pub(super) type Reply = (u16, Vec<(&'static str, String)>, String);

pub(super) fn reply(status: u16, body: impl Into<String>) -> Reply {
    (status, Vec::new(), body.into())
}

/// As [`against`], with one answer to everything.
pub(super) async fn sink<T, C: Future<Output = T>>(
    (status, headers, body): (u16, &'static [(&'static str, &'static str)], &'static str),
    client: impl FnOnce(String) -> C,
) -> (T, Vec<Call>) {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    against(move |_| (status, headers.clone(), body.to_owned()), client).await
}

type Served = (Arc<dyn Fn(&Call) -> Reply + Send + Sync>, Arc<Mutex<Vec<Call>>>);

/// Runs `client` against a server at the address it gets; and what the server saw meanwhile.
pub(super) async fn against<T, C: Future<Output = T>>(
    answer: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    client: impl FnOnce(String) -> C,
) -> (T, Vec<Call>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let served: Served = (Arc::new(answer), Arc::clone(&calls));
    let handle = async |State((answer, calls)): State<Served>,
                        method: Method,
                        uri: Uri,
                        headers: HeaderMap,
                        body: Bytes| {
        assert_eq!(method, Method::POST);
        let call = Call { method, uri, headers, body };
        let (status, headers, body) = answer(&call);
        calls.lock().unwrap().push(call);
        (StatusCode::from_u16(status).unwrap(), header_map(&headers), body)
    };
    let router = Router::new().fallback(handle).with_state(served);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let result = tokio::select! {
        ended = pin!(async { axum::serve(listener, router).await }) => panic!("the server ended: {ended:?}"),
        result = client(base) => result,
    };
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    (result, calls)
}

/// An answer as an adapter gets it.
pub(super) fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let headers: Vec<_> = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    Answer { status, headers: header_map(&headers), body: body.as_bytes().to_vec(), end: BodyEnd::Whole }
}

pub(super) fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn header_map(headers: &[(&'static str, String)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, String)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    headers.iter().map(pair).collect()
}

/// A private key in PEM, and its public half.
pub(crate) struct Key {
    pub(crate) pem: String,
    pub(crate) public: Vec<u8>,
}

/// A key for ES256, as Apple gives it.
pub(crate) fn ec_key() -> Key {
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let private = EcdsaKeyPair::generate_pkcs8(kind, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(kind, private.as_ref()).unwrap();
    Key { pem: pem(private.as_ref()), public: pair.public_key().as_ref().to_vec() }
}

/// A key for RS256, as Google gives it.
pub(crate) fn rsa_key() -> Key {
    let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    Key { pem: pem(private.as_ref()), public: pair.public_key().as_ref().to_vec() }
}

/// The key file of a service account.
pub(super) fn service_account(key: &Key, token_uri: &str) -> String {
    let account = json!({
        "type": "service_account", "project_id": "demo", "private_key_id": "kid-1", "private_key": key.pem,
        "client_email": "ledger@demo.iam.gserviceaccount.com", "token_uri": token_uri,
    });
    account.to_string()
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|it| std::str::from_utf8(it).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}
