//! A recipient's device as its app registered it: where pushes can go. Pure.
//!
//! Tokens are of one push service and one environment of it and mean nothing elsewhere, so a device says
//! which. It dies on a definite word of that service and lives again when it is registered again.

mod registration;
mod shown;

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    id::{DeviceId, RecipientId},
    message::Target,
};

pub use registration::PushService;
pub use shown::Shown;

/// What an app says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The app's own id of it.
    pub device_id: DeviceId,
    /// Which app, where the company has several; may be empty.
    pub app: String,
    /// `ios`, `android`, `web` or what the company calls it.
    pub platform: String,
    /// Whose token it is: a kind of provider, such as `fcm`.
    pub kind: String,
    /// `production` or `sandbox`.
    pub environment: String,
    /// The token or subscription.
    pub target: Target,
    /// The language of the device.
    pub locale: Option<String>,
    /// Its time zone by its IANA name.
    pub time_zone: Option<String>,
    /// When it was last used; none: just now.
    pub last_seen_at: Option<Timestamp>,
}

/// A device on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Whose it is.
    pub recipient_id: RecipientId,
    /// What was said of it last; `last_seen_at` is always there.
    pub registration: Registration,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// When it was last registered.
    pub registered_at: Timestamp,
    /// Since when it cannot be reached, as far as its push service says.
    pub dead: Option<Death>,
}

/// The end of a device's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// When the ledger learnt of it.
    pub at: Timestamp,
    /// Which provider said so.
    pub by: String,
    /// In its words.
    pub reason: String,
}

/// A definite word of a provider that a target does not exist any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obituary {
    /// Which target.
    pub target: Target,
    /// Kind and environment of the push service whose word it is; none for one that takes anybody's targets.
    pub service: Option<(String, String)>,
    /// Who says so.
    pub provider: String,
    /// The provider's code.
    pub reason: String,
    /// Since when; a device that was registered later is another matter.
    pub as_of: Timestamp,
}

/// The environment of providers and devices that name none.
pub const PRODUCTION: &str = "production";
/// The other one: builds that developers and testers run.
pub const SANDBOX: &str = "sandbox";

/// What a target is found by, without being told: SHA-256 of its canonical form, in hexadecimal digits.
#[must_use]
pub fn target_hash(target: &Target) -> String {
    hex::encode(Sha256::digest(target.canonical().as_bytes()))
}
