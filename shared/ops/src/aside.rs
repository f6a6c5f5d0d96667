//! Parses untrusted input off the async runtime.
//!
//! A parser occupies its thread for as long as the input makes it work. On a thread of the runtime that would delay
//! renewals of leases and other connections. The input is bounded in size, and so is the parser's work; the deadline is
//! for unforeseen cases.

use std::time::Duration;

/// The time limit. Input of the largest allowed size takes a few seconds on an idle machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// There is no result.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// The deadline passed; the parser may still be running.
    #[error("reading it took longer than {} s: make it shorter, or try again if this machine is very busy", WITHIN.as_secs())]
    TimedOut,
    /// The parser panicked, or the runtime is shutting down.
    #[error("reading it failed")]
    Lost {
        /// The runtime's error.
        source: tokio::task::JoinError,
    },
}

/// Runs `read` on a blocking thread, and waits for its result for at most [`WITHIN`].
///
/// # Errors
/// [`AsideError`].
pub async fn read<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AsideError> {
    read_within(WITHIN, read).await
}

async fn read_within<T: Send + 'static>(
    within: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AsideError> {
    let reading = tokio::task::spawn_blocking(read);
    let read = tokio::time::timeout(within, reading).await.map_err(|_| AsideError::TimedOut)?;
    read.map_err(|source| AsideError::Lost { source })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_runtime_is_not_blocked_while_reading() {
        let (sender, receiver) = mpsc::channel();
        // Both run on this runtime's only thread: the parser ends only after the other future ran.
        let (read, ()) = tokio::join!(read(move || receiver.recv()), async {
            tokio::task::yield_now().await;
            sender.send("served").unwrap();
        });
        assert_eq!(read.unwrap(), Ok("served"));
    }

    #[tokio::test]
    async fn a_slow_parser_times_out() {
        let (sender, receiver) = mpsc::channel::<()>();
        let read = read_within(Duration::from_millis(1), move || receiver.recv()).await;
        assert!(matches!(read, Err(AsideError::TimedOut)));
        drop(sender);
    }

    #[tokio::test]
    async fn a_panic_of_the_parser_is_an_error() {
        let read = read(|| -> () { panic!("a parser's mistake") }).await;
        assert!(matches!(read, Err(AsideError::Lost { .. })));
    }
}
