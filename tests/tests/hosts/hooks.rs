//! The webhooks that gantry makes at each provider.

use gantry_ops::secret::SecretString;
use gantry_remote::code_host::{
    CodeHostFailure, CodeHosts, FoundHook, ProviderApi as _, SentDeliveries, SentDelivery,
    WantedHook,
};
use gantry_tests::hosts::azure_devops::{self, AzureDevOpsServer};
use gantry_tests::hosts::bitbucket::{self, BitbucketServer};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::gitea::{self, GiteaServer};
use gantry_tests::hosts::github::{self, GitHubServer};
use gantry_tests::hosts::gitlab::{self, GitLabServer};
use reqwest::Url;
use serde_json::{Value, json};

use crate::Access;

const SECRET: &str = "CanaryOfTheHook0123456789";

/// A provider with its hooks, as it stores them.
enum Server {
    GitHub(GitHubServer),
    Azure(AzureDevOpsServer),
    GitLab(GitLabServer),
    Gitea(GiteaServer),
    Bitbucket(BitbucketServer),
}

struct Provider {
    server: Server,
    hosts: CodeHosts,
    access: Access,
}

impl Provider {
    async fn all() -> Vec<Self> {
        let github = GitHubServer::start().await.unwrap();
        let azure = AzureDevOpsServer::start().await.unwrap();
        let gitlab = GitLabServer::start().await.unwrap();
        let gitea = GiteaServer::start().await.unwrap();
        let bitbucket = BitbucketServer::start().await.unwrap();
        let of = |server, entry, url: String, token| {
            let (hosts, access) = (code_hosts(&[entry]), Access::new(&url, token));
            Self { server, hosts, access }
        };
        let (entry, url) = (github.entry(), github.url());
        let github = of(Server::GitHub(github), entry, url, github::TOKEN);
        let (entry, url) = (azure.entry(), azure.url());
        let azure = of(Server::Azure(azure), entry, url, azure_devops::TOKEN);
        let (entry, url) = (gitlab.entry(), gitlab.url());
        let gitlab = of(Server::GitLab(gitlab), entry, url, gitlab::TOKEN);
        let (entry, url) = (gitea.entry(), gitea.url());
        let gitea = of(Server::Gitea(gitea), entry, url, gitea::TOKEN);
        let (entry, url) = (bitbucket.entry(), bitbucket.url());
        let bitbucket = of(Server::Bitbucket(bitbucket), entry, url, bitbucket::TOKEN);
        vec![github, azure, gitlab, gitea, bitbucket]
    }

    async fn ensure(&self, url: &Url, secret: &str) -> Vec<FoundHook> {
        let secret = SecretString::from(secret);
        let wanted = WantedHook { url, secret: &secret };
        self.hosts.ensure_hook(self.access.at(), &wanted).await.unwrap()
    }

    /// Does something with the hooks that it stores.
    fn stored<T>(&self, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        match &self.server {
            Server::GitHub(server) => change(&mut server.state().hooks.all),
            Server::Azure(server) => change(&mut server.state().subscriptions.all),
            Server::GitLab(server) => change(&mut server.state().hooks.all),
            Server::Gitea(server) => change(&mut server.state().hooks.all),
            Server::Bitbucket(server) => change(&mut server.state().hooks.all),
        }
    }

    /// The hooks that a working installation needs.
    fn needed(&self) -> usize {
        if matches!(self.server, Server::Azure(_)) { 4 } else { 1 }
    }
}

fn url(id: &str) -> Url {
    Url::parse(&format!("https://gantry.example/hooks/any/{id}")).unwrap()
}

#[tokio::test]
async fn a_missing_hook_is_made_with_its_secret_and_a_second_call_makes_no_other() {
    for provider in Provider::all().await {
        for secret in [SECRET, SECRET, "CanaryOfAnotherHook0123456789"] {
            let made = provider.ensure(&url("h1"), secret).await;
            assert_eq!(made.len(), provider.needed());
            assert!(made.iter().all(|hook| hook.faults.is_empty()), "{made:?}");
            let found = provider.hosts.find_hooks(provider.access.at(), &url("h1")).await.unwrap();
            assert_eq!(found, made);
            let stored = provider.stored(|hooks| hooks.clone());
            assert_eq!(stored.len(), provider.needed());
            assert!(stored.iter().all(|hook| hook.to_string().contains(secret)), "{stored:?}");
        }
    }
}

