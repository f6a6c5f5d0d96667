//! Azure DevOps's service hooks: one subscription for each type of event.

use gantry_ops::secret::ExposeSecret as _;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::AzureDevOps;
use crate::code_host::CodeHostError;
use crate::code_host::client::{Operation, RepositoryClient};
use crate::code_host::hooks::{
    FoundHook, MOST_DELIVERIES, SentDeliveries, SentDelivery, USER, WantedHook,
};

/// The types of events, each of which needs a subscription.
pub(super) const EVENT_TYPES: &[&str] =
    &["git.push", "git.pullrequest.created", "git.pullrequest.updated", "git.pullrequest.merged"];

/// The words of a repository's address after the collection: `PROJECT/_apis/git/repositories/REPOSITORY`.
const WORDS_OF_REPOSITORY: usize = 5;

#[derive(Deserialize)]
struct Repository {
    id: String,
    project: Project,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

#[derive(Deserialize)]
struct List<T> {
    value: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    id: String,
    event_type: String,
    /// `enabled`, `onProbation`, `disabledByUser`, `disabledBySystem` or `disabledByInactiveIdentity`.
    status: String,
    #[serde(default)]
    consumer_inputs: FoundInputs,
}

#[derive(Deserialize, Default)]
struct FoundInputs {
    #[serde(default)]
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    id: u64,
    #[serde(default)]
    event_id: Option<String>,
    created_date: String,
    /// `pending`, `succeeded`, `failed` or `filtered`.
    result: String,
    #[serde(default)]
    details: NotificationDetails,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct NotificationDetails {
    #[serde(default)]
    event_type: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSubscription<'a> {
    publisher_id: &'static str,
    event_type: &'a str,
    resource_version: &'static str,
    consumer_id: &'static str,
    consumer_action_id: &'static str,
    /// Enables what was disabled.
    status: &'static str,
    publisher_inputs: PublisherInputs,
    consumer_inputs: ConsumerInputs<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherInputs {
    project_id: String,
    repository: String,
    /// All branches.
    branch: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerInputs<'a> {
    url: &'a str,
    basic_auth_username: &'static str,
    basic_auth_password: &'a str,
    resource_details_to_send: &'static str,
    messages_to_send: &'static str,
    detailed_messages_to_send: &'static str,
}

impl AzureDevOps<'_> {
    pub(super) async fn subscriptions(&self, url: &Url) -> Result<Vec<FoundHook>, CodeHostError> {
        let query = [("publisherId", "tfs"), ("consumerId", "webHooks")];
        let found: List<Subscription> = self
            .service_hooks()
            .read_own(Operation::ManageHooks, &["subscriptions"], &query)
            .await?;
        let ours =
            |found: &Subscription| found.consumer_inputs.url.as_deref() == Some(url.as_str());
        Ok(found.value.into_iter().filter(ours).map(Subscription::into_found).collect())
    }

    pub(super) async fn subscribe(
        &self,
        event_type: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        self.write_subscription(Method::POST, &["subscriptions"], event_type, wanted).await
    }

    pub(super) async fn renew_subscription(
        &self,
        id: &str,
        event_type: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        self.write_subscription(Method::PUT, &["subscriptions", id], event_type, wanted).await
    }

    pub(super) async fn unsubscribe(&self, id: &str) -> Result<(), CodeHostError> {
        self.service_hooks().delete(Operation::ManageHooks, &["subscriptions", id]).await
    }

    pub(super) async fn notifications(&self, id: &str) -> Result<SentDeliveries, CodeHostError> {
        let most = MOST_DELIVERIES.to_string();
        let words = ["subscriptions", id, "notifications"];
        let query = [("maxResults", most.as_str())];
        let found: List<Notification> =
            self.service_hooks().read_own(Operation::ManageHooks, &words, &query).await?;
        let mut sent: Vec<SentDelivery> =
            found.value.into_iter().map(Notification::into_sent).collect();
        sent.sort_by(|one, other| other.at.cmp(&one.at));
        Ok(SentDeliveries::Listed(sent))
    }

    async fn write_subscription(
        &self,
        method: Method,
        words: &[&str],
        event_type: &str,
        wanted: &WantedHook<'_>,
    ) -> Result<(), CodeHostError> {
        // Names are refused in inputs.
        let repository: Repository = self.0.read_own(Operation::ReadRepository, &[], &[]).await?;
        let subscription = NewSubscription {
            publisher_id: "tfs",
            event_type,
            resource_version: "1.0",
            consumer_id: "webHooks",
            consumer_action_id: "httpRequest",
            status: "enabled",
            publisher_inputs: PublisherInputs {
                project_id: repository.project.id,
                repository: repository.id,
                branch: "",
            },
            consumer_inputs: ConsumerInputs {
                url: wanted.url.as_str(),
                basic_auth_username: USER,
                basic_auth_password: wanted.secret.expose_secret(),
                resource_details_to_send: "all",
                messages_to_send: "none",
                detailed_messages_to_send: "none",
            },
        };
        self.service_hooks().write(Operation::ManageHooks, method, words, &subscription).await
    }

    /// The service hooks of the collection.
    fn service_hooks(&self) -> RepositoryClient<'_> {
        let mut base = self.0.base.clone();
        if let Ok(mut path) = base.path_segments_mut() {
            for _ in 0..WORDS_OF_REPOSITORY {
                path.pop();
            }
            path.extend(["_apis", "hooks"]);
        }
        self.0.with_base(base)
    }
}

impl Subscription {
    fn into_found(self) -> FoundHook {
        let is_enabled = matches!(self.status.as_str(), "enabled" | "onProbation");
        FoundHook {
            id: self.id,
            events: vec![self.event_type],
            content_type: None,
            faults: if is_enabled { Vec::new() } else { vec![format!("is {}", self.status)] },
        }
    }
}

impl Notification {
    fn into_sent(self) -> SentDelivery {
        let outcome = match self.details.error_message.filter(|error| !error.is_empty()) {
            Some(error) => format!("{}: {error}", self.result),
            None => self.result.clone(),
        };
        SentDelivery {
            id: self.id.to_string(),
            delivery: self.event_id,
            at: self.created_date,
            event: self.details.event_type.unwrap_or_default(),
            outcome,
            is_accepted: self.result == "succeeded",
        }
    }
}
