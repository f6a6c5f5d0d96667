//! Lists the images of an engine without gantry's own client.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::errors::Error::DockerResponseServerError;
use bollard::query_parameters::ListImagesOptionsBuilder;

/// All images with these labels, as text. If the containerd image store cannot list them because one is being removed,
/// returns a text about that one.
///
/// # Errors
/// The engine's error.
pub async fn images_with(engine: &Docker, labels: &[&str]) -> Result<Vec<String>> {
    let mut filters = HashMap::new();
    if !labels.is_empty() {
        filters.insert("label", labels.to_vec());
    }
    let options = ListImagesOptionsBuilder::default().all(true).filters(&filters).build();
    match engine.list_images(Some(options)).await {
        Ok(images) => {
            let images = images.iter();
            Ok(images.map(|image| format!("image {:?} {}", image.repo_tags, image.id)).collect())
        }
        Err(DockerResponseServerError { status_code: 404 | 500, message }) => {
            Ok(vec![format!("an image that is being removed: {message}")])
        }
        Err(error) => Err(error.into()),
    }
}
