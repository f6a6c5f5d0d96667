//! Where a registry's credentials go: to their own host, whatever that answers.
//!
//! Each registry here records every credential that it is sent. One of them answers in each way that could send a client
//! elsewhere, and the others must get nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gantry_domain::image::{ImageReference, RegistryHost};
use gantry_ops::secret::{Credentials, SecretString};
use gantry_remote::guard::OutboundPolicy;
use gantry_remote::http::OutboundClient;
use gantry_remote::image_registry::{ImageRegistry as _, RemoteImageRegistry};
use gantry_remote::registries::{Registries as _, RemoteRegistries};
use gantry_remote::registry::{RawManifest, RegistryClient, RegistryError};
use http_body_util::Full;
use hyper::Response;

use crate::registry::{Asked, scripted_asked, status, user, within};

const SECRETS: [&str; 3] = ["pw", "YW5uOnB3", "from-its-own-service"];

/// What a registry was sent: headers and forms with a credential.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<String>>>);

impl Sent {
    fn record(&self, asked: &Asked) {
        let body = asked.body.as_str();
        for text in [asked.authorization.as_str(), body, asked.path.as_str()] {
            if SECRETS.iter().any(|secret| text.contains(secret)) || text.starts_with("Basic ") {
                self.0.lock().unwrap().push(format!("{} {}", asked.method, text));
            }
        }
        if asked.authorization.starts_with("Bearer ") {
            self.0.lock().unwrap().push(asked.authorization.clone());
        }
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A registry that answers everybody.
async fn open() -> (String, Sent) {
    let sent = Sent::default();
    let record = sent.clone();
    let host = scripted_asked(move |asked| {
        record.record(asked);
        let digest = format!("sha256:{}", "a".repeat(64));
        let token = r#"{"token":"from-another-service"}"#;
        status(200).header("docker-content-digest", digest).body(token.into()).unwrap()
    })
    .await;
    (host, sent)
}

/// How a registry answers a request, with another one that it may send the client to.
type Answer = fn(&Asked, here: &str, other: &str) -> Response<Full<Bytes>>;

/// A registry that answers like this.
async fn answering(answer: Answer, other: &str) -> (String, Sent) {
    let (sent, here, other) =
        (Sent::default(), Arc::new(Mutex::new(String::new())), other.to_owned());
    let (record, address) = (sent.clone(), Arc::clone(&here));
    let host = scripted_asked(move |asked| {
        record.record(asked);
        answer(asked, &address.lock().unwrap(), &other)
    })
    .await;
    here.lock().unwrap().clone_from(&host);
    (host, sent)
}

fn basic() -> Response<Full<Bytes>> {
    status(401).header("www-authenticate", "Basic realm=\"r\"").body(Full::default()).unwrap()
}

fn bearer(realm: &str) -> Response<Full<Bytes>> {
    let realm = format!("Bearer realm=\"{realm}\",service=\"reg\"");
    status(401).header("www-authenticate", realm).body(Full::default()).unwrap()
}

fn to(code: u16, host: &str) -> Response<Full<Bytes>> {
    let to = format!("http://{host}/v2/team/web/manifests/1");
    status(code).header("location", to).body(Full::default()).unwrap()
}

fn token() -> Response<Full<Bytes>> {
    status(200).body(r#"{"token":"from-its-own-service"}"#.into()).unwrap()
}

fn is_token(asked: &Asked) -> bool {
    asked.path.starts_with("/token")
}

/// The ways to send a client elsewhere.
const WAYS: [(&str, Answer); 9] = [
    ("a redirect of a request with a password, 301", |asked, _, other| {
        if asked.authorization.is_empty() { basic() } else { to(301, other) }
    }),
    ("a redirect of a request with a password, 307", |asked, _, other| {
        if asked.authorization.is_empty() { basic() } else { to(307, other) }
    }),
    ("a redirect of a request with a token, 302", |asked, here, other| match asked {
        asked if is_token(asked) => token(),
        asked if asked.authorization.is_empty() => bearer(&format!("http://{here}/token")),
        _ => to(302, other),
    }),
    ("a redirect of a request with a token, 308", |asked, here, other| match asked {
        asked if is_token(asked) => token(),
        asked if asked.authorization.is_empty() => bearer(&format!("http://{here}/token")),
        _ => to(308, other),
    }),
    ("a redirect of the token service", |asked, here, other| match asked {
        asked if is_token(asked) => to(307, other),
        _ => bearer(&format!("http://{here}/token")),
    }),
    ("a redirect of the token service's form, 307", |asked, here, other| match asked {
        asked if is_token(asked) && asked.method == "POST" => to(307, other),
        asked if is_token(asked) => status(405).body(Full::default()).unwrap(),
        _ => bearer(&format!("http://{here}/token")),
    }),
    ("a redirect of the token service's form, 308", |asked, here, other| match asked {
        asked if is_token(asked) && asked.method == "POST" => to(308, other),
        asked if is_token(asked) => status(404).body(Full::default()).unwrap(),
        _ => bearer(&format!("http://{here}/token")),
    }),
    ("a token service without encryption that the operator did not list", |_, _, other| {
        let (_, port) = other.split_once(':').unwrap();
        bearer(&format!("http://other.invalid:{port}/token"))
    }),
    ("a redirect before it asks who it is", |_, _, other| to(307, other)),
];

fn identity_token() -> Credentials {
    let password = SecretString::from("pw");
    Credentials { username: "<token>".to_owned(), password }
}

fn http() -> OutboundClient {
    OutboundClient::new(OutboundPolicy::parse(["127.0.0.1"]).unwrap()).unwrap()
}

/// Sends all that gantry sends to registries: as a worker, and as a scheduler that watches images.
async fn use_all(host: &str, credentials: &Credentials) {
    let image: ImageReference = format!("{host}/team/web:1").parse().unwrap();
    let host = image.host();
    let registries = RemoteRegistries::new(http());
    let with = Some(credentials);
    let manifest = RawManifest {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes: Bytes::from_static(b"{}"),
        digest: format!("sha256:{}", "b".repeat(64)).parse().unwrap(),
    };
    let _any = registries.check(host, with, within(2)).await;
    let _any = registries.resolve(&image, with, within(2)).await;
    let _any = registries.manifest(&image, with, within(2)).await;
    let _any = registries.put_tag(&image, &manifest, with, within(2)).await;
    let _any = registries.delete_tag(&image, with, within(2)).await;
    let looks = RemoteImageRegistry::new(http()).unwrap();
    let platforms = ["linux/amd64".parse().unwrap()].into();
    let _any = looks.digest(&image, None, with).await;
    let _any = looks.versions(&image, &manifest.digest, &platforms, with).await;
    let _any = looks.tags(&image, with).await;
}

#[tokio::test]
async fn no_way_to_send_a_client_elsewhere_takes_its_credentials_along() {
    let (other, sent_elsewhere) = open().await;
    for (way, answer) in WAYS {
        for credentials in [user("pw").unwrap(), identity_token()] {
            let (host, sent) = answering(answer, &other).await;
            use_all(&host, &credentials).await;
            assert_eq!(sent_elsewhere.taken(), Vec::<String>::new(), "{way}");
            let is_asked_who = !way.contains("before it asks") && !way.contains("did not list");
            // An identity token is no password, so it is given to token services alone.
            let is_usable = credentials.identity_token().is_none() || !way.contains("password");
            assert_eq!(!sent.taken().is_empty(), is_asked_who && is_usable, "{way}");
        }
    }
}

#[tokio::test]
async fn credentials_for_one_port_are_not_sent_to_another_port_or_name_of_the_same_machine() {
    let ways: [Answer; 2] = [
        |_, _, _| basic(),
        |asked, here, _| match asked {
            asked if is_token(asked) => token(),
            _ => bearer(&format!("http://{here}/token")),
        },
    ];
    for answer in ways {
        let (host, sent) = answering(answer, "").await;
        let (_, port) = host.split_once(':').unwrap();
        for (asked, is_own) in [(host.clone(), true), (format!("localhost:{port}"), false)] {
            // As the parts of gantry do: the credentials are those of the image's own host, if there are any.
            let own: RegistryHost = host.parse().unwrap();
            let known = BTreeMap::from([(own, user("pw").unwrap())]);
            let image: ImageReference = format!("{asked}/team/web:1").parse().unwrap();
            let policy = OutboundPolicy::parse(["127.0.0.1", "localhost"]).unwrap();
            let registries = RemoteRegistries::new(OutboundClient::new(policy).unwrap());
            let _any = registries.resolve(&image, known.get(image.host()), within(2)).await;
            let has_password = sent.taken().iter().any(|sent| sent.contains("YW5uOnB3"));
            assert_eq!(has_password, is_own, "{asked}");
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_a_token_of_the_scope() {
    let (host, sent) = answering(
        |asked, here, _| match asked {
            asked if is_token(asked) => token(),
            asked if asked.authorization == "Bearer from-its-own-service" => {
                let digest = format!("sha256:{}", "a".repeat(64));
                status(200).header("docker-content-digest", digest).body(Full::default()).unwrap()
            }
            _ => bearer(&format!("http://{here}/token")),
        },
        "",
    )
    .await;
    let client = RegistryClient::new(http(), host.parse().unwrap(), Some(identity_token()));
    let image = format!("{host}/team/web:1").parse().unwrap();
    client.resolve(&image, within(5)).await.unwrap();
    let form = "POST grant_type=refresh_token&client_id=gantry&service=reg&scope=repository%3Ateam%2Fweb%3Apull&refresh_token=pw";
    assert_eq!(sent.taken()[0], form);

    let (host, sent) = answering(|_, _, _| basic(), "").await;
    let client = RegistryClient::new(http(), host.parse().unwrap(), Some(identity_token()));
    let image = format!("{host}/team/web:1").parse().unwrap();
    let error = client.resolve(&image, within(5)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert_eq!(sent.taken(), Vec::<String>::new(), "a registry with passwords gets no token");
}
