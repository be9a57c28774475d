//! `bench deliver --http2`: pushes by kind `apns` over HTTP/2 to a sink that is not ours, such as nginx,
//! beside a bare client of the same library that sends the same requests and records nothing.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use reqwest::Url;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{
    super::folder::Folder,
    bar,
    deliver::through,
    load::{Kind, Load},
    project::catch_up,
    report::{Figure, Raw, Target, Unit},
    samples::per_second,
    sink::Sink,
    stage::Stage,
};
use crate::{
    config::ProviderSettings,
    event::PlannedDelivery,
    id::{DeliveryId, MessageId},
    message,
};

/// What is asked for beside the usual sink.
#[derive(Debug, Args)]
pub(super) struct Multiplexed {
    /// Also push by kind apns to an HTTP/2 server here, with or without TLS; docs/performance.md has a
    /// configuration for nginx
    #[arg(long, value_name = "URL")]
    http2: Option<Url>,

    /// Calls at the same time over HTTP/2
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    http2_concurrency: u16,

    /// Connections over HTTP/2
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    http2_connections: u16,
}

impl Multiplexed {
    pub(super) const fn is_wanted(&self) -> bool {
        self.http2.is_some()
    }

    /// Pushes in rounds, and the same by a bare client.
    pub(super) async fn measure(&self, stage: &Stage, count: u64, rounds: u32) -> anyhow::Result<Figure> {
        let url = self.http2.as_ref().context("no address to push to")?;
        let folder = Folder::new("bench")?;
        let key = folder.file("throw-away.p8");
        fs::write(&key, throw_away_key()?)?;
        let settings = |base: &str, http2: bool| {
            json!({
                "base_url": base, "http2": http2, "topic": "com.example.bench", "key_id": "BENCHKEY01",
                "team_id": "BENCHTEAM1", "key": format!("file:{}", key.display()),
                "concurrency": self.http2_concurrency, "connections": self.http2_connections,
            })
        };
        let kind = |settings| ProviderSettings { kind: "apns".to_owned(), settings };
        let mut load = Load::new(Arc::clone(&stage.clock), Kind::Push, count / 2);
        // One push to a sink of our own shows what such a request looks like.
        let sink = Sink::open(true).await?;
        let ours = kind(settings(&format!("http://{}", sink.address()), false));
        deliver(stage, &mut load, 1, ours).await?;
        let body = sink.first().context("the sink was never called")?.to_vec();
        let bar = bar("rounds over HTTP/2", u64::from(rounds));
        let (mut pushed, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            pushed.push(deliver(stage, &mut load, count, kind(settings(url.as_str(), true))).await?);
            raw.push(self.call(url, &body, count).await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (calls, connections) = (self.http2_concurrency, self.http2_connections);
        let what = format!("a bare client, {calls} streams on {connections} connection(s), nothing recorded");
        Ok(Figure {
            what: format!("pushes by kind apns over HTTP/2, {calls} at a time"),
            unit: Unit::PerSecond,
            ours: pushed,
            raw: Some(Raw { what, rounds: raw }),
            target: Some(Target::Ratio(0.5)),
        })
    }

    /// The same calls by a bare client; how many in a second.
    async fn call(&self, url: &Url, body: &[u8], count: u64) -> anyhow::Result<f64> {
        let client = || {
            let builder = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
            builder.timeout(Duration::from_secs(10)).tls_certs_only([]).build()
        };
        let clients = (0..self.http2_connections).map(|_| client()).collect::<Result<Vec<_>, _>>()?;
        let target = url.join(&format!("/3/device/{}", token("bare")))?;
        let left = Arc::new(AtomicU64::new(count));
        let body = bytes::Bytes::copy_from_slice(body);
        let mut callers = JoinSet::new();
        let start = Instant::now();
        for (_, client) in (0..self.http2_concurrency).zip(clients.iter().cycle()) {
            let (client, target, body, left) =
                (client.clone(), target.clone(), body.clone(), Arc::clone(&left));
            callers.spawn(async move {
                let next = |it: u64| it.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok() {
                    let request = client.post(target.clone()).header("content-type", "application/json");
                    let request = request.header("authorization", "bearer none");
                    let request = request.header("apns-topic", "com.example.bench");
                    let request = request.header("apns-id", "00000000-0000-0000-0000-000000000000");
                    request.body(body.clone()).send().await?.error_for_status()?.bytes().await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok(per_second(count, start.elapsed()))
    }
}

/// Pushes to devices through this provider; how many in a second.
async fn deliver(
    stage: &Stage,
    load: &mut Load,
    count: u64,
    provider: ProviderSettings,
) -> anyhow::Result<f64> {
    let rate = through(stage, load, count, provider, to_a_device).await?;
    // The last outcomes are in the log; what tells who waits need not have heard of them.
    catch_up(stage).await?;
    let left = stage.store.count_due(stage.clock.now(), stage.clock.now()).await?;
    ensure!(left.iter().all(|it| it.due == 0), "not all were accepted: {left:?}");
    Ok(rate)
}

/// The same delivery to a device token of its own.
fn to_a_device(message: &MessageId, planned: PlannedDelivery) -> PlannedDelivery {
    let target = message::Target::Token(token(planned.target.value()));
    let delivery_id = DeliveryId::new(message, &target.canonical());
    PlannedDelivery { delivery_id, target, ..planned }
}

/// What looks like a device token of Apple's.
fn token(of: &str) -> String {
    hex::encode(Sha256::digest(of.as_bytes()))
}

/// A key as Apple gives one, in PEM.
fn throw_away_key() -> anyhow::Result<String> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let der = der.map_err(|_| anyhow!("no key can be made"))?;
    let text = STANDARD.encode(der.as_ref());
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
}
