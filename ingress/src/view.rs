//! Converts records to API bodies. The API types have no field for a secret.

use std::time::Duration;

use gantry_api as types;
use gantry_domain::attempt::{AttemptEnd, EndedAttempt};
use gantry_domain::base_trigger::BaseImageTrigger;
use gantry_domain::decide::forecast::Forecast;
use gantry_domain::decide::{self, Choice};
use gantry_domain::delivery::{self, Verdict};
use gantry_domain::event::{Command, EventKind};
use gantry_domain::id::RunId;
use gantry_domain::lineage::{self, BaseRole};
use gantry_domain::login;
use gantry_domain::mapping::{MappedProof, MappedPush, Mapping, SignatureHeader};
use gantry_domain::pattern::Patterns;
use gantry_domain::recipe::{FileWork, ImageBuild, TaskFile, Work};
use gantry_domain::registry;
use gantry_domain::run;
use gantry_domain::scan::{NeededImage, NeededImages, TaskImages, UnreadStep};
use gantry_domain::secret;
use gantry_domain::source::CommitId;
use gantry_domain::step::{Step, StepEnd, StepState, Steps};
use gantry_domain::task::{self, Status};
use gantry_domain::timer;
use gantry_domain::timestamp::Timestamp;
use gantry_domain::token;
use gantry_domain::trigger::{PollInterval, SourceTrigger};
use gantry_domain::worker::{self, Drain, EngineHealth, Workforce};
use gantry_remote::code_host::SentDelivery;
use gantry_seams::decisions::RecordedDecision;
use gantry_seams::provisioning::{self, Provisioned};
use gantry_seams::uploads;
use serde::Serialize;

use crate::usecase::circles::Circle;
use crate::usecase::runs::waits_for;
use crate::usecase::simulation::Simulated;
use crate::usecase::tasks::{Surroundings, TaskWebhook};
use crate::usecase::webhooks::{Examined, Found, Sent};

pub(crate) mod images;

/// The serialized name of a value of a closed set; of a tagged value, the text under `tag`.
fn word_of(value: &impl Serialize, tag: &str) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(fields)) => {
            fields.get(tag).and_then(|word| word.as_str()).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

fn time(at: Timestamp) -> String {
    at.to_string()
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    millis_of(to.since(from))
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(crate) fn registry(registry: &registry::Registry) -> types::Registry {
    types::Registry {
        name: registry.name.to_string(),
        host: registry.host.to_string(),
        run_prefix: registry.prefix.to_string(),
        username: registry.given_credentials().map(|given| given.username.clone()),
        credential_helper: registry.credentials == Some(registry::RegistryCredentials::Helper),
        run_limit: registry.run_limit.get(),
        created: time(registry.created),
    }
}

pub(crate) fn upload(upload: &uploads::Upload) -> types::Upload {
    types::Upload {
        id: upload.id.to_string(),
        registry: upload.registry.to_string(),
        bytes: upload.bytes,
        created: time(upload.created),
    }
}

pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Enabled => "Enabled",
        Status::Disabled => "Disabled",
    }
}

