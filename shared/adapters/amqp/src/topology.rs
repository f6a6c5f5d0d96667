//! All objects that gantry has in a broker. Each is declared on a connection before its first use there.
//!
//! | what | kind | for |
//! |---|---|---|
//! | exchange `gantry` | direct, durable | routes to one queue, by its name |
//! | `gantry.events`, `gantry.runs`, `gantry.jobs.<pool>` | quorum queues of limited length, dropping the oldest
//! message | each message to one claimant |
//! | exchange `gantry.control` | fanout, durable | each message to all listeners |
//! | a queue named by the broker | exclusive, deleted with its connection | one listener of `gantry.control` |

use gantry_domain::id::PoolName;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};

use crate::dial::plain;
use crate::error::ConnectError;
use crate::options::AmqpOptions;

pub(crate) const CONTROL: &str = "gantry.control";
const EXCHANGE: &str = "gantry";

/// The most messages of a queue. Beyond that the oldest are dropped, and the sweeper rings again.
const EVENTS: u32 = 4_096;
const RUNS: u32 = 4_096;
/// All doorbells of a pool are equivalent, so one for each slot that might be free is plenty.
const JOBS: u32 = 256;
/// How many messages a listener may be behind before the oldest are dropped.
const MOST_BEHIND: u32 = 1_024;
/// How long a listener's queue lives if the listener never consumes it, in milliseconds.
const UNUSED_MS: u32 = 60_000;

const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

pub(crate) fn events() -> Destination {
    Destination::Queue { name: "gantry.events".to_owned(), room: EVENTS }
}

pub(crate) fn runs() -> Destination {
    Destination::Queue { name: "gantry.runs".to_owned(), room: RUNS }
}

pub(crate) fn jobs(pool: &PoolName) -> Destination {
    Destination::Queue { name: format!("gantry.jobs.{pool}"), room: JOBS }
}

pub(crate) fn control() -> Destination {
    Destination::Fanout { name: CONTROL.to_owned() }
}

/// Where messages are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A queue: one claimant gets each message.
    Queue { name: String, room: u32 },
    /// A fanout: every current listener gets each message.
    Fanout { name: String },
}

impl Destination {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Queue { name, .. } | Self::Fanout { name } => name,
        }
    }

    /// The exchange and the routing key.
    pub(crate) fn route(&self) -> (ShortString, ShortString) {
        match self {
            Self::Queue { name, .. } => (EXCHANGE.into(), name.as_str().into()),
            Self::Fanout { name } => (name.as_str().into(), ShortString::default()),
        }
    }

    /// Whether an unroutable message is an error.
    pub(crate) fn is_mandatory(&self) -> bool {
        matches!(self, Self::Queue { .. })
    }

    /// On a separate channel, because the broker closes a channel on which a declaration fails.
    pub(crate) async fn declare(&self, connection: &Connection) -> Result<(), DeclareError> {
        self.declare_on(&connection.create_channel().await?)
            .await
            .map_err(|error| DeclareError::of(self, error))
    }

    async fn declare_on(&self, channel: &Channel) -> lapin::Result<()> {
        match self {
            Self::Queue { name, room } => {
                declare_exchange(channel, EXCHANGE, ExchangeKind::Direct).await?;
                let name = ShortString::from(name.as_str());
                let options = QueueDeclareOptions { durable: true, ..Default::default() };
                channel.queue_declare(name.clone(), options, doorbells(*room)).await?;
                let bind = QueueBindOptions::default();
                channel
                    .queue_bind(name.clone(), EXCHANGE.into(), name, bind, FieldTable::default())
                    .await
            }
            Self::Fanout { name } => declare_exchange(channel, name, ExchangeKind::Fanout).await,
        }
    }
}

/// A queue for a new listener of a fanout.
pub(crate) async fn declare_inbox(channel: &Channel, fanout: &str) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongUInt(MOST_BEHIND));
    arguments.insert("x-expires".into(), AMQPValue::LongUInt(UNUSED_MS));
    let queue = channel.queue_declare(ShortString::default(), options, arguments).await?;
    let name = queue.name().clone();
    let key = ShortString::default();
    let bind = QueueBindOptions::default();
    channel.queue_bind(name.clone(), fanout.into(), key, bind, FieldTable::default()).await?;
    Ok(name)
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await
}

fn doorbells(room: u32) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(room.into()));
    arguments.insert("x-overflow".into(), text("drop-head"));
    arguments
}

/// A declaration failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeclareError {
    #[error(
        "`{name}` exists with other properties than gantry declares, {why}: nothing but doorbells is in it, so delete it \
         (`rabbitmqctl delete_queue {name}`, or in the management page) and it is created again"
    )]
    Different { name: String, why: String },
    #[error("declaring `{name}` is not permitted, {why}")]
    NotPermitted { name: String, why: String },
    #[error(transparent)]
    Failed(#[from] lapin::Error),
}

impl DeclareError {
    fn of(destination: &Destination, error: lapin::Error) -> Self {
        let name = destination.name().to_owned();
        let why = plain(&error);
        let ErrorKind::ProtocolError(said) = error.kind() else { return Self::Failed(error) };
        match said.get_id() {
            PRECONDITION_FAILED => Self::Different { name, why },
            ACCESS_REFUSED => Self::NotPermitted { name, why },
            _ => Self::Failed(error),
        }
    }

    pub(crate) fn at_start(self, options: &AmqpOptions) -> ConnectError {
        match self {
            Self::Different { .. } => ConnectError::Topology { why: self.to_string() },
            Self::NotPermitted { why, .. } => ConnectError::NotPermitted {
                user: options.user.clone(),
                vhost: options.vhost.clone(),
                why,
            },
            Self::Failed(error) => ConnectError::Unreachable {
                tried: format!("virtual host `{}` ({})", options.vhost, plain(&error)),
            },
        }
    }
}
