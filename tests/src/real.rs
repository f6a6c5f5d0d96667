//! The real parts that `make test` starts and names: an engine, a registry, a base image in it.

/// The engine's address.
#[must_use]
pub fn docker_host() -> String {
    variable("GANTRY_TEST_DOCKER_HOST")
}

/// `host:port` of the registry; no password.
#[must_use]
pub fn registry() -> String {
    variable("GANTRY_TEST_REGISTRY")
}

/// A base image with a shell.
#[must_use]
pub fn base_image() -> String {
    format!("{}/busybox:1", registry())
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: the tests on real parts are run by `make test`, which starts them"
        )
    })
}
