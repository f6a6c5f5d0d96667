//! What a step asks for beyond a container of its own. It is the operator who may allow it.

use std::collections::BTreeSet;
use std::fmt;

use super::options::Given;
use super::step::{Container, StepWork, Task};

/// Something outside of a step's own container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// All rights on the engine's machine.
    Privileged,
    /// The network of the engine's machine, or of a container that is not of this run.
    HostNetwork,
    /// A network of the engine that is none of the task's own.
    OtherNetwork {
        /// Its name in the engine.
        name: String,
    },
    /// The engine's socket, which gives all rights on its machine.
    EngineSocket,
    /// A file or folder of the engine's machine.
    HostMount {
        /// As written.
        path: String,
    },
    /// A volume of the engine that is none of the task, and so outlives the run.
    NamedVolume {
        /// Its name in the engine.
        name: String,
    },
    /// A device of the engine's machine.
    Device {
        /// As written.
        device: String,
    },
    /// A capability that containers do not have by default.
    Capability {
        /// As written.
        name: String,
    },
    /// Processes, shared memory or others of the engine's machine, or of a container that is not of this run.
    HostNamespace {
        /// `pid` or `ipc`.
        kind: &'static str,
    },
    /// Another security profile than the engine's.
    SecurityOption {
        /// As written.
        option: String,
    },
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileged => f.write_str("all rights on the engine's machine"),
            Self::HostNetwork => f.write_str("the network of the engine's machine"),
            Self::OtherNetwork { name } => write!(f, "the engine's network `{name}`"),
            Self::EngineSocket => f.write_str("the engine's socket"),
            Self::HostMount { path } => write!(f, "`{path}` of the engine's machine"),
            Self::NamedVolume { name } => write!(f, "the engine's volume `{name}`"),
            Self::Device { device } => write!(f, "the device `{device}`"),
            Self::Capability { name } => write!(f, "the capability `{name}`"),
            Self::HostNamespace { kind } => {
                write!(f, "the {kind} namespace of the engine's machine")
            }
            Self::SecurityOption { option } => write!(f, "the security option `{option}`"),
        }
    }
}

impl Task {
    /// What a step asks for, each once.
    #[must_use]
    pub fn asks(&self, work: &StepWork) -> BTreeSet<Ask> {
        match work {
            StepWork::Cmd(cmd) => self.container_asks(&cmd.container),
            StepWork::Build(build) => {
                let network = build.options.iter().filter(|option| option.name == "network");
                network.filter_map(|option| host_network(option.value.exposed())).collect()
            }
            StepWork::Push(_) => BTreeSet::new(),
        }
    }

    fn container_asks(&self, container: &Container) -> BTreeSet<Ask> {
        let mut asks: BTreeSet<Ask> =
            container.privileged.then_some(Ask::Privileged).into_iter().collect();
        let network = container.network.as_ref();
        asks.extend(network.and_then(|network| self.network_asks(network.exposed())));
        asks.extend(container.options.iter().filter_map(|option| self.option_asks(option)));
        asks
    }

    fn network_asks(&self, network: &str) -> Option<Ask> {
        // Other drivers than `bridge` reach the networks of the engine's machine.
        let is_own = |own: &super::step::Network| {
            let is_bridge = own.driver.as_deref().is_none_or(|driver| driver == "bridge");
            own.name == network && !own.exists && is_bridge
        };
        if matches!(network, "none" | "bridge") || self.networks.iter().any(is_own) {
            return None;
        }
        host_network(network).or_else(|| Some(Ask::OtherNetwork { name: network.to_owned() }))
    }

