//! Which host gets a request, and its token.

use gantry_remote::code_host::{CodeHostFailure, ProviderApi as _};
use gantry_tests::hosts::code_hosts;
use gantry_tests::hosts::github::{GitHubServer, TOKEN};

use crate::Access;

#[tokio::test]
async fn an_unknown_host_has_no_api_and_the_error_names_the_setting() {
    let hosts = code_hosts(&[]);
    let access = Access::new("https://git.example.com/octo/web.git", TOKEN);
    let error = hosts.pull_request(access.at(), 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "gantry does not know the API of git.example.com: ask the operator to add `git.example.com=KIND` to the setting \
         `code_hosts.apis`, if it is one of github, azure-devops, gitlab, gitea and bitbucket"
    );
    assert_eq!(error.kind, CodeHostFailure::NoApi);
}

#[tokio::test]
async fn an_address_that_is_no_repository_of_its_host_is_not_sent() {
    let server = GitHubServer::start().await.unwrap();
    let hosts = code_hosts(&[server.entry()]);
    let url = format!("http://{}/octo", server.server().host());
    let error = hosts.pull_request(Access::new(&url, TOKEN).at(), 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{url} is no repository of GitHub: its address is `https://HOST/OWNER/REPOSITORY`")
    );
    assert_eq!(error.kind, CodeHostFailure::NoApi);
    assert!(server.server().asked().is_empty());
}

#[tokio::test]
async fn a_configured_api_is_used_instead_of_the_default_one() {
    let server = GitHubServer::start().await.unwrap();
    let entry = format!("git.example.com=github@http://{}/api/v3", server.server().host());
    let access = Access::new("https://git.example.com/octo/web.git", TOKEN);
    assert!(code_hosts(&[entry]).pull_request(access.at(), 1).await.unwrap().is_none());
    assert_eq!(server.server().asked().len(), 2);
}

#[tokio::test]
async fn the_guard_holds_for_apis() {
    let entry = "git.example.com=github@https://127.0.0.2/api/v3".to_owned();
    let access = Access::new("https://git.example.com/octo/web.git", TOKEN);
    let error = code_hosts(&[entry]).pull_request(access.at(), 1).await.unwrap_err();
    assert!(error.to_string().contains("`outbound.allow`"), "{error}");
    assert_eq!(error.kind, CodeHostFailure::Permanent);
}
