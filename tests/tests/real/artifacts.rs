//! Contexts that the original `oras` has pushed to a registry.

use std::path::Path;
use std::process::Command;

use gantry_domain::run::RunStatus;
use gantry_domain::source::Source;
use gantry_seams::runs;
use gantry_tests::real;

use crate::builds::{ask, installation, unique};

/// Runs `oras` in a folder.
fn oras(folder: &Path, arguments: &[&str]) {
    let output = Command::new(real::oras()).args(arguments).current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "oras {arguments:?}: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_that_oras_has_pushed_is_built() {
    let gantry = installation().await;
    let name = unique("artifact");
    let folder = tempfile::tempdir().unwrap();
    let dockerfile =
        format!("FROM {}\nCOPY app /app\nRUN grep -q deep /app/inner/file\n", real::base_image());
    std::fs::create_dir_all(folder.path().join("app/inner")).unwrap();
    std::fs::write(folder.path().join("app/inner/file"), "deep").unwrap();
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    let artifact = format!("{}/{name}-source:1", real::registry());
    oras(folder.path(), &["push", "--plain-http", &artifact, "Dockerfile", "app/"]);

    let source: Source = format!("oci://{artifact}").parse().unwrap();
    let image = format!("{name}:{{{{.Run.ID}}}}");
    let change = |task: &mut gantry_domain::task::Task| {
        task.id = format!("real/{name}").parse().unwrap();
        task.recipe.source = source;
        task.source_trigger = None;
    };
    let task = gantry.task_with(&name, &image, change).await;
    let id = ask(&gantry, &task).await;
    assert!(gantry.real_worker("w").turn(&gantry.stop).await.unwrap());
    let run = runs::find(gantry.store.as_ref(), id).await.unwrap().unwrap();
    let log = gantry.log(&id.to_string(), 1).await;
    assert_eq!(run.status(), RunStatus::Succeeded, "{:?}\n{log}", run.state);
}
