//! The queue of event doorbells; the process may crash before it publishes.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_domain::trace::TraceParent;
use gantry_seams::queue::{Claim, EventAccepted, Queue, QueueError, Queues};

use super::Crash;
use super::point::{When, is_delivered};

pub(super) fn before(crash: Crash, queues: Queues) -> Queues {
    Queues { events: Arc::new(Events { crash, queue: queues.events }), ..queues }
}

struct Events {
    crash: Crash,
    queue: Arc<dyn Queue<EventAccepted>>,
}

#[async_trait]
impl Queue<EventAccepted> for Events {
    async fn publish(
        &self,
        message: EventAccepted,
        trace: Option<TraceParent>,
    ) -> Result<(), QueueError> {
        if is_delivered(message.event.as_str()) {
            self.crash.crash_if(|when| matches!(when, When::EventDoorbell));
        }
        self.queue.publish(message, trace).await
    }

    async fn claim(&self) -> Result<Option<Claim<EventAccepted>>, QueueError> {
        self.queue.claim().await
    }
}
