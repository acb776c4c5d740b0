//! A channel that notices leave by.

use std::time::Duration;

use super::command::Command;
use super::email::Mail;
use super::event::Notice;
use super::web::Web;
use crate::config::{NoticeChannel, Transport};

/// What came back from a channel that took a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `204 No Content`
    pub said: String,
}

/// Why a channel did not take a notice. The text never holds its url or a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing gets through just now; `after`: the channel says when to come again.
    #[error("{cause}")]
    Away { cause: String, after: Option<Duration> },
    /// It does not want this one as it is.
    #[error("{cause}")]
    Refused { cause: String },
}

impl Failure {
    pub fn away(cause: impl Into<String>) -> Self {
        Self::Away { cause: cause.into(), after: None }
    }

    pub fn refused(cause: impl Into<String>) -> Self {
        Self::Refused { cause: cause.into() }
    }
}

/// See the module text.
pub struct Channel {
    pub config: NoticeChannel,
    sender: Sender,
}

enum Sender {
    Web(Web),
    Command(Command),
    Mail(Box<Mail>),
}

impl Channel {
    /// Reaches nothing yet. The error says what of its configuration is of no use.
    pub fn open(config: &NoticeChannel) -> Result<Self, String> {
        let timeout = config.timeout;
        let sender = match &config.transport {
            Transport::Webhook { url, secret, ca_file } => {
                Sender::Web(Web::for_events(url.clone(), secret.clone(), ca_file.as_deref(), timeout)?)
            }
            Transport::Slack { url, ca_file } => Sender::Web(Web::for_slack(url.clone(), ca_file.as_deref(), timeout)?),
            Transport::Command { arguments } => Sender::Command(Command::new(arguments.clone(), timeout)),
            Transport::Email(email) => Sender::Mail(Box::new(Mail::open(email.clone(), timeout)?)),
        };
        Ok(Self { config: config.clone(), sender })
    }

    pub async fn send(&self, notice: &Notice) -> Result<Receipt, Failure> {
        match &self.sender {
            Sender::Web(web) => web.send(notice).await,
            Sender::Command(command) => command.send(notice).await,
            Sender::Mail(mail) => mail.send(notice).await,
        }
    }
}
