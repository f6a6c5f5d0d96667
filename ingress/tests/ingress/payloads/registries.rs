//! Registries. The payloads have the forms that are documented or published by:
//!
//! - Docker Hub: docs.docker.com, "Webhooks";
//! - Quay: "Repository Notifications" of Red Hat Quay, and `notifications/notificationevent.py` in quay/quay;
//! - Azure Container Registry: "webhook reference" of Microsoft Learn;
//! - Harbor: "Configure Webhook Notifications", and `src/pkg/notifier/formats` in goharbor/harbor;
//! - GitHub: `package` of `@octokit/webhooks-examples`, with the values that live ones have.

use gantry_domain::event::EventKind;
use gantry_domain::hook::{Provider, Sender};
use serde_json::Value;

use super::{assert_meanings, folder, told};

const NEVER: &str = "nothing: nothing in it can matter";

#[test]
fn every_payload_of_docker_hub_means_what_was_expected() {
    let no_tag = "unreadable: it names neither a tag nor a digest";
    let expected = [
        ("push", "", "image docker.io/octo/base:latest, unproven"),
        ("push-version", "", "image docker.io/octo/base:1.2.3-alpine_3.20, unproven"),
        ("push-official", "", "image docker.io/library/alpine:3.20, unproven"),
        ("push-single-name", "", "image docker.io/library/alpine:3.20, unproven"),
        ("push-without-tag", "", no_tag),
        ("push-tag-a-number", "", no_tag),
        (
            "push-invalid-tag",
            "",
            "unreadable: `a tag` is no tag: 1 to 128 letters, digits or `_.-`, not beginning with `.` or `-`",
        ),
        // Whatever it is called, it is a repository of Docker Hub.
        ("push-other-host", "", "image docker.io/evil.example/octo/base:latest, unproven"),
        (
            "push-upper-case",
            "",
            "unreadable: `Octo/Base` is no repository: words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by `/`, at most 255 characters",
        ),
        ("without-repository", "", "unreadable: missing field `repository` at line 9 column 1"),
    ];
    assert_meanings(Provider::DockerHub, &expected);
}

#[test]
fn every_payload_of_quay_means_what_was_expected() {
    let many: Vec<String> =
        (0..128).map(|tag| format!("image quay.io/octo/base:v{tag}, unproven")).collect();
    let many = many.join("\n");
    let expected = [
        ("push", "", "image quay.io/octo/base:latest, unproven"),
        (
            "push-several-tags",
            "",
            "image quay.io/octo/base:latest, unproven\nimage quay.io/octo/base:1, unproven\nimage quay.io/octo/base:1.2, unproven",
        ),
        ("push-self-hosted", "", "image quay.example:8443/octo/base:latest, unproven"),
        ("push-of-2013", "", "image quay.io/octo/base:latest, unproven"),
        ("push-no-tags", "", NEVER),
        ("push-one-invalid-tag", "", "image quay.io/octo/base:latest, unproven"),
        (
            "push-invalid-tags",
            "",
            "unreadable: tag 0: `a b` is no tag: 1 to 128 letters, digits or `_.-`, not beginning with `.` or `-`",
        ),
        ("push-200-tags", "", &many),
        (
            "push-tags-a-text",
            "",
            "unreadable: `updated_tags` is neither a list of tags nor an object at line 8 column 1",
        ),
        (
            "push-without-url",
            "",
            "unreadable: an empty text is no registry host: `host` or `host:port`, without scheme and path; one word alone, like `registry`, needs its port",
        ),
        ("build-success", "", NEVER),
        ("vulnerability-found", "", NEVER),
    ];
    assert_meanings(Provider::Quay, &expected);
}

#[test]
fn every_payload_of_azure_container_registry_means_what_was_expected() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let pushed = format!("image contoso.azurecr.io/base:latest is sha256:8a9e986, {DOCKER}");
    let by_digest = format!(
        "image contoso.azurecr.io/base@sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8 is sha256:8a9e986, {DOCKER}"
    );
    let without_host = format!("image home.example:5000/base:latest is sha256:8a9e986, {DOCKER}");
    let expected = [
        ("push", "", &*pushed),
        (
            "push-index",
            "",
            "image contoso.azurecr.io/team/base:3.20 is sha256:8a9e986, application/vnd.oci.image.index.v1+json",
        ),
        ("push-by-digest", "", &*by_digest),
        ("push-config", "", NEVER),
        ("push-host-in-capitals", "", &*pushed),
        ("push-without-host", "", &*without_host),
        (
            "push-invalid-digest",
            "",
            "unreadable: `sha256:xxxxd5c8` is no digest: `sha256:` and 64 lower-case hexadecimal digits",
        ),
        (
            "push-invalid-repository",
            "",
            "unreadable: `../base` is no repository: words of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by `/`, at most 255 characters",
        ),
        ("delete", "", NEVER),
        ("chart-push", "", NEVER),
        ("chart-delete", "", NEVER),
        ("quarantine", "", NEVER),
        ("ping", "", "ping"),
        ("without-action", "", "unreadable: missing field `action` at line 18 column 1"),
    ];
    assert_meanings(Provider::Acr, &expected);
}

