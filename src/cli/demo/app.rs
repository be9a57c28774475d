//! An app's web page and its login, as a company would have them: the example of `docs/inbox.md`, served on an
//! address of its own, with tokens for one of the demo's recipients.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::Context as _;
use aws_lc_rs::rand;
use axum::{
    Json, Router,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::{get, post},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    clock::{Clock as _, SystemClock},
    secret::Secret,
    supervisor::Tasks,
};

/// Who issues the tokens, and for what.
pub(super) const ISSUER: &str = "demo";
pub(super) const AUDIENCE: &str = "inbox";
/// Whom the login lets in.
const USER: &str = "user-42";
/// How long a token holds; short, as it should be for tokens in web pages.
const TOKEN_S: i64 = 300;

const PAGE: &str = include_str!("../../../docs/example/index.html");
const SCRIPT: &str = include_str!("../../../docs/example/inbox.js");

/// The app's own server, before it runs.
#[derive(Debug)]
pub(super) struct App {
    listener: TcpListener,
    secret: Secret,
}

#[derive(Debug)]
struct Login {
    api: String,
    secret: Secret,
}

impl App {
    /// With a secret that it shares with the service.
    pub(super) async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("there is no free port on 127.0.0.1")?;
        Ok(Self { listener, secret: new_secret()? })
    }

    /// The page's origin, which is also where to open it.
    pub(super) fn origin(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// What tokens are signed with.
    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Serves page and login until the demo stops; the API is at this address.
    pub(super) fn start(self, api: String, tasks: &Tasks) {
        let login = Arc::new(Login { api, secret: self.secret });
        let router = Router::new()
            .route("/", get(async || file("text/html; charset=utf-8", PAGE)))
            .route("/inbox.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
            .route("/login", post(log_in))
            .with_state(login);
        let stop = tasks.stop().soft();
        tasks.spawn("page", async move {
            let stopped = async move { stop.cancelled().await };
            tokio::select! {
                served = axum::serve(self.listener, router) => served,
                () = stopped => Ok(()),
            }
        });
    }
}

/// 256 random bits.
pub(super) fn new_secret() -> anyhow::Result<Secret> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok().context("the system gives no random bytes")?;
    Ok(Secret::new(hex::encode(bytes)))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let policy =
        "default-src 'self'; style-src 'unsafe-inline'; connect-src *; object-src 'none'; base-uri 'none'";
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, policy), (CACHE_CONTROL, "no-store")], text)
}

/// A new token. A real login asks who it is first.
async fn log_in(State(login): State<Arc<Login>>) -> Result<Json<Value>, StatusCode> {
    let now = SystemClock.now().as_micros() / 1_000_000;
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": USER, "iat": now, "exp": now + TOKEN_S });
    let key = EncodingKey::from_secret(login.secret.expose().as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key);
    let token = token.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(json!({ "api": login.api, "token": token })))
}