pub(crate) fn task(task: &task::Task) -> types::Task {
    let recipe = &task.recipe;
    let (build, file) = work(&recipe.work);
    types::Task {
        registry: task.id.registry.to_string(),
        name: task.id.name.to_string(),
        revision: task.revision,
        status: status_word(task.status).to_owned(),
        context: recipe.source.to_string(),
        lfs: recipe.source.has_lfs(),
        submodules: recipe.source.has_submodules(),
        task_file: file.map(task_file),
        dockerfile: build.map(|build| build.dockerfile.to_string()),
        images: build.map_or_else(Vec::new, |build| texts(&build.images)),
        build_args: build
            .into_iter()
            .flat_map(|build| &build.build_args)
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        secret_build_args: build
            .into_iter()
            .flat_map(|build| build.secret_build_args.keys())
            .map(ToString::to_string)
            .collect(),
        credentials: recipe.logins.iter().map(|(host, it)| (host.to_string(), login(it))).collect(),
        target: build.and_then(|build| build.target.as_ref()).map(ToString::to_string),
        platform: recipe.platforms.to_string(),
        timeout: recipe.timeout.into(),
        push: build.is_some_and(|build| build.push),
        no_cache: build.is_some_and(|build| build.no_cache),
        source_trigger: task.source_trigger.as_ref().map(source_trigger),
        base_image_trigger: task.base_image_trigger.as_ref().map(base_image_trigger),
        base_image_follow: texts(recipe.follows.as_slice()),
        timers: task.timers.as_slice().iter().map(timer).collect(),
        has_git_token: task.git_token.is_some(),
        git_host_keys: recipe.source.host_keys().iter().map(ToString::to_string).collect(),
        report_status: task.reports,
        has_api_token: task.api_token.is_some(),
        run_limit: task.run_limit.map(std::num::NonZeroU32::get),
        concurrency_group: task.concurrency_group.as_ref().map(ToString::to_string),
        webhook: None,
        created: time(task.created),
        updated: time(task.updated),
    }
}

fn login(login: &login::Login) -> types::Login {
    let (username, username_secret) = match &login.username {
        login::Username::Text(username) => (Some(username.clone()), None),
        login::Username::Secret(source) => (None, Some(source.to_string())),
    };
    let password_secret = match &login.password {
        login::Password::Sealed(_) => None,
        login::Password::Secret(source) => Some(source.to_string()),
    };
    types::Login { username, username_secret, password_secret }
}

/// A task with its webhook, and when its timers are due next.
pub(crate) fn task_with(task: &task::Task, around: &Surroundings) -> types::Task {
    let mut view = self::task(task);
    view.webhook = task_webhook(&around.webhook);
    for timer in &mut view.timers {
        let of_timer = around.due.iter().find(|due| due.timer.name.as_str() == timer.name);
        timer.next = of_timer.map(|scheduled| time(scheduled.due));
    }
    view
}

fn timer(timer: &timer::Timer) -> types::Timer {
    types::Timer {
        name: timer.name.to_string(),
        schedule: timer.schedule.to_string(),
        timezone: timer.timezone.to_string(),
        status: status_word(timer.status).to_owned(),
        misfire: timer.misfire.to_string(),
        catch_up: timer.catch_up.seconds(),
        overlap: timer.overlap.to_string(),
        next: None,
    }
}

fn task_webhook(webhook: &TaskWebhook) -> Option<types::TaskWebhook> {
    match webhook {
        TaskWebhook::NotNeeded => None,
        TaskWebhook::Pending => Some(webhook_in_state("Pending")),
        TaskWebhook::Kept(kept) => Some(kept_webhook(kept)),
    }
}

fn webhook_in_state(state: &str) -> types::TaskWebhook {
    types::TaskWebhook {
        state: state.to_owned(),
        message: None,
        hook: None,
        ids: Vec::new(),
        checked: None,
        next: None,
    }
}

fn kept_webhook(kept: &Provisioned) -> types::TaskWebhook {
    let shown = match &kept.state {
        provisioning::State::Pending | provisioning::State::Removing { .. } => {
            webhook_in_state("Pending")
        }
        provisioning::State::InPlace { ids, checked } => types::TaskWebhook {
            ids: ids.clone(),
            checked: Some(time(*checked)),
            ..webhook_in_state("InPlace")
        },
        provisioning::State::Problem { message, next, .. } => types::TaskWebhook {
            message: Some(message.clone()),
            next: Some(time(*next)),
            ..webhook_in_state("Problem")
        },
        provisioning::State::ByHand { why } => {
            types::TaskWebhook { message: Some(why.clone()), ..webhook_in_state("ByHand") }
        }
    };
    let hook = kept.webhook.as_ref().map(|webhook| webhook.hook.to_string());
    types::TaskWebhook { hook, ..shown }
}

