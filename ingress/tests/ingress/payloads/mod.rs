//! What the payloads of providers mean. The expectations are written by hand, from the payloads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_domain::delivery::Verdict;
use gantry_domain::event::{EventKind, ImagePushed, PullRequestChange, PullRequestNotice, Push};
use gantry_domain::hook::{Provider, Sender};
use gantry_domain::pull_request::ChangedFiles;
use gantry_domain::source::CommitId;

mod azure;
mod bitbucket;
mod generic;
mod gitea;
mod github;
mod gitlab;
mod registries;

/// The meaning of a payload in words, a line for each event.
fn told(sender: &Sender, kind: &str, body: &[u8]) -> String {
    let home = "home.example:5000".parse().unwrap();
    let (verdict, events) = gantry_ingress::meaning(sender, Some(&home), kind, body);
    match verdict {
        Verdict::Events => events.iter().map(event).collect::<Vec<_>>().join("\n"),
        Verdict::Ping => "ping".to_owned(),
        Verdict::OfNoInterest { why } => format!("nothing: {why}"),
        Verdict::Unreadable { why } => format!("unreadable: {why}"),
        Verdict::Conflict => "conflict".to_owned(),
    }
}

fn event(event: &EventKind) -> String {
    match event {
        EventKind::Push(pushed) => push(pushed),
        EventKind::PullRequest(change) => pull_request(change),
        EventKind::PullRequestNotice(noticed) => notice(noticed),
        EventKind::Comment(comment) => format!("{:?} on {}", comment.command, comment.number),
        EventKind::ImagePushed(pushed) => image(pushed),
        EventKind::ImageMoved(_)
        | EventKind::TaskSaved { .. }
        | EventKind::TimerDue(_)
        | EventKind::Requested { .. } => {
            panic!("{event:?}")
        }
    }
}

/// `a/b:tag` alone if nothing is known but the name.
fn image(pushed: &ImagePushed) -> String {
    let mut told = format!("image {}", pushed.image);
    if let Some(digest) = &pushed.digest {
        told += &format!(" is {}", &digest.as_str()[..14]);
    }
    if let Some(media_type) = &pushed.media_type {
        told += &format!(", {media_type}");
    }
    if !pushed.is_proven {
        told += ", unproven";
    }
    told
}

fn short(commit: Option<&CommitId>) -> &str {
    commit.map_or("none", |commit| &commit.as_str()[..7])
}

fn push(push: &Push) -> String {
    let (before, after) = (short(push.before.as_ref()), short(push.after.as_ref()));
    let mut told = format!("{} {before}..{after} of {}", push.reference, push.repository());
    if let Some(branch) = &push.default_branch {
        told += &format!(" (default {branch})");
    }
    if let Some(pusher) = &push.pusher {
        told += &format!(" by {pusher}");
    }
    told += &match &push.changed {
        ChangedFiles::All { paths } => format!(", {} files", paths.len()),
        ChangedFiles::Unknown { .. } => ", files unknown".to_owned(),
    };
    if push.asks_to_skip {
        told += ", asks to skip";
    }
    told
}

fn notice(notice: &PullRequestNotice) -> String {
    let action = notice.action.map_or("changed".to_owned(), |action| action.to_string());
    let (number, head, base) = (notice.number, &notice.head, &notice.base);
    let closed = if notice.is_open { "" } else { ", closed" };
    let refs = [&notice.refs.head, &notice.refs.merge].into_iter().flatten();
    let refs: Vec<&str> = refs.map(|reference| reference.as_str()).collect();
    format!(
        "{action} {number} {head} to {base} of {} ({}){closed}; at {}",
        notice.url.key(),
        notice.repository,
        refs.join(" ")
    )
}

fn pull_request(change: &PullRequestChange) -> String {
    let now = &change.now;
    let action = change.action.map_or("changed".to_owned(), |action| action.to_string());
    let branch = now.head.branch.as_ref().map_or("?", |branch| branch.as_str());
    let head = short(Some(&now.head.commit));
    let mut told = format!(
        "{action} {} {branch}@{head} to {} of {}",
        now.number,
        now.base.branch,
        change.repository()
    );
    if let Some(before) = &change.before {
        told += &format!(", was {}", short(Some(before)));
    }
    if now.merge.is_some() {
        told += &format!(", merge {}", short(now.merge.as_ref()));
    }
    if let Some(author) = &now.author {
        told += &format!(", by {author} ({})", now.association);
    }
    if !now.labels.is_empty() {
        told += &format!(", labels {}", now.labels.join(" "));
    }
    for (holds, word) in [
        (!now.is_open, "closed"),
        (now.is_draft, "draft"),
        (now.is_from_fork(), "fork"),
        (change.asks_to_skip, "asks to skip"),
    ] {
        if holds {
            told += &format!(", {word}");
        }
    }
    let refs = [&change.refs.head, &change.refs.merge].into_iter().flatten();
    let refs: Vec<&str> = refs.map(|reference| reference.as_str()).collect();
    format!("{told}; at {}", refs.join(" "))
}

/// Compares the payloads of a folder in `tests/fixtures/webhooks` with the expectations: file, kind and meaning. No file
/// may lack one.
#[track_caller]
fn assert_meanings(provider: Provider, expected: &[(&str, &str, &str)]) {
    let sender = Sender::new(provider, None).unwrap();
    let with_sender = |(file, kind, meaning): &(_, _, _)| (*file, &sender, *kind, *meaning);
    assert_meanings_of(provider, &expected.iter().map(with_sender).collect::<Vec<_>>());
}

/// Like [`assert_meanings`], with the sender of each file.
#[track_caller]
fn assert_meanings_of(provider: Provider, expected: &[(&str, &Sender, &str, &str)]) {
    let folder = folder().join(provider.as_str());
    let (mut files, mut wrong) = (BTreeSet::new(), Vec::new());
    for (file, sender, kind, meaning) in expected {
        let body = fs::read(folder.join(file).with_extension("json")).unwrap();
        let told = told(sender, kind, &body);
        if told != *meaning {
            wrong.push(format!("{file}\n  is:       {told}\n  expected: {meaning}"));
        }
        files.insert((*file).to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all = fs::read_dir(&folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    });
    assert_eq!(all.collect::<BTreeSet<_>>(), files);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/webhooks")
}
