//! Calling the service's own API as the company's programs do: over HTTP, straight to loopback.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::Value;

use crate::{
    id::{MessageId, RecipientId},
    secret::Secret,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A caller.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: Secret,
}

/// What became of messages that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sent {
    /// They are in the log now.
    pub(super) appended: usize,
    /// They were in the log already.
    pub(super) redelivered: usize,
    /// Their ids are taken by other content.
    pub(super) conflicts: usize,
}

/// How many items of an inbox are there, and not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Inbox {
    /// All.
    pub(super) total: i64,
    /// Not read.
    pub(super) unread: i64,
    /// The words of the newest.
    pub(super) newest: String,
    /// The id of the newest that is not read.
    pub(super) newest_unread: Option<String>,
}

impl Client {
    /// A caller of the API at this address with this key.
    pub(super) fn new(api: SocketAddr, key: Secret) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = http.context("the HTTP client cannot be built")?;
        Ok(Self { http, base: format!("http://{api}"), key })
    }

    /// The address of the API.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends messages, one a request.
    pub(super) async fn send_each(&self, messages: &[String]) -> anyhow::Result<Sent> {
        let mut sent = Sent::default();
        for message in messages {
            let (status, answer) = self.call(Method::POST, "/v1/messages", Some(message.clone())).await?;
            match answer["result"].as_str() {
                Some("appended") => sent.appended += 1,
                Some("redelivered") => sent.redelivered += 1,
                Some("conflict") => sent.conflicts += 1,
                _ => anyhow::bail!("a message was answered with {status}: {answer}"),
            }
        }
        Ok(sent)
    }

    /// Sends messages in one request.
    pub(super) async fn send_together(&self, messages: &[String]) -> anyhow::Result<Sent> {
        let body = format!("[{}]", messages.join(","));
        let answer = self.expect(Method::POST, "/v1/messages", Some(body)).await?;
        let number = |name: &str| answer[name].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
        Ok(Sent {
            appended: number("appended"),
            redelivered: number("redelivered"),
            conflicts: number("conflicts"),
        })
    }

    /// The words that are kept of a message.
    pub(super) async fn title(&self, message: &MessageId) -> anyhow::Result<String> {
        let answer = self.expect(Method::GET, &format!("/v1/messages/{message}"), None).await?;
        Ok(answer["message"]["title"].as_str().unwrap_or_default().to_owned())
    }

    /// Marks an item as read; answers with the cursor to read one's own write by.
    pub(super) async fn read(&self, recipient: &RecipientId, message: &MessageId) -> anyhow::Result<String> {
        let path = format!("/v1/recipients/{recipient}/inbox/{message}/read");
        let answer = self.expect(Method::POST, &path, None).await?;
        Ok(answer["cursor"].as_str().unwrap_or_default().to_owned())
    }

    /// An inbox, at least as far as the cursor, where one is given.
    pub(super) async fn inbox(&self, recipient: &RecipientId, after: Option<&str>) -> anyhow::Result<Inbox> {
        let after = after.map(|it| format!("?after={it}")).unwrap_or_default();
        let path = format!("/v1/recipients/{recipient}/inbox{after}");
        let answer = self.expect(Method::GET, &path, None).await?;
        let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |item: Option<&Value>, name: &str| Some(item?[name].as_str()?.to_owned());
        Ok(Inbox {
            total: answer["counts"]["total"].as_i64().unwrap_or_default(),
            unread: answer["counts"]["unread"].as_i64().unwrap_or_default(),
            newest: text(items.first(), "title").unwrap_or_default(),
            newest_unread: text(items.iter().find(|it| it["readAt"].is_null()), "messageId"),
        })
    }

    async fn expect(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let (status, answer) = self.call(method.clone(), path, body).await?;
        ensure!(status.is_success(), "{method} {path} was answered with {status}: {answer}");
        Ok(answer)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> anyhow::Result<(reqwest::StatusCode, Value)> {
        let failed = format!("{method} {path}");
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.with_context(|| failed.clone())?;
        let status = response.status();
        Ok((status, response.json().await.context(failed)?))
    }
}
