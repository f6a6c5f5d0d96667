use std::path::Path;

use super::*;

fn file(text: &str) -> Option<SettingsFile<'_>> {
    Some(SettingsFile { path: Path::new("gantry.toml"), text })
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(key: &str, value: &str) -> Flag {
    Flag { name: "--set".to_owned(), key: key.to_owned(), value: value.to_owned() }
}

#[test]
fn the_defaults_hold() {
    let settings = Settings::parse(&Layers::default()).unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:7300");
    assert_eq!(settings.lease.duration, Duration::from_secs(30));
    assert_eq!(settings.engine.address, None);
    assert_eq!(settings.limits.upload, 4 << 30);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let environment = variables(&[
        ("GANTRY_WORKER_SLOTS", "4"),
        ("GANTRY_LEASE_DURATION", "40s"),
        ("GANTRY_OUTBOUND_ALLOW", "127.0.0.1, registry.lan"),
        ("GANTRY_WORKER_ENABLED", "false"),
        (
            "GANTRY_CODE_HOSTS_APIS",
            "git.corp=github, code.corp=gitlab@https://code.corp/git/api/v4",
        ),
    ]);
    let settings = Settings::parse(&Layers {
        file: file("data = 'a'\n[worker]\nslots = 3\n[lease]\nduration = '20s'\nrenew = '5s'\n"),
        environment: &environment,
        flags: &[flag("worker.slots", "5")],
        rules: &[],
    })
    .unwrap();
    assert_eq!(settings.data, Path::new("a"));
    assert_eq!(settings.worker.slots.get(), 5);
    assert_eq!(settings.lease.duration, Duration::from_secs(40));
    assert_eq!(settings.lease.renew, Duration::from_secs(5));
    assert_eq!(settings.outbound.allow, ["127.0.0.1", "registry.lan"]);
    assert!(!settings.worker.enabled);
    let hosts: Vec<String> = settings.code_hosts.apis.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["git.corp=github", "code.corp=gitlab@https://code.corp/git/api/v4"]);
}

#[test]
fn registries_have_intervals_of_their_own_which_are_no_shorter_than_half_a_minute() {
    let parse = |value: &str| {
        let flags = [flag("images.intervals", value)];
        let layers = Layers { file: None, environment: &[], flags: &flags, rules: &[] };
        Settings::parse(&layers).map_err(|mistakes| mistakes.to_string())
    };
    let intervals = parse("index.docker.io=30m,reg.lan:5000=30s").unwrap().images.intervals;
    let shown: Vec<_> = intervals.iter().map(|(host, it)| (host.as_str(), it.as_secs())).collect();
    assert_eq!(shown, [("docker.io", 1800), ("reg.lan:5000", 30)]);
    for (wrong, rule) in [
        ("docker.io", "`docker.io` has no interval: write `HOST=DURATION`"),
        ("docker.io=soon", "a duration is a whole number"),
        ("docker.io=1h,index.docker.io=2h", "it names docker.io twice: remove one"),
        ("docker.io=29s", "at least 30 seconds each"),
    ] {
        let refused = parse(wrong).unwrap_err();
        assert!(refused.contains(rule), "{refused}");
    }
}