/// Where a hook's sender has what makes a push.
pub(crate) fn mapping(mapping: &Mapping) -> types::HookMapping {
    let signature = match &mapping.proof {
        MappedProof::StandardWebhooks => None,
        MappedProof::Header(SignatureHeader { name, prefix }) => Some(types::HookSignature {
            header: name.to_string(),
            prefix: prefix.as_ref().map(ToString::to_string),
        }),
    };
    match &mapping.push {
        MappedPush::Source(source) => types::HookMapping {
            repository: Some(source.repository.to_string()),
            reference: Some(source.reference.to_string()),
            commit: Some(source.commit.to_string()),
            before: source.before.as_ref().map(ToString::to_string),
            signature,
            ..types::HookMapping::default()
        },
        MappedPush::Image(image) => types::HookMapping {
            image: Some(image.image.to_string()),
            tag: image.tag.as_ref().map(ToString::to_string),
            digest: image.digest.as_ref().map(ToString::to_string),
            signature,
            ..types::HookMapping::default()
        },
    }
}

/// A hook compared with what its code host has.
pub(crate) fn webhook_report(examined: &Examined, url: String) -> types::WebhookReport {
    let Examined { hook, kept, found } = examined;
    let shown = found.as_ref().map_or(&[][..], Vec::as_slice);
    types::WebhookReport {
        hook: hook.id.to_string(),
        repository: kept.as_ref().map(|kept| kept.place.repository.to_string()),
        url,
        webhook: kept.as_ref().map(kept_webhook),
        found: shown.iter().map(found_webhook).collect(),
        advice: advice(examined),
    }
}

fn found_webhook(found: &Found) -> types::FoundWebhook {
    let sent = |all: &Sent, sent: &SentDelivery| types::SentDelivery {
        delivery: sent.delivery.clone(),
        at: sent.at.clone(),
        event: sent.event.clone(),
        outcome: sent.outcome.clone(),
        arrived: all.arrived(sent),
    };
    types::FoundWebhook {
        id: found.hook.id.clone(),
        events: found.hook.events.clone(),
        content_type: found.hook.content_type.clone(),
        faults: found.hook.faults.clone(),
        deliveries: found
            .sent
            .as_ref()
            .map(|all| all.all.iter().map(|one| sent(all, one)).collect()),
    }
}

/// What is wrong with a webhook, and what to do.
fn advice(examined: &Examined) -> Vec<String> {
    let Some(kept) = &examined.kept else {
        return vec!["gantry did not make this hook, so it has no token to look with: compare the webhook at its \
                     sender with `gantry hook show`"
            .to_owned()];
    };
    let found = match &examined.found {
        Ok(found) => found,
        Err(message) => return vec![message.clone()],
    };
    let mut advice = Vec::new();
    if let provisioning::State::Problem { message, .. } = &kept.state {
        advice.push(message.clone());
    }
    let again = "save one of its tasks, or wait a day, and gantry repairs it";
    if found.is_empty() {
        advice.push(format!("the code host has no webhook with this address: {again}"));
    }
    for Found { hook, sent } in found {
        let faults = hook.faults.iter();
        advice.extend(faults.map(|fault| format!("webhook {} {fault}: {again}", hook.id)));
        let missing = sent.as_ref().map_or(0, |sent| sent.missing().len());
        if missing > 0 {
            let id = &hook.id;
            advice.push(format!(
                "webhook {id} has sent what did not arrive ({missing} of its last deliveries): `gantry hook doctor \
                 --redeliver` has it sent again"
            ));
        }
    }
    advice
}

