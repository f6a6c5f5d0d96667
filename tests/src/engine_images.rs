//! The images of an engine, asked for past gantry's own client.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::errors::Error::DockerResponseServerError;
use bollard::query_parameters::ListImagesOptionsBuilder;

/// Every image with all of these labels, in words. While one is being removed, the containerd image store cannot list
/// them: that one is told of.
///
/// # Errors
/// What the engine says.
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
