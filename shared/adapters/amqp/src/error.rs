//! Why connecting to a broker failed.

use gantry_seams::queue::QueueError;

use crate::options::Address;

/// Connecting to a broker failed.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ConnectError {
    /// No broker answers, or the server there does not speak AMQP.
    #[error("no RabbitMQ answers at {tried}: start it, or correct the address")]
    Unreachable {
        /// Each address with its error.
        tried: String,
    },
    /// The TLS handshake failed.
    #[error(
        "no TLS connection to {at}, {why}: check the certificate and its names, or the file of certificates to trust"
    )]
    Tls {
        /// The address, or the file of certificates.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// Authentication failed.
    #[error("RabbitMQ at {address} refuses user `{user}`: check the name and the password file")]
    WrongPassword { address: Address, user: String },
    /// The virtual host does not exist.
    #[error(
        "RabbitMQ at {address} has no virtual host `{vhost}`: make it with `rabbitmqctl add_vhost {vhost}`"
    )]
    NoVhost { address: Address, vhost: String },
    /// The user lacks permissions.
    #[error(
        "RabbitMQ does not permit user `{user}` what is needed in virtual host `{vhost}`, {why}: allow it with \
         `rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'`"
    )]
    NotPermitted {
        user: String,
        /// The virtual host.
        vhost: String,
        /// The broker's error.
        why: String,
    },
    /// The broker is older than 3.10.
    #[error("RabbitMQ at {address} is {version}: use 3.10 or later")]
    TooOld {
        address: Address,
        /// The broker's version.
        version: String,
    },
    /// An object exists with other properties than gantry declares.
    #[error("{why}")]
    Topology {
        /// The object, and the remedy.
        why: String,
    },
}

impl ConnectError {
    /// Whether a later retry may succeed without any change by an operator.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

pub(crate) fn queue_error(reason: impl ToString) -> QueueError {
    QueueError { message: reason.to_string() }
}
