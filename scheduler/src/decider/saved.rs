//! Reads the head of a task's branch when the task is saved.

use gantry_domain::decide::{Rule, matcher};
use gantry_domain::fact::FactKey;
use gantry_domain::id::TaskId;
use gantry_domain::timestamp::Timestamp;
use gantry_seams::decisions::{Decided, Undecided};
use gantry_seams::store::{Batch, StoreError};
use gantry_seams::{facts, tasks};

use super::asks::MayAsk;
use super::head::Unresolved;
use super::{Decider, Progress};

impl Decider {
    /// Stores the head of the branch that a saved task watches. With it the next push can be classified without a query
    /// to the code host.
    pub(super) async fn learn_head(
        &self,
        found: &Undecided,
        task: &TaskId,
        created: Timestamp,
        may_ask: MayAsk,
    ) -> Result<Progress, StoreError> {
        let event = &found.event;
        let saved = tasks::find(self.store.as_ref(), task).await?;
        let saved = saved.filter(|task| task.prefix == event.prefix && task.created == created);
        let watched = saved.and_then(|task| {
            matcher::watched_repository(&task).map(|repository| (task, repository))
        });
        let Some((task, repository)) = watched else {
            let what = format!("task {task}, which watches no branch,");
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let branch = matcher::watched_branch(&task);
        let resolved = self.ask(branch.as_ref(), std::slice::from_ref(&task), may_ask).await;
        let head = match resolved {
            Ok(head) => head,
            Err(Unresolved::Store(error)) => return Err(error),
            Err(Unresolved::MustAsk(host)) => return Ok(Progress::MustAsk(host)),
            Err(Unresolved::Behind) => return self.put_off(found, "its host may be behind").await,
            Err(Unresolved::Asking(error)) => {
                // No retry: the first push queries the host.
                tracing::warn!(task.name = %task.id, "the head that task {} watches is not known yet: {error}", task.id);
                let what = format!("task {}, whose branch could not be read ({error}),", task.id);
                return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
            }
        };
        let Some(branch) = head.branch.or(branch) else {
            let what = format!("task {}, whose repository names no default branch,", task.id);
            return self.decide_nothing(found, Rule::RecordedOnly { what }).await;
        };
        let key = FactKey::branch(&event.registry, &repository, &branch);
        let known = facts::find(self.store.as_ref(), &key).await?;
        let is_there = known.is_some() || head.commit.is_some();
        let mut batch = Batch::default();
        let now = self.store.now().await?;
        // An existing fact is advanced only by pushes: if it were advanced here, the push would count as a repetition
        // and start no run.
        if known.is_none() {
            let fact = gantry_domain::fact::advanced(None, &key, head.commit, now);
            facts::advance(&mut batch, None, &fact)?;
        }
        let what = match is_there {
            true => format!("the head of {branch} of {repository}"),
            // The name may be that of a tag. A branch that is created later starts the task.
            false => format!("task {}, whose repository has no branch `{branch}` yet,", task.id),
        };
        let rule = Rule::RecordedOnly { what };
        let decided = Decided { candidates: Vec::new(), nothing: Some(rule), more_after: None };
        self.record(batch, found, decided, now, Progress::Committed(Vec::new())).await
    }
}
