//! Task files on a real engine: what their steps share, how they end, and what they leave.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gantry_domain::decide::planner;
use gantry_domain::id::RunId;
use gantry_domain::image::ImageReference;
use gantry_domain::platforms::Platforms;
use gantry_domain::recipe::{FileValue, FileWork, Recipe, RunTimeout, TaskFile, ValueName, Work};
use gantry_domain::registry::{RegistryChoice, RegistryCredentials, SealedCredentials};
use gantry_domain::run::{ErrorCode, Run, RunStatus};
use gantry_domain::sealed::Sealed;
use gantry_domain::source::Source;
use gantry_domain::step::{Step, StepEnd, StepState, Steps};
use gantry_ops::secret::SecretString;
use gantry_seams::requests::AcceptedRequest;
use gantry_seams::{runs, steps};
use gantry_tests::backend::Backend;
use gantry_tests::own_engine::OwnEngine;
use gantry_tests::pipeline::{TestPipeline, create_registry};
use gantry_tests::pulled::PulledImage;
use gantry_tests::real::{self, Engine};
use gantry_worker::{Permission, Worker};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::builds::unique;

// The engine with the containerd store has no rules for iptables, which belong to the other one: its containers do not
// reach each other. What steps do in their network is tested on the default engine.
gantry_tests::on_each_engine! {
    a_command_runs_in_a_container_and_leaves_nothing,
    steps_share_the_files_of_the_source_and_a_home,
    branches_overlap_and_a_step_waits_for_those_that_it_names,
    a_failing_step_stops_its_siblings_and_nothing_is_left,
    a_step_that_takes_too_long_is_stopped,
    an_image_is_built_tested_and_pushed,
    a_failing_test_stops_the_push,
    a_secret_value_is_in_no_other_step_and_in_no_log,
    a_step_that_asks_for_the_machine_is_refused_before_anything_runs,
    a_wrong_file_fails_with_every_mistake_and_its_line,
    a_cancelled_run_stops_its_containers,
}

/// On the default engine these are a part of `make slow`.
mod rest {
    use super::*;

    gantry_tests::on_each_engine! {
        slow on the default engine:
        a_worker_that_dies_in_a_step_leaves_nothing_and_the_next_attempt_begins_anew,
        a_secret_that_the_task_does_not_declare_is_refused_by_name,
        a_step_reaches_no_port_of_the_machine_unless_the_operator_allows_it,
        layers_kept_in_the_registry_are_used_by_another_engine,
        a_delay_before_a_step_is_cancelled,
        only_steps_of_a_saved_task_as_it_is_are_logged_in_to_the_registry,
        an_image_that_no_step_has_built_is_not_pushed,
        an_image_that_a_command_made_is_pushed_if_steps_may_have_the_engine_s_socket,
        ignored_errors_count_as_success,
        a_failed_step_is_tried_again_in_the_same_workspace,
        only_the_named_errors_are_tried_again,
        a_repeated_step_runs_so_many_times_more,
        a_build_reads_what_a_command_has_made_and_an_image_of_the_same_run,
        a_file_of_secrets_is_mounted_only_where_a_step_says_so,
        a_secret_of_a_build_may_be_a_file_that_a_command_has_made,
        limits_hold_for_each_container,
        a_missing_program_and_a_missing_image_are_told,
    }
}

/// An installation that runs task files on a real engine.
pub(crate) struct Files {
    pub(crate) gantry: TestPipeline,
    on: Engine,
}

/// A run that has ended.
pub(crate) struct Ran {
    pub(crate) run: Run,
    pub(crate) steps: Steps,
    pub(crate) log: String,
}

impl Files {
    pub(crate) async fn start(on: Engine) -> Self {
        let gantry = TestPipeline::start(Backend::Embedded).await;
        create_registry(gantry.store.as_ref(), "real", &real::registry(), 8).await;
        Self { gantry, on }
    }

    /// A worker on the engine of this test.
    pub(crate) fn worker(&self, name: &str) -> Worker {
        self.gantry.real_worker_on(name, &self.on.docker_host())
    }

    /// A source with these files.
    pub(crate) fn source(&self, files: &[(&str, &str)]) -> Source {
        let name = unique("source");
        let repository = self.gantry.git.repository(&name).unwrap();
        repository.commit("main", files).unwrap();
        format!("{}#main", self.gantry.git.url(&name)).parse().unwrap()
    }

    /// Requests a run of this task file, in which BASE is the busybox image.
    pub(crate) async fn ask(&self, source: Source, text: &str) -> RunId {
        let text = text.replace("BASE", &real::base_image());
        self.ask_for(source, TaskFile::Text(text), &[]).await
    }

    /// Requests a run of a task file of the source, with these values.
    pub(crate) async fn ask_with(
        &self,
        source: Source,
        path: &str,
        values: &[(&str, String)],
    ) -> RunId {
        self.ask_for(source, TaskFile::Path(path.parse().unwrap()), values).await
    }