    fn option_asks(&self, Given { name, value }: &Given) -> Option<Ask> {
        let value = value.exposed();
        match *name {
            "volume" => {
                // Without a source, the engine makes a volume that goes with the container.
                let (source, _) = value.split_once(':')?;
                self.mount_asks(source)
            }
            "mount" => {
                let mut parts = value.split(',').rev().filter_map(|part| part.split_once('='));
                // Of several sources the last one is mounted.
                let source = parts.find(|(name, _)| matches!(*name, "source" | "src"))?.1;
                self.mount_asks(source)
            }
            "device" | "gpus" => Some(Ask::Device { device: value.to_owned() }),
            "cap-add" => Some(Ask::Capability { name: value.to_owned() }),
            "security-opt" if is_no_new_privileges(value) => None,
            "security-opt" => Some(Ask::SecurityOption { option: value.to_owned() }),
            "pid" => is_elsewhere(value).then_some(Ask::HostNamespace { kind: "pid" }),
            "ipc" => is_elsewhere(value).then_some(Ask::HostNamespace { kind: "ipc" }),
            _ => None,
        }
    }

    fn mount_asks(&self, source: &str) -> Option<Ask> {
        if source.ends_with("/docker.sock") {
            return Some(Ask::EngineSocket);
        }
        if source.contains(['/', '\\', '~']) || source.starts_with('.') {
            return Some(Ask::HostMount { path: source.to_owned() });
        }
        let is_own = self.volumes.iter().any(|volume| volume.name == source);
        (!is_own).then(|| Ask::NamedVolume { name: source.to_owned() })
    }
}

/// Whether a security option only repeats what every container has: `no-new-privileges:false` would end it.
fn is_no_new_privileges(option: &str) -> bool {
    matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
}

fn host_network(network: &str) -> Option<Ask> {
    is_elsewhere(network).then_some(Ask::HostNetwork)
}

/// Whether a namespace is that of the engine's machine, or of another container.
fn is_elsewhere(namespace: &str) -> bool {
    namespace == "host" || namespace.starts_with("container:")
}

#[cfg(test)]
mod tests {
    use super::super::{Inputs, compile};

    const NETWORKS: &str = "networks: [{name: mine}, {name: lan, driver: macvlan}]\n";

    /// What the first step of a task asks for.
    fn asks(step: &str) -> String {
        let source =
            format!("volumes: [{{name: own, secret: {{a: \"\"}}}}]\n{NETWORKS}steps:\n- {step}\n");
        let task = compile(&source, &Inputs::default()).unwrap().task;
        let asks = task.asks(&task.steps[0].work);
        asks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_leads_out_of_a_container_is_asked_for() {
        for (step, expected) in [
            ("cmd: x y", ""),
            ("{cmd: x, privileged: true}", "all rights on the engine's machine"),
            ("cmd: --privileged x", "all rights on the engine's machine"),
            ("{cmd: x, network: host}", "the network of the engine's machine"),
            ("cmd: --net container:other x", "the network of the engine's machine"),
            ("{cmd: x, network: other}", "the engine's network `other`"),
            ("{cmd: x, network: none}", ""),
            ("{cmd: x, network: mine}", ""),
            ("{cmd: x, network: lan}", "the engine's network `lan`"),
            ("cmd: -v /var/run/docker.sock:/var/run/docker.sock x", "the engine's socket"),
            ("cmd: -v /etc:/etc:ro x", "`/etc` of the engine's machine"),
            ("cmd: --mount type=bind,src=/etc,dst=/etc x", "`/etc` of the engine's machine"),
            (
                "cmd: --mount type=bind,source=own,src=/etc,target=/x x",
                "`/etc` of the engine's machine",
            ),
            ("cmd: -v own:/own -v /anonymous --tmpfs /tmp x", ""),
            ("cmd: -v other:/other x", "the engine's volume `other`"),
            ("cmd: --device /dev/kvm --gpus all x", "the device `/dev/kvm`, the device `all`"),
            ("cmd: --cap-add SYS_ADMIN --cap-drop ALL x", "the capability `SYS_ADMIN`"),
            ("cmd: --pid host --ipc private x", "the pid namespace of the engine's machine"),
            (
                "cmd: --security-opt no-new-privileges --security-opt seccomp=unconfined x",
                "the security option `seccomp=unconfined`",
            ),
            (
                "cmd: --security-opt no-new-privileges:false x",
                "the security option `no-new-privileges:false`",
            ),
            ("build: --network host .", "the network of the engine's machine"),
            ("push: [a]", ""),
        ] {
            assert_eq!(asks(step), expected, "{step}");
        }
    }
}
