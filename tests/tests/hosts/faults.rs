//! What every client does when its host refuses, fails, is slow or answers nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_domain::report::ReportState;
use gantry_remote::code_host::{
    CodeHostError, CodeHostFailure, CodeHosts, ProviderApi as _, WantedHook,
};
use gantry_tests::hosts::server::json as answer;
use gantry_tests::hosts::{Answer, Asked, HostServer, code_hosts};
use hyper::Response;
use reqwest::Url;
use serde_json::json;

use crate::{A, Access, B, RUN, report};

const TOKEN: &str = "CanaryOfTheToken0123456789";

const TOKEN_OF_HOOK: &str = "CanaryOfTheHook0123456789";

/// Where a hook sends.
fn hook() -> Url {
    Url::parse("https://gantry.example/hooks/github/h1").unwrap()
}

/// Each kind of host, and the path of a repository there.
const KINDS: [(&str, &str); 5] = [
    ("github", "/octo/web.git"),
    ("azure-devops", "/Collection/project/_git/web"),
    ("gitlab", "/group/web.git"),
    ("gitea", "/octo/web.git"),
    ("bitbucket", "/octo/web.git"),
];

/// A failed operation.
struct Failed {
    /// The kind of host, and the operation.
    what: String,
    error: CodeHostError,
}

/// A repository at a host of each kind, whose server answers everything with `fault`.
struct Failing {
    kind: &'static str,
    path: &'static str,
    server: HostServer,
}

impl Failing {
    async fn each(
        fault: impl Fn(&Asked) -> Option<Answer> + Clone + Send + Sync + 'static,
    ) -> Vec<Self> {
        let mut each = Vec::new();
        for (kind, path) in KINDS {
            let server = HostServer::start(|_| answer(500, &json!({}))).await.unwrap();
            server.fail(fault.clone());
            each.push(Self { kind, path, server });
        }
        each
    }

    fn hosts(&self) -> CodeHosts {
        code_hosts(&[format!("{}={}", self.server.host(), self.kind)])
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.server.host(), self.path)
    }

    async fn read(&self, access: &Access) -> Vec<Failed> {
        let (hosts, at) = (self.hosts(), access.at());
        let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
        let failed =
            |operation, error| Failed { what: format!("{} {operation}", self.kind), error };
        vec![
            failed("pull_request", hosts.pull_request(at, 1).await.unwrap_err()),
            failed("open_pull_requests", hosts.open_pull_requests(at).await.unwrap_err()),
            failed("changed_files", hosts.changed_files(at, &a, &b).await.unwrap_err()),
            failed("pull_request_files", hosts.pull_request_files(at, 1).await.unwrap_err()),
            failed("find_hooks", hosts.find_hooks(at, &hook()).await.unwrap_err()),
            failed("remove_hook", hosts.remove_hook(at, &hook()).await.unwrap_err()),
        ]
    }

    async fn ensure_hook(&self, access: &Access) -> Failed {
        let (url, secret) = (hook(), TOKEN_OF_HOOK.into());
        let wanted = WantedHook { url: &url, secret: &secret };
        let error = self.hosts().ensure_hook(access.at(), &wanted).await.unwrap_err();
        Failed { what: format!("{} ensure_hook", self.kind), error }
    }

    async fn report(&self, access: &Access) -> Failed {
        let report = report(ReportState::Succeeded);
        let error = self.hosts().report(access.at(), &report, &RUN).await.unwrap_err();
        Failed { what: format!("{} report", self.kind), error }
    }
}

/// Fails every operation of every kind of host.
async fn all_failed(
    fault: impl Fn(&Asked) -> Option<Answer> + Clone + Send + Sync + 'static,
) -> Vec<Failed> {
    let mut all = Vec::new();
    for failing in Failing::each(fault).await {
        let access = Access::new(&failing.url(), TOKEN);
        all.extend(failing.read(&access).await);
        all.push(failing.report(&access).await);
        all.push(failing.ensure_hook(&access).await);
    }
    all
}

