//! One HTTP call and what came of it; shared by every provider that speaks HTTP.
//!
//! No redirect is followed, no proxy of the environment is used and nothing is resent, but for requests
//! that HTTP/2 proves were never processed: an attempt in the log is one call that a provider saw.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::{Client, Request, header};
use serde_json::Value;

use super::{
    Failure,
    mask::{Mask, cut},
};
use crate::{clock::Timestamp, event::FailureClass};

/// More of an answer is not read.
pub(crate) const READ_MAX: usize = 64 * 1024;
/// More of an answer is not recorded.
pub(crate) const KEPT_MAX: usize = 4 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: header::HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) end: BodyEnd,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What both sides agree on.
    Any,
    /// HTTP/2 and nothing else, also without TLS: many calls share one connection.
    Http2,
}

/// How the body of an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// All of it is there.
    Whole,
    /// There was more than is read.
    TooLong,
    /// It broke off: `timeout` or `reset`.
    Broken(&'static str),
}

/// A client for one provider, whose calls end by themselves within `timeout`.
///
/// # Errors
/// When TLS cannot be set up, as on a machine without root certificates.
pub(crate) fn client(
    timeout: Duration,
    connections: usize,
    protocol: Protocol,
    plain_http: bool,
) -> reqwest::Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("notification-ledger/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .timeout(timeout)
        // Half, so that a host that does not answer is told apart from one that does not reply.
        .connect_timeout(timeout / 2)
        .pool_max_idle_per_host(connections)
        .pool_idle_timeout(Duration::from_secs(30))
        .http2_keep_alive_interval(Duration::from_secs(30));
    let builder = match protocol {
        Protocol::Any => builder,
        // One task connects while the others wait; by ALPN each of them would open a connection of its own
        // and throw it away. Services take rapid reconnects for an attack, so idle ones are kept.
        Protocol::Http2 => {
            builder.http2_prior_knowledge().http2_keep_alive_while_idle(true).pool_idle_timeout(None)
        }
    };
    // Plain HTTP needs no root certificates, and must work on a machine that has none.
    let builder = if plain_http { builder.tls_certs_only([]) } else { builder };
    builder.build()
}

/// Makes the call and reads the answer, as far as it is read.
///
/// # Errors
/// When no status came; the failure says whether the provider may have got the request.
pub(crate) async fn exchange(client: &Client, request: Request) -> Result<Answer, Failure> {
    let mut response = client.execute(request).await.map_err(|error| unanswered(&error.without_url()))?;
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    let end = loop {
        match response.chunk().await {
            Ok(None) => break BodyEnd::Whole,
            Ok(Some(chunk)) => {
                let room = READ_MAX - body.len();
                body.extend(chunk.iter().take(room));
                if chunk.len() > room {
                    break BodyEnd::TooLong;
                }
            }
            Err(error) => break BodyEnd::Broken(if error.is_timeout() { "timeout" } else { "reset" }),
        }
    };
    Ok(Answer { status, headers, body, end })
}

impl Answer {
    /// The body as JSON, where it came whole and is JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        (self.end == BodyEnd::Whole).then(|| serde_json::from_slice(&self.body).ok())?
    }

    /// What of the body is recorded: masked, at most 4 KiB; nothing where there is nothing.
    pub(crate) fn kept(&self, mask: &Mask) -> Option<String> {
        // Databases refuse NUL in texts.
        let text = String::from_utf8_lossy(&self.body).replace('\0', "\u{fffd}");
        // Twice what is kept, because masks may be shorter than what they hide.
        let begin = cut(&text, 2 * KEPT_MAX + mask.longest());
        let whole = self.end == BodyEnd::Whole && begin.len() == text.len();
        let masked = if whole { mask.apply(begin) } else { mask.apply_to_cut(begin) };
        (!masked.is_empty()).then(|| cut(&masked, KEPT_MAX).to_owned())
    }

    /// The wait that the provider asks for in `Retry-After`, as seconds or as a date.
    ///
    /// A date counts from the answer's own `Date`, so that clocks that differ do no harm; from `now`
    /// where there is none.
    pub(crate) fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let until = date(text)?;
        let sent = self.headers.get(header::DATE).and_then(|it| date(it.to_str().ok()?));
        let from = sent.unwrap_or_else(|| system_time(now));
        Some(until.duration_since(from).unwrap_or(Duration::ZERO))
    }
}

