//! Simulates a body: decides its events exactly like received ones, but nothing comes of it.
//!
//! A simulated event goes through the store to the scheduler, which decides it with the same code, asks the same hosts,
//! and commits only the decision.

use std::time::Duration;

use gantry_api as types;
use gantry_domain::delivery::Verdict;
use gantry_domain::event::{Event, EventKind};
use gantry_domain::id::{DeliveryId, EventId, HookId};
use gantry_domain::registry::Registry;
use gantry_ops::aside;
use gantry_ops::secret::random_hex;
use gantry_seams::decisions::{self, RecordedDecision};
use gantry_seams::events;
use tokio::time::{Instant, sleep};

use super::deliveries;
use super::senders::parse_sender;
use crate::access::{Allowed, Run};
use crate::hooks;
use crate::refusal::{Mistakes, Refusal};
use crate::state::State;

/// How long an answer waits for the scheduler.
const WITHIN: Duration = Duration::from_secs(20);

/// The pause between two looks at the decisions.
const LOOK: Duration = Duration::from_millis(100);

/// What would come of a body.
pub(crate) struct Simulated {
    pub(crate) verdict: Verdict,
    pub(crate) events: Vec<(Event, Option<RecordedDecision>)>,
}

pub(crate) async fn simulate(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &Registry,
    asked: &types::SimulationCreate,
) -> Result<Simulated, Refusal> {
    let (verdict, kinds) = meaning(state, allowed, registry, asked).await?;
    let number = random_hex::<16>()?;
    let mut noticed = Vec::new();
    for (place, kind) in kinds.into_iter().enumerate() {
        let id = EventId::of_simulation(&number, place).map_err(|_| Refusal::Internal)?;
        let event = Event {
            id,
            registry: registry.name.clone(),
            prefix: registry.prefix,
            received: state.store.now().await?,
            trace: None,
            kind,
        };
        events::notice(state.store.as_ref(), &event).await?;
        state.doorbells.event(event.id.clone(), None);
        noticed.push(event);
    }
    let deadline = Instant::now() + WITHIN;
    let mut decided = Vec::with_capacity(noticed.len());
    for event in noticed {
        let decision = decision(state, &event, deadline).await?;
        decided.push((event, decision));
    }
    Ok(Simulated { verdict, events: decided })
}

/// The meaning of the body, or of a received delivery.
async fn meaning(
    state: &State,
    allowed: &Allowed<Run>,
    registry: &Registry,
    asked: &types::SimulationCreate,
) -> Result<(Verdict, Vec<EventKind>), Refusal> {
    let mut mistakes = Mistakes::default();
    match (&asked.body, &asked.delivery) {
        (Some(body), None) => {
            let provider = asked.provider.as_deref().unwrap_or_default();
            let sender = parse_sender(&mut mistakes, provider, asked.mapping.as_ref());
            mistakes.none()?;
            let Some(sender) = sender else { return Err(Refusal::Internal) };
            let (kind, body) = (asked.event.clone().unwrap_or_default(), body.clone());
            let home = registry.host.clone();
            let read = move || hooks::meaning(&sender, Some(&home), &kind, body.as_bytes());
            let (verdict, kinds) = aside::read(read).await.map_err(|_| Refusal::Internal)?;
            // Whether a hook may speak for the repository is not asked: none did.
            Ok((verdict, kinds.into_iter().map(EventKind::without_hook).collect()))
        }
        (None, Some(delivery)) => {
            let delivery: Option<DeliveryId> = mistakes.parse("delivery", delivery);
            let hook = asked.hook.as_deref().unwrap_or_default();
            let hook: Option<HookId> = mistakes.parse("hook", hook);
            mistakes.none()?;
            let (Some(hook), Some(delivery)) = (hook, delivery) else {
                return Err(Refusal::Internal);
            };
            let found = deliveries::find(state, allowed, &hook, &delivery).await?;
            let kinds = found.events().map(|event| event.kind).collect();
            Ok((found.verdict.clone(), kinds))
        }
        _ => Err(Refusal::invalid("body", "give a `body` with its `provider`, or a `delivery`")),
    }
}

/// The final decision; `None` if it takes too long.
async fn decision(
    state: &State,
    event: &Event,
    deadline: Instant,
) -> Result<Option<RecordedDecision>, Refusal> {
    loop {
        let found = decisions::find(state.store.as_ref(), &event.id).await?;
        let is_final = found.as_ref().is_some_and(|found| found.is_final);
        if is_final || Instant::now() > deadline {
            return Ok(found);
        }
        sleep(LOOK).await;
    }
}
