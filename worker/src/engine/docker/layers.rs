//! Layers of a build that a registry keeps for later builds.
//!
//! The containerd image store exports those of all stages to a name in the registry. The classic store can only describe
//! the layers of the image in its configuration; then the image itself is pushed under that name.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry};
use gantry_domain::image::ImageReference;

use super::transport::Socket;
use super::{api, push};
use crate::engine::{BuildOrder, EngineError};

/// How an engine gives layers to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// The build exports them.
    Export,
    /// The image describes its own.
    Inline,
}

impl Means {
    pub(super) async fn of(socket: &Socket) -> Result<Self, EngineError> {
        let has_containerd_store = api::has_containerd_store(socket).await?;
        Ok(if has_containerd_store { Self::Export } else { Self::Inline })
    }

    /// What a build is asked to do with its layers. A registry that refuses them does not end it.
    pub(super) fn options(self, cache: &ImageReference) -> CacheOptions {
        let named = |name: &str, value: String| (name.to_owned(), value);
        let (kind, attrs) = match self {
            Self::Export => {
                let attributes = [
                    named("ref", cache.to_string()),
                    named("mode", "max".to_owned()),
                    named("ignore-error", "true".to_owned()),
                ];
                ("registry", HashMap::from(attributes))
            }
            Self::Inline => ("inline", HashMap::new()),
        };
        let entry = CacheOptionsEntry { r#type: kind.to_owned(), attrs };
        CacheOptions { exports: vec![entry], ..CacheOptions::default() }
    }

    /// Does what remains after the build. Returns why the registry does not keep the layers.
    pub(super) async fn keep(
        self,
        socket: &Socket,
        order: &BuildOrder,
        cache: &ImageReference,
    ) -> Option<String> {
        if self == Self::Export {
            return None;
        }
        let credentials = order.registries.get(cache.host());
        if let Err(error) = api::tag(socket, &order.image, cache).await {
            return Some(error.to_string());
        }
        let pushed = push::push(socket, cache, credentials).await;
        if let Err(error) = api::remove_image(socket, &cache.to_string()).await {
            tracing::debug!("{cache} stays in the engine until it is replaced: {error}");
        }
        pushed.err().map(|error| error.to_string())
    }
}
