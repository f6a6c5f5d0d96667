//! What people see of images and waves, and who sees it.

use gantry_domain::id::WaveId;
use gantry_domain::image::Digest;
use gantry_domain::image_watch::{Pending, Problem, Seen, SeenAs, Watched};
use gantry_domain::lineage::{BaseImage, BaseRole, Lineage};
use gantry_domain::platform::Platform;
use gantry_domain::scan::ImageRole;
use gantry_domain::wave::WaveCause;
use gantry_seams::image_watches::{self, RegistryPause};
use gantry_seams::store::{Batch, Key, Kind};
use gantry_seams::waves;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::rig::{Answer, TestServer};
use crate::scans::find_images;

const ALPINE: &str = "docker.io/library/alpine:3";
const NODE: &str = "docker.io/library/node:22";

fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
}

fn watched(image: &str) -> Watched {
    Watched { image: image.parse().unwrap(), by: None }
}

/// Watches a tag that rests at a digest of one digit.
pub(crate) async fn watch(server: &TestServer, image: &str, digit: char) {
    let (store, watched) = (server.store.as_ref(), watched(image));
    let now = store.now().await.unwrap();
    image_watches::begin(store, &watched, now).await.unwrap();
    let mut found = image_watches::find(store, &watched).await.unwrap().unwrap();
    found.value.rested(now, &digest(digit), false, std::time::Duration::from_secs(300));
    image_watches::write(store, found).await.unwrap().unwrap();
}

/// Begins a wave of registry `contoso`.
pub(crate) async fn wave(server: &TestServer, image: &str) -> WaveId {
    let (store, mut batch) = (server.store.as_ref(), Batch::default());
    let cause = WaveCause {
        event: "image:ca:1:2".parse().unwrap(),
        image: image.parse().unwrap(),
        platform: Platform::default(),
        from: digest('1'),
        to: digest('2'),
        run: None,
    };
    let (name, prefix) = ("contoso".parse().unwrap(), server.prefix("contoso").await);
    let now = store.now().await.unwrap();
    let wave = waves::begin(store, &mut batch, (&name, prefix), cause, 1, now).await.unwrap();
    store.commit(batch).await.unwrap();
    wave.id
}

/// Registries `contoso`, whose task `web` needs Alpine, and `fabrikam`, whose task `api` needs Alpine and Node.
async fn two_registries() -> TestServer {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    let runtime = ImageRole::Runtime;
    for (registry, name, needed) in [
        ("contoso", "web", &[(ALPINE, runtime)][..]),
        ("fabrikam", "api", &[(ALPINE, ImageRole::Buildtime), (NODE, runtime)]),
    ] {
        create_task(&server, registry, name).await;
        find_images(&server, &format!("{registry}/{name}"), needed).await;
    }
    watch(&server, ALPINE, 'a').await;
    watch(&server, NODE, 'b').await;
    server
}

async fn create_task(server: &TestServer, registry: &str, name: &str) {
    let task = json!({"name": name, "context": "https://git.test/a.git", "images": ["a:1"]});
    let path = format!("/registries/{registry}/tasks");
    server.post(&path, task).await.expect(StatusCode::CREATED);
}

async fn get_as(server: &TestServer, token: &str, path: &str) -> Answer {
    Answer::of(server.api(Method::GET, path).bearer_auth(token)).await
}

/// The images of a list, each with how many tasks need it and for how many it counts.
fn names(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    let line = |item: &Value| {
        let image = item["image"].as_str().unwrap();
        format!("{image} {} {}", item["users"], item["counted"])
    };
    items.map(line).collect()
}

