//! A channel by SMTP: plain text, with the event as JSON attached.

use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::channel::{Failure, Receipt};
use super::event::Notice;
use super::words::one_line;
use crate::config::{Email, SmtpSecurity, is_mail_address};
use crate::lake::cause_text;

const ANSWER_CHARACTERS_MAX: usize = 300;

/// See the module text.
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    to_owners: bool,
    timeout: Duration,
}

impl Mail {
    pub fn open(email: Email, timeout: Duration) -> Result<Self, String> {
        let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|error| format!("`{text}`: {error}"));
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
            .port(email.port)
            .timeout(Some(timeout));
        builder = builder.tls(match email.security {
            SmtpSecurity::None => Tls::None,
            SmtpSecurity::Tls => Tls::Wrapper(tls(&email)?),
            SmtpSecurity::StartTls => Tls::Required(tls(&email)?),
            SmtpSecurity::StartTlsIfOffered => Tls::Opportunistic(tls(&email)?),
        });
        if let Some(user) = &email.user {
            let password = email.password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self {
            transport: builder.build(),
            from: mailbox(&email.from)?,
            to: email.to.iter().map(mailbox).collect::<Result<_, _>>()?,
            to_owners: email.to_owners,
            timeout,
        })
    }

    pub async fn send(&self, notice: &Notice) -> Result<Receipt, Failure> {
        let mut to = self.to.clone();
        if self.to_owners {
            let owners =
                notice.owners.iter().filter(|owner| is_mail_address(owner)).filter_map(|owner| owner.parse().ok());
            for owner in owners {
                let owner: Mailbox = owner;
                if !to.iter().any(|known| known.email == owner.email) {
                    to.push(owner);
                }
            }
        }
        if to.is_empty() {
            return Ok(Receipt { said: "nobody to send it to: no owner of the table is a mail address".to_owned() });
        }
        let recipients = to.len();
        let message = self.message(notice, to).map_err(|error| Failure::refused(cause_text(&error)))?;
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Err(_) => Err(Failure::away(format!("it took longer than {} s", self.timeout.as_secs()))),
            Ok(Ok(response)) => {
                let lines = response.message().collect::<Vec<_>>().join(" ");
                let answer = one_line(&lines, ANSWER_CHARACTERS_MAX);
                let people =
                    if recipients == 1 { "1 recipient".to_owned() } else { format!("{recipients} recipients") };
                Ok(Receipt { said: format!("{} {answer} ({people})", response.code()) })
            }
            Ok(Err(error)) if error.is_permanent() => Err(Failure::refused(cause_text(&error))),
            Ok(Err(error)) => Err(Failure::away(cause_text(&error))),
        }
    }

    fn message(&self, notice: &Notice, to: Vec<Mailbox>) -> Result<Message, lettre::error::Error> {
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(format!("[lakeward] {}", notice.title))
            // The same at every try, so that a mailbox that knows it shows it once.
            .message_id(Some(format!("<{}@{}>", notice.id, self.from.email.domain())));
        for mailbox in to {
            builder = builder.to(mailbox);
        }
        let event = serde_json::to_string_pretty(&notice.event).unwrap_or_default();
        let kind = ContentType::parse("application/cloudevents+json").unwrap_or(ContentType::TEXT_PLAIN);
        builder.multipart(
            MultiPart::mixed()
                .singlepart(SinglePart::plain(format!("{}\n\n{}", notice.title, notice.text)))
                .singlepart(Attachment::new(format!("{}.json", notice.kind)).body(event, kind)),
        )
    }
}

fn tls(email: &Email) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(email.host.clone());
    if let Some(path) = &email.ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        let authority = Certificate::from_pem(&pem)
            .map_err(|error| format!("{} holds no certificates: {}", path.display(), cause_text(&error)))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    builder.build_rustls().map_err(|error| cause_text(&error))
}
