//! Wrong settings stop the start with an error that says what is wrong, where, and the remedy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_amqp::{AmqpOptions, AmqpQueues, ConnectError};
use gantry_seams::queue::Queue;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::sync::CancellationToken;

use crate::rig::{Vhost, broker};

async fn refused(options: AmqpOptions) -> ConnectError {
    AmqpQueues::connect(options, &CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_wrong_password_is_reported() {
    let vhost = Vhost::new();
    let mut options = vhost.options();
    options.password = "hunter2".to_owned().into();
    let error = refused(options).await;
    assert!(matches!(error, ConnectError::WrongPassword { .. }), "{error}");
    assert!(!error.is_temporary());
    assert!(error.to_string().contains(&broker()) && !error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_missing_virtual_host_is_reported() {
    let url = format!("amqp://{}/nowhere", broker());
    let options = AmqpOptions::parse(&[url], "guest".to_owned().into()).unwrap();
    let error = refused(options).await;
    assert!(matches!(&error, ConnectError::NoVhost { vhost, .. } if vhost == "nowhere"), "{error}");
}

#[tokio::test]
async fn missing_permissions_are_reported() {
    let vhost = Vhost::new();
    let user = vhost.name().to_owned();
    let made =
        vhost.api().ask("PUT", &format!("/api/users/{user}"), r#"{"password":"secret","tags":""}"#);
    assert_eq!(made.0, 201);
    let mut options = vhost.options();
    (options.user, options.password) = (user.clone(), "secret".to_owned().into());
    let stranger = refused(options.clone()).await;
    let path = format!("/api/permissions/{}/{user}", vhost.name());
    vhost.api().ask("PUT", &path, r#"{"configure":"^$","write":".*","read":".*"}"#);
    let reader = refused(options).await;
    vhost.api().ask("DELETE", &format!("/api/users/{user}"), "");
    for error in [stranger, reader] {
        assert!(matches!(error, ConnectError::NotPermitted { .. }), "{error}");
        assert!(error.to_string().contains("rabbitmqctl set_permissions"), "{error}");
    }
}

#[tokio::test]
async fn a_queue_with_other_properties_is_named() {
    let vhost = Vhost::new();
    let path = format!("/api/queues/{}/gantry.runs", vhost.name());
    assert_eq!(vhost.api().ask("PUT", &path, r#"{"durable":true,"arguments":{}}"#).0, 201);
    let error = refused(vhost.options()).await;
    assert!(matches!(error, ConnectError::Topology { .. }), "{error}");
    assert!(error.to_string().starts_with("`gantry.runs` exists with other properties"), "{error}");
}

#[tokio::test]
async fn an_unreachable_or_foreign_server_is_a_temporary_error() {
    let vhost = Vhost::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let foreign = answering(b"HTTP/1.0 400 Bad Request\r\n\r\n".to_vec()).await;
    let (closed, foreign) = (closed.to_string(), foreign.to_string());
    let error = refused(vhost.options_at(&[&closed, &foreign])).await;
    assert!(error.is_temporary());
    let told = error.to_string();
    assert!(told.contains(&format!("{closed} (Connection refused")), "{told}");
    assert!(told.contains(&format!("{foreign} (the server there does not speak AMQP")), "{told}");
}

#[tokio::test]
async fn an_old_broker_is_refused() {
    let old = answering(start_of_version("3.9.29")).await;
    let error = refused(Vhost::new().options_at(&[&old.to_string()])).await;
    assert!(
        matches!(&error, ConnectError::TooOld { version, .. } if version == "3.9.29"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_connects_only_to_trusted_brokers() {
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().unwrap();
    let (broker, trusted) = behind_tls(folder.path().join("trusted.pem")).await;
    let (_, other) = behind_tls(folder.path().join("other.pem")).await;
    let url = format!("amqps://localhost:{}/{}", broker.port(), vhost.name());
    let mut options = AmqpOptions::parse(&[&url], "guest".to_owned().into()).unwrap();

    options.ca_file = Some(trusted);
    let queues = AmqpQueues::connect(options.clone(), &CancellationToken::new()).await.unwrap();
    queues.queue("queue", 8).publish(1_u32, None).await.unwrap();

    options.ca_file = Some(other);
    let stranger = refused(options.clone()).await;
    options.ca_file = Some(folder.path().join("missing.pem"));
    let missing = refused(options.clone()).await;
    let plain = crate::rig::broker();
    let port = plain.rsplit_once(':').unwrap().1;
    let url = format!("amqps://localhost:{port}/{}", vhost.name());
    let unencrypted = AmqpOptions::parse(&[url], "guest".to_owned().into()).unwrap();
    for error in [stranger, missing, refused(unencrypted).await] {
        assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    }
}

/// A server that sends the same bytes to every client.
async fn answering(words: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            connection.write_all(&words).await.unwrap();
            connections.push(connection);
        }
    });
    address
}

/// The frame `connection.start` of a RabbitMQ version.
fn start_of_version(version: &str) -> Vec<u8> {
    let long =
        |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let property = |name: &str, value: &str| {
        [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), b"S", &long(value)].concat()
    };
    let table = [property("product", "RabbitMQ"), property("version", version)].concat();
    let table = [&u32::try_from(table.len()).unwrap().to_be_bytes()[..], &table].concat();
    let method = [&[0, 10, 0, 10, 0, 9][..], &table, &long("PLAIN"), &long("en_US")].concat();
    let size = u32::try_from(method.len()).unwrap().to_be_bytes();
    [&[1, 0, 0][..], &size, &method, &[0xCE]].concat()
}

/// The broker behind TLS as `localhost`, and the file with the certificate to trust.
async fn behind_tls(file: PathBuf) -> (SocketAddr, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(broker()).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (address, file)
}