#[tokio::test]
async fn images_and_their_users_are_shown_to_those_whose_tasks_need_them() {
    let server = two_registries().await;
    let contoso = server.token("read", Some(&["contoso"])).await;
    let listed = server.get("/images").await.expect(StatusCode::OK);
    assert_eq!(names(&listed), [format!("{ALPINE} 2 1"), format!("{NODE} 1 1")]);
    let listed = get_as(&server, &contoso, "/images").await.expect(StatusCode::OK);
    assert_eq!(names(&listed), [format!("{ALPINE} 1 1")]);

    let path = format!("/images/show?image={ALPINE}");
    let shown = get_as(&server, &contoso, &path).await.expect(StatusCode::OK);
    let (task, platform) = ("web", "linux/amd64");
    let user =
        json!({"registry": "contoso", "task": task, "platform": platform, "role": "runtime"});
    assert_eq!(shown["users"], json!([user]));
    let all = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!(all["users"][1]["task"], "api");
    assert_eq!(all["users"][1]["rule"], "only_buildtime");
    assert!(all["users"][1]["why_not"].is_string());

    for path in ["show?image=", "why?image=", "impact?base="] {
        let path = format!("/images/{path}{NODE}");
        server.get(&path).await.expect(StatusCode::OK);
        let foreign = get_as(&server, &contoso, &path).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{}", foreign.text);
    }
}

#[tokio::test]
async fn every_page_of_images_has_only_what_the_caller_sees() {
    let server = two_registries().await;
    let fabrikam = server.token("read", Some(&["fabrikam"])).await;
    let first = get_as(&server, &fabrikam, "/images?limit=1").await.expect(StatusCode::OK);
    assert_eq!(names(&first), [format!("{ALPINE} 1 0")]);
    let path = format!("/images?limit=1&after={}", first["next"].as_str().unwrap());
    let second = get_as(&server, &fabrikam, &path).await.expect(StatusCode::OK);
    assert_eq!((names(&second), second.get("next")), (vec![format!("{NODE} 1 1")], None));
    // Not even the cursor names an image of somebody else.
    let contoso = server.token("read", Some(&["contoso"])).await;
    let only = get_as(&server, &contoso, "/images?limit=1").await.expect(StatusCode::OK);
    assert_eq!(only.get("next"), None);
    let refused = server.get("/images?after=x").await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::BAD_REQUEST, "invalid"));
}

#[tokio::test]
async fn an_image_shows_when_it_was_asked_for_what_was_seen_and_why_nothing_is_known() {
    let server = two_registries().await;
    let (store, watched) = (server.store.as_ref(), watched(ALPINE));
    let now = store.now().await.unwrap();
    let mut found = image_watches::find(store, &watched).await.unwrap().unwrap();
    let watch = &mut found.value;
    watch.asked = Some(now);
    let message = "docker.io does not answer".to_owned();
    watch.problem = Some(Problem { message, since: now, tries: 2 });
    watch.pending = Some(Pending { digest: digest('c'), first: now, last: now, quiet: 60_000 });
    watch.seen.push(Seen { at: now, digest: Some(digest('a')), what: SeenAs::Returned });
    image_watches::write(store, found).await.unwrap().unwrap();
    let until = now.after(std::time::Duration::from_secs(600));
    let pause = RegistryPause { until, why: "it allows 3 more requests for now".to_owned() };
    image_watches::pause(store, watched.image.host(), &pause).await.unwrap();

    let shown = server.get(&format!("/images/show?image={ALPINE}")).await.expect(StatusCode::OK);
    let watch = &shown["watches"][0];
    assert_eq!(watch["asked"], now.to_string());
    assert_eq!(watch["problem"]["message"], "docker.io does not answer");
    assert_eq!(watch["paused"]["why"], "it allows 3 more requests for now");
    let rests_at = now.after(std::time::Duration::from_secs(60));
    assert_eq!(watch["pending"]["rests_at"], rests_at.to_string());
    let seen: Vec<_> = watch["seen"].as_array().unwrap().iter().map(|it| &it["words"]).collect();
    assert_eq!(
        seen,
        [
            "it was seen for the first time",
            "it changed back before it came to rest: nothing follows"
        ]
    );
    let listed = server.get("/images").await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0].get("seen"), None, "lists are short");
}

#[tokio::test]
async fn an_image_of_the_registry_is_found_without_its_host() {
    let server = TestServer::with_registry().await;
    create_task(&server, "contoso", "web").await;
    let base = "registry.test:5000/base:1";
    find_images(&server, "contoso/web", &[(base, ImageRole::Runtime)]).await;
    for name in [base, "base:1"] {
        let shown = server.get(&format!("/images/show?image={name}")).await;
        assert_eq!(shown.expect(StatusCode::OK)["image"], base);
    }
    let absent = server.get("/images/show?image=other:1").await.expect(StatusCode::NOT_FOUND);
    assert_eq!(absent["error"]["message"], "no such image that a task needs or makes: `other:1`");
    let wrong = server.get("/images/show?image=Wrong:1").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::BAD_REQUEST, "invalid"));
}

