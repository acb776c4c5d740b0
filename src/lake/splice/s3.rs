//! Copies the first bytes of an object inside S3, as parts of a new one (`UploadPartCopy` of the S3 API), so that they
//! never come here.
//!
//! The client takes the same options and environment as deltalake's store does, options first. Where an option asks for
//! something that a copy would have to repeat (encryption keys, requester pays) or that this client does not do, there is
//! no copier, and the bytes are fetched and sent.

use std::collections::HashMap;
use std::str::FromStr;

use aws_config::BehaviorVersion;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use object_store::aws::AmazonS3ConfigKey as Key;
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

/// No part but the last may be smaller (Amazon S3, "multipart upload limits").
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// Parts of the old object: at most 5 GiB each; smaller ones fail less dearly.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// Parts that are sent.
const SEND_BYTES: usize = 8 << 20;

/// How `x-amz-copy-source` wants a key.
const KEY_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Copies within a table's folder.
pub struct PartCopier {
    client: Client,
    bucket: String,
    folder: Path,
}

impl PartCopier {
    /// For the table at `url`; `None` where its objects can't be copied in parts.
    pub async fn connect(url: &Url, options: &HashMap<String, String>) -> Option<Self> {
        let environment = std::env::vars_os().filter_map(|(key, value)| {
            let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
            key.to_ascii_lowercase().starts_with("aws_").then_some((key, value))
        });
        let settings = Settings::of(options.clone(), environment)?;
        let bucket = url.host_str()?.to_owned();
        let folder = Path::from_url_path(url.path()).ok()?;
        Some(Self { client: settings.client(&bucket).await, bucket, folder })
    }

    fn key(&self, path: &Path) -> String {
        if self.folder.as_ref().is_empty() { path.to_string() } else { format!("{}/{path}", self.folder) }
    }

    /// A new object `to` that begins with the first `prefix` bytes of `from`, at least [`PART_BYTES_MIN`].
    pub async fn begin(&self, from: &Path, to: &Path, prefix: u64) -> Result<PartUpload, String> {
        let key = self.key(to);
        let created = self.client.create_multipart_upload().bucket(&self.bucket).key(&key).send().await;
        let created = created.map_err(|cause| DisplayErrorContext(cause).to_string())?;
        let id = created.upload_id().ok_or("the store began an upload without an id")?.to_owned();
        let mut upload = PartUpload {
            client: self.client.clone(),
            bucket: self.bucket.clone(),
            key,
            id,
            parts: Vec::new(),
            pending: BytesMut::new(),
        };
        let source = format!("{}/{}", self.bucket, utf8_percent_encode(&self.key(from), KEY_SET));
        for (start, end) in parts_of(prefix) {
            if let Err(cause) = upload.copy(&source, start, end).await {
                upload.abort().await;
                return Err(cause);
            }
        }
        Ok(upload)
    }
}

/// Equal parts, so that none is too small.
fn parts_of(prefix: u64) -> impl Iterator<Item = (u64, u64)> {
    let count = prefix.div_ceil(COPY_BYTES_MAX).max(1);
    (0..count).map(move |part| (prefix * part / count, prefix * (part + 1) / count))
}

/// A multipart upload.
pub struct PartUpload {
    client: Client,
    bucket: String,
    key: String,
    id: String,
    parts: Vec<CompletedPart>,
    pending: BytesMut,
}

impl PartUpload {
    fn next_number(&self) -> i32 {
        self.parts.len() as i32 + 1
    }

    fn done(&mut self, etag: Option<&str>) -> Result<(), String> {
        let etag = etag.ok_or("the store took a part without an ETag")?;
        self.parts.push(CompletedPart::builder().part_number(self.next_number()).e_tag(etag).build());
        Ok(())
    }

    async fn copy(&mut self, source: &str, start: u64, end: u64) -> Result<(), String> {
        let copied = self
            .client
            .upload_part_copy()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(self.next_number())
            .copy_source(source)
            .copy_source_range(format!("bytes={start}-{}", end - 1))
            .send()
            .await
            .map_err(|cause| DisplayErrorContext(cause).to_string())?;
        let etag = copied.copy_part_result().and_then(|result| result.e_tag());
        self.done(etag)
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), String> {
        self.pending.extend_from_slice(&bytes);
        while self.pending.len() >= SEND_BYTES {
            let part = self.pending.split_to(SEND_BYTES).freeze();
            self.send(part).await?;
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), String> {
        let sent = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(self.next_number())
            .body(ByteStream::from(part))
            .send()
            .await
            .map_err(|cause| DisplayErrorContext(cause).to_string())?;
        self.done(sent.e_tag())
    }

    /// Completes the object, which must then have `size` bytes: a store that copied something else is found out.
    pub async fn finish(mut self, size: u64) -> Result<(), String> {
        if let Err(cause) = self.complete().await {
            self.abort().await;
            return Err(cause);
        }
        let head = self.client.head_object().bucket(&self.bucket).key(&self.key).send().await;
        let found = head.map_err(|cause| DisplayErrorContext(cause).to_string())?.content_length();
        if found == Some(size as i64) {
            return Ok(());
        }
        let removed = self.client.delete_object().bucket(&self.bucket).key(&self.key).send().await;
        if let Err(cause) = removed {
            tracing::warn!(object = self.key, cause = %DisplayErrorContext(cause), "a wrong copy could not be removed");
        }
        Err(format!("the object has {} bytes instead of {size}", found.unwrap_or(0)))
    }

    async fn complete(&mut self) -> Result<(), String> {
        let rest = self.pending.split().freeze();
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(parts)
            .send()
            .await;
        completed.map(|_| ()).map_err(|cause| DisplayErrorContext(cause).to_string())
    }

    pub async fn abort(self) {
        let aborted =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(&self.id).send().await;
        if let Err(cause) = aborted {
            let cause = DisplayErrorContext(cause);
            tracing::warn!(object = self.key, %cause, "an unfinished upload could not be aborted");
        }
    }
}

/// How the store is reached.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    region: Option<String>,
    endpoint: Option<String>,
    /// Key, secret, session token.
    credentials: Option<(String, String, Option<String>)>,
    role: Option<String>,
    role_session: Option<String>,
    bucket_in_host: Option<bool>,
}

