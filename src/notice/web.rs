//! Channels over HTTP: a webhook that takes CloudEvents, or Slack's incoming webhooks.
//!
//! A webhook gets CloudEvents in structured mode, and with a secret a signature over time and body:
//! `Lakeward-Signature: t=<Unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>." + body)>`. The time is part of what is
//! signed, so that a receiver can refuse what somebody recorded and sends again.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use sha2::Sha256;

use super::channel::{Failure, Receipt};
use super::event::Notice;
use super::slack;
use super::words::one_line;
use crate::config::Secret;
use crate::lake::cause_text;

/// Who asks for a longer pause gets this.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Of an answer, for the log.
const ANSWER_BYTES_MAX: usize = 2048;
const ANSWER_CHARACTERS_MAX: usize = 300;

/// See the module text.
pub struct Web {
    client: Client,
    url: Secret,
    form: Form,
}

enum Form {
    CloudEvent { secret: Option<Secret> },
    Slack,
}

impl Web {
    pub fn for_events(
        url: Secret,
        secret: Option<Secret>,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, String> {
        Ok(Self { client: client(ca_file, timeout)?, url, form: Form::CloudEvent { secret } })
    }

    pub fn for_slack(url: Secret, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, String> {
        Ok(Self { client: client(ca_file, timeout)?, url, form: Form::Slack })
    }

    pub async fn send(&self, notice: &Notice) -> Result<Receipt, Failure> {
        let request = self.client.post(self.url.expose());
        let request = match &self.form {
            Form::CloudEvent { secret } => {
                let body = notice.event.to_string();
                let mut request = request.header(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8");
                if let Some(secret) = secret {
                    request = request.header("Lakeward-Signature", signature(secret, Utc::now(), &body));
                }
                request.body(body)
            }
            Form::Slack => request
                .header(CONTENT_TYPE, "application/json; charset=utf-8")
                .body(slack::message(&notice.title, &notice.blocks).to_string()),
        };
        match request.send().await {
            Ok(response) => judge(response).await,
            // The url may be a secret.
            Err(error) => Err(Failure::away(cause_text(&error.without_url()))),
        }
    }
}

fn client(ca_file: Option<&Path>, timeout: Duration) -> Result<Client, String> {
    // A redirected POST arrives as a GET without a body, or at somebody else's.
    let mut builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(10)))
        .redirect(redirect::Policy::none())
        .user_agent(concat!("lakeward/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        let authorities = Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("{} holds no certificates: {}", path.display(), cause_text(&error)))?;
        // Instead of the system's.
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
    }
    builder.build().map_err(|error| cause_text(&error))
}

async fn judge(mut response: Response) -> Result<Receipt, Failure> {
    let status = response.status();
    let after = retry_after(response.headers(), Utc::now());
    let mut answer = Vec::new();
    while answer.len() < ANSWER_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        answer.extend_from_slice(&chunk);
    }
    answer.truncate(ANSWER_BYTES_MAX);
    let answer = one_line(&String::from_utf8_lossy(&answer), ANSWER_CHARACTERS_MAX);
    let said = if answer.is_empty() { status.to_string() } else { format!("{status}: {answer}") };
    if status.is_success() {
        return Ok(Receipt { said });
    }
    let cause = format!("it answered {said}");
    let away = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    Err(if away { Failure::Away { cause, after } } else { Failure::Refused { cause } })
}

/// Seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().ok()?,
    };
    Some(pause.min(PAUSE_MAX))
}

/// See the module text.
pub fn signature(secret: &Secret, at: DateTime<Utc>, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{}.", at.timestamp()).as_bytes());
    mac.update(body.as_bytes());
    let mut header = format!("t={},v1=", at.timestamp());
    for byte in mac.finalize().into_bytes() {
        let _ = write!(header, "{byte:02x}");
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_others_compute() {
        let at = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signature(&Secret::new("key"), at, "{}"),
            "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_as_a_date() {
        let now = DateTime::parse_from_rfc3339("2015-10-21T07:27:00Z").expect("a time").to_utc();
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(told("7"), Some(7));
        assert_eq!(told("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(told("999999999"), Some(3600));
        assert_eq!(told("soon"), None);
    }
}
