//! A task and a matching push, for the tests of this folder.

use crate::event::{Push, PushedRef};
use crate::platforms::Platforms;
use crate::pull_request::ChangedFiles;
use crate::recipe::{ImageBuild, Recipe, RunTimeout, Work};
use crate::task::{Status, Task};
use crate::timestamp::Timestamp;
use crate::trigger::SourceTrigger;

pub(crate) fn task() -> Task {
    Task {
        id: "reg/web".parse().unwrap(),
        prefix: crate::id::RunPrefix::nth(0),
        revision: 3,
        status: Status::Enabled,
        recipe: Recipe {
            source: "https://github.com/octo/hello.git#main:app".parse().unwrap(),
            platforms: Platforms::default(),
            timeout: RunTimeout::default(),
            work: Work::Build(ImageBuild {
                dockerfile: "Dockerfile".parse().unwrap(),
                images: vec!["web:{{.Run.ID}}".parse().unwrap()],
                build_args: std::collections::BTreeMap::default(),
                secret_build_args: std::collections::BTreeMap::default(),
                target: None,
                push: true,
                no_cache: false,
            }),
            logins: std::collections::BTreeMap::new(),
            follows: crate::tracked_image::TagPolicies::default(),
            bases: Vec::new(),
            pull_request: None,
        },
        source_trigger: Some(SourceTrigger::on_pushes("defaultSourceTriggerName")),
        base_image_trigger: Some(crate::base_trigger::BaseImageTrigger::default()),
        timers: crate::timer::Timers::default(),
        git_token: None,
        reports: true,
        api_token: None,
        run_limit: None,
        concurrency_group: None,
        created: Timestamp::default(),
        updated: Timestamp::default(),
    }
}

pub(super) fn push(branch: &str) -> Push {
    Push {
        hook: Some("h1".parse().unwrap()),
        url: "https://github.com/octo/hello.git".parse().unwrap(),
        reference: PushedRef::Branch(branch.parse().unwrap()),
        before: Some("a".repeat(40).parse().unwrap()),
        after: Some("b".repeat(40).parse().unwrap()),
        default_branch: None,
        pusher: Some("mona".to_owned()),
        changed: ChangedFiles::default(),
        asks_to_skip: false,
    }
}
