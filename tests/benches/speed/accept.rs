//! How many signed webhooks are durably accepted per second, compared with routes that do less and with a peer.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Effort;
use crate::backend::Backend;
use crate::github;
use crate::load::{self, Answers, Volley, Webhook};
use crate::process::{self, Server};
use crate::report::{Details, Report, Row, say};
use crate::role::Role;
use crate::samples::Samples;
use crate::servers::Servers;

/// The approximate size of a push's body.
const BODY: usize = 8 * 1024;

const CONNECTIONS: [u64; 4] = [1, 16, 64, 256];

/// The store and doorbells of a measurement, and the measured servers, in the order of [`DECIDING`], [`INGRESS`] and
/// [`ONE_RECORD`]; the peer is last.
struct Mode {
    name: &'static str,
    is_scaled: bool,
    /// Whether the load generator has the first core to itself, and the servers have the others.
    load_apart: bool,
    /// The target relative to [`ONE_RECORD`]: in words, and as a factor.
    of_one_record: (&'static str, f64),
    subjects: &'static [(Subject, &'static str)],
}

const DECIDING: usize = 0;
const INGRESS: usize = 1;
const ONE_RECORD: usize = 3;

/// The minimum number of connections for a target: a single sender waits for the disk.
const MANY: u64 = 16;

const PEER: (Subject, &str) = (Subject::Peer, "adnanh/webhook, runs `/bin/true`, stores nothing");

const EMBEDDED: Mode = Mode {
    name: "embedded",
    is_scaled: false,
    load_apart: false,
    of_one_record: ("≥ 0.5 × a bare route that does HMAC and one durable record", 0.5),
    subjects: &[
        (Subject::Ours(&[Role::Up]), "gantry, each event decided too"),
        (Subject::Ours(&[Role::Ingress]), "gantry's ingress"),
        (Subject::Ours(&[Role::EqualWrite]), "bare route: HMAC and an equal batch"),
        (Subject::Ours(&[Role::OneRecord]), "bare route: HMAC and one record"),
        (Subject::Ours(&[Role::Signed]), "bare route: HMAC"),
        (Subject::Ours(&[Role::Bare]), "bare route"),
        PEER,
    ],
};

const SCALED: Mode = Mode {
    name: "scaled",
    is_scaled: true,
    load_apart: false,
    of_one_record: OF_ONE_RECORD_ON_SERVERS,
    subjects: ON_SERVERS,
};

const APART: Mode = Mode {
    name: "scaled, the load on a core of its own",
    is_scaled: true,
    load_apart: true,
    of_one_record: OF_ONE_RECORD_ON_SERVERS,
    subjects: ON_SERVERS,
};

const OF_ONE_RECORD_ON_SERVERS: (&str, f64) =
    ("≥ 0.6 × a bare route that does HMAC and one durable record", 0.6);

const ON_SERVERS: &[(Subject, &str)] = &[
    (
        Subject::Ours(&[Role::Ingress, Role::Scheduler]),
        "gantry's ingress, a scheduler decides each event too",
    ),
    (Subject::Ours(&[Role::Ingress]), "gantry's ingress"),
    (Subject::Ours(&[Role::EqualWrite]), "bare route: HMAC and an equal batch"),
    (Subject::Ours(&[Role::OneRecord]), "bare route: HMAC and one record"),
    (Subject::Ours(&[Role::Signed]), "bare route: HMAC"),
    PEER,
];

#[derive(Debug, Clone, Copy)]
enum Subject {
    /// Processes of this program with a shared store; the load is sent to the first one.
    Ours(&'static [Role]),
    /// Debian's `webhook`.
    Peer,
}

/// All results, by connections, subject and round.
type Measured = Vec<Vec<Vec<Answers>>>;

/// The path of the hook, on every server.
pub(crate) fn path() -> String {
    format!("/hooks/github/{}", github::HOOK)
}

/// A signed push of the usual size.
pub(crate) fn signed_push() -> Result<Webhook> {
    let body = github::push_of(BODY)?;
    Ok(Webhook::push(&path(), &github::signature(&body)?, &body))
}

/// Measures all subjects in turn, with an empty store in each round.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<()> {
    EMBEDDED.measure(effort, report)
}

/// The same on Redis, with doorbells over RabbitMQ.
pub(crate) fn measure_scaled(effort: Effort, report: &mut Report) -> Result<()> {
    SCALED.measure(effort, report)
}

/// The same, with the load generator on a separate core, to see which share of the servers' cores a response takes.
pub(crate) fn measure_apart(effort: Effort, report: &mut Report) -> Result<()> {
    let measured = APART.measure(effort, report);
    process::keep_on(std::process::id(), &process::cores(0)?)?;
    measured
}

impl Mode {
    fn measure(&self, effort: Effort, report: &mut Report) -> Result<()> {
        let hook = signed_push()?;
        let mut measured: Measured = vec![vec![Vec::new(); self.subjects.len()]; CONNECTIONS.len()];
        for round in 1..=effort.rounds {
            for (place, connections) in CONNECTIONS.into_iter().enumerate() {
                for step in 0..self.subjects.len() {
                    // Each round begins with a different subject.
                    let which = (step + round) % self.subjects.len();
                    let (subject, name) = self.subjects[which];
                    let expected = subject.accepts();
                    let volley = Volley { connections, seconds: effort.seconds, expected };
                    let answers = self
                        .start(subject)
                        .and_then(|running| running.fire(&hook, volley))
                        .with_context(|| format!("{name}, {connections} connections"))?;
                    say(format_args!(
                        "  round {round}, {connections:>3} connections: {:>6.0} a second, {name}",
                        answers.rate
                    ));
                    measured[place][which].push(answers);
                }
            }
        }
        self.rows(&measured, report);
        self.details(&measured, report);
        Ok(())
    }

