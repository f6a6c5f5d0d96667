//! The bodies of messages, as their receivers read them.

use serde_json::{Value, json};

use super::news::Image;
use super::{Format, MessageId, News, Notification, slack, teams};
use crate::timestamp::Timestamp;

/// A body to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Its content type.
    pub content_type: &'static str,
    /// The JSON.
    pub text: String,
}

impl Body {
    fn new(format: Format, value: &Value) -> Self {
        let content_type = match format {
            Format::CloudEvents => "application/cloudevents+json",
            Format::Standard | Format::Slack | Format::Teams => "application/json",
        };
        Self { content_type, text: value.to_string() }
    }

    /// A message that tells of no run, to try a notification. `installation` is the URL of the installation.
    #[must_use]
    pub fn test(
        notification: &Notification,
        id: &MessageId,
        installation: &str,
        now: Timestamp,
    ) -> Self {
        let (registry, name) = (&notification.registry, &notification.name);
        let text = format!("A test of notification {name} of registry {registry} in gantry");
        let data = json!({ "registry": registry, "notification": name });
        let value = match notification.format {
            Format::Standard => {
                json!({ "type": "test", "timestamp": now.to_string(), "data": data })
            }
            Format::CloudEvents => cloud_event(id, installation, "test", name.as_str(), now, &data),
            Format::Slack => slack::plain(&text),
            Format::Teams => teams::plain(&text),
        };
        Self::new(notification.format, &value)
    }
}

/// In the structured mode of HTTP.
fn cloud_event(
    id: &MessageId,
    installation: &str,
    kind: &str,
    subject: &str,
    at: Timestamp,
    data: &Value,
) -> Value {
    json!({
        "specversion": "1.0",
        "id": id.as_str(),
        "source": installation.trim_end_matches('/'),
        "type": format!("gantry.{kind}"),
        "subject": subject,
        "time": at.to_string(),
        "datacontenttype": "application/json",
        "data": data,
    })
}

impl News {
    /// The message in a format.
    #[must_use]
    pub fn body(&self, format: Format, id: &MessageId) -> Body {
        let kind = format!("run.{}", self.event);
        let value = match format {
            Format::Standard => {
                json!({ "type": kind, "timestamp": self.at.to_string(), "data": self.data() })
            }
            Format::CloudEvents => {
                let subject = self.run.to_string();
                cloud_event(id, &self.installation, &kind, &subject, self.at, &self.data())
            }
            Format::Slack => slack::message(self),
            Format::Teams => teams::message(self),
        };
        Body::new(format, &value)
    }

    fn data(&self) -> Value {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let failure = self.failure.as_ref().map(|failure| {
            json!({
                "code": failure.code,
                "step": failure.step,
                "exit_code": failure.exit_code,
                "message": failure.message,
            })
        });
        let images: Vec<Value> = self.images.iter().map(image).collect();
        json!({
            "run": self.run.to_string(),
            "status": self.event.status().as_str(),
            "registry": self.registry,
            "task": self.task,
            "cause": self.cause,
            "repository": self.repository,
            "commit": self.commit,
            "branch": self.branch,
            "pull_request": self.pull_request,
            "images": images,
            "created": time(Some(self.created)),
            "started": time(self.started),
            "finished": time(self.finished),
            "failure": failure,
            "url": self.link(),
        })
    }
}

/// An image; of an index with the image for each platform.
fn image(image: &Image) -> Value {
    let mut value = json!({ "image": image.name, "digest": image.digest });
    if !image.children.is_empty() {
        value["platforms"] = image
            .children
            .iter()
            .map(|child| json!({ "platform": child.platform, "digest": child.digest }))
            .collect();
    }
    value
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::notification::{Failure, Image, RunEvent};
    use crate::run::ErrorCode;

    /// A failed run, with texts that others have chosen.
    pub(crate) fn failed() -> News {
        News {
            event: RunEvent::Failed,
            at: Timestamp::from_millis(1_700_000_090_000),
            run: "ca1".parse().unwrap(),
            registry: "contoso".parse().unwrap(),
            task: Some("web".parse().unwrap()),
            cause: "push to <!channel>&*x* at aaaaaaa".to_owned(),
            repository: Some("github.com/octo/web".parse().unwrap()),
            commit: Some("a".repeat(40).parse().unwrap()),
            branch: Some("<!channel>&_x_(evil.test)".parse().unwrap()),
            pull_request: None,
            images: Vec::new(),
            created: Timestamp::from_millis(1_700_000_000_000),
            started: Some(Timestamp::from_millis(1_700_000_015_000)),
            finished: Some(Timestamp::from_millis(1_700_000_090_000)),
            failure: Some(Failure {
                code: ErrorCode::StepFailed,
                step: Some("test".parse().unwrap()),
                exit_code: Some(2),
                message: "exit code 2: see <http://evil.test|the log>".to_owned(),
            }),
            installation: "https://gantry.test".to_owned(),
        }
    }

    /// A successful run.
    pub(crate) fn succeeded() -> News {
        News {
            event: RunEvent::Succeeded,
            cause: "push to main at aaaaaaa".to_owned(),
            branch: Some("main".parse().unwrap()),
            images: vec![Image {
                name: "registry.test/web:ca1".to_owned(),
                digest: format!("sha256:{}", "b".repeat(64)),
                children: Vec::new(),
            }],
            failure: None,
            ..failed()
        }
    }

    pub(crate) fn text(news: &News, format: Format) -> String {
        let id = "msg_ca1_failed_0123456789abcdef0123456789abcdef".parse().unwrap();
        let body: Value = serde_json::from_str(&news.body(format, &id).text).unwrap();
        serde_json::to_string_pretty(&body).unwrap()
    }

    #[test]
    fn a_standard_webhook_has_type_timestamp_and_data() {
        insta::assert_snapshot!(text(&failed(), Format::Standard));
    }

    #[test]
    fn a_cloud_event_has_the_attributes_that_the_specification_requires() {
        insta::assert_snapshot!(text(&succeeded(), Format::CloudEvents));
    }
}