fn source_trigger(trigger: &SourceTrigger) -> types::SourceTrigger {
    let (commit, pull_request) = (&trigger.commit, &trigger.pull_request);
    let patterns = |of: &Patterns| texts(of.as_slice());
    types::SourceTrigger {
        name: trigger.name.clone(),
        branch: trigger.branch.as_ref().map(ToString::to_string),
        commit: types::CommitRules {
            status: status_word(commit.status).to_owned(),
            branches: patterns(&commit.branches),
            tags: patterns(&commit.tags),
        },
        pull_request: types::PullRequestRules {
            status: status_word(pull_request.status).to_owned(),
            branches: patterns(&pull_request.branches),
            actions: texts(&pull_request.actions),
            drafts: pull_request.drafts,
            labels: patterns(&pull_request.labels),
            authors: pull_request.authors.to_string(),
            builds: pull_request.builds.to_string(),
            forks: pull_request.forks.to_string(),
            push: pull_request.push,
            comments: pull_request.comments,
        },
        paths: types::PathRules {
            included: patterns(&trigger.paths.included),
            ignored: patterns(&trigger.paths.ignored),
        },
        honors_skip_marks: trigger.honors_skip_marks,
        supersede: trigger.supersede.to_string(),
        poll: trigger.poll.map(PollInterval::seconds),
    }
}

fn base_image_trigger(trigger: &BaseImageTrigger) -> types::BaseImageTrigger {
    types::BaseImageTrigger {
        name: trigger.name.clone(),
        status: status_word(trigger.status).to_owned(),
        kind: trigger.kind.to_string(),
        images: texts(trigger.images.as_slice()),
    }
}

/// The images that a task needs.
pub(crate) fn task_images(images: &TaskImages, circle: Option<&Circle>) -> types::TaskImages {
    let read = images.read.as_ref();
    let needed = read.map(|read| &read.needed);
    let image = |needed: &NeededImage| types::NeededImage {
        image: needed.image.to_string(),
        role: word_of(&needed.role, ""),
        step: needed.step.to_string(),
        dockerfile: needed.dockerfile.clone(),
        platform: needed.platform.to_string(),
    };
    let unread = |unread: &UnreadStep| types::UnreadStep {
        step: unread.step.to_string(),
        why: unread.why.clone(),
    };
    types::TaskImages {
        read: read.map(|read| types::TaskReading {
            revision: read.reading.revision,
            commit: read.commit.as_ref().map(ToString::to_string),
            run: shown(read.reading.run),
            at: time(read.reading.at),
        }),
        images: needed.map_or_else(Vec::new, |it| it.images().iter().map(image).collect()),
        unread: needed.map_or_else(Vec::new, |it| it.unread().iter().map(unread).collect()),
        is_cut: needed.is_some_and(NeededImages::is_cut),
        circle: circle.map_or_else(Vec::new, |it| it.names().map(ToString::to_string).collect()),
        failed: images.failed.as_ref().map(|failed| types::FailedScan {
            revision: failed.reading.revision,
            run: shown(failed.reading.run),
            at: time(failed.reading.at),
            error: run_error(&failed.error),
        }),
    }
}

/// The id of a run, unless it is hidden.
fn shown(run: RunId) -> Option<String> {
    (!run.is_hidden()).then(|| run.to_string())
}

fn work(work: &Work) -> (Option<&ImageBuild>, Option<&FileWork>) {
    match work {
        Work::Build(build) => (Some(build), None),
        Work::File(file) => (None, Some(file)),
    }
}

fn task_file(work: &FileWork) -> types::TaskFile {
    let (text, path) = match &work.file {
        TaskFile::Text(text) => (Some(text.clone()), None),
        TaskFile::Path(path) => (None, Some(path.to_string())),
    };
    let values = work.values.iter();
    types::TaskFile {
        text,
        path,
        values_file: work.values_file.as_ref().map(ToString::to_string),
        values: values.map(|(name, value)| (name.to_string(), value.text.clone())).collect(),
        secret_values: work.secret_values.keys().map(ToString::to_string).collect(),
        secrets: work
            .secrets
            .iter()
            .map(|(id, source)| (id.to_string(), source.to_string()))
            .collect(),
    }
}

pub(crate) fn secret(secret: &secret::Secret) -> types::Secret {
    let version = |version: &secret::SecretVersion| types::SecretVersion {
        number: version.number.get(),
        set: version.set.to_string(),
        by: version.by.to_string(),
    };
    types::Secret {
        registry: secret.registry.to_string(),
        name: secret.name.to_string(),
        versions: secret.versions.iter().map(version).collect(),
        created: secret.created.to_string(),
    }
}

