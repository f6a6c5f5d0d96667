//! Real helper programs: shell scripts, as an operator could write them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_domain::image::RegistryHost;
use gantry_ops::secret::ExposeSecret as _;
use gantry_remote::credential_helper::{
    CredentialHelpers, HelperCredentials, HelperError, HelperSettings,
};

const HOST: &str = "registry.test";
const HOUR: Duration = Duration::from_secs(3600);

/// A helper in a folder of its own.
struct Helper {
    folder: tempfile::TempDir,
    helpers: CredentialHelpers,
}

impl Helper {
    fn new(script: &str) -> Self {
        Self::of(&[HOST], script)
    }

    fn of(hosts: &[&str], script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        let script =
            format!("#!/bin/sh\ncd {}\necho >> asked\n{script}\n", folder.path().display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let entry = |host: &&str| format!("{host}={}", program.display()).parse().unwrap();
        let settings = HelperSettings {
            entries: hosts.iter().map(entry).collect(),
            environment: [("AWS_REGION".to_owned(), "eu-test-1".to_owned())].into(),
            lifetime: HOUR,
        };
        let helpers = CredentialHelpers::new(settings).with_limit(Duration::from_secs(20));
        Self { folder, helpers }
    }

    async fn get(&self) -> Result<HelperCredentials, HelperError> {
        self.helpers.get(&HOST.parse().unwrap(), Duration::ZERO).await
    }

    /// The error of a helper, which shows nothing that the helper printed as its answer.
    async fn fails(&self) -> (HelperError, String) {
        let error = self.get().await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2"), "{said}");
        (error.clone(), error.to_string())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn times_asked(&self) -> usize {
        std::fs::read_to_string(self.file("asked")).unwrap_or_default().lines().count()
    }
}

fn answer(username: &str, secret: &str) -> String {
    format!(
        r#"cat > server; echo '{{"ServerURL":"","Username":"{username}","Secret":"{secret}"}}'"#
    )
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn a_helper_is_asked_for_the_server_and_gives_user_and_password() {
    let script =
        format!("env > environment; echo \"$@\" > arguments; {}", answer("AWS", "hunter2"));
    let helper = Helper::of(&[HOST, "docker.io"], &script);
    let given = helper.get().await.unwrap();
    assert_eq!(given.credentials.username, "AWS");
    assert_eq!(given.credentials.password.expose_secret(), "hunter2");
    assert!(given.credentials.identity_token().is_none());
    assert!(given.valid_for <= HOUR && given.valid_for > HOUR - Duration::from_secs(60));
    assert_eq!(read(&helper.file("server")), "registry.test\n");
    assert_eq!(read(&helper.file("arguments")), "get\n");
    let environment = read(&helper.file("environment"));
    let names = environment.lines().filter_map(|line| Some(line.split_once('=')?.0));
    let mut names: Vec<&str> =
        names.filter(|name| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name)).collect();
    names.sort_unstable();
    assert_eq!(names, ["AWS_REGION", "LC_ALL", "PATH"], "nothing else of this process");

    // Docker Hub has its own name in the protocol.
    helper.helpers.get(&"docker.io".parse().unwrap(), Duration::ZERO).await.unwrap();
    assert_eq!(read(&helper.file("server")), "https://index.docker.io/v1/\n");
}

#[tokio::test]
async fn an_identity_token_is_known_by_the_name_of_its_user() {
    let given = Helper::new(&answer("<token>", "refresh-me")).get().await.unwrap();
    assert_eq!(given.credentials.identity_token().unwrap().expose_secret(), "refresh-me");
}

#[tokio::test]
async fn a_helper_is_asked_once_for_all_that_ask_within_a_minute() {
    let helper = Helper::new(&answer("AWS", "hunter2"));
    let host: RegistryHost = HOST.parse().unwrap();
    let (one, other) = tokio::join!(helper.get(), helper.get());
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(helper.times_asked(), 1);
    // What is left of the hour is too little for this run, and a fresh token is the best that there is.
    helper.helpers.get(&host, HOUR).await.unwrap();
    assert_eq!(helper.times_asked(), 2);
    helper.helpers.get(&host, 2 * HOUR).await.unwrap();
    assert_eq!(helper.times_asked(), 3);
    helper.helpers.get(&host, Duration::from_secs(600)).await.unwrap();
    assert_eq!(helper.times_asked(), 3);
}

#[tokio::test]
async fn a_helper_serves_only_the_registry_that_the_operator_names_it_for() {
    let helper = Helper::new(&answer("AWS", "hunter2"));
    for other in ["registry.test:5000", "other.test", "a.registry.test"] {
        let asked = helper.helpers.get(&other.parse().unwrap(), Duration::ZERO).await;
        assert!(matches!(asked, Err(HelperError::Unnamed { .. })), "{other}: {asked:?}");
    }
    assert_eq!(helper.times_asked(), 0);
    for server in ["other.test", "https://other.test/v2/", "registry.test:5000"] {
        let script =
            format!(r#"echo '{{"ServerURL":"{server}","Username":"u","Secret":"hunter2"}}'"#);
        let (_, said) = Helper::new(&script).fails().await;
        assert!(
            said.ends_with("gave for registry.test the credentials of another server"),
            "{said}"
        );
    }
    let script = r#"echo '{"ServerURL":"https://registry.test/v2/","Username":"u","Secret":"s"}'"#;
    Helper::new(script).get().await.unwrap();
}

#[tokio::test]
async fn a_helper_that_hangs_is_killed_with_all_its_processes() {
    let helper = Helper::new("sleep 600 & echo $! > child; echo $$ > self; echo hunter2; wait");
    let helper = Helper { helpers: helper.helpers.with_limit(Duration::from_secs(3)), ..helper };
    let (error, said) = helper.fails().await;
    assert!(error.is_transient(), "{said}");
    assert!(said.ends_with("gave no answer for registry.test within 3s"), "{said}");
    for name in ["self", "child"] {
        let pid = read(&helper.file(name));
        let status = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let is_dead = || match std::fs::read_to_string(&status) {
            // A zombie waits for its new parent.
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => true,
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !is_dead() {
            assert!(std::time::Instant::now() < deadline, "{name} lives on");
            tokio::task::yield_now().await;
        }
    }
    // Whoever asks right after gets the same answer, and need not wait again.
    let (again, _) = helper.fails().await;
    assert_eq!((again, helper.times_asked()), (error, 1));
}

#[tokio::test]
async fn output_without_end_is_not_read_to_its_end() {
    let helper = Helper::new("head -c 104857600 /dev/zero; echo done > done");
    let (error, said) = helper.fails().await;
    assert!(!error.is_transient() && said.ends_with("more than 64 KiB of output"), "{said}");
    assert!(!helper.file("done").exists(), "it was killed");
    let noisy = format!("head -c 104857600 /dev/zero >&2; {}", answer("AWS", "hunter2"));
    Helper::new(&noisy).get().await.unwrap();
}

#[tokio::test]
async fn what_is_no_answer_of_the_protocol_is_refused_and_not_shown() {
    for (script, problem) in [
        ("echo hunter2", "something other than the JSON of the protocol"),
        ("true", "something other than the JSON of the protocol"),
        (r#"echo '{"Username":"hunter2"}'"#, "something other than the JSON of the protocol"),
        (r#"printf '\377\376hunter2'"#, "something other than the JSON of the protocol"),
        (r#"echo '{"Username":"u","Secret":""}'"#, "no secret"),
        (
            r#"echo '{"Username":"u","Secret":"hunter2\u0007"}'"#,
            "a user name or a secret that no registry can take",
        ),
        (
            r#"echo '{"Username":"a:b","Secret":"hunter2"}'"#,
            "a user name or a secret that no registry can take",
        ),
    ] {
        let (error, said) = Helper::new(script).fails().await;
        assert!(!error.is_transient() && said.ends_with(problem), "{script}: {said}");
    }
}

#[tokio::test]
async fn a_helper_without_credentials_says_so_by_the_protocol() {
    let helper = Helper::new("echo 'credentials not found in native keychain'; exit 1");
    let (error, said) = helper.fails().await;
    assert!(matches!(error, HelperError::NotFound { .. }) && !error.is_transient(), "{said}");
    assert!(said.contains("has no credentials for registry.test: log in with it where"), "{said}");
}

#[tokio::test]
async fn a_helper_that_fails_is_quoted_without_what_may_be_a_secret() {
    let token = "A".repeat(60);
    let script = format!(
        "echo hunter2; echo first >&2; printf 'no session for eu-test-1: \\033[31mtoken {token} has expired' >&2; exit 7"
    );
    let (error, said) = Helper::new(&script).fails().await;
    assert!(error.is_transient());
    assert!(said.contains("(exit status: 7): no session for ***: "), "{said}");
    assert!(said.ends_with("token *** has expired"), "{said}");
    assert!(
        !said.contains(&token) && !said.contains('\u{1b}') && !said.contains("first"),
        "{said}"
    );
}

#[tokio::test]
async fn a_helper_that_is_not_installed_is_named() {
    let settings = |program: &str| HelperSettings {
        entries: vec![format!("{HOST}={program}").parse().unwrap()],
        lifetime: HOUR,
        ..HelperSettings::default()
    };
    for (program, shown) in [
        ("no-such-helper", "docker-credential-no-such-helper"),
        ("/nonexistent/helper", "/nonexistent/helper"),
        ("/etc/passwd", "/etc/passwd"),
    ] {
        let helpers = CredentialHelpers::new(settings(program));
        let error = helpers.get(&HOST.parse().unwrap(), Duration::ZERO).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(shown) && said.contains("install it there"), "{said}");
        assert!(!error.is_transient());
    }
}
