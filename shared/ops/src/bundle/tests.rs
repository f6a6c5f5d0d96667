use std::path::Path;

use gantry_domain::id::PoolName;
use proptest::prelude::*;

use super::*;
use crate::secret::{Keyring, PoolKeyError, write_private};

fn ring(keys: &[u8]) -> Keyring {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    let lines: Vec<String> = keys.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
    write_private(&path, lines.join("\n").as_bytes()).unwrap();
    Keyring::read(&path).unwrap()
}

fn pool(name: &str) -> PoolName {
    name.parse().unwrap()
}

/// A run that builds `image`.
fn run(id: &str, image: &str) -> Run {
    let record = serde_json::json!({
        "id": id,
        "registry": "reg",
        "run_type": "QuickBuild",
        "recipe": {
            "source": { "kind": "git", "url": "https://git.test/hello.git" },
            "platforms": "linux/amd64",
            "timeout": 60,
            "work": { "build": { "dockerfile": "Dockerfile", "images": [image], "push": true } },
        },
        "cause": { "cause": "request", "event": "request:1", "by": "t1" },
        "built_on": { "state": "unread" },
        "force_tags": false,
        "created": 1_700_000_000_000_i64,
        "state": { "state": "waiting", "reason": { "for": "admission" }, "since": 1 },
    });
    serde_json::from_value(record).unwrap()
}

fn ca1() -> Run {
    run("ca1", "hello")
}

fn bundle(secret: &str) -> Bundle {
    Bundle {
        git_token: Some(SecretString::from(secret)),
        git_token_until: Some(Timestamp::from_millis(3_600_000)),
        source_query: Some(SecretString::from("sig=a-signature")),
        registries: [(
            "registry.test".parse().unwrap(),
            Credentials { username: "mona".to_owned(), password: SecretString::from(secret) },
        )]
        .into(),
        build_args: [("NPM".parse().unwrap(), SecretString::from(secret))].into(),
        values: [("db".parse().unwrap(), SecretString::from(secret))].into(),
        secrets: [(
            "token".parse().unwrap(),
            ReadSecret { value: SecretString::from(secret), version: NonZeroU32::new(2) },
        )]
        .into(),
        secret_usernames: vec![SecretString::from("robot-7")],
        take_by: None,
    }
}

#[test]
fn a_bundle_round_trips_without_showing_secrets() {
    let key = ring(&[1]).pool_key(&pool("linux-amd64"));
    let run = &ca1();
    let sealed = bundle("hunter2").seal(&key.public(), run).unwrap();
    let opened = Bundle::open(&key, run, &sealed).unwrap();
    assert_eq!(opened.git_token.as_ref().unwrap().expose_secret(), "hunter2");
    assert_eq!(opened.build_args.values().next().unwrap().expose_secret(), "hunter2");
    assert_eq!(opened.values.values().next().unwrap().expose_secret(), "hunter2");
    let secret = opened.secrets.values().next().unwrap();
    assert_eq!((secret.value.expose_secret(), secret.version), ("hunter2", NonZeroU32::new(2)));
    let credentials = opened.registries.values().next().unwrap();
    assert_eq!(
        (credentials.username.as_str(), credentials.password.expose_secret()),
        ("mona", "hunter2")
    );
    for shown in [format!("{opened:?}"), format!("{sealed:?}"), format!("{key:?}")] {
        assert!(!shown.contains("hunter2") && !shown.contains(&*key.to_text()), "{shown}");
    }
}

#[test]
fn a_token_for_git_is_over_a_minute_before_its_end_and_one_without_an_end_never_is() {
    let key = ring(&[1]).pool_key(&pool("p"));
    let sealed = bundle("s").seal(&key.public(), &ca1()).unwrap();
    let opened = Bundle::open(&key, &ca1(), &sealed).unwrap();
    assert!(!opened.is_over(Timestamp::from_millis(3_539_999)));
    assert!(opened.is_over(Timestamp::from_millis(3_540_000)));
    assert!(!Bundle::default().is_over(Timestamp::from_millis(i64::MAX)));
}

#[test]
fn a_run_that_is_taken_too_late_needs_new_credentials_for_registries() {
    let key = ring(&[1]).pool_key(&pool("p"));
    let by = Timestamp::from_millis(60_000);
    let bundle = Bundle { git_token_until: None, take_by: Some(by), ..bundle("s") };
    let sealed = bundle.seal(&key.public(), &ca1()).unwrap();
    let opened = Bundle::open(&key, &ca1(), &sealed).unwrap();
    assert!(!opened.is_over(Timestamp::from_millis(59_999)));
    assert!(opened.is_over(by));
}

#[test]
fn a_user_name_from_a_secret_is_masked_and_one_that_was_given_is_not() {
    let masked = bundle("hunter2").masked().unwrap();
    let masked: Vec<&str> = masked.iter().map(ExposeSecret::expose_secret).collect();
    assert!(masked.contains(&"robot-7") && !masked.contains(&"mona"), "{masked:?}");
}

#[test]
fn a_token_with_a_user_is_masked_without_it_too() {
    let git_token = Some(SecretString::from("x-access-token:ghs_canary"));
    let masked = Bundle { git_token, ..Bundle::default() }.masked().unwrap();
    assert!(masked.iter().any(|secret| secret.expose_secret() == "ghs_canary"));
}

