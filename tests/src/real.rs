//! The real parts that `make test` starts: an engine, a registry, a base image in it, and servers.

use crate::own_engine::Dockerd;

/// The engines to test on.
#[derive(Debug, Clone, Copy)]
pub enum Engine {
    /// The engine that `make test` finds or starts.
    Default,
    /// The engine with the containerd image store.
    Containerd,
}

impl Engine {
    /// The engine's address.
    #[must_use]
    pub fn docker_host(self) -> String {
        match self {
            Self::Default => docker_host(),
            Self::Containerd => containerd_docker_host(),
        }
    }

    /// The program that starts another engine of this kind.
    #[must_use]
    pub fn dockerd(self) -> Dockerd {
        match self {
            Self::Default => Dockerd::Default,
            Self::Containerd => Dockerd::Containerd,
        }
    }
}

/// Makes each of these functions a test on both engines: `make test` runs those on the default engine, and
/// `make test-engines` those on the containerd store.
#[macro_export]
macro_rules! on_each_engine {
    // For tests that would have the same result with either store.
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

/// The address of the default engine.
#[must_use]
pub fn docker_host() -> String {
    variable("GANTRY_TEST_DOCKER_HOST")
}

/// The address of the engine with the containerd image store.
#[must_use]
pub fn containerd_docker_host() -> String {
    variable("GANTRY_TEST_CONTAINERD_DOCKER_HOST")
}

/// `host:port` of the registry, which needs no password.
#[must_use]
pub fn registry() -> String {
    variable("GANTRY_TEST_REGISTRY")
}

/// A base image with a shell.
#[must_use]
pub fn base_image() -> String {
    format!("{}/busybox:1", registry())
}

/// A static busybox for arm64.
#[must_use]
pub fn arm64_busybox() -> std::path::PathBuf {
    variable("GANTRY_TEST_ARM64_BUSYBOX").into()
}

/// The program `oras`, which pushes artifacts.
#[must_use]
pub fn oras() -> std::path::PathBuf {
    variable("GANTRY_TEST_ORAS").into()
}

/// The URL of Redis, without a password.
#[must_use]
pub fn redis() -> String {
    variable("GANTRY_TEST_REDIS")
}

/// The URL of RabbitMQ without a vhost; user and password are `guest`.
#[must_use]
pub fn amqp() -> String {
    variable("GANTRY_TEST_AMQP")
}

/// The URL of RabbitMQ's management API.
#[must_use]
pub fn rabbitmq_api() -> String {
    variable("GANTRY_TEST_RABBITMQ_API")
}

/// The address of an S3 server that accepts any credentials.
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