/// A leg of a split run.
pub(crate) fn leg(leg: &run::Run) -> types::Leg {
    types::Leg {
        run: leg.id.to_string(),
        platform: leg.recipe.platforms.to_string(),
        status: leg.status().to_string(),
    }
}

/// The steps of a run's last attempt. A step that still runs after its attempt has ended is shown as lost.
pub(crate) fn steps(run: &run::Run, steps: &Steps) -> Vec<types::Step> {
    let is_leased = run.state.lease().is_some();
    let view = |step: &Step| {
        let (status, began, finished, end) = match &step.state {
            StepState::Waiting if is_leased => ("Waiting", None, None, None),
            StepState::Waiting => ("Skipped", None, None, None),
            StepState::Running { began } if is_leased => ("Running", Some(*began), None, None),
            StepState::Running { began } => ("Lost", Some(*began), None, None),
            StepState::Ended { began, at, end } => {
                let status = match end {
                    StepEnd::Succeeded { .. } => "Succeeded",
                    StepEnd::Failed { is_ignored: false, .. } => "Failed",
                    StepEnd::Failed { is_ignored: true, .. } => "Ignored",
                    StepEnd::Stopped => "Stopped",
                };
                (status, Some(*began), Some(*at), Some(end))
            }
        };
        let (exit_code, digest) = match end {
            Some(StepEnd::Failed { exit_code, .. }) => (*exit_code, None),
            Some(StepEnd::Succeeded { digest }) => (None, digest.as_ref()),
            Some(StepEnd::Stopped) | None => (None, None),
        };
        let after = step.after.iter().filter_map(|place| steps.get(*place));
        types::Step {
            id: step.id.to_string(),
            kind: word_of(&step.kind, ""),
            after: after.map(|step| step.id.to_string()).collect(),
            status: status.to_owned(),
            started: began.map(time),
            finished: finished.map(time),
            duration_ms: began.zip(finished).map(|(from, to)| millis(from, to)),
            tries: (step.tries > 1).then_some(step.tries),
            exit_code,
            digest: digest.map(ToString::to_string),
        }
    };
    steps.iter().map(view).collect()
}

pub(crate) fn queue_place(forecast: Forecast) -> types::QueuePlace {
    types::QueuePlace {
        place: forecast.place,
        estimated_start: forecast.start.ok().map(time),
        no_estimate: forecast.start.err().map(|why| why.to_string()),
    }
}

