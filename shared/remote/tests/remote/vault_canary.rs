//! A vault that repeats what was sent, or sends a value in the wrong place, brings no secret into an error or a trace.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use hyper::Response;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::hashicorp_server::{SECRET_ID, TOKEN, app_role, fixed_token};
use crate::key_vault_server::{CLIENT_SECRET, key_vault};
use crate::vault::{each_kind, hashicorp, logging_in};
use crate::vault_server::{Answer, Asked, answer, read, serve};

const VALUE: &str = "CanaryOfTheValue";
const CANARIES: [&str; 6] =
    [VALUE, CLIENT_SECRET, SECRET_ID, TOKEN, "access-token-1", "hvs.token-1"];

/// Answers with everything that was sent, in each place of a body that an error could be made from.
fn echo(status: u16, asked: &Asked) -> Answer {
    let sent = format!("{:?} {} {VALUE}", asked.headers, asked.body);
    let code = asked.headers.get("x-vault-token").or(asked.headers.get("authorization"));
    let code = code.map_or("", |code| code.to_str().unwrap());
    let problem = json!({"code": code, "message": sent, "innererror": {"code": sent}});
    let body = json!({
        "errors": [sent], "error": problem, "error_description": sent, "error_codes": [sent],
        "value": [sent], "data": {"data": {"token": [sent]}}, "auth": [sent], "access_token": [sent],
    });
    let mut answer = answer(status, &body);
    let location = format!("https://{code}@elsewhere.test/{code}?{code}").replace(' ', "");
    answer.headers_mut().insert("location", location.parse().unwrap());
    answer
}

#[tokio::test]
async fn no_secret_is_in_an_error_a_debug_text_or_a_trace() {
    let traces = Traces::default();
    // With a single subscriber, tracing caches what it wants of an event by asking the thread that first comes to it,
    // and the threads of other tests have none.
    let _another = tracing::Dispatch::new(traces.clone());
    let _traced = tracing::subscriber::set_default(traces.clone());
    let mut told = String::new();
    let broken: [fn(&Asked) -> Answer; 10] = [
        |asked| echo(200, asked),
        |asked| echo(204, asked),
        |asked| echo(307, asked),
        |asked| echo(400, asked),
        |asked| echo(401, asked),
        |asked| echo(403, asked),
        |asked| echo(404, asked),
        |asked| echo(418, asked),
        |asked| echo(500, asked),
        |_| {
            Response::new(
                format!("{{\"value\":\"{VALUE}\",\"data\":{{\"data\":{{\"token\":\"{VALUE}").into(),
            )
        },
    ];
    for broken in broken {
        let (everything, reads) = (
            serve(move |asked| Some(broken(asked))).await,
            logging_in(move |asked| Some(broken(asked))).await,
        );
        for server in [everything, reads] {
            for (client, address) in each_kind(&server, &server) {
                let error = read(&client, &address).await.unwrap_err();
                let mut cause: Option<&dyn StdError> = Some(&error);
                while let Some(current) = cause {
                    writeln!(told, "{current}\n{current:?}").unwrap();
                    cause = current.source();
                }
                writeln!(told, "{client:?}").unwrap();
            }
        }
    }
    for kind in [
        key_vault("http://127.0.0.1", CLIENT_SECRET),
        hashicorp(fixed_token()),
        hashicorp(app_role()),
    ] {
        writeln!(told, "{kind:?}").unwrap();
    }
    let value: Value = json!({"value": VALUE, "data": {"data": {"token": VALUE}}});
    let server = logging_in(move |_| Some(answer(200, &value))).await;
    for (client, address) in each_kind(&server, &server) {
        assert_eq!(read(&client, &address).await.unwrap(), VALUE);
        writeln!(told, "{client:?}").unwrap();
    }
    let traced = traces.0.lock().unwrap().clone();
    assert!(traced.contains("logged in at"), "{traced}");
    for canary in CANARIES {
        assert!(!told.contains(canary), "{canary} in {told}");
        assert!(!traced.contains(canary), "{canary} in {traced}");
    }
}

/// Everything that is traced on this thread, at any level and by any crate.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<String>>);

impl Traces {
    fn keep(&self, record: impl FnOnce(&mut dyn Visit)) {
        struct Fields<'a>(&'a mut String);
        impl Visit for Fields<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                writeln!(self.0, "{field}={value:?}").unwrap();
            }
        }
        record(&mut Fields(&mut self.0.lock().unwrap()));
    }
}

impl Subscriber for Traces {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.keep(|visit| span.record(visit));
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        self.keep(|visit| values.record(visit));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.keep(|visit| event.record(visit));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
