//! No address that a user or a foreign server names leads to a connection inside: a listener there verifies that not
//! even a connection is made.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry_domain::source::GitUrl;
use gantry_ops::secret::{Credentials, SecretString};
use gantry_remote::git::{Git, GitError, GitLimits, Remote, ResolvedRef};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::{OutboundClient, OutboundError};
use gantry_remote::registry::RegistryClient;
use http_body_util::Full;
use reqwest::Method;
use tokio::time::Instant;
use url::Url;

use crate::canary::{Canary, INSIDE, SPELLINGS, Said};
use crate::git_server::{Behaviour, GitServer};
use crate::registry::{scripted, status};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LIMITS: GitLimits =
    GitLimits { fetched_bytes: 64 << 20, checkout_bytes: 1 << 20, checkout_files: 100 };

/// In these tests 127.0.0.1 stands for foreign, public servers; all other local addresses are internal.
fn policy(entries: &[&str]) -> OutboundPolicy {
    OutboundPolicy::parse(entries.iter().copied()).unwrap()
}

fn http(policy: &OutboundPolicy) -> OutboundClient {
    OutboundClient::new(policy.clone()).unwrap()
}

fn git(policy: &OutboundPolicy) -> Git {
    Git::new(Arc::new(policy.clone()), LIMITS)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn get(client: &OutboundClient, url: &str) -> Result<u16, String> {
    let url = url.parse::<Url>().map_err(|error| error.to_string())?;
    let request = client.request(Method::GET, url).map_err(|refused| refused.to_string())?;
    match client.send(request).await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error @ OutboundError::Unreachable { .. }) => Err(format!("{error:?}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn look(policy: &OutboundPolicy, url: &str) -> Result<(), String> {
    let url: GitUrl = url.parse().map_err(|error| format!("{error}"))?;
    let remote = Remote { url: &url, credentials: None, host_keys: &[], deadline: soon() };
    match git(policy).resolve(remote, None).await {
        Ok(_) | Err(GitError::Empty { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn resolve(http: &OutboundClient, host: &str, image: &str) -> Result<(), String> {
    let host = host.parse().map_err(|error| format!("{error}"))?;
    let image = image.parse().map_err(|error| format!("{error}"))?;
    let client = RegistryClient::new(http.clone(), host, None);
    client.resolve(&image, soon()).await.map(drop).map_err(|error| error.to_string())
}

const REFUSALS: [&str; 3] = ["is not a public address", "no registry host", "no repository"];

#[tokio::test]
async fn an_address_inside_however_it_is_written_is_never_connected_to() {
    let canary = Canary::start();
    let policy = policy(&["127.0.0.1"]);
    let client = http(&policy);
    let pinned = format!("sha256:{}", "a".repeat(64));
    for spelling in SPELLINGS {
        let host = spelling.replace("{}", &canary.port().to_string());
        for scheme in ["https", "http", "HtTpS"] {
            let error = get(&client, &format!("{scheme}://{host}/x")).await.unwrap_err();
            assert!(error.contains("is not a public address"), "{host}: {error}");
            let error = look(&policy, &format!("{scheme}://{host}/x.git")).await.unwrap_err();
            assert!(error.contains("is not a public address"), "{host}: {error}");
        }
        // A base with a digest needs no request by gantry, but the engine would connect to its registry.
        for image in [format!("{host}/a:1"), format!("{host}/a@{pinned}")] {
            let error = resolve(&client, &host, &image).await.unwrap_err();
            assert!(REFUSALS.iter().any(|refusal| error.contains(refusal)), "{image}: {error}");
        }
    }
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn a_commit_full_or_abbreviated_is_not_fetched_from_an_address_inside() {
    let canary = Canary::start();
    let git = git(&policy(&["127.0.0.1"]));
    let folder = tempfile::TempDir::new().unwrap();
    let head = ResolvedRef::of_commit("1".repeat(40).parse().unwrap());
    let prefix = "1111111".parse().unwrap();
    for spelling in SPELLINGS {
        let host = spelling.replace("{}", &canary.port().to_string());
        let Ok(url) = format!("http://{host}/x.git").parse::<GitUrl>() else { continue };
        let remote = Remote { url: &url, credentials: None, host_keys: &[], deadline: soon() };
        for error in [
            git.fetch(remote, &head, &folder.path().join("mirror"), None).await.unwrap_err(),
            git.find_commit(remote, &prefix, folder.path()).await.unwrap_err(),
            git.prove(remote, &head.commit).await.unwrap_err(),
        ] {
            assert!(matches!(error, GitError::Outbound(_)), "{host}: {error}");
        }
    }
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn names_of_private_addresses_are_never_connected_to() {
    let canary = Canary::start();
    let port = canary.port();
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    for address in [INSIDE, metadata, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(168, 63, 129, 16)] {
        let policy = policy(&["127.0.0.1"]).with_names(Said::new([&[address]]));
        let client = http(&policy);
        for host in
            ["inside.test", "inside.test.", "INSIDE.test", "ınside.test", "[::1]", "localhost"]
        {
            let host = format!("{host}:{port}");
            for error in [
                get(&client, &format!("https://{host}/x")).await.unwrap_err(),
                look(&policy, &format!("https://{host}/x.git")).await.unwrap_err(),
            ] {
                assert!(error.contains("is not a public address"), "{host}: {error}");
            }
        }
        for image in
            ["inside.test/a:1".to_owned(), format!("inside.test/a@sha256:{}", "a".repeat(64))]
        {
            let error = resolve(&client, "inside.test", &image).await.unwrap_err();
            assert!(error.contains("is not a public address"), "{image}: {error}");
        }
    }
    assert!(canary.is_untouched());
}

/// Two listeners on one port: at the listed address and at one that is not listed.
async fn same_port() -> (tokio::net::TcpListener, Canary) {
    loop {
        let listed = tokio::net::TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listed.local_addr().unwrap().port();
        if let Ok(canary) = Canary::at((INSIDE, port).into()) {
            return (listed, canary);
        }
    }
}

#[tokio::test]
async fn what_was_checked_is_what_is_connected_to_whatever_the_name_means_a_moment_later() {
    let (listed, canary) = same_port().await;
    let port = listed.local_addr().unwrap().port();
    let came = Arc::new(Mutex::new(0));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while listed.accept().await.is_ok() {
            *count.lock().unwrap() += 1;
        }
    });
    // Only the test's resolver knows the name, so a second lookup elsewhere would find nothing.
    let network = policy(&["127.0.0.1/32"]);
    for (answers, refused_later) in [
        ([&[HERE][..], &[INSIDE]], true),
        ([&[INSIDE, HERE], &[INSIDE]], true),
        ([&[HERE], &[HERE, INSIDE]], false),
    ] {
        let before = *came.lock().unwrap();
        let names = Said::new(answers);
        let policy = network.clone().with_names(names.clone());
        let client = http(&policy);
        let url: Url = format!("https://turning.test:{port}/x").parse().unwrap();
        for later in [false, true] {
            let sent = client.send(client.request(Method::GET, url.clone()).unwrap()).await;
            let is_refused = matches!(sent.unwrap_err(), OutboundError::Refused(_));
            assert_eq!(is_refused, later && refused_later, "{answers:?}");
        }
        assert_eq!(names.asked(), 2);

        let names = Said::new(answers);
        let policy = network.clone().with_names(names.clone());
        let url = format!("https://turning.test:{port}/x.git");
        for later in [false, true] {
            let error = look(&policy, &url).await.unwrap_err();
            let is_refused = error.contains("is not a public address");
            assert_eq!(is_refused, later && refused_later, "{answers:?}: {error}");
        }
        assert_eq!(names.asked(), 2);
        let connections = *came.lock().unwrap() - before;
        assert!(connections >= if refused_later { 2 } else { 4 }, "{answers:?}: {connections}");
    }
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn redirects_to_private_addresses_and_other_schemes_are_refused() {
    let canary = Canary::start();
    let policy = policy(&["127.0.0.1"]);
    let client = http(&policy);
    let inside = SPELLINGS.iter().map(|it| it.replace("{}", &canary.port().to_string()));
    let mut targets: Vec<_> =
        inside.flat_map(|host| [format!("http://{host}/x"), format!("https://{host}/x")]).collect();
    targets.extend([
        format!("//127.0.0.2:{}/x", canary.port()),
        format!("\\\\127.0.0.2:{}/x", canary.port()),
    ]);
    targets.extend(
        ["file:///etc/passwd", "ftp://127.0.0.2/x", "gopher://127.0.0.2/x", "http+unix://%2Fx/y"]
            .map(str::to_owned),
    );
    targets.push("http://example.invalid/x".to_owned());
    let now = Arc::new(Mutex::new((301, String::new())));
    let answer = Arc::clone(&now);
    let host = scripted(move |_, _| {
        let (code, location) = answer.lock().unwrap().clone();
        let redirect = status(code).header(
            "location",
            hyper::header::HeaderValue::from_bytes(location.as_bytes()).unwrap(),
        );
        redirect.body(Full::default()).unwrap()
    })
    .await;
    let is_told = |error: &str| {
        ["is not a public address", "only http and https", "is not encrypted"]
            .iter()
            .any(|told| error.contains(told))
    };
    let mut refused = 0;
    for (n, (target, code)) in
        targets.iter().zip([301, 302, 303, 307, 308].iter().cycle()).enumerate()
    {
        *now.lock().unwrap() = (*code, target.clone());
        match get(&client, &format!("http://{host}/x")).await {
            // A target that is not a URL is not followed either; then the redirect itself is returned.
            Ok(answered) => assert_eq!(answered, *code, "{target}"),
            Err(error) => {
                assert!(is_told(&error), "{code} {target}: {error}");
                let error = resolve(&client, &host, &format!("{host}/a:1")).await.unwrap_err();
                assert!(is_told(&error), "{code} {target}: {error}");
                refused += 1;
            }
        }
        if n % 5 == 0 {
            let error = look(&policy, &format!("http://{host}/x.git")).await.unwrap_err();
            assert!(error.contains("has moved") || error.contains("failed: "), "{target}: {error}");
        }
    }
    assert!(refused > targets.len() * 3 / 4, "{refused} of {}", targets.len());
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn a_registry_cannot_send_credentials_or_questions_inside() {
    let canary = Canary::start();
    let policy = policy(&["127.0.0.1"]);
    let mut realms: Vec<_> = SPELLINGS
        .iter()
        .filter(|spelling| spelling.is_ascii())
        .flat_map(|it| ["http", "https"].map(|scheme| format!("{scheme}://{it}/token")))
        .map(|it| it.replace("{}", &canary.port().to_string()))
        .collect();
    realms.extend(
        ["file:///etc/passwd", "http://auth.invalid/token", "/token", ""].map(str::to_owned),
    );
    let now = Arc::new(Mutex::new(String::new()));
    let realm = Arc::clone(&now);
    let host = scripted(move |_, _| {
        let asked = format!("Bearer realm=\"{}\",service=\"reg\"", realm.lock().unwrap());
        status(401).header("www-authenticate", asked).body(Full::default()).unwrap()
    })
    .await;
    let credentials =
        Credentials { username: "ann".to_owned(), password: SecretString::from("pw") };
    let client = RegistryClient::new(http(&policy), host.parse().unwrap(), Some(credentials));
    let image = format!("{host}/a:1").parse().unwrap();
    for realm in realms {
        now.lock().unwrap().clone_from(&realm);
        let error = client.resolve(&image, soon()).await.unwrap_err();
        let told = error.to_string();
        let expected = match realm.as_str() {
            "" | "/token" => "its token service has no address",
            "file:///etc/passwd" => "only http and https are followed",
            plain if plain.starts_with("http:") => "is not encrypted: use https",
            _ => "is not a public address",
        };
        assert!(told.contains(expected), "{realm}: {told}");
        assert!(!error.is_transient(), "{realm}");
    }
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn a_huge_retry_after_does_not_panic() {
    for wait in ["18446744073709551615", "99999999999999999999", "-1", "1e9", "soon"] {
        let host = scripted(move |_, _| {
            status(429).header("retry-after", wait).body(Full::default()).unwrap()
        })
        .await;
        let client =
            RegistryClient::new(http(&policy(&["127.0.0.1"])), host.parse().unwrap(), None);
        let image = format!("{host}/a:1").parse().unwrap();
        let within = Instant::now() + Duration::from_millis(500);
        let error = client.resolve(&image, within).await.unwrap_err();
        assert!(error.is_transient(), "{wait}: {error}");
    }
}

/// The entry that a refusal suggests.
fn line_to_add(refusal: &str) -> String {
    let (_, rest) = refusal.split_once("add \"").unwrap_or_else(|| panic!("no line in: {refusal}"));
    let (entry, rest) = rest.split_once('"').unwrap();
    assert_eq!(rest, " to `outbound.allow`", "{refusal}");
    entry.to_owned()
}

#[tokio::test]
async fn the_line_that_a_refusal_prints_opens_what_was_refused() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    let port = server.address().port();
    let names = Said::new([&[HERE]]);
    for (listed, host) in [
        (vec![], "127.0.0.1".to_owned()),
        (vec![], "2130706433".to_owned()),
        (vec![], "app.test".to_owned()),
        (vec!["127.0.0.1:1"], "127.0.0.1".to_owned()),
        (vec!["app.test:1"], "app.test".to_owned()),
        (vec!["127.0.0.0/8"], "app.test".to_owned()),
        (vec!["other.test", "10.0.0.0/8"], "app.test".to_owned()),
    ] {
        let url = format!("http://{host}:{port}/app.git");
        let first = policy(&listed).with_names(names.clone());
        let refused = look(&first, &url).await.unwrap_err();
        assert_eq!(get(&http(&first), &url).await.unwrap_err(), refused);
        let line = line_to_add(&refused);
        let mut entries = listed.clone();
        entries.push(&line);
        let opened = policy(&entries).with_names(names.clone());
        look(&opened, &url).await.unwrap_or_else(|error| panic!("{line} does not do: {error}"));
        assert_eq!(
            get(&http(&opened), &format!("{url}/info/refs?service=git-upload-pack")).await,
            Ok(200)
        );
    }
}

#[tokio::test]
async fn a_listed_token_service_is_contacted() {
    let here = Arc::new(Mutex::new(String::new()));
    let address = Arc::clone(&here);
    let host = scripted(move |given, path| {
        if path.starts_with("/token") {
            return status(200).body(r#"{"token":"t"}"#.into()).unwrap();
        }
        if given == "Bearer t" {
            let found =
                status(200).header("docker-content-digest", format!("sha256:{}", "a".repeat(64)));
            return found.body(Full::default()).unwrap();
        }
        let realm = format!("Bearer realm=\"{}\"", address.lock().unwrap());
        status(401).header("www-authenticate", realm).body(Full::default()).unwrap()
    })
    .await;
    let port = host.rsplit_once(':').unwrap().1;
    *here.lock().unwrap() = format!("http://auth.test:{port}/token");
    let names = Said::new([&[HERE]]);
    let image = format!("{host}/a:1");
    let refused = resolve(&http(&policy(&["127.0.0.1"]).with_names(names.clone())), &host, &image)
        .await
        .unwrap_err();
    let line = line_to_add(&refused);
    let opened = policy(&["127.0.0.1", &line]).with_names(names);
    resolve(&http(&opened), &host, &image).await.unwrap();
}

/// Tells the child process, which is this test program, that it has proxies in its environment.
const PROXIED: &str = "GANTRY_TEST_PROXIED";

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let server = GitServer::start().await.unwrap();
    server.repository("app").unwrap().commit("main", &[("a", "1")]).unwrap();
    if std::env::var(PROXIED).is_ok() {
        let policy = policy(&["127.0.0.1"]);
        look(&policy, &server.url("app")).await.unwrap();
        let refs = format!("{}/info/refs?service=git-upload-pack", server.url("app"));
        assert_eq!(get(&http(&policy), &refs).await, Ok(200));
        return;
    }
    let canary = Canary::start();
    let proxy = format!("http://127.0.0.2:{}", canary.port());
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", "outbound::proxies_of_the_environment_are_not_used"])
        .env(PROXIED, "1");
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "GIT_PROXY_COMMAND",
    ] {
        program.env(name, &proxy);
    }
    let output = program.kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(canary.is_untouched());
}

#[tokio::test]
async fn redirecting_git_hosts_are_reported_as_moved() {
    let server = GitServer::start().await.unwrap();
    let canary = Canary::start();
    server.behave(Behaviour::RedirectTo(format!("http://127.0.0.2:{}", canary.port())));
    let error = look(&policy(&["127.0.0.1"]), &server.url("app")).await.unwrap_err();
    assert!(error.ends_with("has moved: give the address that it redirects to"), "{error}");
    assert!(canary.is_untouched());
}
