use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::{OutboundClient, OutboundError, read_body};
use reqwest::Method;

use crate::git_server::{Behaviour, GitServer};

fn client(allow: &[&str]) -> OutboundClient {
    OutboundClient::new(OutboundPolicy::parse(allow.iter().copied()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_redirect_is_checked_like_the_first_address() {
    let (first, second) = (GitServer::start().await.unwrap(), GitServer::start().await.unwrap());
    first.behave(Behaviour::RedirectTo(format!("http://{}", second.address())));
    let url: url::Url = format!("http://{}/x", first.address()).parse().unwrap();

    let both = client(&["127.0.0.1"]);
    let answer = both.send(both.request(Method::GET, url.clone()).unwrap()).await.unwrap();
    assert_eq!(answer.url().port(), Some(second.address().port()));

    let one = client(&[&first.address().to_string()]);
    let error = one.send(one.request(Method::GET, url.clone()).unwrap()).await.unwrap_err();
    assert!(matches!(error, OutboundError::Refused(_)), "{error}");
    assert_eq!(second.requests().len(), 1);

    // A host name is resolved, and its address checked, only when the redirect is followed.
    first.behave(Behaviour::RedirectTo(format!("http://localhost:{}", second.address().port())));
    let error = one.send(one.request(Method::GET, url).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("add \"http://localhost\" to `outbound.allow`"), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let client = client(&["127.0.0.1"]);
    let url: url::Url =
        format!("{}/info/refs?service=git-upload-pack", server.url("app")).parse().unwrap();
    let get =
        async || client.send(client.request(Method::GET, url.clone()).unwrap()).await.unwrap();
    let whole = read_body(get().await, 1 << 20).await.unwrap();
    assert!(!whole.is_empty());
    let error = read_body(get().await, whole.len() as u64 - 1).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooLarge { .. }), "{error}");
}
