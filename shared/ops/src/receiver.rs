//! The receiver of a notification: where it is, and what messages to it are signed with.

use gantry_domain::notification::{Address, Notification};

use crate::secret::{ExposeSecret as _, Keyring, SecretError, SecretString};

/// The opened secrets of a notification.
#[derive(Debug)]
pub struct Receiver {
    /// Where messages are sent.
    pub address: Address,
    /// What they are signed with, the newest first; none if their format is not signed.
    pub secrets: Vec<SecretString>,
}

/// The secrets of a notification are unusable.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// A secret does not open.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The stored address is none.
    #[error("its address cannot be read: give it another one")]
    Address,
}

impl Receiver {
    /// Opens the secrets of a notification.
    ///
    /// # Errors
    /// [`ReceiverError`].
    pub fn open(keyring: &Keyring, notification: &Notification) -> Result<Self, ReceiverError> {
        let bound_to = notification.seals_for();
        let address = keyring.open(&bound_to, &notification.address)?;
        let address = address.expose_secret().parse().map_err(|_| ReceiverError::Address)?;
        let secrets = notification.secrets.iter();
        let secrets = secrets.map(|secret| keyring.open(&bound_to, &secret.sealed));
        Ok(Self { address, secrets: secrets.collect::<Result<_, _>>()? })
    }
}
