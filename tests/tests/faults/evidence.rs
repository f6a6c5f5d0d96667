//! Reads runs and logs from the store, for all verdicts.

use anyhow::{Result, ensure};
use gantry_domain::id::RunId;
use gantry_domain::run::Run;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::blobs::Blobs;
use gantry_seams::logs::{self, LogId, LogPart, LogReader};
use gantry_seams::store::Store;
use gantry_seams::{due, outbox, registries, runs, waves};

/// More objects than any round has.
pub(crate) const MANY: usize = 1000;

/// A task and a commit; each pair must have exactly one run.
pub(crate) type Change = (String, String);

/// The change that a run was created for; `None` if it is of a wave, which builds the head as it is.
pub(crate) fn change(run: &Run) -> Option<Change> {
    if run.cause.wave().is_some() {
        return None;
    }
    Some((run.task.as_ref()?.name.to_string(), run.cause.commit()?.to_string()))
}

/// The log of an attempt.
pub(crate) struct Log {
    pub(crate) text: String,
    /// The time of the last frame, by its worker's clock.
    pub(crate) last: Option<Timestamp>,
}

/// Reads the log of an attempt from its beginning.
pub(crate) async fn log(
    store: &dyn Store,
    blobs: &dyn Blobs,
    run: RunId,
    attempt: u32,
) -> Result<Log> {
    let mut reader = LogReader::at(LogId { run, attempt }, 0);
    let mut text = String::new();
    let mut last = None;
    loop {
        match reader.next(store, blobs).await? {
            LogPart::Frames(frames) => {
                for frame in frames {
                    let place = text.len() as u64;
                    ensure!(frame.offset == place, "attempt {attempt}: {frame:?} at {place}");
                    text.push_str(&frame.text);
                    last = Some(frame.at);
                }
            }
            LogPart::Hole { until } => anyhow::bail!("attempt {attempt}: a hole up to {until}"),
            LogPart::End => return Ok(Log { text, last }),
        }
    }
}

/// What is not finished: leased, waiting and ready runs, hidden ones too, undecided events, unsealed logs and unsent
/// reports, as text.
pub(crate) async fn open(store: &dyn Store) -> Result<Vec<String>> {
    let ever = Timestamp::from_millis(i64::MAX);
    // In the order of a run's states, so that a run cannot be missed between two reads.
    let undecided = due::undecided(store, ever, MANY).await?;
    let leased = runs::leased(store, MANY).await?;
    let waiting = runs::waiting(store, None, MANY).await?;
    let ready = runs::ready_before(store, ever, None, MANY).await?;
    let kinds = [
        ("undecided", texts(undecided.into_iter().map(|due| due.event))),
        ("leased", ids(&leased)),
        ("waiting", ids(&waiting)),
        ("ready", texts(ready.into_iter().map(|ready| ready.run))),
        ("leased again", ids(&runs::leased(store, MANY).await?)),
        ("unsealed", texts(logs::open_logs(store, None, MANY).await?)),
        ("unreported", ids(&runs::unreported(store, MANY).await?)),
        ("unsent", texts(outbox::due(store, ever, None, MANY).await?.iter().map(|due| due.run))),
    ];
    Ok(lines(&kinds))
}

/// What a moved image may still lead to: ended runs that are not settled, undecided events, and open waves, as text.
pub(crate) async fn unbuilt(store: &dyn Store) -> Result<Vec<String>> {
    let ever = Timestamp::from_millis(i64::MAX);
    // In the order in which one leads to the next, so that nothing can be missed between two reads.
    let unsettled = runs::unsettled(store, MANY).await?;
    let undecided = due::undecided(store, ever, MANY).await?;
    let mut open = Vec::new();
    for registry in registries::list(store, None, MANY).await? {
        let waves = waves::list(store, registry.prefix, None, MANY).await?;
        open.extend(waves.into_iter().filter(|wave| !wave.state.is_over()));
    }
    let kinds = [
        ("unsettled", ids(&unsettled)),
        ("undecided", texts(undecided.into_iter().map(|due| due.event))),
        ("open", texts(open.into_iter().map(|wave| wave.id))),
    ];
    Ok(lines(&kinds))
}

fn lines(kinds: &[(&str, Vec<String>)]) -> Vec<String> {
    let open = kinds.iter().filter(|(_, which)| !which.is_empty());
    open.map(|(what, which)| format!("{which:?} are {what}")).collect()
}

fn ids(runs: &[Run]) -> Vec<String> {
    texts(runs.iter().map(|run| run.id))
}

fn texts(all: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    all.into_iter().map(|it| it.to_string()).collect()
}
