//! What the tasks of a place need: pure.

use gantry_domain::code_host::HostKind;
use gantry_domain::hook::Provider;
use gantry_domain::id::RegistryName;
use gantry_domain::sealed::Sealed;
use gantry_domain::source::GitUrl;
use gantry_domain::task::Task;
use url::{Host, Url};

/// What the tasks that watch a repository need of its code host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// No task needs a webhook.
    Nothing,
    /// A task needs one.
    Webhook {
        registry: RegistryName,
        /// The address of the repository.
        url: GitUrl,
        /// The tokens of the tasks, each with the address that it was given for; `None` once for those without a token.
        tokens: Vec<(GitUrl, Option<Sealed>)>,
    },
}

impl Need {
    pub(super) fn of(tasks: &[Task]) -> Self {
        let needy = tasks.iter().filter(|task| task.needs_webhook());
        let mut needy = needy.filter_map(|task| Some((task, task.repository()?))).peekable();
        let Some((first, url)) = needy.peek() else { return Self::Nothing };
        let (registry, url) = (first.id.registry.clone(), (*url).clone());
        let mut tokens = Vec::new();
        for (task, url) in needy {
            let token = (url.clone(), task.token_for_api().cloned());
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        Self::Webhook { registry, url, tokens }
    }
}

/// The provider whose hook gantry makes, or why it makes none and what to do instead.
pub(super) fn provider(
    kind: Option<HostKind>,
    url: &GitUrl,
    public_url: &Url,
    is_wanted: bool,
) -> Result<Provider, String> {
    let by_hand = "make one by hand: `gantry hook create` says how";
    if !is_wanted {
        return Err(format!("the operator lets gantry make no webhooks: {by_hand}"));
    }
    let Some(kind) = kind else {
        return Err(format!("gantry knows no API of {}: {by_hand}", url.host()));
    };
    let Some(provider) = Provider::of_code_host(kind) else {
        return Err(format!(
            "gantry reads no webhooks of {}: let the trigger look for changes with `--poll`",
            kind.name()
        ));
    };
    if is_loopback(public_url) && !is_loopback(&url.web()) {
        return Err(format!(
            "{} cannot reach {public_url}: the operator sets `server.public_url` to an address that it can",
            url.host()
        ));
    }
    Ok(provider)
}

/// Whether only programs on the same machine reach it.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(kind: Option<HostKind>, url: &str, public_url: &str) -> Result<Provider, String> {
        provider(kind, &url.parse().unwrap(), &Url::parse(public_url).unwrap(), true)
    }

    const GITHUB: &str = "https://github.com/octo/web.git";

    #[test]
    fn a_webhook_is_made_where_its_address_can_be_reached() {
        let kind = Some(HostKind::GitHub);
        for (url, public_url, is_made) in [
            (GITHUB, "https://gantry.example", true),
            (GITHUB, "https://10.0.0.7:7300", true),
            (GITHUB, "http://127.0.0.1:7300", false),
            (GITHUB, "http://localhost:7300", false),
            (GITHUB, "http://[::1]:7300", false),
            ("http://127.0.0.1:3000/octo/web", "http://127.0.0.1:7300", true),
            ("http://localhost:3000/octo/web", "http://[::1]:7300", true),
        ] {
            let made = decide(kind, url, public_url);
            assert_eq!(made.is_ok(), is_made, "{url} {public_url}: {made:?}");
        }
        let told = decide(kind, GITHUB, "http://127.0.0.1:7300").unwrap_err();
        assert!(told.contains("`server.public_url`"), "{told}");
    }

    #[test]
    fn without_an_api_or_the_operator_s_leave_a_person_makes_the_webhook() {
        let told = decide(None, GITHUB, "https://gantry.example").unwrap_err();
        assert_eq!(
            told,
            "gantry knows no API of github.com: make one by hand: `gantry hook create` says how"
        );
        let public_url = Url::parse("https://gantry.example").unwrap();
        let url = GITHUB.parse().unwrap();
        let told = provider(Some(HostKind::GitHub), &url, &public_url, false).unwrap_err();
        assert!(told.starts_with("the operator lets gantry make no webhooks"), "{told}");
    }
}
