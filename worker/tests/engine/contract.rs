//! The contract of every engine.

use std::collections::HashSet;
use std::time::Duration;

use gantry_worker::engine::{
    BuildError, BuildEvent, EngineError, LeftoverKind, OutputStream, PushError,
};
use tokio::sync::mpsc;

use crate::rig::{Recipe, Rig, build, context, tar, until};

/// Makes each of these functions a test of every engine that is named here.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on_the_default_engine {
            $(#[tokio::test]
            async fn $test() { super::$test(&Real(Tested::Default)).await; })*
            use crate::{docker::Real, tested::Tested};
        }
        mod on_the_containerd_store {
            $(#[tokio::test]
            async fn $test() { super::$test(&Real(Tested::Containerd)).await; })*
            use crate::{docker::Real, tested::Tested};
        }
        mod of_the_scripted_engine {
            $(#[tokio::test]
            async fn $test() { super::$test(&crate::scripted::Scripted::new()).await; })*
        }
    };
}

contract! {
    an_engine_reports_its_properties,
    an_engine_reports_its_own_platform_before_those_that_it_emulates,
    a_build_reports_events_in_order_and_makes_an_image,
    a_failed_step_is_reported_with_its_exit_code,
    an_unbuildable_order_is_refused_with_a_message,
    a_dropped_build_leaves_nothing_running,
    a_dropped_build_releases_its_context,
    a_slow_listener_receives_every_byte,
    a_build_continues_without_a_listener,
    two_builds_do_not_wait_for_each_other,
    a_built_image_is_pushed_once_and_again,
    a_missing_image_is_not_pushed,
    an_image_is_removed_once_and_again,
    leftovers_of_the_installation_are_found_and_removed,
    the_cache_can_be_asked_to_shrink,
}

fn files() -> Vec<u8> {
    tar(&[("hello.txt", b"hello\n")])
}

async fn an_engine_reports_its_properties(rig: &dyn Rig) {
    rig.engine().ping().await.unwrap();
    let info = rig.engine().info().await.unwrap();
    assert!(!info.name.is_empty());
    assert_eq!(info.platform.os(), "linux");
}

async fn an_engine_reports_its_own_platform_before_those_that_it_emulates(rig: &dyn Rig) {
    let engine = rig.engine();
    let (info, platforms) = (engine.info().await.unwrap(), engine.platforms().await.unwrap());
    assert_eq!(platforms.first(), Some(&info.platform));
    for (place, platform) in platforms.iter().enumerate() {
        assert!(
            !platforms[..place].iter().any(|other| other.builds_for(platform)),
            "{platforms:?}"
        );
    }
}

async fn a_build_reports_events_in_order_and_makes_an_image(rig: &dyn Rig) {
    let order = rig.order(Recipe::Says("good morning"));
    let (built, told) = build(&*rig.engine(), order, context(files())).await;
    built.unwrap();
    assert!(told.output(OutputStream::Stdout).contains("good morning"), "{told:?}");

    let (mut begun, mut ended) = (HashSet::new(), HashSet::new());
    for event in &told.events {
        match event {
            BuildEvent::Started { vertex, name } => {
                assert!(!name.is_empty());
                assert_eq!(*vertex as usize, begun.len() + 1, "{told:#?}");
                begun.insert(*vertex);
            }
            BuildEvent::Output { vertex, bytes, .. } => {
                assert!(begun.contains(vertex) && !ended.contains(vertex), "{told:?}");
                assert!(!bytes.is_empty() && bytes.len() <= 64 * 1024);
            }
            BuildEvent::Completed { vertex, error, .. } => {
                assert!(begun.contains(vertex), "{told:?}");
                assert_eq!(*error, None);
                ended.insert(*vertex);
            }
        }
    }
    assert_eq!(begun, ended, "{told:?}");
}

async fn a_failed_step_is_reported_with_its_exit_code(rig: &dyn Rig) {
    let order = rig.order(Recipe::Exits(42));
    let (built, told) = build(&*rig.engine(), order, context(files())).await;
    let error = built.unwrap_err();
    assert!(!error.is_transient());
    let BuildError::StepFailed { step, exit_code } = error else { panic!("{error:?}") };
    assert_eq!(exit_code, 42);
    assert!(step.contains("RUN"), "{step}");
    let failed = |event: &BuildEvent| matches!(event, BuildEvent::Completed { error: Some(_), .. });
    assert!(told.events.iter().any(failed), "{told:?}");
}

async fn an_unbuildable_order_is_refused_with_a_message(rig: &dyn Rig) {
    let order = rig.order(Recipe::Nonsense);
    let (built, _) = build(&*rig.engine(), order, context(files())).await;
    let error = built.unwrap_err();
    assert!(!error.is_transient());
    let BuildError::Refused { message } = error else { panic!("{error:?}") };
    assert!(message.contains("FORM"), "{message}");
}

