use serde_json::json;

use super::*;

/// The configuration of an image that BuildKit built.
fn built() -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-03-01T10:00:00.123456789Z",
        "author": "ann",
        "config": {
            "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
            "Entrypoint": ["/bin/web"],
            "Cmd": ["--port", "80"],
            "User": "1000",
            "WorkingDir": "/srv",
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"team": "web", "gantry.run": "ca1", "gantry.attempt": "1"},
            "OnBuild": ["RUN make"],
            "StopSignal": "SIGQUIT",
        },
        "history": [{"created": "2026-03-01T10:00:00Z", "created_by": "RUN make # buildkit"}],
        "rootfs": {"type": "layers", "diff_ids": [diff(1), diff(2)]},
    })
}

fn diff(number: u64) -> String {
    format!("sha256:{number:064}")
}

fn key(configuration: &Value) -> ContentKey {
    let bytes = configuration.to_string().into_bytes();
    ImageConfiguration::parse(&bytes).unwrap().content().clone()
}

/// The configuration with the value at a JSON pointer replaced; a new field is added to its object.
fn with(mut configuration: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = configuration.pointer_mut(parent).unwrap();
    if let Some(values) = parent.as_array_mut() {
        values[name.parse::<usize>().unwrap()] = value;
    } else {
        parent[name] = value;
    }
    configuration
}

fn without(mut configuration: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    configuration.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    configuration
}

#[test]
fn a_rebuild_of_the_same_content_keeps_the_key() {
    let same = key(&built());
    for (pointer, value) in [
        ("/created", json!("2027-01-01T00:00:00Z")),
        ("/history", json!([])),
        ("/history/0/created_by", json!("RUN true")),
        ("/comment", json!("committed")),
        ("/container", json!("4f2a91c0ffee")),
        (
            "/container_config",
            json!({"Hostname": "4f2a91c0ffee", "Cmd": ["/bin/sh", "-c", "#(nop)"]}),
        ),
        ("/docker_version", json!("20.10.7")),
        ("/id", json!("4f2a91")),
        ("/parent", json!("4f2a90")),
        ("/moby.buildkit.cache.v0", json!("eyJsYXllcnMiOltdfQ==")),
        ("/moby.buildkit.buildinfo.v1", json!("eyJzb3VyY2VzIjpbXX0=")),
        ("/config/Image", json!(diff(9))),
        ("/config/Hostname", json!("4f2a91c0ffee")),
        ("/config/Labels/gantry.run", json!("cb2")),
        ("/config/Labels/gantry.attempt", json!("3")),
        ("/config/Labels/gantry.image", json!("gantry/x:1")),
        ("/config/Labels/gantry.installation", json!("other")),
    ] {
        assert_eq!(key(&with(built(), pointer, value)), same, "{pointer}");
    }
    for pointer in ["/created", "/history", "/config/Labels/gantry.run"] {
        assert_eq!(key(&without(built(), pointer)), same, "{pointer}");
    }
}

#[test]
fn whatever_a_container_would_notice_changes_the_key() {
    let mut keys = vec![key(&built())];
    for (pointer, value) in [
        ("/rootfs/diff_ids/1", json!(diff(3))),
        ("/rootfs/diff_ids", json!([diff(1)])),
        ("/rootfs/diff_ids", json!([diff(2), diff(1)])),
        ("/config/Env/1", json!("LANG=C")),
        ("/config/Env", json!(["LANG=C.UTF-8", "PATH=/usr/bin"])),
        ("/config/Entrypoint", json!(["/bin/other"])),
        ("/config/Cmd", json!([])),
        ("/config/User", json!("0")),
        ("/config/WorkingDir", json!("/")),
        ("/config/ExposedPorts", json!({"81/tcp": {}})),
        ("/config/Volumes", json!({"/data": {}})),
        ("/config/Labels/team", json!("shop")),
        ("/config/Labels/gantry.other", json!("1")),
        ("/config/Labels/org.opencontainers.image.created", json!("2026-03-01")),
        ("/config/OnBuild", json!(["RUN make test"])),
        ("/config/Healthcheck", json!({"Test": ["CMD", "true"]})),
        ("/config/StopSignal", json!("SIGTERM")),
        ("/architecture", json!("arm64")),
        ("/variant", json!("v8")),
        ("/os", json!("windows")),
        ("/author", json!("ben")),
        ("/a.field.of.tomorrow", json!(true)),
    ] {
        keys.push(key(&with(built(), pointer, value)));
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "two of them have the same key");
}