    async fn ask_for(&self, source: Source, file: TaskFile, values: &[(&str, String)]) -> RunId {
        self.ask_all(source, file, values, BTreeMap::new()).await
    }

    async fn ask_all(
        &self,
        source: Source,
        file: TaskFile,
        values: &[(&str, String)],
        secret_values: BTreeMap<ValueName, Sealed>,
    ) -> RunId {
        let value = |text: &String| FileValue { text: text.clone(), is_given: false };
        let values = values.iter().map(|(name, text)| (name.parse().unwrap(), value(text)));
        let work = FileWork {
            file,
            values_file: None,
            values: values.collect(),
            secret_values,
            secrets: BTreeMap::new(),
            has_registry_login: false,
        };
        let recipe = Recipe {
            source,
            platforms: Platforms::default(),
            timeout: RunTimeout::default(),
            work: Work::File(work),
            logins: std::collections::BTreeMap::new(),
            follows: gantry_domain::tracked_image::TagPolicies::default(),
            bases: Vec::new(),
            pull_request: None,
        };
        let registry: gantry_domain::id::RegistryName = "real".parse().unwrap();
        let draft = |event| {
            let by = TestPipeline::somebody();
            planner::for_quick_run(registry.clone(), recipe.clone(), None, event, by)
        };
        let AcceptedRequest::Started(run) = self.gantry.request(draft, None).await else {
            panic!("it is new")
        };
        self.gantry.schedule().await;
        run.id
    }

    /// Runs this task file to its end.
    pub(crate) async fn run(&self, source: Source, text: &str) -> Ran {
        let id = self.ask(source, text).await;
        assert!(self.worker("w").turn(&self.gantry.stop).await.unwrap());
        self.ended(id, 1).await
    }

    pub(crate) async fn ended(&self, id: RunId, attempt: u32) -> Ran {
        let store = self.gantry.store.as_ref();
        let run = runs::find(store, id).await.unwrap().unwrap();
        let steps = steps::find(store, id, attempt).await.unwrap();
        let log = self.gantry.log(&id.to_string(), attempt).await;
        Ran { run, steps, log }
    }

