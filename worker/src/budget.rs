//! Bounds what the containers of a run may use together.
//!
//! Each container has a limit of its own, which the engine enforces. A container waits until the limits of those that run
//! fit beside its own, so their sum is a limit of the run. An engine has no such limit: one for a group of containers is
//! a parent control group, which has to be made on the engine's machine, and in another way for each of its drivers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_domain::run::ErrorCode;
use gantry_taskfile::task_file::Cmd;
use tokio::sync::Notify;

use crate::engine::containers::ContainerLimits;
use crate::failure::Failure;
use crate::graph::{Graph, StepWork};
use crate::limits;

/// Memory and processes that containers may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory in bytes, with what they swap.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    /// What the containers of a step use at once. One that runs beside later steps is started again by each repetition.
    pub(crate) fn of(cmd: &Cmd, limits: ContainerLimits) -> Self {
        let containers = if cmd.container.detach { 1 + u64::from(cmd.attempts.repeat) } else { 1 };
        Self {
            memory: limits.memory.saturating_mul(containers),
            pids: u64::from(limits.pids).saturating_mul(containers),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            pids: self.pids.saturating_add(other.pids),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            pids: self.pids.saturating_sub(other.pids),
        }
    }

    fn fits_in(self, most: Self) -> bool {
        self.memory <= most.memory && self.pids <= most.pids
    }
}

/// Fails if a step would wait forever, because it and the containers that run until the end of the run do not fit.
pub(crate) fn check(graph: &Graph, most: Usage, of_a_step: ContainerLimits) -> Result<(), Failure> {
    let mut commands = Vec::new();
    for step in &graph.steps {
        if let StepWork::Cmd(cmd) = &step.work {
            let limits = limits::of(&cmd.container, of_a_step);
            let limits = limits.map_err(|failure| failure.in_step(&step.id))?;
            commands.push((&step.id, cmd.container.detach, Usage::of(cmd, limits)));
        }
    }
    let detached = commands.iter().filter(|(_, detach, _)| *detach);
    let detached = detached.fold(Usage::default(), |sum, (_, _, own)| sum.plus(*own));
    for (id, detach, own) in commands {
        let needed = if detach { detached } else { detached.plus(own) };
        if !needed.fits_in(most) {
            let message = format!(
                "its container and the detached ones may use {} MiB of memory and {} processes, and all of a run together {} \
                 MiB and {}: lower them with `--memory` and `--pids-limit`, or let the operator raise `steps.run_memory` \
                 and `steps.run_pids`",
                needed.memory >> 20,
                needed.pids,
                most.memory >> 20,
                most.pids
            );
            return Err(Failure::in_words(ErrorCode::NotAllowed, message).in_step(id));
        }
    }
    Ok(())
}

/// What the containers of one run may use together, and do.
pub(crate) struct Budget {
    most: Usage,
    used: Mutex<Usage>,
    freed: Notify,
}

/// What a step's containers may use. It returns to the budget when this is dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    usage: Usage,
}

impl Budget {
    pub(crate) fn new(most: Usage) -> Arc<Self> {
        Arc::new(Self { most, used: Mutex::default(), freed: Notify::new() })
    }

    /// Waits until this fits beside what is in use. After [`check`] it does at some time.
    pub(crate) async fn take(self: &Arc<Self>, usage: Usage) -> Share {
        loop {
            let freed = self.freed.notified();
            if self.try_take(usage) {
                return Share { budget: Arc::clone(self), usage };
            }
            freed.await;
        }
    }

    fn try_take(&self, usage: Usage) -> bool {
        let mut used = self.used();
        let sum = used.plus(usage);
        let fits = sum.fits_in(self.most);
        if fits {
            *used = sum;
        }
        fits
    }

    fn used(&self) -> MutexGuard<'_, Usage> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        *used = used.minus(self.usage);
        drop(used);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use gantry_taskfile::task_file::{Inputs, compile};

    use super::*;

    const OF_A_STEP: ContainerLimits = ContainerLimits { memory: 256 << 20, cpus: None, pids: 100 };

    fn refused(most: Usage, steps: &[&str]) -> Option<String> {
        let source = format!("steps:\n- {}\n", steps.join("\n- "));
        let task = compile(&source, &Inputs::default()).unwrap().task;
        let graph = Graph::of_file(task, &"linux/amd64".parse().unwrap()).unwrap();
        check(&graph, most, OF_A_STEP).err().map(|failure| failure.error().to_string())
    }

    #[test]
    fn a_share_waits_until_it_fits_and_returns_when_it_is_dropped() {
        let budget = Budget::new(Usage { memory: 10, pids: 10 });
        let take = |memory, pids| budget.take(Usage { memory, pids });
        let first = take(6, 1).now_or_never().unwrap();
        let second = take(4, 1).now_or_never().unwrap();
        assert!(take(1, 1).now_or_never().is_none(), "no memory is left");
        drop(first);
        assert!(take(1, 10).now_or_never().is_none(), "there is memory, and a process too few");
        let mut waiting = Box::pin(take(7, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn steps_that_never_fit_together_are_refused_by_name() {
        let most = Usage { memory: 512 << 20, pids: 1000 };
        let (server, test) = ("{id: db, cmd: x, detach: true}", "{id: test, cmd: y}");
        assert_eq!(refused(most, &[server, test]), None);
        assert_eq!(refused(most, &[test, "cmd: z", "cmd: z"]), None, "they take turns");
        let web = "{id: web, cmd: x, detach: true}";
        let told = refused(most, &[server, web, test]).unwrap();
        let expected = "step `test`: its container and the detached ones may use 768 MiB of memory and 300 processes, and \
                        all of a run together 512 MiB and 1000: lower them with `--memory` and `--pids-limit`, or let \
                        the operator raise `steps.run_memory` and `steps.run_pids`";
        assert_eq!(told, expected);
        let small = "{id: web, cmd: --memory 64m x, detach: true}";
        assert_eq!(refused(most, &[server, small, "cmd: --memory 192m y"]), None);
        let twice = "{id: db, cmd: x, detach: true, repeat: 1}";
        assert!(
            refused(most, &[twice, test]).is_some(),
            "each repetition starts another container"
        );
        let few = Usage { pids: 150, ..most };
        assert!(refused(few, &[server, test]).is_some(), "processes are counted, too");
    }
}
