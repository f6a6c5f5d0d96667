//! The service's signature of a run's fixed part.
//!
//! Workers may write run records, so a record alone does not prove that the service created the run, or that the run is
//! unchanged. Two texts of a run do: the signed text, which only the service can sign, and the plain text in it, which
//! the run's secrets are sealed for, so that a worker can open them only for exactly this run.

use serde::Serialize;

use crate::cause::Cause;
use crate::id::{GroupName, RegistryName, RunId};
use crate::recipe::Recipe;
use crate::run::{Purpose, Run, RunType, TaskRevision};
use crate::sealed::Sealed;
use crate::text::text_type;
use crate::timestamp::Timestamp;
use crate::trace::TraceParent;

text_type!(
    /// The service's signature of a run's fixed part.
    RunSignature,
    "signature of a run",
    "64 hexadecimal digits in lower case",
    |text| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

/// Signs for the service, without giving its keys to the code that creates runs.
pub trait Signer: Send + Sync {
    /// The signature of a text; deterministic for the same keys.
    fn sign(&self, text: &[u8]) -> RunSignature;

    /// Whether the service made this signature of this text, with any of its keys.
    fn vouches_for(&self, text: &[u8], signature: &RunSignature) -> bool;
}

/// Distinguishes this from other signed or sealed texts, and from future versions.
const FORM: &str = "gantry run 1";

/// The fixed part that may be read by anybody. From the first release on, a field added to one of these types must be
/// skipped while it has its earlier implicit value, otherwise older signatures become invalid.
#[derive(Serialize)]
struct Fixed<'a> {
    form: &'static str,
    id: RunId,
    registry: &'a RegistryName,
    #[serde(skip_serializing_if = "Purpose::is_default")]
    purpose: &'a Purpose,
    run_type: RunType,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: &'a Option<TaskRevision>,
    recipe: Recipe,
    cause: &'a Cause,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    force_tags: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_group: &'a Option<GroupName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_for: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: &'a Option<TraceParent>,
    created: Timestamp,
}

/// The fixed part with the sealed secrets.
#[derive(Serialize)]
struct Signed<'a> {
    fixed: Fixed<'a>,
    git_token: &'a Option<Sealed>,
    /// Without names: the recipe has those.
    sealed: Vec<&'a Sealed>,
}

impl Run {
    /// Signs the run in its current form.
    pub fn sign(&mut self, signer: &dyn Signer) {
        self.signature = Some(signer.sign(&self.signed_text()));
    }

    /// Whether the service signed the run in its current form.
    #[must_use]
    pub fn is_signed(&self, signer: &dyn Signer) -> bool {
        self.signature
            .as_ref()
            .is_some_and(|signature| signer.vouches_for(&self.signed_text(), signature))
    }

    /// The fixed part without the sealed secrets, which are resealed when the service's key changes.
    #[must_use]
    pub fn fixed_text(&self) -> Vec<u8> {
        text(&self.fixed())
    }

    fn signed_text(&self) -> Vec<u8> {
        text(&Signed {
            fixed: self.fixed(),
            git_token: &self.git_token,
            sealed: self.recipe.sealed().collect(),
        })
    }

    /// Destructures all fields, so that adding one requires a decision here.
    fn fixed(&self) -> Fixed<'_> {
        let Self {
            id,
            registry,
            purpose,
            run_type,
            task,
            recipe,
            git_token: _,
            cause,
            force_tags,
            concurrency_group,
            created_for,
            trace,
            created,
            signature: _,
            built_on: _,
            read: _,
            legs: _,
            reported: _,
            is_settled: _,
            archived: _,
            approved: _,
            cancel: _,
            attempts: _,
            state: _,
        } = self;
        let mut recipe = recipe.clone();
        for sealed in recipe.sealed_mut() {
            *sealed = Sealed::from_text(String::new());
        }
        let (id, run_type) = (*id, *run_type);
        let (created, force_tags) = (*created, *force_tags);
        Fixed {
            form: FORM,
            id,
            registry,
            purpose,
            run_type,
            task,
            recipe,
            cause,
            force_tags,
            concurrency_group,
            created_for,
            trace,
            created,
        }
    }
}

fn text(of: &impl Serialize) -> Vec<u8> {
    let Ok(text) = serde_json::to_vec(of) else {
        unreachable!("names, texts and numbers always make JSON")
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::planner;
    use crate::decide::samples::task;
    use crate::recipe::Work;

    fn run() -> Run {
        let mut task = task();
        let Work::Build(build) = &mut task.recipe.work else { panic!("the sample is a build") };
        build.secret_build_args =
            [("TOKEN".parse().unwrap(), Sealed::from_text("sealed".to_owned()))].into();
        let (event, by) = ("request:1".parse().unwrap(), "t1".parse().unwrap());
        planner::for_task_request(&task, task.recipe.clone(), event, by)
            .create("ca1".parse().unwrap(), Timestamp::from_millis(1_700_000_000_000))
    }

    #[test]
    fn the_signed_texts_of_a_run_are_stable() {
        let run = run();
        let fixed = String::from_utf8(run.fixed_text()).unwrap();
        let signed = String::from_utf8(run.signed_text()).unwrap();
        assert_eq!(
            fixed,
            concat!(
                r#"{"form":"gantry run 1","id":"ca1","registry":"reg","run_type":"QuickBuild","#,
                r#""task":{"name":"web","created":0,"revision":3,"is_unchanged":true,"reports":true},"recipe":{"source":{"kind":"git","#,
                r#""url":"https://github.com/octo/hello.git","reference":"main","folder":"app"},"#,
                r#""platforms":"linux/amd64","timeout":3600,"work":{"build":{"#,
                r#""dockerfile":"Dockerfile","images":["web:{{.Run.ID}}"],"#,
                r#""secret_build_args":{"TOKEN":""},"push":true,"no_cache":false}}},"cause":{"cause":"request","event":"request:1","#,
                r#""by":"t1"},"created":1700000000000}"#,
            )
        );
        assert_eq!(signed, format!(r#"{{"fixed":{fixed},"git_token":null,"sealed":["sealed"]}}"#));
        let read: Run = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
        assert_eq!(read.signed_text(), run.signed_text(), "a stored run has the same");
    }

    #[test]
    fn signed_texts_exclude_changing_fields() {
        let (before, mut run) = (run(), run());
        run.archived = true;
        run.state = crate::run::RunState::Waiting {
            reason: crate::run::WaitReason::HandedBack,
            since: Timestamp::from_millis(1),
        };
        assert_eq!(run.signed_text(), before.signed_text());
        run.git_token = Some(Sealed::from_text("other".to_owned()));
        assert_ne!(run.signed_text(), before.signed_text());
        assert_eq!(run.fixed_text(), before.fixed_text());
        run.registry = "another".parse().unwrap();
        assert_ne!(run.fixed_text(), before.fixed_text());
    }
}
