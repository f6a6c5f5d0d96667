//! Guarantees of the scripted engine only.

use std::sync::Arc;

use gantry_worker::engine::scripted::{Action, Gate, PushFailure, ScriptedEngine};
use gantry_worker::engine::{BuildError, BuildOrder, Engine, EngineError, OutputStream, PushError};

use crate::rig::{Recipe, Rig, build, context, order, tar};

const REGISTRY: &str = "registry.test";

pub(crate) struct Scripted(ScriptedEngine);

impl Scripted {
    pub(crate) fn new() -> Self {
        Self(ScriptedEngine::new())
    }
}

impl Rig for Scripted {
    fn engine(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.clone())
    }

    fn order(&self, recipe: Recipe) -> BuildOrder {
        let mut order = order(REGISTRY, "FROM scratch\n");
        // A separate repository, so that two orders cannot get each other's scripts.
        order.image = format!("{REGISTRY}/{}:1", order.run).parse().unwrap();
        let script = match recipe {
            Recipe::Says(text) => vec![Action::Output(OutputStream::Stdout, text.into())],
            Recipe::SaysMuch { bytes } => vec![Action::Log { bytes }],
            Recipe::Hangs => {
                vec![Action::Output(OutputStream::Stdout, "waiting\n".into()), Action::Hang]
            }
            Recipe::Exits(code) => vec![Action::Exit(code)],
            Recipe::Nonsense => vec![Action::Refuse("unknown instruction: FORM".to_owned())],
        };
        self.0.script(order.image.repository(), script);
        order
    }

    fn runs(&self, _: &BuildOrder) -> bool {
        self.0.running() > 0
    }
}

#[tokio::test]
async fn a_script_runs_once_and_orders_are_remembered() {
    let engine = ScriptedEngine::new();
    let order = order(REGISTRY, "FROM scratch\n");
    engine.script(order.image.repository(), [Action::Exit(1)]);
    let archive = tar(&[("a", b"1")]);
    build(&engine, order.clone(), context(archive.clone())).await.0.unwrap_err();
    build(&engine, order.clone(), context(archive.clone())).await.0.unwrap();

    let asked = engine.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].order.run, order.run);
    assert_eq!(asked[1].context_length, archive.len() as u64);
    assert_eq!(engine.images(), std::slice::from_ref(&order.image));
    engine.push(&order.image, None).await.unwrap();
    let digest = engine.pushed(&order.image).unwrap();
    assert!(engine.manifest(&digest).unwrap().starts_with(b"{"));
}

#[tokio::test]
async fn a_build_waits_at_a_gate_until_the_test_opens_it() {
    let (engine, gate) = (ScriptedEngine::new(), Gate::closed());
    let order = order(REGISTRY, "FROM scratch\n");
    engine.script(order.image.repository(), [Action::Wait(gate.clone())]);
    let building = tokio::spawn({
        let engine = engine.clone();
        async move { build(&engine, order, context(Vec::new())).await.0 }
    });
    gate.reached().await;
    assert_eq!(engine.running(), 1);
    gate.open();
    building.await.unwrap().unwrap();
    engine.until_running(0).await;
}

#[tokio::test]
async fn an_unavailable_engine_fails_until_it_comes_back() {
    let engine = ScriptedEngine::new();
    let order = order(REGISTRY, "FROM scratch\n");
    engine.script(order.image.repository(), [Action::GoAway]);
    let error = build(&engine, order.clone(), context(Vec::new())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::Engine(EngineError::Unreachable { .. })));
    engine.ping().await.unwrap_err();
    engine.info().await.unwrap_err();
    engine.come_back();
    build(&engine, order, context(Vec::new())).await.0.unwrap();
}

#[tokio::test]
async fn pushes_fail_as_scripted() {
    let engine = ScriptedEngine::new();
    let order = order(REGISTRY, "FROM scratch\n");
    build(&engine, order.clone(), context(Vec::new())).await.0.unwrap();
    engine.fail_push(order.image.repository(), PushFailure::Unauthorized);
    engine.fail_push(order.image.repository(), PushFailure::Registry);
    let error = engine.push(&order.image, None).await.unwrap_err();
    assert!(matches!(error, PushError::Unauthorized { .. }) && !error.is_transient());
    let error = engine.push(&order.image, None).await.unwrap_err();
    assert!(matches!(error, PushError::Registry { .. }) && error.is_transient());
    engine.push(&order.image, None).await.unwrap();
}
