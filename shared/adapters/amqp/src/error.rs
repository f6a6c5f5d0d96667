//! Why the broker cannot be used.

use gantry_seams::queue::QueueError;

use crate::options::Address;

/// Why no connection to the broker was made.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the fields without a comment explain themselves")]
pub enum ConnectError {
    /// Nobody answers, or not in our language.
    #[error("no RabbitMQ answers at {tried}: start it, or correct the address")]
    Unreachable {
        /// Each address with what happened there.
        tried: String,
    },
    /// The two sides do not trust or understand each other.
    #[error(
        "no TLS connection to {at}, {why}: check the certificate and its names, or the file of certificates to trust"
    )]
    Tls {
        /// Where, or which file.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// The broker does not let us in.
    #[error("RabbitMQ at {address} refuses user `{user}`: check the name and the password file")]
    WrongPassword { address: Address, user: String },
    /// The virtual host is not there.
    #[error(
        "RabbitMQ at {address} has no virtual host `{vhost}`: make it with `rabbitmqctl add_vhost {vhost}`"
    )]
    NoVhost { address: Address, vhost: String },
    /// The user may not do what we need.
    #[error(
        "RabbitMQ does not permit user `{user}` what is needed in virtual host `{vhost}`, {why}: allow it with \
         `rabbitmqctl set_permissions -p {vhost} {user} '.*' '.*' '.*'`"
    )]
    NotPermitted {
        user: String,
        /// In which.
        vhost: String,
        /// What the broker says.
        why: String,
    },
    /// The broker is older than 3.10.
    #[error("RabbitMQ at {address} is {version}: use 3.10 or later")]
    TooOld {
        address: Address,
        /// Its version.
        version: String,
    },
    /// Something of ours exists there, but otherwise than we declare it.
    #[error("{why}")]
    Topology {
        /// What, and the remedy.
        why: String,
    },
}

impl ConnectError {
    /// Whether it may pass by itself, so that trying again makes sense.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The queue cannot be asked, for this reason.
pub(crate) fn queue_error(reason: impl ToString) -> QueueError {
    QueueError { message: reason.to_string() }
}
