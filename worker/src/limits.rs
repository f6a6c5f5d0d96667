//! What the container of a step may use: what the operator allows, or less if the step says so.

use gantry_domain::run::ErrorCode;
use gantry_taskfile::task_file::Container;

use crate::engine::containers::ContainerLimits;
use crate::engine::size;
use crate::failure::Failure;

/// The options of `docker run` that are a part of these limits.
pub(crate) const OPTIONS: [&str; 2] = ["memory", "pids-limit"];

/// The limits of a step's container, of which none is above `most`.
///
/// # Errors
/// A limit of the step is no number.
pub(crate) fn of(container: &Container, most: ContainerLimits) -> Result<ContainerLimits, Failure> {
    let mut limits = most;
    let cpus = container.cpus.as_ref().and_then(|cpus| cpus.exposed().parse().ok());
    // 0 means no limit of its own.
    if let Some(cpus) = cpus.filter(|cpus: &f64| *cpus > 0.0) {
        limits.cpus = Some(limits.cpus.map_or(cpus, |most: f64| most.min(cpus)));
    }
    for option in &container.options {
        let value = option.value.exposed();
        match option.name {
            "memory" => {
                let memory = size::bytes(value)
                    .ok_or_else(|| wrong("memory", value, "a size like `512m`"))?;
                // 0 means no limit of its own.
                if memory != 0 {
                    limits.memory = limits.memory.min(memory.unsigned_abs());
                }
            }
            "pids-limit" => {
                let pids: i64 =
                    value.parse().map_err(|_| wrong("pids-limit", value, "a whole number"))?;
                // Anything below 1 means no limit of its own.
                if let Ok(pids @ 1..) = u32::try_from(pids) {
                    limits.pids = limits.pids.min(pids);
                }
            }
            _ => {}
        }
    }
    Ok(limits)
}

fn wrong(option: &str, value: &str, expected: &str) -> Failure {
    let message = format!("`--{option} {value}` cannot be used: it is not {expected}");
    Failure::in_words(ErrorCode::TaskFileInvalid, message)
}

#[cfg(test)]
mod tests {
    use gantry_taskfile::task_file::{Inputs, StepWork, compile};

    use super::*;

    const MOST: ContainerLimits = ContainerLimits { memory: 1 << 30, cpus: Some(1.5), pids: 100 };

    fn limits(step: &str) -> Result<ContainerLimits, Failure> {
        let task = compile(&format!("steps:\n- {step}\n"), &Inputs::default()).unwrap().task;
        let StepWork::Cmd(cmd) = &task.steps[0].work else { panic!("no command") };
        of(&cmd.container, MOST)
    }

    #[test]
    fn a_step_may_only_lower_what_it_may_use() {
        for (step, memory, pids, cpus) in [
            ("cmd: x", 1 << 30, 100, 1.5),
            ("cmd: --memory 512m --pids-limit 20 --cpus 0.5 x", 512 << 20, 20, 0.5),
            ("cmd: --memory 8g --pids-limit -1 --cpus 4 x", 1 << 30, 100, 1.5),
            ("cmd: --memory 0 --pids-limit 0 --cpus 0 x", 1 << 30, 100, 1.5),
            ("{cmd: x, cpus: 1}", 1 << 30, 100, 1.0),
        ] {
            let expected = ContainerLimits { memory, cpus: Some(cpus), pids };
            assert_eq!(limits(step).unwrap(), expected, "{step}");
        }
    }
}