pub(crate) fn run(run: &run::Run) -> types::Run {
    let (build, file) = work(&run.recipe.work);
    let done = run.state.done();
    let lease = run.state.lease();
    let started = done.and_then(|done| done.started).or(lease.map(|lease| lease.since));
    let finished = done.map(|done| done.at);
    let product = done.and_then(|done| done.outcome.product());
    let attempts = attempts(run);
    types::Run {
        id: run.id.to_string(),
        status: run.status().to_string(),
        run_type: run.run_type.to_string(),
        registry: run.registry.to_string(),
        task: run.task.as_ref().map(|task| task.name.to_string()),
        task_revision: run.task.as_ref().map(|task| task.revision),
        platform: run.recipe.platforms.to_string(),
        trigger: run.cause.trigger().to_owned(),
        cause: run.cause.to_string(),
        event: run.cause.event().to_string(),
        wave: run.cause.wave().map(|wave| wave.to_string()),
        source: run.recipe.source.to_string(),
        dockerfile: build.map(|build| build.dockerfile.to_string()),
        task_file: file.map(|file| match &file.file {
            TaskFile::Text(_) => "-".to_owned(),
            TaskFile::Path(path) => path.to_string(),
        }),
        image_names: build.map_or_else(Vec::new, |build| texts(&build.images)),
        created: time(run.created),
        started: started.map(time),
        finished: finished.map(time),
        duration_ms: started.zip(finished).map(|(from, to)| millis(from, to)),
        waits_for: waits_for(run),
        queue: None,
        images: product.map_or_else(Vec::new, |product| outputs(&product.outputs)),
        superseded: product.map_or_else(Vec::new, |product| {
            let superseded = product.superseded.iter();
            superseded
                .map(|tag| types::SupersededTag {
                    image: tag.image.to_string(),
                    by: tag.by.to_string(),
                    why: tag.to_string(),
                })
                .collect()
        }),
        bases: product.map_or_else(Vec::new, |product| bases(&product.bases)),
        commit: run.commit().map(|commit| commit.to_string()),
        error: done.and_then(|done| done.outcome.error()).map(run_error),
        worker: attempts.last().map(|attempt| attempt.worker.clone()),
        attempts,
        steps: Vec::new(),
        legs: Vec::new(),
        pull_request: run.recipe.pull_request.as_ref().map(|of| types::RunPullRequest {
            number: of.number,
            head: of.head.to_string(),
            base: of.base.to_string(),
            is_fork: of.is_fork,
            is_held: run.state.is_held(),
        }),
        approved: run
            .approved
            .as_ref()
            .map(|approved| types::Approved { by: approved.by.clone(), at: time(approved.at) }),
        cancel_asked: run
            .cancel
            .as_ref()
            .map(|ask| types::CancelAsked { by: ask.by.to_string(), at: time(ask.at) }),
        commit_status: run.reported.as_ref().map(|reported| types::CommitStatus {
            context: reported.context.to_string(),
            commit: reported.commit.to_string(),
            problem: reported.problem.clone(),
        }),
        archived: run.archived,
    }
}

fn run_error(error: &run::RunError) -> types::RunError {
    types::RunError {
        code: word_of(&error.code, ""),
        step: error.step.as_ref().map(ToString::to_string),
        exit_code: error.exit_code,
        message: error.message.clone(),
    }
}

fn attempts(run: &run::Run) -> Vec<types::Attempt> {
    let mut attempts: Vec<_> = run.attempts.iter().map(ended_attempt).collect();
    attempts.extend(run.state.lease().map(|lease| types::Attempt {
        attempt: lease.attempt,
        worker: lease.worker.to_string(),
        started: time(lease.since),
        finished: None,
        end: "held".to_owned(),
        error: None,
    }));
    attempts
}

fn ended_attempt(ended: &EndedAttempt) -> types::Attempt {
    types::Attempt {
        attempt: ended.attempt,
        worker: ended.worker.to_string(),
        started: time(ended.since),
        finished: Some(time(ended.ended)),
        end: word_of(&ended.end, "end"),
        error: match &ended.end {
            AttemptEnd::InfrastructureFailed { error } | AttemptEnd::Unavailable { error } => {
                Some(error.clone())
            }
            AttemptEnd::Finished
            | AttemptEnd::HandedBack
            | AttemptEnd::Split
            | AttemptEnd::Lapsed => None,
        },
    }
}

fn outputs(outputs: &[lineage::OutputImage]) -> Vec<types::OutputImage> {
    outputs
        .iter()
        .map(|output| types::OutputImage {
            image: output.image.to_string(),
            digest: output.digest.to_string(),
            children: children(&output.children),
        })
        .collect()
}

fn children(children: &[lineage::ChildImage]) -> Vec<types::ChildImage> {
    let child = |child: &lineage::ChildImage| types::ChildImage {
        platform: child.platform.to_string(),
        digest: child.digest.to_string(),
    };
    children.iter().map(child).collect()
}

fn bases(bases: &[lineage::BaseImage]) -> Vec<types::BaseImage> {
    bases
        .iter()
        .map(|base| types::BaseImage {
            image: base.image.to_string(),
            digest: base.digest.to_string(),
            role: match base.role {
                BaseRole::Runtime => "runtime",
                BaseRole::Buildtime => "buildtime",
            }
            .to_owned(),
            policy: base.follows.as_ref().map(|followed| followed.policy.to_string()),
            tag: base.follows.as_ref().map(|followed| followed.tag.to_string()),
        })
        .collect()
}

