//! The webhooks that gantry makes at a provider.
//!
//! In: the address of a hook of gantry, which nothing else has. Out: hooks of the provider that send to it. Every operation
//! first looks for hooks with this address, so that a repeated one finds what an interrupted one has made.

use std::collections::BTreeMap;

use gantry_ops::secret::SecretString;
use url::Url;

use super::provider::RepositoryApi;
use super::{CodeHostError, CodeHostFailure};

/// The user in the proof of hooks that send a user and a password.
pub(super) const USER: &str = "gantry";

/// How many deliveries are listed.
pub(super) const MOST_DELIVERIES: usize = 50;

/// A webhook that a provider should have.
#[derive(Clone, Copy)]
pub struct WantedHook<'a> {
    /// Where it sends.
    pub url: &'a Url,
    /// What it signs with, or sends along.
    pub secret: &'a SecretString,
}

/// A webhook that a provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHook {
    /// The provider's id of it.
    pub id: String,
    /// What it sends, in the provider's words.
    pub events: Vec<String>,
    /// The content type of its bodies, if the provider lets its users choose.
    pub content_type: Option<String>,
    /// What keeps it from sending what gantry needs; empty if nothing does.
    pub faults: Vec<String>,
}

/// What a provider remembers of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentDelivery {
    /// The provider's id of this attempt.
    pub id: String,
    /// The id that the receiver got; `None` if the provider does not tell.
    pub delivery: Option<String>,
    /// When it was sent, as the provider writes it.
    pub at: String,
    /// Its type.
    pub event: String,
    /// What came of it, in the provider's words.
    pub outcome: String,
    /// Whether the receiver answered 2xx.
    pub is_accepted: bool,
}

/// What a provider remembers of a hook's deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentDeliveries {
    /// The last ones, newest first.
    Listed(Vec<SentDelivery>),
    /// Its API does not list them.
    NotListed,
}

/// A delivery that the receiver has not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unaccepted<'a> {
    /// Its last attempt.
    pub newest: &'a SentDelivery,
    /// How often it was sent.
    pub attempts: usize,
}

/// The deliveries of which no attempt was accepted, by the ids that the receiver got. `sent` has the newest first.
#[must_use]
pub fn unaccepted(sent: &[SentDelivery]) -> BTreeMap<&str, Unaccepted<'_>> {
    let mut lost: BTreeMap<&str, Unaccepted<'_>> = BTreeMap::new();
    for newest in sent {
        let Some(delivery) = newest.delivery.as_deref() else { continue };
        lost.entry(delivery).or_insert(Unaccepted { newest, attempts: 0 }).attempts += 1;
    }
    for accepted in sent.iter().filter(|sent| sent.is_accepted) {
        lost.remove(accepted.delivery.as_deref().unwrap_or_default());
    }
    lost
}

/// Makes what is missing, repairs what is wrong, and removes what is there twice. A provider may need several hooks, one
/// for each kind of event. Returns them.
pub(super) async fn ensure(
    api: &dyn RepositoryApi,
    wanted: &WantedHook<'_>,
) -> Result<Vec<FoundHook>, CodeHostError> {
    let mut found = api.hooks(wanted.url).await?;
    for part in api.hook_parts() {
        let mut same = found.extract_if(.., |hook| hook.is_part(part));
        match same.next() {
            // Also if nothing is wrong with it: no provider tells which secret it has.
            Some(hook) => api.update_hook(&hook.id, part, wanted).await?,
            None => api.create_hook(part, wanted).await?,
        }
        for twice in same {
            api.delete_hook(&twice.id).await?;
        }
    }
    // What a provider has disabled stays so in spite of an update, at some of them.
    let mut is_replaced = false;
    for hook in api.hooks(wanted.url).await? {
        if hook.faults.is_empty() {
            continue;
        }
        api.delete_hook(&hook.id).await?;
        if let Some(part) = api.hook_parts().iter().find(|part| hook.is_part(part)) {
            api.create_hook(part, wanted).await?;
        }
        is_replaced = true;
    }
    found = api.hooks(wanted.url).await?;
    let fault = found.iter().find_map(|hook| Some((&hook.id, hook.faults.first()?)));
    match fault {
        Some((id, fault)) if is_replaced => {
            let message = format!("webhook {id} was made anew, and still {fault}");
            Err(CodeHostError { message, kind: CodeHostFailure::Transient { retry_after: None } })
        }
        Some(_) | None => Ok(found),
    }
}

/// Removes every hook that sends to `url`.
pub(super) async fn remove(api: &dyn RepositoryApi, url: &Url) -> Result<(), CodeHostError> {
    for hook in api.hooks(url).await? {
        api.delete_hook(&hook.id).await?;
    }
    Ok(())
}

impl FoundHook {
    /// Whether it is the hook for a kind of event; a part without a name is the only one.
    fn is_part(&self, part: &str) -> bool {
        part.is_empty() || self.events.iter().any(|event| event == part)
    }
}

/// The fault that events are missing.
pub(super) fn missing_events(has: &[String], needed: &[&str]) -> Option<String> {
    let missing: Vec<&str> =
        needed.iter().copied().filter(|event| !has.iter().any(|has| has == event)).collect();
    (!missing.is_empty()).then(|| format!("does not send {}", missing.join(", ")))
}

/// The error of a provider whose API has no way to send a delivery again.
pub(super) fn cannot_redeliver(provider: &str) -> CodeHostError {
    let message = format!(
        "{provider} sends no delivery again: push again, or start the task with `gantry task run`"
    );
    CodeHostError { message, kind: CodeHostFailure::Permanent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(delivery: Option<&str>, id: &str, is_accepted: bool) -> SentDelivery {
        SentDelivery {
            id: id.to_owned(),
            delivery: delivery.map(str::to_owned),
            at: String::new(),
            event: "push".to_owned(),
            outcome: String::new(),
            is_accepted,
        }
    }

    #[test]
    fn what_any_attempt_brought_is_not_lost() {
        let all = [
            sent(Some("once"), "5", false),
            sent(Some("twice"), "4", false),
            sent(Some("late"), "3", true),
            sent(Some("twice"), "2", false),
            sent(Some("late"), "1", false),
            sent(None, "0", false),
        ];
        let lost: Vec<_> = unaccepted(&all)
            .into_iter()
            .map(|(delivery, lost)| (delivery, lost.newest.id.as_str(), lost.attempts))
            .collect();
        assert_eq!(lost, [("once", "5", 1), ("twice", "4", 2)]);
    }
}