    fn start(&self, subject: Subject) -> Result<Running> {
        if !self.load_apart {
            return subject.start(self.is_scaled);
        }
        let me = std::process::id();
        process::keep_on(me, &process::cores(1)?)?;
        let running = subject.start(self.is_scaled)?;
        process::keep_on(me, "0")?;
        Ok(running)
    }

    fn rows(&self, measured: &Measured, report: &mut Report) {
        let accept = format!("durable accept of an 8 KiB signed hook, {}", self.name);
        let mut compare = |what: &str, subject: usize, other: usize, reach, least: f64| {
            let ratios: Vec<(u64, Samples)> = CONNECTIONS
                .into_iter()
                .zip(measured)
                .filter(|(connections, _)| *connections >= MANY)
                .map(|(connections, rounds)| (connections, ratio(&rounds[subject], &rounds[other])))
                .collect();
            let shown = ratios
                .iter()
                .map(|(connections, ratio)| format!("{connections}: {}", ratio.show(2)));
            report.row(Row {
                what: what.to_owned(),
                reach,
                measured: shown.collect::<Vec<_>>().join(" · "),
                reached: ratios.iter().all(|(_, ratio)| ratio.median() >= least),
            });
        };
        let (one_record, least) = self.of_one_record;
        compare(&accept, INGRESS, ONE_RECORD, one_record, least);
        let deciding = format!("{accept}, while the scheduler decides each event");
        compare(&deciding, DECIDING, ONE_RECORD, one_record, least);
        let (peer, its_place) =
            ("≥ 2 × adnanh/webhook, which stores nothing", self.subjects.len() - 1);
        compare(&accept, INGRESS, its_place, peer, 2.0);
        compare(&deciding, DECIDING, its_place, peer, 2.0);
    }

    fn details(&self, measured: &Measured, report: &mut Report) {
        let mut table = |title: &str, show: &dyn Fn(&[Vec<Answers>], usize) -> String| {
            let columns = std::iter::once(String::new())
                .chain(CONNECTIONS.iter().map(|count| format!("{count} connections")));
            let rows = self.subjects.iter().enumerate().map(|(which, (_, name))| {
                let cells = measured.iter().map(|all| show(all, which));
                std::iter::once((*name).to_owned()).chain(cells).collect()
            });
            report.details(Details {
                title: format!("accept, {}: {title}", self.name),
                columns: columns.collect(),
                rows: rows.collect(),
            });
        };
        let all = |rounds: &[Answers], of: fn(&Answers) -> f64| Samples::of(rounds.iter().map(of));
        table("answers a second", &|rounds, which| all(&rounds[which], |one| one.rate).show(0));
        // On this machine, no durable service can exceed the rate of a route with one record.
        table("answers, as a multiple of adnanh/webhook's", &|rounds, which| {
            ratio(&rounds[which], &rounds[rounds.len() - 1]).show(2)
        });
        table("until an answer, p50 / p99 in ms", &|rounds, which| {
            let rounds = &rounds[which];
            let (p50, p99) = (all(rounds, |one| one.p50_ms), all(rounds, |one| one.p99_ms));
            format!("{:.1} / {:.1}", p50.median(), p99.median())
        });
        table(
            "processor time for an answer, in µs: the server, + who is beside it",
            &|rounds, which| {
                let rounds = &rounds[which];
                let processes = rounds.first().map_or(0, |one| one.processor_us.len());
                let of = |which| Samples::of(rounds.iter().map(|one| one.processor_us[which]));
                let shown = (0..processes).map(|which| of(which).show(0));
                shown.collect::<Vec<_>>().join(" + ")
            },
        );
    }
}

/// Ratios per round, because a disturbance of the machine in one round affects both.
fn ratio(rounds: &[Answers], of: &[Answers]) -> Samples {
    Samples::of(rounds.iter().zip(of).map(|(one, other)| one.rate / other.rate))
}

impl Subject {
    fn start(self, is_scaled: bool) -> Result<Running> {
        let Self::Ours(roles) = self else {
            let server = start_peer()?;
            return Ok(Running { server, beside: Vec::new(), servers: None });
        };
        let needs_servers = is_scaled && roles.iter().any(|role| role.has_a_store());
        let servers = needs_servers.then(Servers::start).transpose()?;
        let backend = servers.as_ref().map_or(Backend::Embedded, Servers::backend);
        let folder = process::folder()?;
        let mut started = Vec::new();
        for role in roles {
            started.push(role.start_on(folder.path(), &backend)?);
        }
        let beside = started.split_off(1);
        let server = started.pop().context("a subject has a role")?.with(folder);
        Ok(Running { server, beside, servers })
    }

    /// The status with which it accepts a delivery.
    fn accepts(self) -> u16 {
        match self {
            Self::Ours(_) => 202,
            Self::Peer => 200,
        }
    }
}

/// A running subject, with separate servers.
struct Running {
    server: Server,
    beside: Vec<Server>,
    servers: Option<Servers>,
}

impl Running {
    fn fire(&self, hook: &Webhook, volley: Volley) -> Result<Answers> {
        let mut processes = vec![self.server.pid()];
        processes.extend(self.beside.iter().map(Server::pid));
        if let Some(servers) = &self.servers {
            processes.push(servers.redis_pid()?);
        }
        load::fire(self.server.address, &processes, hook, volley)
    }
}

/// The peer, at the same path: it checks the signature and starts a program that does nothing.
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