#[tokio::test]
async fn a_refused_token_is_an_error_that_names_the_right_it_needs() {
    for (status, told) in [
        (401, "rejected the token for"),
        (403, "refused the token for"),
        (404, "refused the token for"),
    ] {
        for Failed { what, error } in
            all_failed(move |_| Some(answer(status, &json!({"message": "no"})))).await
        {
            assert_eq!(error.kind, CodeHostFailure::RefusedToken, "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains(told) && text.contains("scope"), "{what}: {text}");
        }
    }
}

#[tokio::test]
async fn without_a_token_the_error_says_that_one_is_needed() {
    for failing in Failing::each(|_| Some(answer(404, &json!({})))).await {
        let access = Access::anonymous(&failing.url());
        let mut failed = failing.read(&access).await;
        failed.push(failing.report(&access).await);
        for Failed { what, error } in failed {
            assert_eq!(error.kind, CodeHostFailure::RefusedToken, "{what}: {error}");
            assert!(error.to_string().contains("give the task a git access token"), "{error}");
        }
        assert!(failing.server.asked().iter().all(|it| it.header("authorization").is_empty()));
    }
}

#[tokio::test]
async fn a_limit_or_an_outage_is_transient_and_its_pause_has_a_limit() {
    for (status, header, seconds) in [
        (429, Some("7"), Some(7)),
        (429, None, Some(60)),
        (429, Some("99999999"), Some(3600)),
        (500, None, None),
        (502, None, None),
        (503, Some("5"), Some(5)),
        (504, Some("later"), None),
        (408, None, None),
    ] {
        let fault = move |_: &Asked| {
            let mut answer = answer(status, &json!({}));
            if let Some(header) = header {
                answer.headers_mut().insert("retry-after", header.parse().unwrap());
            }
            Some(answer)
        };
        for Failed { what, error } in all_failed(fault).await {
            let retry_after = seconds.map(Duration::from_secs);
            assert_eq!(error.kind, CodeHostFailure::Transient { retry_after }, "{what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_host_that_is_away_is_transient() {
    for failing in Failing::each(|_| None).await {
        let (url, hosts) = (failing.url(), failing.hosts());
        drop(failing);
        let error = hosts.pull_request(Access::new(&url, TOKEN).at(), 1).await.unwrap_err();
        assert_eq!(error.kind, CodeHostFailure::Transient { retry_after: None }, "{error}");
        // Refused, or reset if the connection came just before the end.
        let told = format!("127.0.0.1 did not answer for {url}: Connection re");
        assert!(error.to_string().starts_with(&told), "{error}");
    }
}

#[tokio::test]
async fn an_answer_of_any_size_is_refused_beyond_the_limit() {
    let large = |_: &Asked| Some(Response::new(vec![b' '; (16 << 20) + 1].into()));
    for failing in Failing::each(large).await {
        let access = Access::new(&failing.url(), TOKEN);
        let Failed { what, error } = failing.report(&access).await;
        assert_eq!(error.kind, CodeHostFailure::Permanent, "{what}: {error}");
        assert!(error.to_string().contains("larger than 16 MiB"), "{what}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_an_error_that_names_the_setting() {
    for body in ["", "{", "[]", "{\"number\": \"x\"}", "<html>", "null"] {
        let fault = move |_: &Asked| Some(Response::new(body.into()));
        for failing in Failing::each(fault).await {
            // A pull request's list of files may be any list, also an empty one.
            let access = Access::new(&failing.url(), TOKEN);
            let error = failing.hosts().pull_request(access.at(), 1).await.unwrap_err();
            assert_eq!(error.kind, CodeHostFailure::Permanent, "{}: {error}", failing.kind);
            assert!(error.to_string().contains("`code_hosts.apis`"), "{}: {error}", failing.kind);
        }
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_its_target_sees_nothing() {
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    let target = HostServer::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        answer(200, &json!({}))
    });
    let target = target.await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://{}/x?token={TOKEN}", target.host());
        let fault = move |_: &Asked| {
            let mut answer = answer(status, &json!({}));
            answer.headers_mut().insert("location", location.parse().unwrap());
            Some(answer)
        };
        for Failed { what, error } in all_failed(fault).await {
            assert_eq!(error.kind, CodeHostFailure::Permanent, "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains(&format!("redirects to http://{}", target.host())), "{text}");
            assert!(!text.contains(TOKEN), "{text}");
        }
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

/// Answers with everything that was sent, in each place of an answer that an error could be made from.
fn echo(status: u16, asked: &Asked) -> Answer {
    let sent = format!("{:?} {} {TOKEN}", asked.headers, asked.body);
    let body =
        json!({"message": sent, "error": sent, "errors": [sent], "number": sent, "typeKey": sent});
    let mut answer = answer(status, &body);
    let location = format!("https://{TOKEN}@elsewhere.test/{TOKEN}?{TOKEN}");
    for (name, value) in [
        ("location", location.as_str()),
        ("x-oauth-scopes", TOKEN),
        ("x-accepted-github-permissions", TOKEN),
        ("x-ratelimit-reset", TOKEN),
    ] {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    answer
}

#[tokio::test]
async fn no_token_is_in_an_error_a_debug_text_or_a_log_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    let mut told = String::new();
    for status in [201, 204, 302, 307, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503] {
        for failing in Failing::each(move |asked| Some(echo(status, asked))).await {
            let access = Access::new(&failing.url(), TOKEN);
            let mut failed = failing.read(&access).await;
            if status != 201 {
                failed.push(failing.report(&access).await);
            }
            for Failed { what, error } in failed {
                told.push_str(&format!("{what} {error} {error:?}\n"));
            }
            told.push_str(&format!("{:?}\n", failing.hosts()));
        }
    }
    let logged = lines.text();
    assert!(logged.contains("127.0.0.1"), "{logged}");
    for canary in [TOKEN.to_owned(), STANDARD.encode(format!(":{TOKEN}"))] {
        assert!(!told.contains(&canary), "{told}");
        assert!(!logged.contains(&canary), "{logged}");
    }
}

/// The log lines of this thread, at any level and by any crate.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn a_host_that_never_answers_is_given_up_after_twenty_seconds() {
        let failing = Failing::each(|_| None).await;
        let waiting = failing.iter().map(async |failing| {
            let access = Access::new(&failing.url(), TOKEN);
            failing.report(&access).await.error
        });
        for error in futures_util::future::join_all(waiting).await {
            assert_eq!(error.kind, CodeHostFailure::Transient { retry_after: None }, "{error}");
            assert!(error.to_string().contains("did not answer within 20s"), "{error}");
        }
    }
}