#[test]
fn a_bundle_does_not_open_for_a_changed_run() {
    let key = ring(&[1]).pool_key(&pool("p"));
    let sealed = bundle("s").seal(&key.public(), &ca1()).unwrap();
    let mut moved = ca1();
    moved.archived = true;
    moved.git_token = Some(Sealed::from_text("sealed anew".to_owned()));
    assert!(Bundle::open(&key, &moved, &sealed).is_ok());
    assert!(Bundle::open(&key, &run("ca1", "other"), &sealed).is_err());
}

#[test]
fn a_missing_key_is_named_with_the_remedy() {
    let run = &ca1();
    let sealed = bundle("s").seal(&ring(&[2]).pool_key(&pool("p")).public(), run).unwrap();
    let error = Bundle::open(&ring(&[1]).pool_key(&pool("p")), run, &sealed).unwrap_err();
    insta::assert_snapshot!(error, @"the key of pool p does not open the secrets of run ca1: they are sealed by service key bfbab41b8bd7f964, and the pool key is derived from d0b2f868470e3a31: make it anew with `gantry secret pool-key p`");
}

#[test]
fn an_old_key_opens_until_the_bundle_is_resealed() {
    let run = &ca1();
    let sealed = bundle("s").seal(&ring(&[1]).pool_key(&pool("p")).public(), run).unwrap();
    let both = ring(&[2, 1]).pool_key(&pool("p"));
    assert!(Bundle::open(&both, run, &sealed).is_ok());
    let anew = Bundle::reseal(&both, run, &sealed).unwrap().unwrap();
    assert!(Bundle::open(&ring(&[2]).pool_key(&pool("p")), run, &anew).is_ok());
    assert!(Bundle::reseal(&both, run, &anew).unwrap().is_none(), "it is sealed so already");
}

#[test]
fn a_pool_key_file_round_trips_and_explains_itself() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.key");
    let key = ring(&[2, 1]).pool_key(&pool("p"));
    key.write(&path).unwrap();
    key.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = PoolKey::read(&path, &pool("p")).unwrap();
    assert_eq!((read.fingerprints(), read.public()), (key.fingerprints(), key.public()));
    assert_eq!(read.derive("x").expose_secret(), key.derive("x").expose_secret());

    let other = PoolKey::read(&path, &pool("q")).unwrap_err().to_string();
    assert!(other.contains("is the key of pool p, and this worker is of pool q"), "{other}");
    let refused = ring(&[1]).pool_key(&pool("q")).write(&path).unwrap_err();
    assert!(
        matches!(refused, PoolKeyError::OtherPool { .. }),
        "another pool's key stays: {refused}"
    );
    for (text, line) in [("", 1), ("# none\n\np 0011\n", 3), ("not hex\n", 1)] {
        write_private(&path, text.as_bytes()).unwrap();
        let error = PoolKey::read(&path, &pool("p")).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("line {line} of")) && error.contains("pool-key p"),
            "{error}"
        );
    }
    let absent = PoolKey::read(Path::new("/nowhere/p.key"), &pool("p")).unwrap_err().to_string();
    assert!(absent.contains("`gantry secret pool-key p --to FILE`"), "{absent}");
}

proptest! {
    // Each case takes milliseconds without optimization.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_bundle_opens_only_with_its_key_for_its_pool_and_run(
        secret in ".{0,200}",
        keys in (1_u8..9, 1_u8..9),
        pools in ("[a-z][a-z0-9-]{0,9}", "[a-z][a-z0-9-]{0,9}"),
        runs in (1_u64..99, 1_u64..99),
    ) {
        let run = |number| run(&format!("ca{number}"), "hello");
        let sealed_to = ring(&[keys.0]).pool_key(&pool(&pools.0));
        let opened_with = ring(&[keys.1]).pool_key(&pool(&pools.1));
        let sealed = bundle(&secret).seal(&sealed_to.public(), &run(runs.0)).unwrap();
        let opened = Bundle::open(&opened_with, &run(runs.1), &sealed);
        let is_the_same = keys.0 == keys.1 && pools.0 == pools.1 && runs.0 == runs.1;
        prop_assert_eq!(opened.is_ok(), is_the_same);
        let own = Bundle::open(&sealed_to, &run(runs.0), &sealed).unwrap().git_token.unwrap();
        prop_assert_eq!(own.expose_secret(), secret.as_str());
    }

    #[test]
    fn a_bundle_that_was_changed_does_not_open(place in 0_usize..2000, byte in b'A'..=b'z') {
        let key = ring(&[1]).pool_key(&pool("p"));
        let run = &ca1();
        let sealed = bundle("s").seal(&key.public(), run).unwrap();
        let mut text = sealed.as_text().as_bytes().to_vec();
        let place = place % text.len();
        prop_assume!(text[place] != byte);
        text[place] = byte;
        let changed = Sealed::from_text(String::from_utf8(text).unwrap());
        prop_assert!(Bundle::open(&key, run, &changed).is_err());
    }
}

#[test]
fn more_secrets_than_can_be_masked_are_refused_and_the_largest_is_named() {
    let of = |bytes: usize| {
        let value = SecretString::from("x".repeat(bytes));
        Bundle { build_args: [("KEY".parse().unwrap(), value)].into(), ..bundle("y") }
    };
    // The lengths of the password, the token, the value, the secret, the query and the user name.
    let others = 1 + 1 + 1 + 1 + "sig=a-signature".len() + "robot-7".len();
    assert_eq!(of(MOST_SECRET_BYTES - others).masked().unwrap().len(), 7);
    let refused = of(MOST_SECRET_BYTES - others + 1).masked().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the secrets of a run take 32769 bytes together, and more than 32768 cannot be masked in its log (the largest is `KEY`, 32743 bytes): make them smaller, or give files to the build another way"
    );
}