#[test]
fn an_image_with_only_labels_of_gantry_has_the_key_of_one_without_labels() {
    let none = key(&without(built(), "/config/Labels"));
    for labels in [json!({"gantry.run": "ca1", "gantry.image": "x"}), json!({}), json!(null)] {
        assert_eq!(key(&with(built(), "/config/Labels", labels.clone())), none, "{labels}");
    }
}

#[test]
fn the_key_does_not_depend_on_the_order_of_fields_or_on_spaces() {
    let one = br#"{"os":"linux","architecture":"arm64","variant":"v8","config":{"User":"a","Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["x"]}}"#;
    let other = br#" { "rootfs" : { "diff_ids" : ["x"], "type" : "layers" }, "config": { "Env": ["A=1"], "User": "\u0061" },
        "variant": "v8", "architecture": "arm64", "os": "linux" } "#;
    let (one, other) =
        (ImageConfiguration::parse(one).unwrap(), ImageConfiguration::parse(other).unwrap());
    assert_eq!(one, other);
}

#[test]
fn the_key_of_a_configuration_stays_what_it_was_in_earlier_releases() {
    // Another key would rebuild everything once.
    assert_eq!(
        key(&built()).as_str(),
        "sha256:a8af7893f671db721e9e7e95924ee2fb2c6cae452add08c9990ae9035dfd5e94"
    );
}

#[test]
fn an_image_suits_the_platform_of_its_configuration() {
    let configuration = ImageConfiguration::parse(built().to_string().as_bytes()).unwrap();
    assert!(configuration.fit(&"linux/amd64".parse().unwrap()).is_some());
    assert!(configuration.fit(&"linux/arm64".parse().unwrap()).is_none());
    let unnamed = without(without(built(), "/os"), "/architecture").to_string();
    let unnamed = ImageConfiguration::parse(unnamed.as_bytes()).unwrap();
    assert!(unnamed.fit(&"linux/amd64".parse().unwrap()).is_none());
}

#[test]
fn other_bytes_are_refused_with_the_reason() {
    for (bytes, refused) in [
        (&b""[..], InvalidConfiguration::NotJson),
        (b"[]", InvalidConfiguration::NotJson),
        (b"\x1f\x8b\x08", InvalidConfiguration::NotJson),
        (b"{}", InvalidConfiguration::NotAnImage),
        (br#"{"name":"chart","version":"1"}"#, InvalidConfiguration::NotAnImage),
        (br#"{"rootfs":[]}"#, InvalidConfiguration::NotAnImage),
    ] {
        assert_eq!(ImageConfiguration::parse(bytes), Err(refused));
    }
    let deep = format!(r#"{{"rootfs":{{}},"a":{}"#, "[".repeat(200_000));
    assert_eq!(ImageConfiguration::parse(deep.as_bytes()), Err(InvalidConfiguration::NotJson));
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(ImageConfiguration::parse(&large), Err(InvalidConfiguration::TooLarge));
    assert!(ImageConfiguration::parse(br#"{"rootfs":{}}"#).is_ok());
}

proptest::proptest! {
    #[test]
    fn parsing_any_bytes_terminates(bytes: Vec<u8>) {
        let _any = ImageConfiguration::parse(&bytes);
    }
}
