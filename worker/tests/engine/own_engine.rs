//! An engine that is killed during builds, or whose disk is full.

use std::time::Duration;

use gantry_worker::engine::docker::DockerEngine;
use gantry_worker::engine::{BuildError, BuildEvent, Engine, EngineError, Leftover, LeftoverKind};
use tokio::sync::mpsc;

use crate::docker::is_running;
use crate::engine::{OwnEngine, shell};
use crate::rig::{build, context, order, tar, until};
use crate::tested::{Tested, on_each_engine};

on_each_engine! { slow on the default engine:
    a_killed_engine_fails_its_build_and_the_process_it_left_is_found_and_ended,
    a_full_disk_of_the_engine_is_told_as_such,
    a_removal_that_is_cut_off_leaves_the_engine_working,
    pruning_the_whole_cache_keeps_the_images,
}

fn client(own: &OwnEngine) -> DockerEngine {
    DockerEngine::connect(own.socket().to_str().unwrap()).unwrap()
}

async fn processes(engine: &DockerEngine) -> Vec<Leftover> {
    let mut found = engine.leftovers("nobody").await.unwrap();
    found.retain(|leftover| leftover.kind == LeftoverKind::BuildProcess);
    found
}

async fn a_killed_engine_fails_its_build_and_the_process_it_left_is_found_and_ended(on: Tested) {
    let mut own = OwnEngine::start("killed", on.dockerd(), None).await;
    let marks = match on {
        Tested::Default => ["86001", "86002"],
        Tested::Containerd => ["86003", "86004"],
    };
    for (signal, mark) in ["KILL", "TERM"].into_iter().zip(marks) {
        let engine = client(&own);
        let order = order(
            "registry.test",
            &format!(
                "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN echo waiting; /bin/sh -c 'sleep {mark}'; exit 3\n"
            ),
        );
        let (events, mut received) = mpsc::channel(16);
        let building = tokio::spawn({
            let engine = engine.clone();
            async move { engine.build(order, context(tar(&[("sh", &shell())])), events).await }
        });
        while let Some(event) = received.recv().await {
            if matches!(event, BuildEvent::Output { bytes, .. } if bytes.starts_with(b"waiting")) {
                break;
            }
        }
        until("the step to run", || is_running(mark)).await;
        assert_eq!(processes(&engine).await, [], "a build that goes on left nothing");

        own.end(signal);
        let error = building.await.unwrap().unwrap_err();
        assert!(
            matches!(error, BuildError::Engine(EngineError::Unreachable { .. })),
            "{signal}: {error:?}"
        );

        own.start_again().await;
        let left = processes(&engine).await;
        assert!(is_running(mark), "what the engine does not end itself is what this is about");
        let [leftover] = left.as_slice() else { panic!("{signal}: {left:?}") };
        engine.remove(leftover).await.unwrap();
        engine.remove(leftover).await.unwrap();
        assert!(!is_running(mark));
        assert_eq!(processes(&engine).await, []);
    }
}

async fn a_full_disk_of_the_engine_is_told_as_such(on: Tested) {
    let own = OwnEngine::start("full", on.dockerd(), Some(64)).await;
    let big = tar(&[("big", &vec![b'x'; 40_000_000])]);
    // There is enough space for the archive, but not for its unpacked files.
    let order = order("registry.test", "FROM scratch\nCOPY big /\n");
    let error = build(&client(&own), order, context(big)).await.0.unwrap_err();
    assert!(matches!(error, BuildError::DiskFull { .. }), "{error:?}");
    assert!(error.is_transient());
}

async fn a_removal_that_is_cut_off_leaves_the_engine_working(on: Tested) {
    let own = OwnEngine::start("cut", on.dockerd(), None).await;
    let engine = client(&own);
    let files: Vec<String> = (0..12).map(|number| format!("file-{number}")).collect();
    let context_files: Vec<(&str, &[u8])> =
        files.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let lines: String = files.iter().map(|name| format!("COPY {name} /\n")).collect();
    let dockerfile = format!("FROM scratch\n{lines}");
    for cut in [1, 2, 5, 10, 20, 40] {
        let order = order("registry.test", &dockerfile);
        build(&engine, order, context(tar(&context_files))).await.0.unwrap();
        let cut = Duration::from_millis(cut);
        let _cut_off = tokio::time::timeout(cut, engine.prune_cache(0)).await;
    }
    let order = order("registry.test", &dockerfile);
    let last = build(&engine, order, context(tar(&context_files)));
    tokio::time::timeout(Duration::from_secs(120), last)
        .await
        .expect("the engine works")
        .0
        .unwrap();
}

async fn pruning_the_whole_cache_keeps_the_images(on: Tested) {
    const SIZE: usize = 3_000_000;
    let own = OwnEngine::start("shrunk", on.dockerd(), None).await;
    let engine = client(&own);
    let order = order("registry.test", "FROM scratch\nCOPY big /\n");
    let files = tar(&[("big", &vec![b'x'; SIZE])]);
    build(&engine, order.clone(), context(files.clone())).await.0.unwrap();

    assert_eq!(engine.prune_cache(1 << 40).await.unwrap(), 0);
    assert!(engine.prune_cache(0).await.unwrap() > 0);
    assert_eq!(engine.prune_cache(0).await.unwrap(), 0);

    let left = engine.leftovers(&order.installation).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    let (built, told) = build(&engine, order.clone(), context(files)).await;
    built.unwrap();
    let cached = |event: &BuildEvent| matches!(event, BuildEvent::Completed { cached: true, .. });
    assert!(!told.events.iter().any(cached), "{told:?}");
    // The image that lost its name to the new one is also a leftover.
    for leftover in engine.leftovers(&order.installation).await.unwrap() {
        engine.remove(&leftover).await.unwrap();
    }
    assert_eq!(engine.leftovers(&order.installation).await.unwrap(), []);
}
