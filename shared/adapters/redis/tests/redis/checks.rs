//! Only a safe Redis is accepted, and a refusal states the remedy.

use gantry_redis::{ConnectError, RedisOptions, RedisStore};
use gantry_seams::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::batches::{load, put};
use crate::server::{Server, free_port};

#[tokio::test]
async fn weak_durability_is_refused_with_the_line_to_change() {
    for (arguments, setting, line) in [
        (["--appendonly", "no"], "appendonly", "appendonly yes"),
        (["--appendfsync", "everysec"], "appendfsync", "appendfsync always"),
        (["--maxmemory-policy", "allkeys-lru"], "maxmemory-policy", "maxmemory-policy noeviction"),
    ] {
        let server = Server::with(&arguments).await;
        let error = refused(server.options()).await;
        assert!(!error.is_temporary());
        assert!(error.to_string().contains(&format!("put `{line}` into redis.conf")), "{error}");
        assert!(
            matches!(&error, ConnectError::WeakDurability { setting: named, is, .. }
                if *named == setting && is == arguments[1]),
            "{error}"
        );

        let knowingly = RedisOptions { allow_weak_durability: true, ..server.options() };
        RedisStore::connect(knowingly).await.unwrap();
        let unasked = RedisOptions { check_durability: false, ..server.options() };
        RedisStore::connect(unasked).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_distinguished_from_an_outage() {
    let server = Server::with(&["--requirepass", "right"]).await;
    let with = |password: &str| RedisOptions {
        password: Some(password.to_owned().into()),
        ..server.options()
    };
    for options in [server.options(), with("wrong")] {
        let error = refused(options).await;
        assert!(matches!(error, ConnectError::WrongPassword { .. }), "{error}");
        assert!(!error.is_temporary());
        assert!(!format!("{error:?}").contains("wrong\""), "{error:?}");
    }
    RedisStore::connect(with("right")).await.unwrap();
    assert!(!format!("{:?}", with("right")).contains("right"));

    let away = RedisOptions::parse(&format!("redis://127.0.0.1:{}", free_port())).unwrap();
    let error = refused(away).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_user_without_a_password_is_refused() {
    let server = Server::durable().await;
    let error = refused(RedisOptions { user: Some("ghost".to_owned()), ..server.options() }).await;
    assert!(matches!(&error, ConnectError::NoPassword { user, .. } if user == "ghost"), "{error}");
    assert!(!error.is_temporary());
}

/// The access rights of a worker's user, as in the docs of the crate.
const WORKER: &str = "on >secret ~gantry:* &gantry:* -@all +info +ping +select +time +wait \
    +evalsha +script|load +mget +zrange +getrange +incr +mset +setrange +del \
    +hmget +hset +hdel +zadd +zrem +publish +pubsub|numsub +subscribe +unsubscribe";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_suffice_and_a_missing_one_is_named() {
    let server = Server::durable().await;
    let user = async |rights: &str| {
        let rights = rights.split_whitespace();
        let words: Vec<_> =
            ["ACL", "SETUSER", "worker", "reset"].into_iter().chain(rights).collect();
        server.call::<()>(&words).await;
        RedisOptions {
            user: Some("worker".to_owned()),
            password: Some("secret".to_owned().into()),
            check_durability: false,
            ..server.options()
        }
    };
    let options = user(WORKER).await;
    let checking = RedisOptions { check_durability: true, ..options.clone() };
    assert_not_permitted(refused(checking).await, "CONFIG GET");
    let store = RedisStore::connect(options).await.unwrap();
    gantry_seams::contract::store::all(&store).await;

    for command in ["info", "evalsha", "hset", "zrange", "publish", "time"] {
        let options = user(&format!("{WORKER} -{command}")).await;
        assert_not_permitted(refused(options).await, &command.to_uppercase());
    }
    let silent = user(&WORKER.replace("&gantry:*", "resetchannels")).await;
    assert_not_permitted(refused(silent).await, "PUBLISH");
    let elsewhere = user(&WORKER.replace("~gantry:*", "~other:*")).await;
    assert_not_permitted(refused(elsewhere).await, "EVALSHA");
}

fn assert_not_permitted(error: ConnectError, named: &str) {
    assert!(
        matches!(&error, ConnectError::NotPermitted { command, .. } if command == named),
        "{named}: {error}"
    );
}

#[tokio::test]
async fn a_user_for_some_kinds_reads_and_writes_nothing_else() {
    let server = Server::durable().await;
    server
        .call::<()>(&[
            "ACL",
            "SETUSER",
            "facts",
            "reset",
            "on",
            ">secret",
            "~gantry:r:fact/*",
            "~gantry:version",
            "&gantry:*",
            "+@all",
        ])
        .await;
    let options = RedisOptions {
        user: Some("facts".to_owned()),
        password: Some("secret".to_owned().into()),
        ..server.options()
    };
    let store = RedisStore::connect(options).await.unwrap();
    store.commit(put("mine", "1")).await.unwrap();
    assert!(load(&store, "mine").await.unwrap().is_some());

    let mut batch = put("mine", "2");
    let run = gantry_seams::store::Key::new(gantry_seams::store::Kind::Run, "ca1");
    batch.put(run.clone(), "2");
    assert!(store.commit(batch).await.is_err());
    assert!(store.load(&[run]).await.is_err());
    assert_eq!(load(&store, "mine").await.unwrap().unwrap().bytes, "1");
}

#[tokio::test]
async fn a_cluster_is_refused_with_the_reason() {
    let server = Server::with(&["--cluster-enabled", "yes"]).await;
    let error = refused(server.options()).await;
    assert!(matches!(error, ConnectError::Cluster { .. }), "{error}");
    assert!(error.to_string().contains("slots"));
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Server::durable().await;
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Server::with(&["--replicaof", &of]).await;
    let error = crate::server::eventually("the replica has its data", async || {
        let error = refused(replica.options()).await;
        (!error.is_temporary()).then_some(error)
    })
    .await;
    assert!(matches!(error, ConnectError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn an_old_server_is_refused_with_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let serve = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(pretend_to_be_redis_6(stream));
        }
    });
    let error = refused(RedisOptions::parse(&url).unwrap()).await;
    serve.abort();
    assert!(
        matches!(&error, ConnectError::TooOld { version, .. } if version == "6.0.16"),
        "{error}"
    );
}

async fn pretend_to_be_redis_6(mut stream: tokio::net::TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let asked = String::from_utf8_lossy(&buffer[..length]).to_uppercase();
        let answer = if asked.contains("HELLO") {
            "%1\r\n+server\r\n+redis\r\n"
        } else if asked.contains("INFO") {
            "$22\r\nredis_version:6.0.16\r\n\r\n"
        } else {
            "+PONG\r\n"
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn refused(options: RedisOptions) -> ConnectError {
    RedisStore::connect(options).await.expect_err("this server should be refused")
}
