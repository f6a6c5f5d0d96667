//! The real parts that `make test` starts and names: an engine, a registry, a base image in it.

/// The engine's address.
#[must_use]
pub fn docker_host() -> String {
    variable("GANTRY_TEST_DOCKER_HOST")
}

/// The address of an engine with the containerd image store.
#[must_use]
pub fn containerd_docker_host() -> String {
    variable("GANTRY_TEST_CONTAINERD_DOCKER_HOST")
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

/// The URL of a Redis, without a password.
#[must_use]
pub fn redis() -> String {
    variable("GANTRY_TEST_REDIS")
}

/// The URL of a RabbitMQ without a vhost; user and password are `guest`.
#[must_use]
pub fn amqp() -> String {
    variable("GANTRY_TEST_AMQP")
}

/// The URL of that RabbitMQ's management API.
#[must_use]
pub fn rabbitmq_api() -> String {
    variable("GANTRY_TEST_RABBITMQ_API")
}

/// The address of a server that speaks S3 and takes any credentials.
#[must_use]
pub fn s3() -> String {
    variable("GANTRY_TEST_S3")
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: the tests on real parts are run by `make test`, which starts them"
        )
    })
}