pub(crate) fn lineage(lineage: &lineage::Lineage) -> types::Lineage {
    types::Lineage {
        digest: lineage.digest.to_string(),
        images: texts(&lineage.images),
        platform: lineage.platforms.to_string(),
        children: children(&lineage.children),
        bases: bases(&lineage.bases),
        run: lineage.run.to_string(),
        registry: lineage.registry.to_string(),
        task: lineage.task.as_ref().map(ToString::to_string),
        source: lineage.source.clone(),
        commit: lineage.commit.as_ref().map(ToString::to_string),
        cause: lineage.cause.clone(),
        pushed: time(lineage.pushed),
    }
}

pub(crate) fn delivery(delivery: &delivery::Delivery) -> types::Delivery {
    types::Delivery {
        id: delivery.id.to_string(),
        hook: delivery.hook.to_string(),
        provider: delivery.provider.to_string(),
        registry: delivery.registry.to_string(),
        kind: delivery.kind.clone(),
        received: time(delivery.received),
        body_bytes: delivery.body_bytes,
        body_sha256: delivery.body_sha256.clone(),
        verdict: word_of(&delivery.verdict, "verdict"),
        why: match &delivery.verdict {
            Verdict::OfNoInterest { why } | Verdict::Unreadable { why } => Some(why.clone()),
            Verdict::Conflict => Some("another body came under this id before".to_owned()),
            Verdict::Events | Verdict::Ping => None,
        },
        events: delivery.event_ids().map(|event| event.to_string()).collect(),
        unread: delivery.unread.clone(),
    }
}

pub(crate) fn event(
    event: &gantry_domain::event::Event,
    decision: Option<&RecordedDecision>,
) -> types::Event {
    types::Event {
        id: event.id.to_string(),
        registry: event.registry.to_string(),
        kind: word_of(&event.kind, "kind"),
        what: what(&event.kind),
        received: time(event.received),
        decision: decision.map(self::decision),
    }
}

pub(crate) fn simulation(simulated: &Simulated) -> types::Simulation {
    types::Simulation {
        verdict: word_of(&simulated.verdict, "verdict"),
        why: match &simulated.verdict {
            Verdict::OfNoInterest { why } | Verdict::Unreadable { why } => Some(why.clone()),
            Verdict::Conflict | Verdict::Events | Verdict::Ping => None,
        },
        events: simulated
            .events
            .iter()
            .map(|(event, decision)| self::event(event, decision.as_ref()))
            .collect(),
    }
}

fn what(kind: &EventKind) -> String {
    match kind {
        EventKind::Push(push) => {
            let moved = &push.reference;
            let now = match &push.after {
                Some(commit) => format!("is {}", short(commit)),
                None => "is gone".to_owned(),
            };
            format!("{moved} of {} {now}", push.repository())
        }
        EventKind::PullRequest(change) => {
            let (number, repository) = (change.now.number, change.repository());
            let action = change.action.map_or_else(|| "changed".to_owned(), |it| it.to_string());
            let head = short(&change.now.head.commit);
            format!("pull request {number} of {repository} was {action}, at {head}")
        }
        EventKind::PullRequestNotice(notice) => {
            let (number, repository) = (notice.number, notice.url.key());
            let action = notice.action.map_or_else(|| "changed".to_owned(), |it| it.to_string());
            let head = notice.head.as_str().get(..7).unwrap_or_default();
            format!("pull request {number} of {repository} was {action}, at {head}")
        }
        EventKind::Comment(comment) => {
            let command = match &comment.command {
                Command::Build => "a build was".to_owned(),
                Command::Cancel => "the end of its runs was".to_owned(),
                Command::Approve { commit } => format!("an approval of {} was", short(commit)),
            };
            let (number, repository) = (comment.number, comment.url.key());
            format!("{command} asked for below pull request {number} of {repository}")
        }
        EventKind::ImagePushed(pushed) if pushed.is_proven => format!("{pushed} was pushed"),
        EventKind::ImagePushed(pushed) => {
            format!("{pushed} was pushed, without a proof of who says so")
        }
        EventKind::ImageMoved(moved) => {
            let by = moved.run.map(|run| format!(", pushed by run {run}")).unwrap_or_default();
            format!("{} for {} has other content now{by}", moved.image, moved.platform)
        }
        EventKind::TimerDue(due) => {
            format!("timer {} of task {} was due {}", due.timer, due.task, due.due.to_minute())
        }
        EventKind::TaskSaved { task, .. } => format!("task {task} was saved"),
        EventKind::Requested { rerun_of: Some(run), by, .. } => {
            format!("a rerun of {run} was asked for with token {by}")
        }
        EventKind::Requested { task: Some(task), by, rerun_of: None } => {
            format!("a run of task {task} was asked for with token {by}")
        }
        EventKind::Requested { task: None, by, rerun_of: None } => {
            format!("a build was asked for with token {by}")
        }
    }
}

