//! What the operator allows steps to have beyond a container of their own.

use std::collections::BTreeMap;

use gantry_domain::id::RegistryName;
use gantry_domain::registry::RegistryChoice;
use gantry_domain::run::ErrorCode;
use gantry_taskfile::task_file::Ask;

use crate::failure::Failure;
use crate::graph::Graph;

/// A kind of what a step may ask for, each with a setting of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of `Ask`")]
pub enum Permission {
    Privileged,
    HostNetwork,
    EngineSocket,
    HostMounts,
    NamedVolumes,
    Devices,
    Capabilities,
    HostNamespaces,
    SecurityOptions,
    /// The ports of the engine's machine, and the metadata address of its cloud. No step asks for it: its network has it.
    Machine,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 10] = [
        Self::Privileged,
        Self::HostNetwork,
        Self::EngineSocket,
        Self::HostMounts,
        Self::NamedVolumes,
        Self::Devices,
        Self::Capabilities,
        Self::HostNamespaces,
        Self::SecurityOptions,
        Self::Machine,
    ];

    /// Its setting.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            Self::Privileged => "steps.privileged",
            Self::HostNetwork => "steps.host_network",
            Self::EngineSocket => "steps.engine_socket",
            Self::HostMounts => "steps.host_mounts",
            Self::NamedVolumes => "steps.named_volumes",
            Self::Devices => "steps.devices",
            Self::Capabilities => "steps.capabilities",
            Self::HostNamespaces => "steps.host_namespaces",
            Self::SecurityOptions => "steps.security_options",
            Self::Machine => "steps.machine",
        }
    }

    fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Privileged => Self::Privileged,
            Ask::HostNetwork | Ask::OtherNetwork { .. } => Self::HostNetwork,
            Ask::EngineSocket => Self::EngineSocket,
            Ask::HostMount { .. } => Self::HostMounts,
            Ask::NamedVolume { .. } => Self::NamedVolumes,
            Ask::Device { .. } => Self::Devices,
            Ask::Capability { .. } => Self::Capabilities,
            Ask::HostNamespace { .. } => Self::HostNamespaces,
            Ask::SecurityOption { .. } => Self::SecurityOptions,
        }
    }
}

/// What each registry's runs may have on this worker. Nothing is allowed by default.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    granted: BTreeMap<Permission, RegistryChoice>,
}

impl Policy {
    /// Grants a permission, instead of what was granted before.
    pub fn grant(&mut self, permission: Permission, to: RegistryChoice) {
        self.granted.insert(permission, to);
    }

    /// Fails if a step asks for what its registry may not have.
    pub(crate) fn check(&self, graph: &Graph, registry: &RegistryName) -> Result<(), Failure> {
        for step in &graph.steps {
            for ask in &step.asks {
                let permission = Permission::of(ask);
                if self.allows(permission, registry) {
                    continue;
                }
                let message = format!(
                    "it asks for {ask}, which runs of registry {registry} may not have here: the operator may allow it in the \
                     worker's settings with `{}`",
                    permission.setting()
                );
                return Err(Failure::in_words(ErrorCode::NotAllowed, message).in_step(&step.id));
            }
        }
        Ok(())
    }

    pub(crate) fn allows(&self, permission: Permission, registry: &RegistryName) -> bool {
        self.granted.get(&permission).is_some_and(|granted| granted.has(registry))
    }
}

#[cfg(test)]
mod tests {
    use gantry_taskfile::task_file::{Inputs, compile};

    use super::*;

    fn refused(policy: &Policy, step: &str) -> Option<String> {
        let source = format!("steps:\n- {step}\n");
        let task = compile(&source, &Inputs::default()).unwrap().task;
        let graph = Graph::of_file(task, &"linux/amd64".parse().unwrap()).unwrap();
        let checked = policy.check(&graph, &"contoso".parse().unwrap());
        checked.err().map(|failure| failure.error().to_string())
    }

    #[test]
    fn each_request_is_refused_by_default_and_names_its_setting() {
        let steps = [
            "{cmd: x, privileged: true, id: test}",
            "{cmd: x, network: host, id: test}",
            "{cmd: -v /var/run/docker.sock:/var/run/docker.sock x, id: test}",
            "{cmd: -v /etc:/etc x, id: test}",
            "{cmd: -v other:/x x, id: test}",
            "{cmd: --device /dev/kvm x, id: test}",
            "{cmd: --cap-add SYS_ADMIN x, id: test}",
            "{cmd: --pid host x, id: test}",
            "{cmd: --security-opt seccomp=unconfined x, id: test}",
        ];
        for (step, permission) in steps.iter().zip(Permission::ALL) {
            let told = refused(&Policy::default(), step).expect(step);
            assert!(told.starts_with("step `test`: it asks for"), "{told}");
            assert!(told.contains(&format!("`{}`", permission.setting())), "{step}: {told}");
            let mut policy = Policy::default();
            policy.grant(permission, RegistryChoice::Named(vec!["contoso".parse().unwrap()]));
            assert_eq!(refused(&policy, step), None, "{step}");
            policy.grant(permission, RegistryChoice::Named(vec!["other".parse().unwrap()]));
            assert!(refused(&policy, step).is_some(), "{step}");
            policy.grant(permission, RegistryChoice::Everybody);
            assert_eq!(refused(&policy, step), None, "{step}");
        }
    }

    #[test]
    fn a_container_of_its_own_needs_no_permission() {
        assert_eq!(refused(&Policy::default(), "cmd: -v /cache x"), None);
    }
}