#[tokio::test]
async fn hooks_with_another_address_are_left_alone() {
    for provider in Provider::all().await {
        provider.ensure(&url("h1"), SECRET).await;
        provider.ensure(&url("h2"), SECRET).await;
        provider.hosts.remove_hook(provider.access.at(), &url("h1")).await.unwrap();
        provider.hosts.remove_hook(provider.access.at(), &url("h1")).await.unwrap();
        let stored = provider.stored(|hooks| hooks.clone());
        assert_eq!(stored.len(), provider.needed());
        assert!(stored.iter().all(|hook| hook.to_string().contains("/h2")), "{stored:?}");
    }
}

/// Disables a hook, as its provider or its owner does.
fn disable(provider: &Provider) {
    let (name, value) = match &provider.server {
        Server::Azure(_) => ("status", json!("disabledBySystem")),
        Server::GitLab(_) => ("alert_status", json!("disabled")),
        Server::GitHub(_) | Server::Gitea(_) | Server::Bitbucket(_) => ("active", json!(false)),
    };
    provider.stored(|hooks| hooks[0][name] = value);
}

#[tokio::test]
async fn a_disabled_hook_is_seen_and_then_repaired_or_replaced() {
    for provider in Provider::all().await {
        for stays_disabled in [false, true] {
            if let Server::Azure(server) = &provider.server {
                server.state().stays_disabled = stays_disabled;
            }
            provider.ensure(&url("h1"), SECRET).await;
            disable(&provider);
            let found = provider.hosts.find_hooks(provider.access.at(), &url("h1")).await.unwrap();
            assert_eq!(found.iter().filter(|hook| !hook.faults.is_empty()).count(), 1, "{found:?}");
            let made = provider.ensure(&url("h1"), SECRET).await;
            assert!(made.iter().all(|hook| hook.faults.is_empty()), "{made:?}");
            assert_eq!(provider.stored(|hooks| hooks.len()), provider.needed());
        }
    }
}

#[tokio::test]
async fn a_hook_that_is_there_twice_is_removed_once() {
    for provider in Provider::all().await {
        provider.ensure(&url("h1"), SECRET).await;
        provider.stored(|hooks| {
            let mut second = hooks[0].clone();
            if second["uuid"].is_string() {
                second["uuid"] = "{hook-99}".into();
            } else if second["id"].is_number() {
                second["id"] = 99.into();
            } else {
                second["id"] = "s-99".into();
            }
            hooks.push(second);
        });
        let made = provider.ensure(&url("h1"), SECRET).await;
        assert_eq!(made.len(), provider.needed());
        assert_eq!(provider.stored(|hooks| hooks.len()), provider.needed());
    }
}

#[tokio::test]
async fn what_a_hook_lacks_is_named() {
    let all = Provider::all().await;
    let [github, _, _, gitea, _] = all.as_slice() else { panic!("five") };
    for provider in [github, gitea] {
        provider.ensure(&url("h1"), SECRET).await;
        provider.stored(|hooks| {
            hooks[0]["config"]["content_type"] = "form".into();
            hooks[0]["events"] = json!(["push"]);
        });
        let found = provider.hosts.find_hooks(provider.access.at(), &url("h1")).await.unwrap();
        assert_eq!(found[0].faults[0], "sends forms instead of JSON");
        assert!(found[0].faults[1].starts_with("does not send pull_request"), "{found:?}");
        assert!(provider.ensure(&url("h1"), SECRET).await[0].faults.is_empty());
    }
}

#[tokio::test]
async fn a_token_without_the_right_is_told_its_scope() {
    let server = GitHubServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), github::READER));
    let error = hosts.find_hooks(access.at(), &url("h1")).await.unwrap_err();
    let told = "to manage webhooks, it needs the permission \"Webhooks: read and write\"";
    assert!(error.to_string().contains(told), "{error}");
    assert_eq!(error.kind, CodeHostFailure::RefusedToken);
}

