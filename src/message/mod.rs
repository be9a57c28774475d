//! The message contract, version 1: what a producer may say.
//!
//! [`parse`](mod@parse) turns bytes into a [`Message`] or into a [`Rejection`] a producer can act on:
//! `json` reads the text, `envelope` takes off what other services wrapped around it, `contract`
//! reads field by field. [`content`] tells whether two messages say the same. Nothing here knows
//! where a message came from or where it is kept.

pub mod content;
pub(crate) mod contract;
mod envelope;
pub mod hide;
pub(crate) mod json;
pub mod parse;
mod rejection;
pub mod subscription;

#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod schema_tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    id::{MessageId, RecipientId},
};

pub use parse::{Outside, Parsed};
pub use rejection::{Rejection, RejectionCode};

/// What a producer sends. Field for field the JSON of the contract (`docs/message.schema.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Chosen by the producer, repeated by it on every retry.
    pub message_id: MessageId,
    /// Whether it goes to the inbox, to push, or to both.
    pub notification_type: Channels,
    /// Who it is for.
    pub recipient_id: RecipientId,
    /// 1–512 characters.
    pub title: String,
    /// At most 8 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<String>,
    /// What kind of news this is, such as `pass`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub category: Option<String>,
    /// Where a tap leads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
    /// A picture to show.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_url: Option<String>,
    /// Anything the app wants to have with it.
    #[serde(skip_serializing_if = "Map::is_empty", default)]
    pub data: Map<String, Value>,
    /// Language tag of the texts, as in RFC 5646.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub locale: Option<String>,
    /// Which producer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// When it happened at the producer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub occurred_at: Option<Timestamp>,
    /// Neither shown nor pushed before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deliver_at: Option<Timestamp>,
    /// Neither shown nor pushed after.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// Messages of one key replace each other on the device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub collapse_key: Option<String>,
    /// How urgent the push is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<Priority>,
    /// What differs for the push.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub push: Option<PushOptions>,
    /// Fields the contract does not know, kept as they came.
    #[serde(skip_serializing_if = "Map::is_empty", default)]
    pub unknown: Map<String, Value>,
}

impl Message {
    /// Whether it belongs in the inbox.
    #[must_use]
    pub const fn for_inbox(&self) -> bool {
        self.notification_type.inbox
    }

    /// When it appears in the inbox, given when it was received.
    #[must_use]
    pub fn appears(&self, received_at: Timestamp) -> Appearance {
        let at = self.deliver_at.filter(|&it| it > received_at);
        let is_over = self.expires_at.is_some_and(|end| end <= at.unwrap_or(received_at));
        match at {
            _ if !self.for_inbox() || is_over => Appearance::Never,
            Some(at) => Appearance::Later(at),
            None => Appearance::AtOnce,
        }
    }

    /// Whether it is to be pushed.
    #[must_use]
    pub const fn for_push(&self) -> bool {
        self.notification_type.push
    }
}

/// When a message appears in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appearance {
    /// It is not for the inbox, or was over before.
    Never,
    /// When it is received.
    AtOnce,
    /// At its `deliverAt`.
    Later(Timestamp),
}

/// `notificationType`: `"APP_NOTIFICATION"`, `"PUSH"`, or a list of both. At least one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Channel>", into = "Vec<Channel>")]
pub struct Channels {
    /// `APP_NOTIFICATION`: an item in the inbox.
    pub inbox: bool,
    /// `PUSH`: one delivery a target.
    pub push: bool,
}

/// One way to tell the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Channel {
    /// The inbox that the app shows.
    AppNotification,
    /// A push through a provider.
    Push,
}

impl From<Channels> for Vec<Channel> {
    fn from(channels: Channels) -> Self {
        let inbox = channels.inbox.then_some(Channel::AppNotification);
        let push = channels.push.then_some(Channel::Push);
        inbox.into_iter().chain(push).collect()
    }
}

impl TryFrom<Vec<Channel>> for Channels {
    type Error = &'static str;

    fn try_from(list: Vec<Channel>) -> Result<Self, Self::Error> {
        let channels =
            Self { inbox: list.contains(&Channel::AppNotification), push: list.contains(&Channel::Push) };
        if list.is_empty() { Err("names no notification type") } else { Ok(channels) }
    }
}

/// How urgent a push is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May wait until the device is awake.
    Normal,
    /// Wakes the device.
    High,
}

/// `push`: what differs for the push from the message itself; all optional.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushOptions {
    /// A provider by its configured name, instead of the default one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Where to push; without any, the provider's alias for the recipient.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub targets: Vec<Target>,
    /// Instead of the message's title, 1–512 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub title: Option<String>,
    /// Instead of the message's body, at most 8 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<String>,
}

/// Where one push goes: exactly one of a device token, a Web Push subscription, a topic,
/// or the vendor's alias of a person.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A device's token at the push service. A secret of the device: never printed whole.
    Token(String),
    /// A topic the devices subscribed to.
    Topic(String),
    /// The recipient under the name that the provider knows them by.
    Alias(String),
    /// A browser's Web Push subscription, as JSON text: `endpoint`, and `p256dh` and `auth` under `keys`.
    /// A secret of the device like a token.
    Subscription(#[serde(with = "subscription::as_object")] String),
}

impl Target {
    /// The kind: `token`, `topic`, `alias` or `subscription`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Topic(_) => "topic",
            Self::Alias(_) => "alias",
            Self::Subscription(_) => "subscription",
        }
    }

    /// The value as the provider needs it.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Token(value) | Self::Topic(value) | Self::Alias(value) | Self::Subscription(value) => value,
        }
    }

    /// The text that names this target in a delivery id: kind and value.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{}:{}", self.kind(), self.value())
    }

    /// What people may see: tokens show their last four characters only.
    #[must_use]
    pub fn masked(&self) -> String {
        match self {
            Self::Token(value) => {
                let skip = value.chars().count().saturating_sub(4);
                let tail: String = value.chars().skip(skip.max(1)).collect();
                format!("token:…{tail}")
            }
            // Service, path and keys together are the secret; a part of a hash is enough to tell them apart.
            // What is masked already stays as it is.
            Self::Subscription(value) if value.starts_with('…') => format!("subscription:{value}"),
            Self::Subscription(value) => {
                let hash = Sha256::digest(value.as_bytes());
                format!("subscription:…{}", hex::encode(&hash[..4]))
            }
            Self::Topic(_) | Self::Alias(_) => self.canonical(),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

/// SHA-256 over the canonical form of a message; equal content, equal hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}
