//! Posts messages to addresses that users gave.
//!
//! In: a receiver, whose address is a secret, and a body. Out: what the server answered, or why nothing was sent. No
//! redirect is followed, since another host must not see the message. When to send again is not decided here.

use std::error::Error as _;
use std::time::Duration;

use gantry_domain::notification::{Address, Body, MessageId};
use gantry_domain::timestamp::Timestamp;
use gantry_ops::receiver::Receiver;
use gantry_ops::standard_webhooks;
use reqwest::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

use crate::guard::OutboundRefused;
use crate::http::{ClientError, Method, OutboundClient, OutboundError, Response, retry_after};

/// How long a server may take to answer.
const WITHIN: Duration = Duration::from_secs(15);

/// How much of an answer is read: enough to see what is wrong.
const MOST_READ: usize = 1024;

/// The most characters of an answer that are kept.
const LONGEST_TEXT: usize = 200;

/// Sends messages. Clones share connections.
#[derive(Debug, Clone)]
pub struct Webhooks {
    http: OutboundClient,
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The HTTP status, if the server answered.
    pub status: Option<u16>,
    /// The pause that the server asked for.
    pub retry_after: Option<Duration>,
    /// What it means, and the remedy. Does not name the address, even if the server repeats it.
    pub text: String,
}

impl Posted {
    /// Whether the server has the message.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the server wants no more messages.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status == Some(410)
    }
}

impl Webhooks {
    /// A sender with the policy of `http`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(http: &OutboundClient) -> Result<Self, ClientError> {
        Ok(Self { http: http.without_redirects()? })
    }

    /// Checks an address as far as that is possible without resolving its name.
    ///
    /// # Errors
    /// [`OutboundRefused`].
    pub fn check(&self, address: &Address) -> Result<(), OutboundRefused> {
        self.http.policy().check(address.as_url())
    }

    /// Posts a message, signed if the receiver has secrets. `now` is the time of this attempt. Not retried.
    pub async fn post(
        &self,
        receiver: &Receiver,
        id: &MessageId,
        body: Body,
        now: Timestamp,
    ) -> Posted {
        let (address, deadline) = (&receiver.address, Instant::now() + WITHIN);
        match timeout_at(deadline, self.send(receiver, id, body, now)).await {
            Ok(Ok(response)) => answer(address, response, deadline).await,
            Ok(Err(error)) => none(describe(&error)),
            Err(_) => none(format!("{} did not answer within {WITHIN:?}", address.origin())),
        }
    }

    async fn send(
        &self,
        receiver: &Receiver,
        id: &MessageId,
        body: Body,
        now: Timestamp,
    ) -> Result<Response, OutboundError> {
        let url = receiver.address.as_url().clone();
        let mut request = self.http.request(Method::POST, url)?;
        request = request.header(CONTENT_TYPE, body.content_type);
        if !receiver.secrets.is_empty() {
            let (secrets, text) = (&receiver.secrets, body.text.as_bytes());
            for (name, value) in standard_webhooks::headers(secrets, id.as_str(), now, text) {
                request = request.header(name, value);
            }
        }
        self.http.send(request.body(body.text)).await
    }
}

fn none(text: String) -> Posted {
    Posted { status: None, retry_after: None, text }
}

/// The error with its causes: the last one says what the network said.
fn describe(error: &OutboundError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        text.push_str(&format!(": {current}"));
        cause = current.source();
    }
    text
}

async fn answer(address: &Address, mut response: Response, deadline: Instant) -> Posted {
    let (status, pause) = (response.status(), retry_after(response.headers()));
    let mut read = Vec::new();
    if !status.is_success() {
        while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
            read.extend_from_slice(&chunk);
            if read.len() >= MOST_READ {
                break;
            }
        }
    }
    let said = excerpt(address, &String::from_utf8_lossy(&read));
    let origin = address.origin();
    let text = match status.as_u16() {
        200..=299 => format!("{origin} accepted it"),
        300..=399 => format!(
            "{origin} answered {status}: redirects are not followed, so give the notification the address that they lead to"
        ),
        410 => format!("{origin} answered {status}: it wants no more messages"),
        _ if said.is_empty() => format!("{origin} answered {status}"),
        _ => format!("{origin} answered {status}: {said}"),
    };
    Posted { status: Some(status.as_u16()), retry_after: pause, text }
}

/// The beginning of an answer as one line, without the parts of the address that are secret.
fn excerpt(address: &Address, text: &str) -> String {
    let url = address.as_url();
    let mut text = text.replace(url.as_str(), "***");
    let parts = [Some(url.path()), url.query(), url.password()];
    for secret in parts.into_iter().flatten().filter(|part| part.len() > 1) {
        text = text.replace(secret, "***");
    }
    for word in url.path().split('/').filter(|word| word.len() >= 8) {
        text = text.replace(word, "***");
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_the_address_loses_its_secret_parts() {
        let address = "https://u:pa55word@h.test/services/T0/s3cr3tpart?sig=s1g".parse().unwrap();
        for (said, expected) in [
            ("no_service", "no_service"),
            ("404 for https://u:pa55word@h.test/services/T0/s3cr3tpart?sig=s1g", "404 for ***"),
            ("404 for /services/T0/s3cr3tpart", "404 for ***"),
            ("team s3cr3tpart\n\u{1b}[1m", "team ***  [1m"),
            ("sig=s1g, pa55word", "***, ***"),
        ] {
            assert_eq!(excerpt(&address, said), expected);
        }
        assert_eq!(excerpt(&address, &"x".repeat(999)).len(), LONGEST_TEXT);
    }
}
