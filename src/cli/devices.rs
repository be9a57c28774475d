//! `devices`: looking at where a recipient's pushes go, and taking a device out.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Exit, Global, Logs, Output, print};
use crate::{
    device::Shown,
    id::{DeviceId, RecipientId},
    service,
    store::Store,
};

/// Look at the devices of a recipient, and remove one
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the devices of a recipient, dead ones too, the last seen first
    List {
        /// Whose
        recipient: RecipientId,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a device; its app registers it again when it next starts
    ///
    /// Exits with 1 when there is no such device.
    Remove {
        /// Whose
        recipient: RecipientId,
        /// Its id, as listed
        device: DeviceId,
    },
}

impl Options {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.start(Logs::Command)?.config;
        let store = service::open_existing(&config).await?;
        let exit = match self.command {
            Command::List { recipient, output } => list(&store, &recipient, output).await,
            Command::Remove { recipient, device } => remove(&store, &recipient, &device).await,
        };
        store.close().await;
        exit
    }
}

async fn list(store: &Store, recipient: &RecipientId, output: Output) -> anyhow::Result<Exit> {
    let devices: Vec<_> = store.devices(recipient).await?.into_iter().map(Shown::from).collect();
    if output.json {
        print(json!({ "devices": devices }))?;
        return Ok(Exit::Well);
    }
    for device in &devices {
        print(line(device))?;
    }
    if devices.is_empty() {
        print("the recipient has no devices")?;
    }
    Ok(Exit::Well)
}

async fn remove(store: &Store, recipient: &RecipientId, device: &DeviceId) -> anyhow::Result<Exit> {
    if store.remove_device(recipient, device).await? {
        print(format_args!("{device}  removed"))?;
        return Ok(Exit::Well);
    }
    print(format_args!("{device}  is no device of this recipient; `devices list` shows those there are"))?;
    Ok(Exit::Wrong)
}

fn line(it: &Shown) -> String {
    let dead = it.dead_at.map(|at| {
        let (by, reason) = (it.dead_by.as_deref().unwrap_or("-"), it.dead_reason.as_deref().unwrap_or("-"));
        format!(" since {at}, says {by}: {}", reason.escape_debug())
    });
    let app = if it.app.is_empty() { String::new() } else { format!(" of {}", it.app) };
    let (id, status, dead) = (&it.device_id, it.status, dead.unwrap_or_default());
    let (kind, environment) = (&it.kind, &it.environment);
    format!(
        "{id}  {status}{dead}  {}{app}  {kind} {environment}  {}  seen {}",
        it.platform, it.target, it.last_seen_at
    )
}
