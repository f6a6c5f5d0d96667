//! Registries that refuse: one that requires credentials, and one that is broken.
//!
//! The tests start these registries, so they need `docker-registry`.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_domain::image::RegistryHost;
use gantry_ops::secret::{Credentials, SecretString};
use gantry_worker::engine::{BuildError, BuildOrder, Engine as _, PushError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{build, context, order, tar};
use crate::tested::{Tested, on_each_engine};

on_each_engine! {
    credentials_are_used_for_pushes_and_bases,
    a_failing_registry_is_transient,
}

/// `gantry` with the password `hunter2`, hashed with bcrypt.
const USERS: &str = "gantry:$2a$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// A registry with one user.
struct PrivateRegistry {
    address: SocketAddr,
    folder: tempfile::TempDir,
    process: Child,
}

impl PrivateRegistry {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The port was free a moment ago; more is not possible for a program that binds the port itself.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = folder.path().display();
        std::fs::write(folder.path().join("users"), USERS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: '{address}', secret: s}}\nauth: {{htpasswd: {{realm: r, path: {root}/users}}}}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`docker-registry` to start");
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the registry does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { address, folder, process }
    }

    fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let _held_until_here = self.folder.path();
    }
}

/// A server that answers every request with 503. It runs as long as the test's runtime.
async fn broken_registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _read = stream.read(&mut [0; 4096]).await;
                let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _written = stream.write_all(answer).await;
            });
        }
    });
    address
}

fn login(password: &str) -> Credentials {
    Credentials { username: "gantry".to_owned(), password: SecretString::from(password) }
}

fn from_nothing(registry: &str) -> BuildOrder {
    order(registry, &format!("FROM scratch\nCOPY a /{}\n", rand::random::<u64>()))
}

fn files() -> Vec<u8> {
    tar(&[("a", b"a")])
}

async fn credentials_are_used_for_pushes_and_bases(on: Tested) {
    let registry = PrivateRegistry::start().await;
    let engine = on.engine();
    let base = from_nothing(&registry.address.to_string());
    build(&engine, base.clone(), context(files())).await.0.unwrap();
    for wrong in [None, Some(login("guessed"))] {
        let error = engine.push(&base.image, wrong.as_ref()).await.unwrap_err();
        assert!(matches!(error, PushError::Unauthorized { .. }), "{error:?}");
        assert!(!error.is_transient());
    }
    engine.push(&base.image, Some(&login("hunter2"))).await.unwrap();
    engine.remove_image(&base.image).await.unwrap();

    let mut order = order("registry.test", &format!("FROM {}\n", base.image));
    for wrong in [None, Some(login("guessed"))] {
        order.registries = wrong.map(|login| (registry.host(), login)).into_iter().collect();
        let error = build(&engine, order.clone(), context(files())).await.0.unwrap_err();
        assert!(matches!(error, BuildError::Refused { .. }), "{error:?}");
    }
    order.registries = [(registry.host(), login("hunter2"))].into();
    build(&engine, order.clone(), context(files())).await.0.unwrap();
    engine.remove_image(&order.image).await.unwrap();
}

async fn a_failing_registry_is_transient(on: Tested) {
    // A push fails only after the engine's five attempts (50 seconds), so a unit test covers its messages.
    let registry = broken_registry().await;
    let order = order("registry.test", &format!("FROM {registry}/base:1\n"));
    let error = build(&on.engine(), order, context(files())).await.0.unwrap_err();
    assert!(matches!(error, BuildError::Unavailable { .. }), "{error:?}");
}