    /// What the engine has for good of this installation: containers, networks, volumes, images. The image of a single
    /// build is removed after the end of its run.
    pub(crate) async fn left(&self) -> Vec<String> {
        let worker = self.worker("w");
        let asked = Instant::now();
        loop {
            let left = worker.engine.leftovers(&worker.settings.installation).await.unwrap();
            if left.is_empty() || asked.elapsed() > Duration::from_secs(30) {
                return left.iter().map(|left| format!("{:?} {}", left.kind, left.id)).collect();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Ran {
    pub(crate) fn status(&self) -> RunStatus {
        self.run.status()
    }

    fn step(&self, id: &str) -> &Step {
        self.steps.iter().find(|step| step.id.as_str() == id).unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) {
        assert_eq!(self.status(), RunStatus::Succeeded, "{:?}\n{}", self.run.state, self.log);
    }

    #[track_caller]
    fn failed(&self, code: ErrorCode) -> String {
        let error = self.run.state.done().and_then(|done| done.outcome.error());
        let error = error.unwrap_or_else(|| panic!("it did not fail: {}", self.log));
        assert_eq!((self.status(), error.code), (RunStatus::Failed, code), "{error}\n{}", self.log);
        error.to_string()
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        assert!(self.log.contains(text), "no `{text}` in\n{}", self.log);
    }
}

async fn a_command_runs_in_a_container_and_leaves_nothing(on: Engine) {
    let files = Files::start(on).await;
    let ran = files.run(Source::Nothing, "steps:\n- cmd: BASE echo hello world\n").await;
    ran.succeeded();
    ran.says("hello world");
    assert_eq!(files.left().await, [] as [String; 0]);
}

async fn steps_share_the_files_of_the_source_and_a_home(on: Engine) {
    let files = Files::start(on).await;
    let source = files.source(&[("words.txt", "from the source\n"), ("deep/in/it", "deep\n")]);
    let text = r#"
steps:
- cmd: BASE sh -c 'cat words.txt deep/in/it; pwd; echo more > made.txt; echo kept > $HOME/note'
- id: reads
  cmd: BASE sh -c 'cat made.txt $HOME/note; echo $HOME'
- cmd: BASE cat it
  workingDirectory: deep/in
"#;
    let ran = files.run(source, text).await;
    ran.succeeded();
    for said in ["from the source", "deep\n", "/workspace\n", "more\n", "kept\n", "/acb/home\n"] {
        ran.says(said);
    }
    assert_eq!(files.left().await, [] as [String; 0]);
}

async fn branches_overlap_and_a_step_waits_for_those_that_it_names(on: Engine) {
    let files = Files::start(on).await;
    // Each of the two ends well only if the other one runs.
    let meets = |own: &str, other: &str| {
        format!(
            "BASE sh -c 'touch {own}; for i in $(seq 300); do test -e {other} && exit 0; sleep 0.1; done; exit 1'"
        )
    };
    let text = format!(
        r#"
steps:
- {{id: a, cmd: "{a}", when: ["-"]}}
- {{id: b, cmd: "{b}", when: ["-"]}}
- {{id: c, cmd: BASE ls, when: [a, b]}}
"#,
        a = meets("one", "two"),
        b = meets("two", "one")
    );
    let ran = files.run(Source::Nothing, &text).await;
    ran.succeeded();
    ran.says("one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_server_is_reached_by_its_step_id() {
    let files = Files::start(Engine::Default).await;
    let text = r#"
steps:
- id: web
  cmd: BASE sh -c 'mkdir -p /www && echo served > /www/index.html && httpd -f -p 8080 -h /www'
  detach: true
- id: asks
  cmd: BASE sh -c 'for i in $(seq 50); do wget -qO- http://web:8080/ && exit 0; sleep 0.1; done; exit 1'
"#;
    let ran = files.run(Source::Nothing, text).await;
    ran.succeeded();
    ran.says("served");
    assert_eq!(files.left().await, [] as [String; 0], "it ends with the run");
}

async fn a_failing_step_stops_its_siblings_and_nothing_is_left(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- {id: slow, cmd: BASE sleep 600, when: ["-"]}
- {id: fails, cmd: BASE sh -c 'sleep 1; echo sorry >&2; exit 3', when: ["-"]}
- {id: never, cmd: BASE true, when: [slow]}
"#;
    let began = Instant::now();
    let ran = files.run(Source::Nothing, text).await;
    let error = ran.failed(ErrorCode::StepFailed);
    assert!(
        error.starts_with("step `fails`:") && error.ends_with("ended with exit code 3"),
        "{error}"
    );
    ran.says("sorry");
    assert!(began.elapsed() < Duration::from_secs(300), "the sibling was stopped");
    let ended = |id: &str| match &ran.step(id).state {
        StepState::Ended { end, .. } => Some(end.clone()),
        StepState::Waiting | StepState::Running { .. } => None,
    };
    assert_eq!(ended("slow"), Some(StepEnd::Stopped));
    assert_eq!(ended("fails"), Some(StepEnd::Failed { exit_code: Some(3), is_ignored: false }));
    assert_eq!(ran.step("never").state, StepState::Waiting);
    assert_eq!(files.left().await, [] as [String; 0]);
}

async fn ignored_errors_count_as_success(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- {id: fails, cmd: BASE sh -c 'exit 4', ignoreErrors: true}
- cmd: BASE echo went on
"#;
    let ran = files.run(Source::Nothing, text).await;
    ran.succeeded();
    ran.says("went on");
    let StepState::Ended { end, .. } = &ran.step("fails").state else { panic!("it ended") };
    assert_eq!(*end, StepEnd::Failed { exit_code: Some(4), is_ignored: true });
}

async fn a_step_that_takes_too_long_is_stopped(on: Engine) {
    let files = Files::start(on).await;
    let mark = format!("6{}", rand::random_range(10_000..99_999));
    let text = format!("steps:\n- {{id: slow, cmd: BASE sleep {mark}, timeout: 1}}\n");
    let ran = files.run(Source::Nothing, &text).await;
    let error = ran.failed(ErrorCode::TimedOut);
    assert!(error.contains("step `slow`: it took longer than its 1 s"), "{error}");
    assert_eq!(files.left().await, [] as [String; 0]);
    assert!(!is_running(&mark), "its process is gone");
}

async fn a_failed_step_is_tried_again_in_the_same_workspace(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- id: third
  cmd: BASE sh -c 'echo x >> tries; test $(wc -l < tries) -ge 3'
  retries: 4
  retryDelay: 1
- {cmd: BASE wc -l tries, id: counts}
"#;
    let ran = files.run(Source::Nothing, text).await;
    ran.succeeded();
    ran.says("3 tries");
    assert_eq!(ran.step("third").tries, 3);
    ran.says("it is tried again in 1 s, 3 retries are left");
}

async fn only_the_named_errors_are_tried_again(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- id: named
  cmd: BASE sh -c 'echo x >> tries; test -s again && exit 0; echo y > again; echo "connection reset" >&2; exit 1'
  retries: 1
  retryDelay: 1
  retryOnErrors: ["connection reset"]
- id: another
  cmd: BASE sh -c 'echo other; exit 7'
  retries: 3
  retryDelay: 1
  retryOnErrors: ["connection reset"]
"#;
    let ran = files.run(Source::Nothing, text).await;
    let error = ran.failed(ErrorCode::StepFailed);
    assert!(error.contains("step `another`"), "{error}");
    assert_eq!((ran.step("named").tries, ran.step("another").tries), (2, 1));
}

async fn a_repeated_step_runs_so_many_times_more(on: Engine) {
    let files = Files::start(on).await;
    let text = "steps:\n- {id: again, cmd: BASE echo once, repeat: 2}\n";
    let ran = files.run(Source::Nothing, text).await;
    ran.succeeded();
    assert_eq!((ran.log.matches("once\n").count(), ran.step("again").tries), (3, 3), "{}", ran.log);
}

async fn an_image_is_built_tested_and_pushed(on: Engine) {
    let files = Files::start(on).await;
    let name = unique("tested");
    let dockerfile = "FROM BASE\nCOPY word /word\n".replace("BASE", &real::base_image());
    let source = files.source(&[("app/Dockerfile", &dockerfile), ("app/word", "inside\n")]);
    let text = format!(
        r#"
version: v1.1.0
steps:
- {{id: build, build: -t $Registry/{name}:$ID -t $Registry/{name}:again app}}
- {{id: test, cmd: $Registry/{name}:$ID cat /word}}
- push: [$Registry/{name}:$ID, $Registry/{name}:again]
"#
    );
    let ran = files.run(source, &text).await;
    ran.succeeded();
    ran.says("inside");
    let product = ran.run.state.done().unwrap().outcome.product().unwrap();
    let outputs: Vec<String> = product.outputs.iter().map(|out| out.image.to_string()).collect();
    let registry = real::registry();
    let id = ran.run.id;
    assert_eq!(outputs, [format!("{registry}/{name}:{id}"), format!("{registry}/{name}:again")]);
    assert_eq!(product.bases[0].image.to_string(), real::base_image());
    assert!(product.commit.is_some());
}

async fn a_failing_test_stops_the_push(on: Engine) {
    let files = Files::start(on).await;
    let name = unique("untested");
    let dockerfile = "FROM BASE\nRUN true\n".replace("BASE", &real::base_image());
    let source = files.source(&[("Dockerfile", &dockerfile)]);
    let text = format!(
        "version: v1.1.0\nsteps:\n- build: -t $Registry/{name}:1 .\n- {{id: test, cmd: $Registry/{name}:1 false}}\n- push: [$Registry/{name}:1]\n"
    );
    let ran = files.run(source, &text).await;
    let error = ran.failed(ErrorCode::StepFailed);
    assert!(error.contains("step `test`"), "{error}");
    assert!(!ran.log.contains("pushing to"), "{}", ran.log);
}

async fn a_build_reads_what_a_command_has_made_and_an_image_of_the_same_run(on: Engine) {
    let files = Files::start(on).await;
    let name = unique("chain");
    let first = "FROM BASE\nRUN echo first > /first\n".replace("BASE", &real::base_image());
    let second = "FROM FIRST\nCOPY made /made\n";
    let source = files.source(&[("one/Dockerfile", &first), ("two/.dockerignore", "not\n")]);
    let text = format!(
        r#"
steps:
- build: -t {name}-base:1 one
- cmd: BASE sh -c 'echo made > two/made; echo x > two/not; printf "{second}" | sed s/FIRST/{name}-base:1/ > two/Dockerfile'
- build: -t {name}:2 two
- cmd: "{name}:2 cat /first /made"
"#,
        second = second.replace('\n', "\\n")
    );
    let ran = files.run(source, &text).await;
    ran.succeeded();
    ran.says("first\n");
    ran.says("made\n");
    let bases = &ran.run.state.done().unwrap().outcome.product().unwrap().bases;
    let bases: Vec<String> = bases.iter().map(|base| base.image.to_string()).collect();
    assert_eq!(bases, [real::base_image()], "an image of the run itself is no base of it");
    assert_eq!(files.left().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_with_equal_step_ids_do_not_meet() {
    let files = Files::start(Engine::Default).await;
    let text = |word: &str| {
        format!(
            r#"
steps:
- id: web
  cmd: BASE sh -c 'mkdir /www && echo {word} > /www/index.html && httpd -f -p 80 -h /www'
  detach: true
- id: asks
  cmd: BASE sh -c 'sleep 2; echo {word} > word; for i in $(seq 50); do wget -qO- http://web/ && exit 0; sleep 0.1; done; exit 1'
"#
        )
    };
    let one = files.ask(Source::Nothing, &text("first")).await;
    let other = files.ask(Source::Nothing, &text("second")).await;
    let stop = &files.gantry.stop;
    let (a, b) = (files.worker("a"), files.worker("b"));
    let (first, second) = tokio::join!(a.turn(stop), b.turn(stop));
    assert!(first.unwrap() && second.unwrap());
    for (id, own, foreign) in [(one, "first", "second"), (other, "second", "first")] {
        let ran = files.ended(id, 1).await;
        ran.succeeded();
        ran.says(&format!("{own}\n"));
        assert!(!ran.log.contains(&format!("{foreign}\n")), "{}", ran.log);
    }
}

async fn a_secret_of_a_build_may_be_a_file_that_a_command_has_made(on: Engine) {
    let files = Files::start(on).await;
    let dockerfile = format!(
        "FROM {}\nRUN --mount=type=secret,id=token tr a-z A-Z < /run/secrets/token\n",
        real::base_image()
    );
    let source = files.source(&[("app/Dockerfile", dockerfile.as_str())]);
    let text = |file: &str| {
        format!(
            "steps:\n- cmd: BASE sh -c 'mkdir made; printf from-a-file > made/token'\n\
             - {{id: image, build: '--secret id=token,src={file} app'}}\n"
        )
    };
    let ran = files.run(source.clone(), &text("made/token")).await;
    ran.succeeded();
    ran.says("FROM-A-FILE");
    let ran = files.run(source, &text("made/other")).await;
    let error = ran.failed(ErrorCode::BuildRefused);
    let expected = "step `image`: the secret `token` of the build is a file of the workspace: there is no `made/other`";
    assert!(error.starts_with(expected), "{error}");
}

async fn a_file_of_secrets_is_mounted_only_where_a_step_says_so(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
volumes:
- name: keys
  secret:
    key: aGVsbG8=
steps:
- cmd: BASE sh -c 'cat /run/keys/key; echo'
  volumeMounts: [{name: keys, mountPath: /run/keys}]
- cmd: BASE sh -c 'test ! -e /run/keys'
- cmd: --mount type=volume,source=keys,target=/m -v keys:/v:ro BASE sh -c 'cat /m/key /v/key; ! touch /v/x'
"#;
    let ran = files.run(Source::Nothing, text).await;
    ran.succeeded();
    ran.says("hello\n");
    assert_eq!(files.left().await, [] as [String; 0]);
}

async fn limits_hold_for_each_container(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- id: rights
  cmd: BASE sh -c 'grep NoNewPrivs /proc/self/status; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true'
- id: greedy
  cmd: BASE sh -c 'dd if=/dev/zero of=/dev/null bs=600M count=1'
"#;
    let ran = files.run(Source::Nothing, text).await;
    let error = ran.failed(ErrorCode::StepFailed);
    ran.says("NoNewPrivs:\t1");
    ran.says("268435456");
    assert!(error.contains("step `greedy`") && error.contains("steps.memory"), "{error}");
}

async fn a_step_that_asks_for_the_machine_is_refused_before_anything_runs(on: Engine) {
    let files = Files::start(on).await;
    let text = "steps:\n- cmd: BASE echo began\n- {id: root, cmd: BASE true, privileged: true}\n";
    let ran = files.run(Source::Nothing, text).await;
    let error = ran.failed(ErrorCode::NotAllowed);
    assert!(error.contains("step `root`") && error.contains("steps.privileged"), "{error}");
    assert!(!ran.log.contains("began"), "{}", ran.log);
}

async fn a_step_reaches_no_port_of_the_machine_unless_the_operator_allows_it(on: Engine) {
    let files = Files::start(on).await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (reached, mut was_reached) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
            let _full = reached.try_send(());
        }
    });
    // The gateway of a container is the engine's machine.
    let asking = |others: &str| {
        let asking = format!(
            "machine=$(ip route | awk \"/default/ {{print \\$3}}\"); for to in $machine:{port} {others}; do \
             wget -qO- http://$to/ 2>&1; done; true"
        );
        serde_json::Value::from(format!("BASE sh -c '{asking}'"))
    };
    let cmd = asking("169.254.169.254");
    let text = format!(
        "version: v1.1.0\nnetworks: [{{name: own}}]\nsteps:\n- {{id: plain, cmd: {cmd}}}\n\
         - {{id: own, cmd: {cmd}, network: own}}\n- {{id: bridge, cmd: {cmd}, network: bridge}}\n"
    );
    let mut worker = files.worker("w");
    let kept_away = files.ask(Source::Nothing, &text).await;
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    let ran = files.ended(kept_away, 1).await;
    ran.succeeded();
    assert_eq!(ran.log.matches("Connection refused").count(), 6, "{}", ran.log);
    assert!(was_reached.try_recv().is_err(), "{}", ran.log);

    worker.settings.policy.grant(Permission::Machine, RegistryChoice::Everybody);
    let text = format!("steps:\n- cmd: {}\n", asking(""));
    let allowed = files.ask(Source::Nothing, &text).await;
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    files.ended(allowed, 1).await.succeeded();
    was_reached.recv().await.unwrap();
    assert_eq!(files.left().await, [] as [String; 0]);
}

async fn layers_kept_in_the_registry_are_used_by_another_engine(on: Engine) {
    let files = Files::start(on).await;
    // It cannot execute a step of a build.
    let other = OwnEngine::start_without_steps("layers", on.dockerd()).await;
    let other = format!("unix://{}", other.socket().display());
    let image = format!("{}/{}", real::registry(), unique("kept"));
    let dockerfile = format!(
        "FROM {}\nRUN head -c 16 /dev/urandom | od -An -tx1 > /once # {image}\n",
        real::base_image()
    );
    let source = files.source(&[("Dockerfile", &dockerfile)]);
    let workers = [files.worker("a"), files.gantry.real_worker_on("b", &other)];
    let mut made = Vec::new();
    for (number, worker) in workers.iter().enumerate() {
        let image = format!("{image}:{number}");
        let text = format!(
            "steps:\n- {{id: build, build: '-t {image} .', cache: enabled}}\n- push: ['{image}']\n"
        );
        let id = files.ask(source.clone(), &text).await;
        assert!(worker.turn(&files.gantry.stop).await.unwrap());
        let ran = files.ended(id, 1).await;
        ran.succeeded();
        assert!(!ran.log.contains("does not keep the layers"), "{}", ran.log);
        let pushed = PulledImage::find(&image).await.unwrap().unwrap();
        made.push(pushed.file("once").await.unwrap());
    }
    assert_eq!(made[0], made[1]);
}

async fn a_wrong_file_fails_with_every_mistake_and_its_line(on: Engine) {
    let files = Files::start(on).await;
    let source = files.source(&[("acr-task.yaml", "steps:\n- {cmd: x, when: [no]}\n- {}\n")]);
    let id = files.ask_with(source, "acr-task.yaml", &[]).await;
    assert!(files.worker("w").turn(&files.gantry.stop).await.unwrap());
    let ran = files.ended(id, 1).await;
    let error = ran.failed(ErrorCode::TaskFileInvalid);
    for line in ["acr-task.yaml:2:", "acr-task.yaml:3:"] {
        assert!(error.contains(line) && ran.log.contains(line), "{error}\n{}", ran.log);
    }
}

async fn a_missing_program_and_a_missing_image_are_told(on: Engine) {
    let files = Files::start(on).await;
    let ran = files.run(Source::Nothing, "steps:\n- {id: gone, cmd: BASE no-such-program}\n").await;
    let error = ran.failed(ErrorCode::StepFailed);
    assert!(error.contains("no-such-program"), "{error}");
    let image = format!("{}/no-such-image:1", real::registry());
    let ran = files.run(Source::Nothing, &format!("steps:\n- cmd: {image}\n")).await;
    let error = ran.failed(ErrorCode::ImageNotFound);
    assert!(error.contains(&image), "{error}");
}

async fn a_cancelled_run_stops_its_containers(on: Engine) {
    let files = Files::start(on).await;
    let mark = format!("7{}", rand::random_range(10_000..99_999));
    let text = format!(
        "steps:\n- {{id: server, cmd: BASE sleep {mark}1, detach: true}}\n- cmd: BASE sleep {mark}2\n"
    );
    let id = files.ask(Source::Nothing, &text).await;
    let worker = files.worker("w");
    let canceling = async {
        while !is_running(&format!("{mark}2")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let by = TestPipeline::canceler();
        runs::cancel(files.gantry.store.as_ref(), id, &by).await.unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&files.gantry.stop), canceling);
    assert!(worked.unwrap());
    let ran = files.ended(id, 1).await;
    assert_eq!(ran.status(), RunStatus::Canceled);
    assert_eq!(files.left().await, [] as [String; 0]);
    assert!(!is_running(&format!("{mark}1")) && !is_running(&format!("{mark}2")));
}

/// The graph is executed from its beginning, and the tag that the first attempt has moved stays with the run.
async fn a_worker_that_dies_in_a_step_leaves_nothing_and_the_next_attempt_begins_anew(on: Engine) {
    let files = Files::start(on).await;
    let name = unique("twice");
    let dockerfile = format!("FROM {}\nRUN true\n", real::base_image());
    let source = files.source(&[("Dockerfile", &dockerfile)]);
    let mark = format!("8{}", rand::random_range(10_000..99_999));
    let text = format!(
        "version: v1.1.0\nsteps:\n- build: -t $Registry/{name}:1 .\n- push: [$Registry/{name}:1]\n- {{id: waits, cmd: BASE sleep {mark}, timeout: 1200}}\n"
    );
    let id = files.ask(source, &text).await;
    let dying = files.worker("dying");
    let stop = files.gantry.stop.clone();
    let attempt = tokio::spawn(async move { dying.turn(&stop).await });
    while !is_running(&mark) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    attempt.abort();
    let store = files.gantry.store.as_ref();
    runs::lapse_now(store, id).await.unwrap().unwrap();
    let lineage = |ran: &Ran| ran.log.matches("pushed ").count();
    let first = files.ended(id, 1).await;
    assert_eq!(lineage(&first), 1, "{}", first.log);

    // The second attempt is cancelled in the same step, after its push.
    files.gantry.schedule().await;
    let second = files.worker("second");
    let canceling = async {
        while files.ended(id, 2).await.steps.iter().all(|step| {
            step.id.as_str() != "waits" || !matches!(step.state, StepState::Running { .. })
        }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        runs::cancel(store, id, &TestPipeline::canceler()).await.unwrap();
    };
    let (worked, ()) = tokio::join!(second.turn(&files.gantry.stop), canceling);
    assert!(worked.unwrap());
    let ran = files.ended(id, 2).await;
    assert_eq!(ran.status(), RunStatus::Canceled, "{}", ran.log);
    assert_eq!(lineage(&ran), 1, "{}", ran.log);
    // What the dead worker left is removed by any worker's sweep.
    let worker = files.worker("sweeper");
    for leftover in worker.engine.leftovers(&worker.settings.installation).await.unwrap() {
        worker.engine.remove(&leftover).await.unwrap();
    }
    assert_eq!(files.left().await, [] as [String; 0]);
    assert!(!is_running(&mark));
}

async fn a_secret_that_the_task_does_not_declare_is_refused_by_name(on: Engine) {
    let files = Files::start(on).await;
    let text = "secrets:\n- id: key\n  keyvault: https://own.vault.azure.net/secrets/key\nsteps:\n- cmd: BASE echo {{.Secrets.key}}\n";
    let ran = files.run(Source::Nothing, text).await;
    let error = ran.failed(ErrorCode::TaskFileInvalid);
    assert!(error.contains("--secret key=https://own.vault.azure.net/secrets/key"), "{error}");
}

async fn a_secret_value_is_in_no_other_step_and_in_no_log(on: Engine) {
    let files = Files::start(on).await;
    let text = r#"
steps:
- id: has
  cmd: BASE sh -c 'echo "it is $TOKEN"; test ${#TOKEN} = 16; sleep 1'
  env: ["TOKEN={{.Values.token}}"]
- {id: lacks, cmd: BASE sh -c 'env; test -z "$TOKEN"'}
"#;
    let secret = "s3cret-canary-42";
    let seals_for = gantry_domain::registry::Registry::seals_for(
        gantry_seams::registries::find(files.gantry.store.as_ref(), &"real".parse().unwrap())
            .await
            .unwrap()
            .unwrap()
            .prefix,
    );
    let sealed = files.gantry.keyring.seal(&seals_for, &SecretString::from(secret)).unwrap();
    let secrets = [("token".parse().unwrap(), sealed)].into();
    let file = TaskFile::Text(text.replace("BASE", &real::base_image()));
    let id = files.ask_all(Source::Nothing, file, &[], secrets).await;
    let worker = files.worker("w");
    let watching = async {
        // While the step runs, no process of this machine shows the secret in its arguments.
        let mut seen = Vec::new();
        loop {
            seen.extend(arguments().into_iter().filter(|line| line.contains(secret)));
            let run = runs::find(files.gantry.store.as_ref(), id).await.unwrap().unwrap();
            if run.state.done().is_some() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (worked, seen) = tokio::join!(worker.turn(&files.gantry.stop), watching);
    assert!(worked.unwrap());
    let ran = files.ended(id, 1).await;
    ran.succeeded();
    ran.says("it is ***");
    assert!(!ran.log.contains(secret), "{}", ran.log);
    assert_eq!(seen, [] as [String; 0]);
}

async fn a_delay_before_a_step_is_cancelled(on: Engine) {
    let files = Files::start(on).await;
    let text = "steps:\n- {id: later, cmd: BASE true, startDelay: 3000}\n";
    let id = files.ask(Source::Nothing, text).await;
    let worker = files.worker("w");
    let store = files.gantry.store.as_ref();
    let canceling = async {
        while runs::find(store, id).await.unwrap().unwrap().status() != RunStatus::Running {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        runs::cancel(store, id, &TestPipeline::canceler()).await.unwrap();
    };
    let (worked, ()) = tokio::join!(worker.turn(&files.gantry.stop), canceling);
    assert!(worked.unwrap());
    let ran = files.ended(id, 1).await;
    assert_eq!(
        (ran.status(), &ran.step("later").state),
        (RunStatus::Canceled, &StepState::Waiting)
    );
}

async fn only_steps_of_a_saved_task_as_it_is_are_logged_in_to_the_registry(on: Engine) {
    let files = Files::start(on).await;
    let store = files.gantry.store.as_ref();
    let name = "real".parse().unwrap();
    let registry = gantry_seams::registries::find(store, &name).await.unwrap().unwrap();
    let seals_for = gantry_domain::registry::Registry::seals_for(registry.prefix);
    let password = "registry-canary-7";
    let sealed = files.gantry.keyring.seal(&seals_for, &SecretString::from(password)).unwrap();
    let credentials = SealedCredentials { username: "mona".to_owned(), password: sealed };
    gantry_seams::registries::update(store, &name, registry.prefix, |registry| {
        registry.credentials = Some(RegistryCredentials::Given(credentials.clone()));
    })
    .await
    .unwrap();
    let text = "steps:\n- cmd: BASE sh -c 'cat $HOME/.docker/config.json || echo not logged in'\n";
    let text = text.replace("BASE", &real::base_image());
    let quick = files.run(Source::Nothing, &text).await;
    quick.succeeded();
    quick.says("not logged in");

    let task_name = unique("task");
    let task = files.gantry.task_with(&task_name, "unused:1", |task| {
        task.id = format!("real/{}", task.id.name).parse().unwrap();
        task.source_trigger = None;
        task.recipe.source = Source::Nothing;
        task.recipe.work = Work::File(FileWork {
            file: TaskFile::Text(text.clone()),
            values_file: None,
            values: BTreeMap::new(),
            secret_values: BTreeMap::new(),
            secrets: BTreeMap::new(),
            has_registry_login: false,
        });
    });
    let task = task.await;
    let mut changed = task.recipe.clone();
    if let Work::File(file) = &mut changed.work {
        let value = FileValue { text: "1".to_owned(), is_given: true };
        file.values.insert("tag".parse().unwrap(), value);
    }
    for (recipe, is_logged_in) in [(task.recipe.clone(), true), (changed, false)] {
        let draft = |event| {
            planner::for_task_request(&task, recipe.clone(), event, TestPipeline::somebody())
        };
        let AcceptedRequest::Started(run) = files.gantry.request(draft, None).await else {
            panic!("it is new")
        };
        files.gantry.schedule().await;
        assert!(files.worker("w").turn(&files.gantry.stop).await.unwrap());
        let ran = files.ended(run.id, 1).await;
        ran.succeeded();
        let host = format!("{{\"auths\":{{\"{}\":", real::registry());
        assert_eq!(ran.log.contains(&host), is_logged_in, "{}", ran.log);
        assert_eq!(!ran.log.contains("not logged in"), is_logged_in, "{}", ran.log);
        assert!(!ran.log.contains(password), "{}", ran.log);
        assert!(!ran.log.contains("cmVnaXN0cnktY2FuYXJ5"), "base64 of the password: {}", ran.log);
    }
}

async fn an_image_that_no_step_has_built_is_not_pushed(on: Engine) {
    let files = Files::start(on).await;
    let image = format!("{}/busybox:1", real::registry());
    let ran = files.run(Source::Nothing, &format!("steps:\n- push: [{image}]\n")).await;
    let error = ran.failed(ErrorCode::ImageNotFound);
    assert!(error.contains("no step before it has built"), "{error}");
}

/// What `gantry pack build` runs. The image is there before, since no builder can be had.
async fn an_image_that_a_command_made_is_pushed_if_steps_may_have_the_engine_s_socket(on: Engine) {
    let files = Files::start(on).await;
    let mut worker = files.worker("w");
    let made: ImageReference =
        format!("{}/{}:1", real::registry(), unique("made")).parse().unwrap();
    worker.engine.tag(&real::base_image().parse().unwrap(), &made).await.unwrap();
    let host = on.docker_host();
    let socket = host.strip_prefix("unix://").unwrap();
    let text = format!(
        "steps:\n- {{id: pack, cmd: '-v {socket}:/docker.sock BASE test -S /docker.sock'}}\n- push: ['{made}']\n"
    );

    let refused = files.ask(Source::Nothing, &text).await;
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    let error = files.ended(refused, 1).await.failed(ErrorCode::NotAllowed);
    assert!(error.contains("step `pack`") && error.contains("steps.engine_socket"), "{error}");

    worker.settings.policy.grant(Permission::EngineSocket, RegistryChoice::Everybody);
    let pushed = files.ask(Source::Nothing, &text).await;
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    let ran = files.ended(pushed, 1).await;
    ran.succeeded();
    ran.says(&format!("pushed {made} at sha256:"));
    assert_eq!(worker.engine.image_id(&made).await.unwrap(), None, "it was the run's");

    let again = files.ask(Source::Nothing, &text).await;
    assert!(worker.turn(&files.gantry.stop).await.unwrap());
    let error = files.ended(again, 1).await.failed(ErrorCode::ImageNotFound);
    assert!(error.contains("no step before it has built"), "{error}");
}

/// The arguments of all processes of this machine.
fn arguments() -> Vec<String> {
    let text = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).replace('\0', " ")
    };
    std::fs::read_dir("/proc").unwrap().flatten().map(text).collect()
}

/// Whether a process of this machine has `word` as its last argument.
fn is_running(word: &str) -> bool {
    let ends_so = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command
            .strip_suffix(b"\0")
            .is_some_and(|line| line.ends_with(format!("\0{word}").as_bytes()))
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(ends_so)
}
