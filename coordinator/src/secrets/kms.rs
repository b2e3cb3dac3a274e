//! A master key that never leaves AWS KMS: data keys are made by `GenerateDataKey` and unwrapped by `Decrypt`, both bound to the
//! cluster by the encryption context. The process needs `kms:GenerateDataKey` and `kms:Decrypt` on that key.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    primitives::Blob,
    types::DataKeySpec,
};
use secrecy::zeroize::Zeroize;
use store::{Error, ErrorKind, Result};

use super::key::{DataKey, MasterKey};

/// What tells a key of KMS from one of ours in `previous_keys` and in what is stored.
pub(super) const PREFIX: &str = "kms:";

/// Under this name the cluster is in the encryption context, which CloudTrail shows and a policy may demand.
const CONTEXT: &str = "shardwright:cluster";

/// How long one call may take, all its attempts together.
const WITHIN: Duration = Duration::from_secs(10);

/// A key of KMS.
pub(super) struct KmsKey {
    client: Client,
    /// As it was named: an id, an ARN or an alias.
    name: String,
    id: String,
    cluster: String,
}

impl KmsKey {
    /// The key of this name. Nothing is asked of KMS yet.
    pub async fn new(name: &str, endpoint: Option<&str>, cluster: &str) -> Self {
        let limits = TimeoutConfig::builder().operation_timeout(WITHIN).operation_attempt_timeout(WITHIN / 3);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .timeout_config(limits.build());
        if let Some(region) = region_of(name) {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self::over(Client::new(&loader.load().await), name, cluster)
    }

    /// The same, asked of through this client.
    pub fn over(client: Client, name: &str, cluster: &str) -> Self {
        Self { client, name: name.to_owned(), id: format!("{PREFIX}{name}"), cluster: cluster.to_owned() }
    }

    fn failed<E>(&self, what: &str, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let kind = match code {
            Some("AccessDeniedException" | "KMSInvalidStateException" | "DisabledException") => {
                ErrorKind::Denied
            }
            Some(
                "NotFoundException"
                | "IncorrectKeyException"
                | "InvalidCiphertextException"
                | "InvalidKeyUsageException"
                | "InvalidArnException"
                | "ValidationException",
            ) => ErrorKind::Config,
            _ => ErrorKind::Unavailable,
        };
        let why = match &error {
            SdkError::ServiceError(refused) => {
                let refused = refused.err();
                format!("{}: {}", code.unwrap_or("an error"), refused.message().unwrap_or("no reason given"))
            }
            other => DisplayErrorContext(other).to_string(),
        };
        Error::new(kind, format!("AWS KMS cannot {what} with key `{}`: {why}", self.name))
    }
}

/// The region in the ARN of a key.
fn region_of(name: &str) -> Option<&str> {
    let mut parts = name.split(':');
    match (parts.next(), parts.nth(1), parts.next()) {
        (Some("arn"), Some("kms"), Some(region)) if !region.is_empty() => Some(region),
        _ => None,
    }
}

/// The key in an answer, whose copy is wiped.
fn data_key(plaintext: Option<Blob>) -> Result<DataKey> {
    let mut bytes = plaintext.map(Blob::into_inner).unwrap_or_default();
    let key = DataKey::new(&bytes);
    bytes.zeroize();
    key
}

#[async_trait]
impl MasterKey for KmsKey {
    fn id(&self) -> &str {
        &self.id
    }

    async fn new_data_key(&self) -> Result<(DataKey, Vec<u8>)> {
        let made = self
            .client
            .generate_data_key()
            .key_id(&self.name)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context(CONTEXT, &self.cluster)
            .send()
            .await
            .map_err(|error| self.failed("make a data key", error))?;
        let wrapped = made.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        Ok((data_key(made.plaintext)?, wrapped))
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<DataKey> {
        // The key is named, so that one that somebody else put there is refused.
        let opened = self
            .client
            .decrypt()
            .key_id(&self.name)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(CONTEXT, &self.cluster)
            .send()
            .await
            .map_err(|error| self.failed("unwrap a data key", error))?;
        data_key(opened.plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_that_of_the_arn() {
        assert_eq!(region_of("arn:aws:kms:eu-west-1:123456789012:key/abc"), Some("eu-west-1"));
        for name in ["alias/mine", "1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:s3:::bucket"] {
            assert_eq!(region_of(name), None, "{name}");
        }
    }
}