/// Records that a run of `contoso` pushed a digest with this base.
async fn lineage(server: &TestServer, own: char, base: char) {
    let prefix = server.prefix("contoso").await;
    let lineage = Lineage {
        digest: digest(own),
        images: vec!["registry.test:5000/a:1".parse().unwrap()],
        platforms: Platform::default().into(),
        children: Vec::new(),
        bases: vec![BaseImage {
            image: ALPINE.parse().unwrap(),
            digest: digest(base),
            role: BaseRole::Runtime,
            follows: None,
        }],
        run: gantry_domain::id::RunId::new(prefix, 900),
        registry: "contoso".parse().unwrap(),
        task: Some("web".parse().unwrap()),
        source: "https://git.test/a.git#main".to_owned(),
        commit: None,
        cause: "push to main at 4f2a91c".to_owned(),
        pushed: server.store.now().await.unwrap(),
    };
    let mut record = serde_json::to_value(&lineage).unwrap();
    record["v"] = json!(1);
    let mut batch = Batch::default();
    batch.put(Key::new(Kind::Lineage, &lineage.digest), serde_json::to_vec(&record).unwrap());
    server.store.commit(batch).await.unwrap();
}

#[tokio::test]
async fn why_follows_bases_by_digest_and_shows_nothing_of_other_registries() {
    let server = TestServer::with_registry().await;
    server.create_registry("fabrikam").await;
    lineage(&server, '1', '0').await;
    lineage(&server, '2', '1').await;
    lineage(&server, '3', '2').await;
    for image in [digest('3').to_string(), format!("a@{}", digest('3'))] {
        let path = format!("/images/why?image={image}");
        let why = server.get(&path).await.expect(StatusCode::OK);
        assert_eq!(why["digest"], digest('3').as_str());
        assert_eq!(why["origin"]["cause"], "push to main at 4f2a91c");
        let upstream = why["upstream"].as_array().unwrap().iter();
        let upstream: Vec<_> = upstream.map(|it| (&it["depth"], &it["digest"])).collect();
        let (second, first) = (json!(digest('2')), json!(digest('1')));
        assert_eq!(upstream, [(&json!(1), &second), (&json!(2), &first)]);
        let foreign = server.token("admin", Some(&["fabrikam"])).await;
        let foreign = get_as(&server, &foreign, &path).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{}", foreign.text);
    }
    let absent = server.get(&format!("/images/why?image={}", digest('9'))).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_wave_is_resumed_and_dropped_once() {
    let server = TestServer::with_registry().await;
    let (first, second) = (wave(&server, ALPINE).await, wave(&server, NODE).await);
    let listed = server.get("/registries/contoso/waves?limit=1").await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0]["id"], second.to_string(), "the newest first");
    let path = format!("/registries/contoso/waves?after={}", listed["next"].as_str().unwrap());
    let listed = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!(listed["items"][0]["id"], first.to_string());
    let refused = server.get("/registries/contoso/waves?after=zz-w9").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);

    waves::freeze(server.store.as_ref(), first, "ca7".parse().unwrap()).await.unwrap();
    let path = format!("/waves/{first}");
    let frozen = server.get(&path).await.expect(StatusCode::OK);
    assert_eq!((&frozen["state"], &frozen["failed"]), (&json!("Frozen"), &json!("ca7")));
    for _ in 0..2 {
        let open = server.post(&format!("{path}/resume"), json!({})).await.expect(StatusCode::OK);
        assert_eq!((&open["state"], open.get("canary")), (&json!("Planning"), None));
    }
    for _ in 0..2 {
        let dropped = server.post(&format!("{path}/drop"), json!({})).await.expect(StatusCode::OK);
        assert_eq!(dropped["state"], "Dropped");
        assert!(dropped["ended"].is_string());
    }
    let still = server.post(&format!("{path}/resume"), json!({})).await.expect(StatusCode::OK);
    assert_eq!(still["state"], "Dropped");
}