fn short(commit: &CommitId) -> &str {
    commit.as_str().get(..7).unwrap_or_default()
}

fn decision(recorded: &RecordedDecision) -> types::Decision {
    let decision = &recorded.decision;
    types::Decision {
        at: time(decision.at),
        is_final: recorded.is_final,
        candidates: decision.candidates.iter().map(candidate).collect(),
        nothing: decision.nothing.as_ref().map(ToString::to_string),
        rule: decision.nothing.as_ref().map(|rule| word_of(rule, "rule")),
    }
}

fn candidate(candidate: &decide::Candidate) -> types::Candidate {
    let (run, wave, rule) = match &candidate.choice {
        Choice::Run { run } => (Some(run), None, None),
        Choice::Wave { wave } => (None, Some(wave), None),
        Choice::WouldRun => (None, None, None),
        Choice::No { rule } => (None, None, Some(rule)),
    };
    types::Candidate {
        task: candidate.task.as_ref().map(|task| task.name.to_string()),
        run: run.map(ToString::to_string),
        wave: wave.map(ToString::to_string),
        would_run: candidate.choice == Choice::WouldRun,
        rule: rule.map(|rule| word_of(rule, "rule")),
        why: rule.map(ToString::to_string),
        note: candidate.note(),
    }
}

pub(crate) fn token(token: &token::Token, now: Timestamp) -> types::Token {
    types::Token {
        id: token.id.to_string(),
        description: token.description.clone(),
        scope: token.scope.to_string(),
        registries: token
            .registries
            .as_ref()
            .map(|names| names.keys().map(ToString::to_string).collect()),
        created: time(token.created),
        expires: token.expires.map(time),
        revoked: token.revoked.map(time),
        active: token.is_active(now),
    }
}

pub(crate) fn workers(workforce: &Workforce) -> Vec<types::Worker> {
    let workers = workforce.workers.iter();
    workers.map(|record| worker(record, workforce.drained.get(&record.id))).collect()
}

pub(crate) fn worker(worker: &worker::Worker, drain: Option<&Drain>) -> types::Worker {
    types::Worker {
        id: worker.id.to_string(),
        pool: worker.pool.to_string(),
        platforms: texts(&worker.platforms),
        slots: worker.slots,
        runs: worker.runs.iter().copied().filter_map(shown).collect(),
        version: worker.version.clone(),
        engine: match &worker.engine {
            EngineHealth::Ready { name } => types::WorkerEngine { ok: true, message: name.clone() },
            EngineHealth::Away { why } => types::WorkerEngine { ok: false, message: why.clone() },
        },
        free_disk: worker.free_disk,
        idle_because: worker.idle_because.clone(),
        drained: drain
            .map(|drain| types::Drained { by: drain.by.to_string(), since: time(drain.since) }),
        last_seen: time(worker.last_seen),
    }
}
