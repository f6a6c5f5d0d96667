//! The real parts that `make test` starts and names: an engine, a registry, a base image in it.

use crate::own_engine::Dockerd;

/// An engine that a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum Engine {
    /// The one that `make test` finds or starts.
    Default,
    /// The one with the containerd image store.
    Containerd,
}

impl Engine {
    /// Its address.
    #[must_use]
    pub fn docker_host(self) -> String {
        match self {
            Self::Default => docker_host(),
            Self::Containerd => containerd_docker_host(),
        }
    }

    /// What starts another engine of this kind.
    #[must_use]
    pub fn dockerd(self) -> Dockerd {
        match self {
            Self::Default => Dockerd::Default,
            Self::Containerd => Dockerd::Containerd,
        }
    }
}

/// Makes each of these functions a test on either engine.
#[macro_export]
macro_rules! on_each_engine {
    // Where the one store says what the other would.
    (slow on the default engine: $($test:ident),* $(,)?) => {
        mod slow {
            mod on_the_default_engine {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $test() { super::super::$test($crate::real::Engine::Default).await; })*
            }
        }
        mod on_the_containerd_store {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test($crate::real::Engine::Containerd).await; })*
        }
    };
    ($($test:ident),* $(,)?) => {
        mod on_the_default_engine {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test($crate::real::Engine::Default).await; })*
        }
        mod on_the_containerd_store {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test($crate::real::Engine::Containerd).await; })*
        }
    };
}

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
