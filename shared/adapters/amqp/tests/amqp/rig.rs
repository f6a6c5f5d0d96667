//! A separate virtual host for each test, on the broker that the environment names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gantry_amqp::{AmqpOptions, AmqpQueues};
use tokio_util::sync::CancellationToken;

/// `guest:guest`, for the management API.
const CREDENTIALS: &str = "Z3Vlc3Q6Z3Vlc3Q=";

/// The address of the broker, as `host:port`.
pub(crate) fn broker() -> String {
    let url = variable("GANTRY_TEST_AMQP");
    url.strip_prefix("amqp://").expect("an amqp:// URL").trim_end_matches('/').to_owned()
}

#[allow(clippy::disallowed_methods, reason = "a test has no settings but these")]
fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

/// A virtual host that is deleted when the test ends.
pub(crate) struct Vhost {
    name: String,
    api: Api,
}

impl Vhost {
    pub(crate) fn new() -> Self {
        let api = variable("GANTRY_TEST_RABBITMQ_API");
        let api = Api(api.strip_prefix("http://").expect("an http:// URL").to_owned());
        let name = format!("test-{:016x}", rand::random::<u64>());
        assert_eq!(api.ask("PUT", &format!("/api/vhosts/{name}"), "").0, 201);
        let everything = r#"{"configure":".*","write":".*","read":".*"}"#;
        let permitted = api.ask("PUT", &format!("/api/permissions/{name}/guest"), everything).0;
        assert!(matches!(permitted, 201 | 204), "{permitted}");
        Self { name, api }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn options(&self) -> AmqpOptions {
        self.options_at(&[&broker()])
    }

    pub(crate) fn options_at(&self, addresses: &[&str]) -> AmqpOptions {
        let url = |address: &&str| format!("amqp://guest@{address}/{}", self.name);
        let urls: Vec<_> = addresses.iter().map(url).collect();
        AmqpOptions::parse(&urls, "guest".to_owned().into()).unwrap()
    }

    pub(crate) async fn connect(&self, shutdown: &CancellationToken) -> AmqpQueues {
        AmqpQueues::connect(self.options(), shutdown).await.unwrap()
    }

    pub(crate) fn delete_queue(&self, queue: &str) {
        let status = self.api.ask("DELETE", &format!("/api/queues/{}/{queue}", self.name), "").0;
        assert_eq!(status, 204);
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.api.ask("DELETE", &format!("/api/vhosts/{}", self.name), "");
    }
}

/// The broker's management API, at `host:port`.
pub(crate) struct Api(String);

impl Api {
    /// The status and the body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let asked = || -> std::io::Result<String> {
            let mut connection = TcpStream::connect(&self.0)?;
            connection.set_read_timeout(Some(Duration::from_secs(20)))?;
            let (host, length) = (&self.0, body.len());
            write!(
                connection,
                "{method} {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Basic {CREDENTIALS}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked().unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.unwrap_or_default(), body.unwrap_or_default())
    }
}

/// Waits until `holds` returns true.
pub(crate) async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(within, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {within:?}"));
}
