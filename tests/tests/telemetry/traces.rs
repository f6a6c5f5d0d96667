//! One delivery is one trace, from the sender's span to the pushed tag.

use std::collections::BTreeSet;

use crate::collector::{Collector, Span};
use crate::installation::{Installation, SECRET};

const SENT_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENT_SPAN: &str = "b7ad6b7169203331";

/// The spans between the signature and the tag, with the process of each in the scaled mode.
const PARTS: [(&str, &str); 12] = [
    ("POST /hooks/{provider}/{hook}", "gantry-ingress"),
    ("store delivery", "gantry-ingress"),
    ("doorbell", "gantry-scheduler"),
    ("decide event", "gantry-scheduler"),
    ("admit run", "gantry-scheduler"),
    ("BUILD", "gantry-worker"),
    ("fetch", "gantry-worker"),
    ("bases", "gantry-worker"),
    ("build", "gantry-worker"),
    ("push", "gantry-worker"),
    ("tag", "gantry-worker"),
    ("finish", "gantry-worker"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_gantry_up_is_one_trace_from_sender_to_tag() {
    let collector = Collector::start().await;
    let mut gantry = Installation::up(Some(&collector.url())).await;
    check_one_trace(&mut gantry, &collector, |_| "gantry-up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_one_trace_through_three_processes_and_both_servers() {
    let collector = Collector::start().await;
    let mut gantry = Installation::apart(Some(&collector.url())).await;
    check_one_trace(&mut gantry, &collector, |of| of).await;
}

async fn check_one_trace(
    gantry: &mut Installation,
    collector: &Collector,
    service: impl Fn(&'static str) -> &'static str,
) {
    let watched = gantry.watch().await;
    let traceparent = format!("00-{SENT_TRACE}-{SENT_SPAN}-01");
    let run = gantry.push(&watched, Some(&traceparent)).await;
    assert_eq!(run.status, "Succeeded", "{run:?}");
    let told = gantry.words();
    for line in ["started run", "attempt 1 begins", "ended: Succeeded"] {
        let traced = |said: &&str| said.contains(line) && said.contains(SENT_TRACE);
        assert!(told.lines().any(|said| traced(&said)), "no trace with `{line}`: {told}");
    }
    // The remaining spans are sent before a process ends.
    gantry.end().await;

    let spans = collector.spans();
    let of_push: Vec<&Span> = spans.iter().filter(|span| span.trace == SENT_TRACE).collect();
    for (name, process) in PARTS {
        let found = of_push.iter().find(|span| {
            span.service == service(process)
                && (span.name == name || name == "BUILD" && span.name.starts_with("BUILD web-"))
        });
        assert!(found.is_some(), "no `{name}` of {} in {of_push:#?}", service(process));
    }
    let hook = of_push.iter().find(|span| span.name.starts_with("POST /hooks/")).unwrap();
    assert_eq!(hook.parent, SENT_SPAN);
    let known: BTreeSet<&str> =
        of_push.iter().map(|span| span.id.as_str()).chain([SENT_SPAN]).collect();
    for span in &of_push {
        assert!(known.contains(span.parent.as_str()), "{} hangs in the air: {span:#?}", span.name);
    }
    let attempt = of_push.iter().find(|span| span.name.starts_with("BUILD ")).unwrap();
    assert_eq!(attempt.attribute("cicd.pipeline.run.id"), Some(run.id.as_str()));
    assert_eq!(attempt.attribute("cicd.pipeline.result"), Some("success"));
    assert_eq!(attempt.attribute("vcs.ref.head.revision"), run.commit.as_deref());
    assert!(attempt.attribute("oci.manifest.digest").unwrap().starts_with("sha256:"));
    for span in &spans {
        assert!(!format!("{span:?}").contains(SECRET), "{span:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_request_is_one_trace() {
    let collector = Collector::start().await;
    let mut gantry = Installation::up(Some(&collector.url())).await;
    let watched = gantry.watch().await;
    let run = gantry.ask(&watched, &format!("00-{SENT_TRACE}-{SENT_SPAN}-01")).await;
    gantry.end().await;
    let spans = collector.spans();
    let of_request: Vec<&Span> = spans.iter().filter(|span| span.trace == SENT_TRACE).collect();
    let named = |name: &str| of_request.iter().find(|span| span.name.starts_with(name)).unwrap();
    let span = named("POST /api/v1/registries/{registry}/tasks/{task}/runs");
    assert_eq!(span.parent, SENT_SPAN);
    let attempt = named("BUILD web-");
    assert_eq!((&attempt.parent, attempt.attribute("run.id")), (&span.id, Some(run.id.as_str())));
    let step = named("step push");
    assert_eq!((&step.parent, &named("tag").parent), (&attempt.id, &step.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_without_a_trace_begin_one_unless_forged() {
    let collector = Collector::start().await;
    let mut gantry = Installation::up(Some(&collector.url())).await;
    let watched = gantry.watch().await;
    let forged = format!("00-{}-{SENT_SPAN}-01", "f".repeat(32));
    assert_eq!(gantry.deliver(&watched, "guessed", Some(&forged), "{}").await, 401);
    let run = gantry.push(&watched, Some("00-no-traceparent-at-all")).await;
    let tagged = collector
        .until(|spans| {
            let of_run = |span: &&Span| span.attribute("run.id") == Some(&run.id);
            let attempt =
                spans.iter().filter(|span| span.name.starts_with("BUILD ")).find(of_run)?;
            spans.iter().find(|span| span.name == "tag" && span.trace == attempt.trace).cloned()
        })
        .await;
    gantry.end().await;
    let spans = collector.spans();
    let of_push: Vec<&Span> = spans.iter().filter(|span| span.trace == tagged.trace).collect();
    let hook = of_push.iter().find(|span| span.name.starts_with("POST /hooks/")).unwrap();
    assert_eq!(hook.parent, "", "{hook:#?}");
    assert!(spans.iter().all(|span| !span.trace.starts_with("ffff")), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_collector_is_logged_once_and_delays_nothing() {
    // Nothing listens there.
    let mut gantry = Installation::up(Some("http://127.0.0.1:9")).await;
    let watched = gantry.watch().await;
    let run = gantry.push(&watched, None).await;
    assert_eq!(run.status, "Succeeded");
    gantry.end().await;
    let words = gantry.words();
    let told = words.lines().filter(|line| line.contains("traces are lost")).count();
    assert_eq!(told, 1, "{words}");
}