#[tokio::test]
async fn a_refused_hook_says_what_to_do() {
    let server = GitHubServer::start().await.unwrap();
    let (hosts, access) =
        (code_hosts(&[server.entry()]), Access::new(&server.url(), github::TOKEN));
    for (message, told, is_transient) in [
        ("The \"push\" event cannot have more than 20 hooks", "has 20 webhooks", false),
        (
            "url is not supported because it isn't reachable over the public Internet",
            "`server.public_url`",
            false,
        ),
        ("Hook already exists on this repository", "looked for again", true),
        ("Validation Failed", "(422)", false),
    ] {
        server.server().fail(move |asked| {
            let is_list = asked.method == "GET";
            let (status, body) = match is_list {
                true => (200, json!([])),
                false => (422, json!({"message": message})),
            };
            Some(gantry_tests::hosts::server::json(status, &body))
        });
        let (url, secret) = (url("h1"), SecretString::from(SECRET));
        let wanted = WantedHook { url: &url, secret: &secret };
        let error = hosts.ensure_hook(access.at(), &wanted).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.is_transient(), is_transient, "{error}");
    }
}

async fn sent(provider: &Provider, hook: &FoundHook) -> Vec<SentDelivery> {
    let access = provider.access.at();
    match provider.hosts.sent_deliveries(access, hook).await.unwrap() {
        SentDeliveries::Listed(sent) => sent,
        SentDeliveries::NotListed => panic!("they are listed"),
    }
}

#[tokio::test]
async fn deliveries_are_listed_with_the_id_that_gantry_got_and_sent_again_where_that_is_possible() {
    for provider in Provider::all().await {
        let made = provider.ensure(&url("h1"), SECRET).await;
        let (hook, access) = (&made[0], provider.access.at());
        match &provider.server {
            Server::GitHub(server) => {
                let failed = json!({"id": 7, "guid": "g-7", "status": "Service Unavailable", "status_code": 503, "event": "push"});
                let unreached = json!({"id": 8, "guid": "g-8", "status": "failed to connect to host", "status_code": 0, "event": "push"});
                server.state().deliveries.insert(hook.id.parse().unwrap(), vec![failed, unreached]);
                let sent = sent(&provider, hook).await;
                assert_eq!(sent[0].delivery.as_deref(), Some("g-7"));
                assert_eq!(
                    (sent[0].outcome.as_str(), sent[0].is_accepted),
                    ("503 Service Unavailable", false)
                );
                assert_eq!(sent[1].outcome, "failed to connect to host");
                provider.hosts.redeliver(access, hook, &sent[0]).await.unwrap();
                assert_eq!(server.state().redelivered, [(hook.id.clone(), "7".to_owned())]);
            }
            Server::Azure(server) => {
                let failed = json!({
                    "id": 7, "eventId": "e-7", "createdDate": "2026-01-05T10:00:00Z", "result": "failed",
                    "status": "completed", "details": {"eventType": "git.push", "errorMessage": "503 (Service Unavailable)"},
                });
                server.state().notifications.insert(hook.id.clone(), vec![failed]);
                let sent = sent(&provider, hook).await;
                assert_eq!(sent[0].delivery.as_deref(), Some("e-7"));
                assert_eq!(sent[0].outcome, "failed: 503 (Service Unavailable)");
                let error = provider.hosts.redeliver(access, hook, &sent[0]).await.unwrap_err();
                assert!(error.to_string().contains("push again"), "{error}");
            }
            Server::GitLab(server) => {
                let failed = json!({
                    "id": 7, "trigger": "push_hooks", "created_at": "2026-01-05T10:00:00Z",
                    "response_status": "503", "request_headers": {"Idempotency-Key": "i-7"},
                });
                server.state().events.insert(hook.id.clone(), vec![failed]);
                let sent = sent(&provider, hook).await;
                assert_eq!(sent[0].delivery.as_deref(), Some("i-7"));
                assert!(!sent[0].is_accepted);
                provider.hosts.redeliver(access, hook, &sent[0]).await.unwrap();
                assert_eq!(server.state().resent, [(hook.id.clone(), "7".to_owned())]);
            }
            Server::Gitea(_) | Server::Bitbucket(_) => {
                let listed = provider.hosts.sent_deliveries(access, hook).await.unwrap();
                assert_eq!(listed, SentDeliveries::NotListed);
            }
        }
    }
}
