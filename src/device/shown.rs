//! A device as people and programs may see it: the token is never shown whole.

use serde::Serialize;
use utoipa::ToSchema;

use super::Device;
use crate::{
    clock::Timestamp,
    id::{DeviceId, RecipientId},
};

/// A device without what is secret about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Device)]
pub struct Shown {
    /// Whose it is.
    pub recipient_id: RecipientId,
    /// The app's own id of it.
    pub device_id: DeviceId,
    /// Which app.
    pub app: String,
    /// `ios`, `android`, `web` or what the company calls it.
    pub platform: String,
    /// Whose token it is: a kind of provider.
    pub kind: String,
    /// `production` or `sandbox`.
    pub environment: String,
    /// The token or subscription, masked.
    pub target: String,
    /// The language of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Its time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// `alive` or `dead`.
    pub status: &'static str,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// When it was last registered.
    pub registered_at: Timestamp,
    /// When it was last used.
    pub last_seen_at: Timestamp,
    /// Since when it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_at: Option<Timestamp>,
    /// Which provider said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_by: Option<String>,
    /// In its words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_reason: Option<String>,
}

impl From<Device> for Shown {
    fn from(device: Device) -> Self {
        let Device { recipient_id, registration: it, created_at, registered_at, dead } = device;
        let (dead_at, dead_by, dead_reason) = match dead {
            Some(death) => (Some(death.at), Some(death.by), Some(death.reason)),
            None => (None, None, None),
        };
        Self {
            recipient_id,
            target: it.target.masked(),
            device_id: it.device_id,
            app: it.app,
            platform: it.platform,
            kind: it.kind,
            environment: it.environment,
            locale: it.locale,
            time_zone: it.time_zone,
            status: if dead_at.is_some() { "dead" } else { "alive" },
            created_at,
            registered_at,
            last_seen_at: it.last_seen_at.unwrap_or(registered_at),
            dead_at,
            dead_by,
            dead_reason,
        }
    }
}
