//! Two minutes of overload.

use std::time::Duration;

use crate::subscription::nothing_is_lost;

#[tokio::test]
async fn two_minutes_of_overload_lose_no_event_of_azure_devops() {
    nothing_is_lost(Duration::from_secs(120)).await;
}