async fn a_dropped_build_leaves_nothing_running(rig: &dyn Rig) {
    let order = rig.order(Recipe::Hangs);
    let engine = rig.engine();
    let (events, mut received) = mpsc::channel(16);
    let build = tokio::spawn({
        let order = order.clone();
        async move { engine.build(order, context(files()), events).await }
    });
    loop {
        let event = received.recv().await.expect("the build to say that it waits");
        if matches!(event, BuildEvent::Output { bytes, .. } if bytes.starts_with(b"waiting")) {
            break;
        }
    }
    until("the step to run", || rig.runs(&order)).await;
    build.abort();
    until("the step to end", || !rig.runs(&order)).await;
}

async fn a_dropped_build_releases_its_context(rig: &dyn Rig) {
    let (mut writer, reader) = tokio::io::duplex(1024);
    let (engine, order) = (rig.engine(), rig.order(Recipe::Says("never")));
    let (events, _received) = mpsc::channel(16);
    let build = tokio::spawn(async move { engine.build(order, Box::pin(reader), events).await });
    // Long enough for the engine to request the context, of which nothing arrives.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!build.is_finished());

    build.abort();
    let let_go =
        async { while tokio::io::AsyncWriteExt::write_all(&mut writer, &[0; 64]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(2), let_go).await.expect("the reader to be dropped");
}

async fn a_slow_listener_receives_every_byte(rig: &dyn Rig) {
    const BYTES: u64 = 500_000;
    let order = rig.order(Recipe::SaysMuch { bytes: BYTES });
    let (events, mut received) = mpsc::channel(1);
    let listen = async {
        let mut bytes_received = 0;
        while let Some(event) = received.recv().await {
            tokio::time::sleep(Duration::from_millis(3)).await;
            if let BuildEvent::Output { bytes, .. } = event {
                bytes_received += bytes.len() as u64;
            }
        }
        bytes_received
    };
    let engine = rig.engine();
    let (built, received) = tokio::join!(engine.build(order, context(files()), events), listen);
    built.unwrap();
    assert_eq!(received, BYTES);
}

async fn a_build_continues_without_a_listener(rig: &dyn Rig) {
    let order = rig.order(Recipe::Says("to nobody"));
    let (events, received) = mpsc::channel(1);
    drop(received);
    rig.engine().build(order, context(files()), events).await.unwrap();
}

async fn two_builds_do_not_wait_for_each_other(rig: &dyn Rig) {
    let engine = rig.engine();
    // A build whose receiver does not read its events.
    let (events, _unread) = mpsc::channel(1);
    let stuck = tokio::spawn({
        let (engine, order) = (rig.engine(), rig.order(Recipe::SaysMuch { bytes: 500_000 }));
        async move { engine.build(order, context(files()), events).await }
    });
    let order = rig.order(Recipe::Says("meanwhile"));
    let (built, _) = build(&*engine, order, context(files())).await;
    built.unwrap();
    assert!(!stuck.is_finished());
    stuck.abort();
}

async fn a_built_image_is_pushed_once_and_again(rig: &dyn Rig) {
    let (order, engine) = (rig.order(Recipe::Says("pushed")), rig.engine());
    let image = order.image.clone();
    build(&*engine, order, context(files())).await.0.unwrap();
    engine.push(&image, None).await.unwrap();
    engine.push(&image, None).await.unwrap();
    engine.remove_image(&image).await.unwrap();
}

async fn a_missing_image_is_not_pushed(rig: &dyn Rig) {
    let order = rig.order(Recipe::Says("never built"));
    let error = rig.engine().push(&order.image, None).await.unwrap_err();
    assert!(matches!(error, PushError::Engine(EngineError::Refused { .. })), "{error:?}");
}

async fn an_image_is_removed_once_and_again(rig: &dyn Rig) {
    let (order, engine) = (rig.order(Recipe::Says("removed")), rig.engine());
    let image = order.image.clone();
    build(&*engine, order, context(files())).await.0.unwrap();
    engine.remove_image(&image).await.unwrap();
    engine.remove_image(&image).await.unwrap();
    engine.push(&image, None).await.unwrap_err();
}

async fn leftovers_of_the_installation_are_found_and_removed(rig: &dyn Rig) {
    let (mut order, engine) = (rig.order(Recipe::Says("left")), rig.engine());
    order.attempt = 3;
    let installation = order.installation.clone();
    let owner = Some((order.run, order.attempt));
    build(&*engine, order, context(files())).await.0.unwrap();

    let images = async |installation: &str| {
        // A process of a killed engine has no owner, so it is reported to every installation.
        let mut left = engine.leftovers(installation).await.unwrap();
        left.retain(|leftover| leftover.kind != LeftoverKind::BuildProcess);
        left
    };
    let left = images(&installation).await;
    let [image] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((image.kind, image.owner), (LeftoverKind::Image, owner));
    assert_eq!(images("another-installation").await, []);

    engine.remove(image).await.unwrap();
    engine.remove(image).await.unwrap();
    assert_eq!(images(&installation).await, []);
}

async fn the_cache_can_be_asked_to_shrink(rig: &dyn Rig) {
    // A limit so high that nothing is removed, because other tests build at the same time.
    assert_eq!(rig.engine().prune_cache(1 << 40).await.unwrap(), 0);
}
