//! The engines on which every test of a real engine runs.
//!
//! The default engine is at `GANTRY_TEST_DOCKER_HOST`. `make test` starts it with the classic image store; if the
//! machine has an engine, that one is tested instead, with its store. The other engine, at
//! `GANTRY_TEST_CONTAINERD_DOCKER_HOST`, always has the containerd image store, the default of a new Docker Engine 29.

use bollard::Docker;
use gantry_worker::engine::BuildOrder;
use gantry_worker::engine::docker::DockerEngine;

use crate::engine::Dockerd;
use crate::made;
use crate::rig::order;

/// An engine that a test runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tested {
    Default,
    Containerd,
}

impl Tested {
    pub(crate) fn host(self) -> String {
        match self {
            Self::Default => setting("GANTRY_TEST_DOCKER_HOST")
                .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
            Self::Containerd => setting("GANTRY_TEST_CONTAINERD_DOCKER_HOST")
                .expect("GANTRY_TEST_CONTAINERD_DOCKER_HOST to name an engine"),
        }
    }

    pub(crate) fn engine(self) -> DockerEngine {
        DockerEngine::connect(&self.host()).unwrap()
    }

    /// The engine's API, independent of gantry's client.
    pub(crate) fn api(self) -> Docker {
        Docker::connect_with_unix(&self.host(), 60, bollard::API_DEFAULT_VERSION).unwrap()
    }

    /// How to start another engine of this kind.
    pub(crate) fn dockerd(self) -> Dockerd {
        match self {
            Self::Default => Dockerd::Default,
            Self::Containerd => Dockerd::Containerd,
        }
    }

    /// The module of its tests.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Default => "on_the_default_engine",
            Self::Containerd => "on_the_containerd_store",
        }
    }

    /// An order with `FROM busybox` and these lines. Its image is removed when the test ends.
    pub(crate) fn busybox(self, lines: &str) -> BuildOrder {
        let registry = registry();
        let order = order(&registry, &format!("FROM {registry}/busybox:1\n{lines}\n"));
        made::remember(self, &order);
        order
    }
}

pub(crate) fn registry() -> String {
    setting("GANTRY_TEST_REGISTRY").expect("GANTRY_TEST_REGISTRY to name a registry with busybox:1")
}

#[allow(clippy::disallowed_methods, reason = "the environment says which engine the tests may use")]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Makes each of these functions a test on both engines: `make test` runs those on the default engine, and `make
/// test-engines` runs both.
macro_rules! on_each_engine {
    // For slow tests whose result does not depend on the image store.
    (slow on the default engine: $($test:ident),* $(,)?) => {
        mod slow {
            mod on_the_default_engine {
                $(#[tokio::test]
                async fn $test() { super::super::$test($crate::tested::Tested::Default).await; })*
            }
        }
        mod on_the_containerd_store {
            $(#[tokio::test]
            async fn $test() { super::$test($crate::tested::Tested::Containerd).await; })*
        }
    };
    ($($test:ident),* $(,)?) => {
        mod on_the_default_engine {
            $(#[tokio::test]
            async fn $test() { super::$test($crate::tested::Tested::Default).await; })*
        }
        mod on_the_containerd_store {
            $(#[tokio::test]
            async fn $test() { super::$test($crate::tested::Tested::Containerd).await; })*
        }
    };
}
pub(crate) use on_each_engine;
