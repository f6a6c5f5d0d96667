//! The ledger: listed, shown, replayed.

use gantry_domain::hook::Provider;
use gantry_seams::deliveries;
use reqwest::StatusCode;

use crate::rig::{Answer, Door, push};

#[tokio::test]
async fn a_replay_is_a_new_delivery_of_the_same_body() {
    let door = Door::with_registry().await;
    let hook = door.hook(Provider::GitHub).await;
    let body = push('1', '2');
    Answer::of(door.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);

    let path = format!("/hooks/{}/deliveries", hook.id);
    for number in 1..=2 {
        let replayed = door.post(&format!("{path}/d-1/replays"), ().into()).await;
        let replayed = replayed.expect(StatusCode::CREATED);
        assert_eq!(replayed["delivery"]["id"], format!("d-1.replay-{number}"));
        assert_eq!(replayed["delivery"]["events"].as_array().unwrap().len(), 1);
    }
    let of_replay = door.post(&format!("{path}/d-1.replay-2/replays"), ().into()).await;
    assert_eq!(of_replay.expect(StatusCode::CREATED)["delivery"]["id"], "d-1.replay-3");
    assert_eq!(door.get(&format!("{path}/d-1.replay-3/body")).await.text, body);
}

#[tokio::test]
async fn a_body_that_moved_to_the_object_store_is_read_there() {
    let door = Door::with_registry().await;
    let hook = door.hook(Provider::GitHub).await;
    let body = push('1', '2');
    Answer::of(door.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);
    let store = door.store.as_ref();
    let id = "d-1".parse().unwrap();
    let delivery = deliveries::find(store, Provider::GitHub, &hook.id, &id).await.unwrap().unwrap();
    deliveries::put_body(door.blobs.as_ref(), &delivery, body.clone().into()).await.unwrap();
    deliveries::drop_body(store, &delivery).await.unwrap();

    let path = format!("/hooks/{}/deliveries/d-1", hook.id);
    assert_eq!(door.get(&format!("{path}/body")).await.text, body);
    door.post(&format!("{path}/replays"), ().into()).await.expect(StatusCode::CREATED);

    door.blobs.delete(&deliveries::body_blob_path(&delivery)).await.unwrap();
    assert_eq!(door.get(&format!("{path}/body")).await.status, StatusCode::NOT_FOUND);
    let gone = door.post(&format!("{path}/replays"), ().into()).await;
    assert_eq!((gone.status, gone.code()), (StatusCode::CONFLICT, "body_gone".to_owned()));
}

#[tokio::test]
async fn a_large_body_is_kept_out_of_the_store_from_the_beginning() {
    let door = Door::with_registry().await;
    let hook = door.hook(Provider::GitHub).await;
    let spaces = " ".repeat(1 << 20);
    let body = push('1', '2').replacen('{', &format!("{{{spaces}"), 1);
    Answer::of(door.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);
    let (store, id) = (door.store.as_ref(), "d-1".parse().unwrap());
    let delivery = deliveries::find(store, Provider::GitHub, &hook.id, &id).await.unwrap().unwrap();
    assert_eq!(deliveries::find_body(store, &delivery).await.unwrap(), None);
    assert_eq!(door.get(&format!("/hooks/{}/deliveries/d-1/body", hook.id)).await.text, body);
    Answer::of(door.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn the_ledger_is_read_page_by_page_from_the_newest() {
    let door = Door::with_registry().await;
    let hook = door.hook(Provider::GitHub).await;
    for n in 0..5 {
        let delivery = door.github(&hook, "ping", &format!("d-{n}"), "{}");
        Answer::of(delivery).await.expect(StatusCode::ACCEPTED);
    }
    let mut seen = Vec::new();
    let mut path = format!("/deliveries?hook={}&limit=2", hook.id);
    loop {
        let page = door.get(&path).await.expect(StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|delivery| delivery["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = format!("/deliveries?hook={}&limit=2&after={next}", hook.id),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, ["d-0", "d-1", "d-2", "d-3", "d-4"]);

    let one = door.get("/deliveries?id=d-3").await.expect(StatusCode::OK);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let none = door.get("/deliveries?after=nonsense").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
}