#[test]
fn every_payload_of_harbor_means_what_was_expected() {
    const PUSHED: &str = "image hub.harbor.com/test-webhook/debian:latest is sha256:8a9e986";
    let expected = [
        ("push", "", PUSHED),
        (
            "push-several",
            "",
            "image hub.harbor.com/test-webhook/debian:1.2 is sha256:8a9e986\nimage hub.harbor.com/test-webhook/debian:latest is sha256:8a9e986",
        ),
        // Each platform of an index is reported with its digest as tag.
        (
            "push-child-of-index",
            "",
            "image hub.harbor.com/test-webhook/debian@sha256:dde8e930c7b6a490f728e66292bc9bce42efc9bbb5278bae40e4f30f6e00fe8c is sha256:dde8e93",
        ),
        (
            "push-nested-repository",
            "",
            "image hub.harbor.com/test-webhook/team/debian:latest is sha256:8a9e986",
        ),
        ("push-of-harbor-1", "", PUSHED),
        (
            "push-cloudevents",
            "",
            "image harbor.dev:8443/test-webhook/debian:latest is sha256:8a9e986",
        ),
        (
            "push-without-url",
            "",
            "image home.example:5000/test-webhook/debian:latest is sha256:8a9e986",
        ),
        (
            "push-of-bare-host",
            "",
            "image home.example:5000/test-webhook/debian:latest is sha256:8a9e986",
        ),
        ("push-one-invalid-digest", "", PUSHED),
        (
            "push-invalid-digest",
            "",
            "unreadable: resource 0: `sha256:short` is no digest: `sha256:` and 64 lower-case hexadecimal digits",
        ),
        ("push-without-resources", "", NEVER),
        ("push-without-data", "", "unreadable: missing field `event_data` at line 5 column 1"),
        ("pull", "", NEVER),
        ("pull-cloudevents", "", NEVER),
        ("delete", "", NEVER),
        ("scan-completed", "", NEVER),
        ("chart-uploaded", "", NEVER),
    ];
    assert_meanings(Provider::Harbor, &expected);
}

#[test]
fn every_payload_of_githubs_registry_means_what_was_expected() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let of = |image: &str| format!("image {image} is sha256:8a9e986, {INDEX}");
    let published = of("ghcr.io/codertocat/hello-world:v1.0.0");
    let expected = [
        ("published", "package", &*published),
        ("updated", "package", &of("ghcr.io/codertocat/hello-world:latest")),
        ("published-to-an-app", "registry_package", &*published),
        (
            "published-untagged",
            "package",
            &of(
                "ghcr.io/codertocat/hello-world@sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8",
            ),
        ),
        ("published-nested-name", "package", &of("ghcr.io/codertocat/hello/frontend:v1.0.0")),
        (
            "published-enterprise",
            "package",
            &of("containers.octo.ghe.com/codertocat/hello-world:v1.0.0"),
        ),
        (
            "published-docker",
            "package",
            &of("docker.pkg.github.com/codertocat/hello-world/web:v1.0.0"),
        ),
        // What is known is that there is a new manifest.
        (
            "published-without-metadata",
            "package",
            "image ghcr.io/codertocat/hello-world@sha256:8a9e9863dbb6e10edb5adfe917c00da84e1700fa76e7ed02476aa6e6fb8ee0d8 is sha256:8a9e986",
        ),
        ("published-chart", "package", NEVER),
        ("published-npm", "package", NEVER),
        ("deleted", "package", NEVER),
        (
            "published-without-version",
            "package",
            "unreadable: the package has no version with an address",
        ),
        (
            "published-without-host",
            "package",
            "unreadable: an empty text is no registry host: `host` or `host:port`, without scheme and path; one word alone, like `registry`, needs its port",
        ),
        ("ping", "ping", "ping"),
        (
            "push",
            "push",
            "nothing: a hook of `ghcr` reads packages only: `push` is for one of `github`",
        ),
    ];
    assert_meanings(Provider::Ghcr, &expected);
}

#[test]
fn a_hook_of_github_reads_packages_like_one_of_its_registry() {
    let [ghcr, github] =
        [Provider::Ghcr, Provider::GitHub].map(|it| Sender::new(it, None).unwrap());
    for file in std::fs::read_dir(folder().join("ghcr")).unwrap() {
        let body = std::fs::read(file.unwrap().path()).unwrap();
        for kind in ["package", "registry_package"] {
            assert_eq!(told(&github, kind, &body), told(&ghcr, kind, &body));
        }
    }
}

#[test]
fn a_published_package_that_is_no_container_is_not_recorded() {
    let text =
        include_str!("../../../../tests/fixtures/octokit-webhooks-examples/api.github.com.json");
    let all: Vec<Value> = serde_json::from_str(text).unwrap();
    let packages = all.iter().find(|kind| kind["name"] == "package").unwrap();
    for example in packages["examples"].as_array().unwrap() {
        let sender = Sender::new(Provider::GitHub, None).unwrap();
        assert_eq!(told(&sender, "package", example.to_string().as_bytes()), NEVER);
    }
}

#[test]
fn what_a_sender_without_a_secret_reports_is_unproven_and_nothing_else_is() {
    for (provider, is_proven) in [
        (Provider::DockerHub, false),
        (Provider::Quay, false),
        (Provider::Acr, true),
        (Provider::Harbor, true),
    ] {
        let sender = Sender::new(provider, None).unwrap();
        let body = std::fs::read(folder().join(provider.as_str()).join("push.json")).unwrap();
        let (_, events) = gantry_ingress::meaning(&sender, None, "", &body);
        let [EventKind::ImagePushed(pushed)] = &*events else { panic!("{events:?}") };
        assert_eq!(pushed.is_proven, is_proven, "{provider}");
    }
}
