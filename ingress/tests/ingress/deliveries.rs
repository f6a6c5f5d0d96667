//! Deliveries: listed, shown, replayed.

use futures_util::TryStreamExt as _;
use gantry_domain::hook::Provider;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::deliveries::{self, Part};
use reqwest::StatusCode;

use crate::rig::{Answer, TestServer, push};

#[tokio::test]
async fn a_replay_is_a_new_delivery_of_the_same_body() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let body = push('1', '2');
    Answer::of(server.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);

    let path = format!("/hooks/{}/deliveries", hook.id);
    for number in 1..=2 {
        let replayed = server.post(&format!("{path}/d-1/replays"), ().into()).await;
        let replayed = replayed.expect(StatusCode::CREATED);
        assert_eq!(replayed["delivery"]["id"], format!("d-1.replay-{number}"));
        assert_eq!(replayed["delivery"]["events"].as_array().unwrap().len(), 1);
    }
    let of_replay = server.post(&format!("{path}/d-1.replay-2/replays"), ().into()).await;
    assert_eq!(of_replay.expect(StatusCode::CREATED)["delivery"]["id"], "d-1.replay-3");
    assert_eq!(server.get(&format!("{path}/d-1.replay-3/body")).await.text, body);
}

#[tokio::test]
async fn a_moved_body_is_read_from_the_object_store() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let body = push('1', '2');
    Answer::of(server.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);
    let store = server.store.as_ref();
    let id = "d-1".parse().unwrap();
    let delivery = deliveries::find(store, &hook.id, &id).await.unwrap().unwrap();
    deliveries::put_body(server.blobs.as_ref(), &delivery, body.clone().into()).await.unwrap();
    deliveries::drop_body(store, &delivery).await.unwrap();

    let path = format!("/hooks/{}/deliveries/d-1", hook.id);
    assert_eq!(server.get(&format!("{path}/body")).await.text, body);
    server.post(&format!("{path}/replays"), ().into()).await.expect(StatusCode::CREATED);

    server.blobs.delete(&deliveries::body_blob_path(&delivery).unwrap()).await.unwrap();
    assert_eq!(server.get(&format!("{path}/body")).await.status, StatusCode::NOT_FOUND);
    let gone = server.post(&format!("{path}/replays"), ().into()).await;
    assert_eq!((gone.status, gone.code()), (StatusCode::CONFLICT, "body_gone".to_owned()));
}

#[tokio::test]
async fn a_large_body_is_never_in_the_store() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let spaces = " ".repeat(1 << 20);
    let body = push('1', '2').replacen('{', &format!("{{{spaces}"), 1);
    Answer::of(server.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);
    let (store, id) = (server.store.as_ref(), "d-1".parse().unwrap());
    let delivery = deliveries::find(store, &hook.id, &id).await.unwrap().unwrap();
    assert_eq!(deliveries::find_body(store, &delivery).await.unwrap(), None);
    assert_eq!(server.get(&format!("/hooks/{}/deliveries/d-1/body", hook.id)).await.text, body);
    Answer::of(server.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::OK);
}

/// A push whose body is too large for the store.
fn large_push(before: char, after: char) -> String {
    push(before, after).replacen('{', &format!("{{{}", " ".repeat(1 << 20)), 1)
}

#[tokio::test]
async fn deliveries_with_equal_bodies_have_separate_copies() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let body = large_push('1', '2');
    for id in ["a:1", ".."] {
        Answer::of(server.github(&hook, "ping", id, &body)).await.expect(StatusCode::ACCEPTED);
    }
    let (store, blobs) = (server.store.as_ref(), server.blobs.as_ref());
    let find = async |id: &str| {
        let id = id.parse().unwrap();
        deliveries::find(store, &hook.id, &id).await.unwrap().unwrap()
    };
    let (older, newer) = (find("a:1").await, find("..").await);
    // As retention does with the older one.
    assert!(deliveries::delete(store, blobs, &older).await.unwrap());
    assert!(deliveries::find_packed_body(blobs, &newer).await.unwrap().is_some());
    assert_eq!(deliveries::find_packed_body(blobs, &older).await.unwrap(), None);
}

#[tokio::test]
async fn a_conflicting_body_is_not_kept() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    let (body, other) = (large_push('1', '2'), large_push('1', '3'));
    Answer::of(server.github(&hook, "push", "d-1", &body)).await.expect(StatusCode::ACCEPTED);
    Answer::of(server.github(&hook, "push", "d-1", &other)).await.expect(StatusCode::ACCEPTED);
    // The other body is also accepted as a delivery with its own id.
    Answer::of(server.github(&hook, "push", "d-2", &other)).await.expect(StatusCode::ACCEPTED);

    let path = format!("/hooks/{}/deliveries", hook.id);
    let ledger = server.ledger().await;
    let conflict = ledger.iter().find(|delivery| delivery["verdict"] == "conflict").unwrap();
    let conflict = format!("{path}/{}/body", conflict["id"].as_str().unwrap());
    assert_eq!(server.get(&conflict).await.status, StatusCode::NOT_FOUND);
    // As retention does after a day: the conflict has no body to move.
    let (store, end) = (server.store.as_ref(), Timestamp::from_millis(i64::MAX));
    let whole = deliveries::older_than(store, hook.prefix, Part::WithBody, end, None, 10).await;
    assert_eq!(whole.unwrap().items, []);
    assert_eq!(server.get(&format!("{path}/d-1/body")).await.text, body);
    assert_eq!(server.get(&format!("{path}/d-2/body")).await.text, other);
    let objects: Vec<String> =
        server.blobs.list("deliveries").unwrap().try_collect().await.unwrap();
    assert_eq!(objects.len(), 2, "{objects:?}");
}

#[tokio::test]
async fn deliveries_are_paged_newest_first() {
    let server = TestServer::with_registry().await;
    let hook = server.hook(Provider::GitHub).await;
    for n in 0..5 {
        let delivery = server.github(&hook, "ping", &format!("d-{n}"), "{}");
        Answer::of(delivery).await.expect(StatusCode::ACCEPTED);
    }
    let mut seen = Vec::new();
    let mut path = format!("/deliveries?hook={}&limit=2", hook.id);
    loop {
        let page = server.get(&path).await.expect(StatusCode::OK);
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

    let one = server.get("/deliveries?id=d-3").await.expect(StatusCode::OK);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let none = server.get("/deliveries?after=nonsense").await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
}