#[test]
fn all_mistakes_of_all_layers_are_told_at_once() {
    let environment = variables(&[
        ("GANTRY_WORKER_SLOTS", "many"),
        ("GANTRY_WORKER_SLOT", "1"),
        ("GANTRY_SERVER_PUBLIC_URL", "ftp://gantry.example"),
    ]);
    let mistakes = Settings::parse(&Layers {
        file: file(
            "[server]\nlisten = 'localhost'\nlistn = '127.0.0.1:1'\n\n[engine]\nkeep = 20\n[worker]\npool = 'a b'\nmin_free = '2GB'\n[log]\nformat = 'xml'\nlevel = 'loud'\n",
        ),
        environment: &environment,
        flags: &[
            flag("lease.renew", "soon"),
            flag("retention.runs", ""),
            flag("outbound.allow", "here,there"),
            flag("code_hosts.apis", "git.corp=github,code.corp=svn"),
        ],
        rules: &[Rule {
            key: "outbound.allow",
            check: |settings| match settings.outbound.allow.as_slice() {
                [] => Ok(()),
                [first, ..] => Err(format!("`{first}` is nowhere")),
            },
        }],
    })
    .unwrap_err();
    insta::assert_snapshot!(mistakes, @r#"
    14 settings are wrong, so nothing was started:
      engine.keep = 20 (gantry.toml line 6): it is a text, in quotes
      log.format = "xml" (gantry.toml line 11): unknown variant `xml`, expected one of `auto`, `human`, `json`
      log.level = "loud" (gantry.toml line 12): `error`, `warn`, `info`, `debug` or `trace`, also by part: `warn,gantry=debug`
      server.listen = "localhost" (gantry.toml line 2): it is an IP address and a port, like `127.0.0.1:7300`
      server.listn (gantry.toml line 3): there is no such setting: did you mean `server.listen`?
      worker.min_free = "2GB" (gantry.toml line 9): a size is a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`, like `10GiB`
      worker.pool = "a b" (gantry.toml line 8): `a b` is no pool name: 1 to 50 letters, digits, `-` or `_`, beginning with a letter or digit
      worker.slots = "many" (GANTRY_WORKER_SLOTS): it is a whole number
      GANTRY_WORKER_SLOT (the environment): there is no such setting: did you mean `GANTRY_WORKER_SLOTS`?
      server.public_url = "ftp://gantry.example" (GANTRY_SERVER_PUBLIC_URL): an `https://` or `http://` address without user, `?` and `#`
      lease.renew = "soon" (--set): a duration is a whole number and `ms`, `s`, `m`, `h` or `d`, like `30s`
      retention.runs = "" (--set): a duration is a whole number and `ms`, `s`, `m`, `h` or `d`, like `30s`
      outbound.allow = "here,there" (--set): `here` is nowhere
      code_hosts.apis = "git.corp=github,code.corp=svn" (--set): `code.corp=svn` is no code host: the kind is `github`, `azure-devops`, `gitlab`, `gitea` or `bitbucket`
    "#);
}

#[test]
fn contradictory_settings_are_all_reported() {
    let mistakes = Settings::parse(&Layers {
        file: file("[server]\ntls_key = 'key.pem'\nhooks_listen = '127.0.0.1:7300'\n[lease]\nrenew = '20s'\n[code_hosts]\napis = ['git.corp=gitea', 'git.corp=github']\n"),
        ..Layers::default()
    })
    .unwrap_err();
    insta::assert_snapshot!(mistakes, @r#"
    4 settings are wrong, so nothing was started:
      server.tls_key = "key.pem" (gantry.toml line 2): set both `server.tls_certificate` and `server.tls_key`, or none
      server.hooks_listen = "127.0.0.1:7300" (gantry.toml line 3): it is the same as `server.listen`: leave it empty, or choose another
      lease.renew = "20s" (gantry.toml line 5): more than nothing, and at most half of `lease.duration`
      code_hosts.apis = ["git.corp=gitea", "git.corp=github"] (gantry.toml line 7): it names a host twice: remove one
    "#);
}

#[test]
fn no_mistake_shows_a_password() {
    let url = "amqp://me:pass@word@one:5672,amqp://me:pass@two".to_owned();
    let flags = [("queue.urls", url), ("store.password", "word".to_owned())]
        .map(|(key, value)| Flag { name: "--set".to_owned(), key: key.to_owned(), value });
    let refuse = Rule { key: "queue.urls", check: |_| Err("no password in a URL".to_owned()) };
    let layers = Layers { flags: &flags, rules: &[refuse], ..Layers::default() };
    insta::assert_snapshot!(Settings::parse(&layers).unwrap_err(), @r#"
    2 settings are wrong, so nothing was started:
      queue.urls = "amqp://me:..@one:5672,amqp://me:..@two" (--set): no password in a URL
      store.password (--set): there is no such setting: did you mean `store.password_file`?
    "#);
}

#[test]
fn invalid_toml_is_reported_with_its_position() {
    let mistakes = Settings::parse(&Layers {
        file: file("data = 'a'\nworker.slots = = 2\n"),
        ..Layers::default()
    });
    insta::assert_snapshot!(mistakes.unwrap_err(), @r"
    one setting is wrong, so nothing was started:
      the file (gantry.toml line 2): extra `=`, expected nothing
    ");
}

#[test]
fn a_github_app_has_an_id_a_key_a_host_that_is_github_and_grants() {
    let parse = |flags: &[Flag]| Settings::parse(&Layers { flags, ..Layers::default() });
    let id = flag("github_app.id", "Iv23liAbC");
    let key = flag("github_app.private_key_file", "/etc/app.pem");
    let grants = flag("github_app.grants", "demo=octo/*,demo=acme/web");
    let enterprise = flag("github_app.host", "git.corp");
    let api = flag("code_hosts.apis", "git.corp=github");
    let parsed = parse(&[id.clone(), key.clone(), grants.clone()]).unwrap().github_app;
    assert_eq!((parsed.id.unwrap().as_str(), parsed.host.as_str()), ("Iv23liAbC", "github.com"));
    assert_eq!(parsed.grants.len(), 2);
    parse(&[id.clone(), key.clone(), enterprise.clone(), api]).unwrap();
    for (flags, told) in [
        (vec![id.clone()], "set `id` and `private_key_file`, or none of them"),
        (vec![grants], "set `github_app.id`, too"),
        (
            vec![id.clone(), key.clone(), enterprise],
            "add it to `code_hosts.apis`, as `HOST=github`",
        ),
        (vec![id, key, flag("github_app.grants", "demo=*")], "a grant is `REGISTRY=OWNER/*`"),
    ] {
        let mistakes = parse(&flags).unwrap_err().to_string();
        assert!(mistakes.contains(told), "{mistakes}");
    }
}

#[test]
fn a_registry_has_one_credential_helper_whose_credentials_live_for_minutes_at_least() {
    let parse = |key: &str, value: &str| {
        let flags = [flag(key, value)];
        let layers = Layers { file: None, environment: &[], flags: &flags, rules: &[] };
        Settings::parse(&layers).map_err(|mistakes| mistakes.to_string())
    };
    let settings = parse("credential.helpers", "ghcr.io=pass,registry.lan:5000=/opt/helper");
    let helpers = settings.unwrap().credential.helpers;
    let shown: Vec<String> = helpers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["ghcr.io=pass", "registry.lan:5000=/opt/helper"]);
    for (key, wrong, rule) in [
        ("credential.helpers", "ghcr.io=../pass", "`HOST=NAME` for the program"),
        ("credential.helpers", "docker.io=a,index.docker.io=b", "it names a host twice"),
        ("credential.lifetime", "10s", "at least five minutes"),
    ] {
        let refused = parse(key, wrong).unwrap_err();
        assert!(refused.contains(rule), "{refused}");
    }
}