impl Settings {
    /// Options go before the environment; `None` where there is something that a copy can't honour.
    fn of(options: HashMap<String, String>, environment: impl Iterator<Item = (String, String)>) -> Option<Self> {
        let mut known: HashMap<Key, String> = HashMap::new();
        let mut settings = Self::default();
        for (name, value) in options.into_iter().chain(environment) {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "aws_iam_role_arn" | "aws_s3_assume_role_arn" => settings.role = settings.role.or(Some(value)),
                "aws_iam_role_session_name" | "aws_s3_role_session_name" => {
                    settings.role_session = settings.role_session.or(Some(value));
                }
                "certificate_path" => return None,
                _ => match Key::from_str(&name) {
                    Ok(Key::Encryption(_)) => return None,
                    Ok(Key::S3Express | Key::RequestPayer | Key::SkipSignature) if is_true(&value) => return None,
                    Ok(key) => {
                        known.entry(key).or_insert(value);
                    }
                    Err(_) => {}
                },
            }
        }
        let mut take = |key: Key| known.remove(&key);
        settings.region = take(Key::Region).or_else(|| take(Key::DefaultRegion));
        settings.endpoint = take(Key::S3Endpoint).or_else(|| take(Key::Endpoint));
        settings.bucket_in_host = take(Key::VirtualHostedStyleRequest).map(|value| is_true(&value));
        settings.credentials =
            take(Key::AccessKeyId).zip(take(Key::SecretAccessKey)).map(|(key, secret)| (key, secret, take(Key::Token)));
        // deltalake takes on a role only at AWS itself.
        if settings.endpoint.is_some() {
            settings.role = None;
        }
        Some(settings)
    }

    async fn client(&self, bucket: &str) -> Client {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some((key, secret, token)) = &self.credentials {
            loader = loader.credentials_provider(Credentials::new(key, secret, token.clone(), None, "lakeward"));
        }
        let mut shared = loader.load().await;
        if shared.region().is_none() {
            shared = shared.into_builder().region(Region::new("us-east-1")).build();
        }
        if let Some(role) = &self.role {
            let session = self.role_session.clone().unwrap_or_else(|| "lakeward".to_owned());
            let provider = AssumeRoleProvider::builder(role).session_name(session).configure(&shared).build().await;
            let provider = aws_sdk_s3::config::SharedCredentialsProvider::new(provider);
            shared = shared.into_builder().credentials_provider(provider).build();
        }
        // Stores other than AWS often do not know the newer checksums.
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &self.endpoint {
            let in_host = self.bucket_in_host == Some(true);
            // object_store wants the bucket in such an endpoint, the SDK adds it.
            let endpoint = if in_host { endpoint.replacen(&format!("{bucket}."), "", 1) } else { endpoint.clone() };
            config = config.endpoint_url(endpoint).force_path_style(!in_host);
        } else if let Some(in_host) = self.bucket_in_host {
            config = config.force_path_style(!in_host);
        }
        Client::from_conf(config.build())
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on" | "y" | "t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)], environment: &[(&str, &str)]) -> Option<Settings> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Settings::of(options.iter().map(owned).collect(), environment.iter().map(owned))
    }

    #[test]
    fn options_go_before_the_environment() {
        let found = settings(
            &[("aws_endpoint", "http://a"), ("AWS_REGION", "eu-west-1"), ("aws_access_key_id", "ours")],
            &[
                ("AWS_ENDPOINT_URL", "http://b"),
                ("AWS_DEFAULT_REGION", "us-west-2"),
                ("AWS_ACCESS_KEY_ID", "theirs"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_SESSION_TOKEN", "token"),
            ],
        );
        let wanted = Settings {
            region: Some("eu-west-1".into()),
            endpoint: Some("http://a".into()),
            credentials: Some(("ours".into(), "secret".into(), Some("token".into()))),
            ..Settings::default()
        };
        assert_eq!(found, Some(wanted));
    }

    #[test]
    fn what_a_copy_cannot_honour_rules_it_out() {
        assert_eq!(settings(&[("aws_server_side_encryption", "aws:kms")], &[]), None);
        assert_eq!(settings(&[("aws_skip_signature", "true")], &[]), None);
        assert_eq!(settings(&[], &[("AWS_REQUEST_PAYER", "true")]), None);
        assert!(settings(&[("aws_skip_signature", "false")], &[]).is_some());
    }

    #[test]
    fn parts_cover_the_prefix_and_none_is_small() {
        for prefix in [PART_BYTES_MIN, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 7 * COPY_BYTES_MAX + 12_345] {
            let parts: Vec<(u64, u64)> = parts_of(prefix).collect();
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (0, prefix));
            assert!(parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
            assert!(parts.iter().all(|(start, end)| (PART_BYTES_MIN..=COPY_BYTES_MAX).contains(&(end - start))));
        }
    }
}