fn system_time(now: Timestamp) -> SystemTime {
    UNIX_EPOCH + now.since(Timestamp::from_micros(0))
}

/// What it means that no status came: that nothing was processed is proved only by a connection that never
/// stood, and by the service's own word.
fn unanswered(error: &reqwest::Error) -> Failure {
    let (class, code) = if error.is_connect() {
        (FailureClass::Retry, "connect")
    } else if error.is_builder() {
        (FailureClass::Permanent, "request")
    } else if error.is_timeout() {
        (FailureClass::Unknown, "timeout")
    } else if was_refused(error) {
        (FailureClass::Retry, "refused")
    } else {
        (FailureClass::Unknown, "reset")
    };
    Failure { answer: Some(chain(error)), ..Failure::new(class, code) }
}

/// Whether HTTP/2 proves that the request was never processed: the service closed the connection before
/// it came to this stream, or refused the stream. The client resends such a request, but not for ever.
fn was_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(it) = error.downcast_ref::<h2::Error>() {
            let says = |reason| it.is_remote() && it.reason() == Some(reason);
            return it.is_go_away() && says(h2::Reason::NO_ERROR)
                || it.is_reset() && says(h2::Reason::REFUSED_STREAM);
        }
        cause = error.source();
    }
    false
}

/// An error and its causes in one line, without causes that only repeat the error before them.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    cut(&line, KEPT_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &str)], body: &[u8], end: BodyEnd) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Answer { status: 503, headers: headers.collect(), body: body.to_vec(), end }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = Timestamp::parse("2026-11-22T09:00:00Z").unwrap();
        let date = ("date", "Sun, 22 Nov 2026 08:00:00 GMT");
        for (headers, expected) in [
            (&[][..], None),
            (&[("retry-after", "120")], Some(120)),
            (&[("retry-after", " 0 ")], Some(0)),
            (&[("retry-after", "1000000000")], Some(1_000_000_000)),
            (&[("retry-after", "99999999999999999999999")], Some(u64::MAX)),
            (&[("retry-after", "Sun, 22 Nov 2026 09:01:30 GMT")], Some(90)),
            (&[("retry-after", "Sun, 22 Nov 2026 08:01:30 GMT"), date], Some(90)),
            (&[("retry-after", "Sunday, 22-Nov-26 09:00:10 GMT")], Some(10)),
            (&[("retry-after", "Sat, 21 Nov 2026 09:00:00 GMT")], Some(0)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "-5")], None),
            (&[("retry-after", "")], None),
        ] {
            let wait = answer(headers, b"", BodyEnd::Whole).retry_after(now);
            assert_eq!(wait, expected.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn what_is_kept_of_an_answer_is_short_masked_and_text() {
        let mask = Mask::default().and("s3cret", "[key]");
        let kept = |body: &[u8], end| answer(&[], body, end).kept(&mask);
        assert_eq!(kept(b"", BodyEnd::Whole), None);
        assert_eq!(kept(b"bad s3cret\xff\0", BodyEnd::Whole).as_deref(), Some("bad [key]\u{fffd}\u{fffd}"));
        let long = kept("한".repeat(20_000).as_bytes(), BodyEnd::TooLong).unwrap();
        assert_eq!(long.len(), 4_095);
        // A secret that lies across the end of what is kept is masked before the rest is cut off.
        let across = kept(format!("{}s3cret", "x".repeat(KEPT_MAX - 3)).as_bytes(), BodyEnd::Whole).unwrap();
        assert!(across.ends_with("x[ke"), "{across}");
        let echo = kept("s3cret ".repeat(9_000).as_bytes(), BodyEnd::Whole).unwrap();
        assert!(echo.starts_with("[key] [key] ") && !echo.contains("s3"), "{echo}");
    }
}
