//! How many signed webhooks are accepted durably in a second, beside routes that do less and beside a peer.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Effort;
use crate::github;
use crate::load::{self, Answers, Volley, Webhook};
use crate::process::{self, Server};
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::Samples;

/// The body of a push is about so long.
const BODY: usize = 8 * 1024;

const CONNECTIONS: [u64; 4] = [1, 16, 64, 256];

/// Who is sent to.
const SUBJECTS: [(Subject, &str); 7] = [
    (Subject::Ours(Role::Up), "gantry, each event decided too"),
    (Subject::Ours(Role::Ingress), "gantry's ingress"),
    (Subject::Ours(Role::EqualWrite), "bare route: HMAC and an equal batch"),
    (Subject::Ours(Role::OneRecord), "bare route: HMAC and one record"),
    (Subject::Ours(Role::Signed), "bare route: HMAC"),
    (Subject::Ours(Role::Bare), "bare route"),
    (Subject::Peer, "adnanh/webhook, runs `/bin/true`, stores nothing"),
];
const UP: usize = 0;
const INGRESS: usize = 1;
const EQUAL_WRITE: usize = 2;
const PEER: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Subject {
    /// A process of this program.
    Ours(Role),
    /// Debian's `webhook`.
    Peer,
}

/// All answers, by connections, subject and round.
type Measured = Vec<Vec<Vec<Answers>>>;

/// The path of the hook, at everyone who is sent to.
pub(crate) fn path() -> String {
    format!("/hooks/github/{}", github::HOOK)
}

/// A signed push of the usual length.
pub(crate) fn signed_push() -> Result<Webhook> {
    let body = github::push_of(BODY)?;
    Ok(Webhook::push(&path(), &github::signature(&body)?, &body))
}

/// Measures everyone in turn, in each round on an empty store.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    let hook = signed_push()?;
    let mut measured: Measured = vec![vec![Vec::new(); SUBJECTS.len()]; CONNECTIONS.len()];
    for round in 1..=effort.rounds {
        for (place, connections) in CONNECTIONS.into_iter().enumerate() {
            for step in 0..SUBJECTS.len() {
                // Another one is the first in each round.
                let which = (step + round) % SUBJECTS.len();
                let (subject, name) = SUBJECTS[which];
                let server = subject.start()?;
                let expected = subject.accepts();
                let volley = Volley { connections, seconds: effort.seconds, expected };
                let answers = load::fire(server.address, server.pid(), &hook, volley)
                    .with_context(|| format!("{name}, {connections} connections"))?;
                say(format_args!(
                    "  round {round}, {connections:>3} connections: {:>6.0} a second, {name}",
                    answers.rate
                ));
                measured[place][which].push(answers);
            }
        }
    }
    rows(&measured, report);
    details(&measured, report);
    Ok(())
}

fn rows(measured: &Measured, report: &mut Report) {
    const ACCEPT: &str = "durable accept of an 8 KiB signed hook, embedded";
    let mut compare = |what: &str, subject: usize, other: usize, reach, least: f64| {
        let ratios: Vec<Samples> =
            measured.iter().map(|rounds| ratio(&rounds[subject], &rounds[other])).collect();
        let shown = CONNECTIONS.iter().zip(&ratios);
        let shown = shown.map(|(connections, ratio)| format!("{connections}: {}", ratio.show(2)));
        report.row(Row {
            what: what.to_owned(),
            reach,
            measured: shown.collect::<Vec<_>>().join(" · "),
            reached: ratios.iter().all(|ratio| ratio.median() >= least),
        });
    };
    let equal = "≥ 0.8 × a bare route that does HMAC and one equal durable write";
    compare(ACCEPT, INGRESS, EQUAL_WRITE, equal, 0.8);
    let deciding = format!("{ACCEPT}, while the scheduler decides each event");
    compare(&deciding, UP, EQUAL_WRITE, equal, 0.8);
    let peer = "≥ 4 × adnanh/webhook, which stores nothing";
    compare(ACCEPT, INGRESS, PEER, peer, 4.0);
    compare(&deciding, UP, PEER, peer, 4.0);
}

/// Round by round: what disturbed the machine in one disturbed both.
fn ratio(rounds: &[Answers], of: &[Answers]) -> Samples {
    Samples::of(rounds.iter().zip(of).map(|(one, other)| one.rate / other.rate))
}

fn details(measured: &Measured, report: &mut Report) {
    let mut table = |title: &str, show: &dyn Fn(&[Answers]) -> String| {
        let columns = std::iter::once(String::new())
            .chain(CONNECTIONS.iter().map(|count| format!("{count} connections")));
        let rows = SUBJECTS.iter().enumerate().map(|(which, (_, name))| {
            let cells = measured.iter().map(|rounds| show(&rounds[which]));
            std::iter::once((*name).to_owned()).chain(cells).collect()
        });
        report.details(Details {
            title: title.to_owned(),
            columns: columns.collect(),
            rows: rows.collect(),
        });
    };
    let all = |rounds: &[Answers], of: fn(&Answers) -> f64| Samples::of(rounds.iter().map(of));
    table("accept: answers a second", &|rounds| all(rounds, |one| one.rate).show(0));
    table("accept: until an answer, p50 / p99 in ms", &|rounds| {
        let (p50, p99) = (all(rounds, |one| one.p50_ms), all(rounds, |one| one.p99_ms));
        format!("{:.1} / {:.1}", p50.median(), p99.median())
    });
    table("accept: the server's processor time for an answer, in µs", &|rounds| {
        all(rounds, |one| one.processor_us).show(0)
    });
}

impl Subject {
    fn start(self) -> Result<Server> {
        match self {
            Self::Ours(role) => role.start(),
            Self::Peer => start_peer(),
        }
    }

    /// What it answers to who it accepts.
    fn accepts(self) -> u16 {
        match self {
            Self::Ours(_) => 202,
            Self::Peer => 200,
        }
    }
}

/// The peer, at the same path: checks the signature and starts a program that does nothing.
fn start_peer() -> Result<Server> {
    let folder = process::folder()?;
    let hooks = json!([{
        "id": github::HOOK,
        "execute-command": "/bin/true",
        "trigger-rule": {"match": {
            "type": "payload-hmac-sha256",
            "secret": github::SECRET,
            "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
        }},
    }]);
    let file = folder.path().join("hooks.json");
    std::fs::write(&file, serde_json::to_vec(&hooks)?)?;
    let address = free_address()?;
    let mut command = Command::new("webhook");
    command.arg("-hooks").arg(&file).args(["-urlprefix", "hooks/github"]);
    command.args(["-ip", "127.0.0.1", "-port", &address.port().to_string()]);
    Ok(Server::start_at(command, address, folder.path())?.with(folder))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
