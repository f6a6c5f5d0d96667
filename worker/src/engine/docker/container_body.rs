//! Translates an order for a container into the engine's own form.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointSettings, HostConfig,
    HostConfigLogConfig, Mount, MountBindOptions, MountType, NetworkingConfig, PortBinding,
    ResourcesUlimits,
};

use super::labels;
use crate::engine::containers::{ContainerLimits, ContainerOrder};
use crate::engine::size::bytes;

/// Nanoseconds of processor time in a second of one processor.
const NANOS: f64 = 1e9;

/// The engine's period for a `--cpu-quota` without one, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// A value of an option that the engine would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`--{option} {value}` cannot be used: {why}")]
pub(super) struct WrongOption {
    option: &'static str,
    value: String,
    why: &'static str,
}

/// The container, and the platform of its image if the order names one.
pub(super) fn body(
    order: &ContainerOrder,
) -> Result<(ContainerCreateBody, Option<String>), WrongOption> {
    let mut made = Made::of(order);
    for (name, value) in &order.options {
        made.apply(name, value)?;
    }
    for port in &order.ports {
        made.publish(port)?;
    }
    for ports in &order.expose {
        made.expose(ports)?;
    }
    Ok(made.finish(order))
}

/// A container's description in the making.
struct Made {
    body: ContainerCreateBody,
    host: HostConfig,
    endpoint: EndpointSettings,
    platform: Option<String>,
    limits: ContainerLimits,
}

impl Made {
    fn of(order: &ContainerOrder) -> Self {
        let labels = labels::of_attempt(&order.owner);
        let own_network = order.network.as_deref().filter(|network| has_names(network));
        let list = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
        let body = ContainerCreateBody {
            hostname: own_network.map(|_| order.step.to_string()),
            user: order.user.clone(),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(order.env.clone()),
            cmd: list(&order.arguments),
            image: Some(order.image.to_string()),
            working_dir: order.working_directory.clone(),
            entrypoint: order.entry_point.clone().map(|program| vec![program]),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        let binds = order.volumes.iter().map(|volume| format!("{}:{}", volume.name, volume.path));
        let host = HostConfig {
            binds: Some(binds.collect()),
            network_mode: order.network.clone(),
            // The worker reads the output while it is written: a copy on the engine's disk would have no limit.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            privileged: Some(order.privileged),
            security_opt: (!order.privileged).then(|| vec!["no-new-privileges".to_owned()]),
            ..HostConfig::default()
        };
        let aliases = own_network.map(|_| vec![order.step.to_string()]);
        let endpoint = EndpointSettings { aliases, ..EndpointSettings::default() };
        Self { body, host, endpoint, platform: None, limits: order.limits }
    }

    fn apply(&mut self, name: &'static str, value: &str) -> Result<(), WrongOption> {
        let wrong = |why| WrongOption { option: name, value: value.to_owned(), why };
        let number = || value.parse::<i64>().map_err(|_| wrong("it is not a whole number"));
        let size = || bytes(value).ok_or_else(|| wrong("it is not a size like `512m`"));
        let is_true = matches!(value, "true" | "1");
        let host = &mut self.host;
        match name {
            "add-host" => push(&mut host.extra_hosts, value.replacen('=', ":", 1)),
            "cap-add" => push(&mut host.cap_add, value.to_owned()),
            "cap-drop" => push(&mut host.cap_drop, value.to_owned()),
            "cpu-period" => host.cpu_period = Some(number()?),
            "cpu-quota" => host.cpu_quota = Some(number()?),
            "cpu-shares" => host.cpu_shares = Some(number()?),
            "cpuset-cpus" => host.cpuset_cpus = Some(value.to_owned()),
            "cpuset-mems" => host.cpuset_mems = Some(value.to_owned()),
            "device" => push(&mut host.devices, device(value)),
            "dns" => push(&mut host.dns, value.to_owned()),
            "dns-option" => push(&mut host.dns_options, value.to_owned()),
            "dns-search" => push(&mut host.dns_search, value.to_owned()),
            "gpus" => {
                let gpus = gpus(value).ok_or_else(|| wrong("it is `all` or a number of them"))?;
                push(&mut host.device_requests, gpus);
            }
            "group-add" => push(&mut host.group_add, value.to_owned()),
            "hostname" => self.body.hostname = Some(value.to_owned()),
            "init" => host.init = Some(is_true),
            "ipc" => host.ipc_mode = Some(value.to_owned()),
            "label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let labels = self.body.labels.get_or_insert_default();
                labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
            "memory-reservation" => host.memory_reservation = Some(size()?),
            // Swapping counts as memory here.
            "memory-swap" => {}
            "mount" => {
                let mount =
                    mount(value).ok_or_else(|| wrong("write `type=…,source=…,target=…`"))?;
                push(&mut host.mounts, mount);
            }
            "network-alias" => push(&mut self.endpoint.aliases, value.to_owned()),
            "pid" => host.pid_mode = Some(value.to_owned()),
            "platform" => self.platform = Some(value.to_owned()),
            "read-only" => host.readonly_rootfs = Some(is_true),
            "security-opt" => push(&mut host.security_opt, value.to_owned()),
            "shm-size" => host.shm_size = Some(size()?),
            "stop-signal" => self.body.stop_signal = Some(value.to_owned()),
            "sysctl" => {
                let (name, value) =
                    value.split_once('=').ok_or_else(|| wrong("write NAME=VALUE"))?;
                host.sysctls.get_or_insert_default().insert(name.to_owned(), value.to_owned());
            }
            "tmpfs" => {
                let (path, options) = value.split_once(':').unwrap_or((value, ""));
                host.tmpfs.get_or_insert_default().insert(path.to_owned(), options.to_owned());
            }
            "ulimit" => {
                let limit = ulimit(value).ok_or_else(|| wrong("write NAME=SOFT:HARD"))?;
                push(&mut host.ulimits, limit);
            }
            "volume" if value.contains(':') => push(&mut host.binds, value.to_owned()),
            "volume" => push(&mut self.body.volumes, value.to_owned()),
            _ => return Err(wrong("this engine's steps do not know it")),
        }
        Ok(())
    }

    /// `[[ADDRESS:]PORTS:]PORTS[/PROTOCOL]`, as `docker run -p` takes it.
    fn publish(&mut self, mapping: &str) -> Result<(), WrongOption> {
        let wrong = |why| WrongOption { option: "publish", value: mapping.to_owned(), why };
        let (ports, protocol) = mapping.rsplit_once('/').unwrap_or((mapping, "tcp"));
        let (outside, inside) = match ports.rsplit_once(':') {
            Some((outside, inside)) => (Some(outside), inside),
            None => (None, ports),
        };
        let (address, outside) = match outside.map(|outside| outside.rsplit_once(':')) {
            Some(Some((address, outside))) => (Some(address), outside),
            Some(None) => (None, outside.unwrap_or("")),
            None => (None, ""),
        };
        let inside = range(inside).ok_or_else(|| wrong("its port is no number"))?;
        let count = inside.len();
        let outside: Vec<String> = match outside {
            "" => vec![String::new(); count],
            outside => {
                let outside = range(outside).ok_or_else(|| wrong("its port is no number"))?;
                outside.map(|port| port.to_string()).collect()
            }
        };
        if outside.len() != count {
            return Err(wrong("the ranges of ports have different lengths"));
        }
        for (inside, outside) in inside.zip(outside) {
            let port = format!("{inside}/{protocol}");
            push(&mut self.body.exposed_ports, port.clone());
            let bindings = self.host.port_bindings.get_or_insert_default();
            bindings.entry(port).or_default().get_or_insert_default().push(PortBinding {
                host_ip: address.map(str::to_owned),
                host_port: (!outside.is_empty()).then_some(outside),
            });
        }
        Ok(())
    }

    fn expose(&mut self, ports: &str) -> Result<(), WrongOption> {
        let (numbers, protocol) = ports.rsplit_once('/').unwrap_or((ports, "tcp"));
        let numbers = range(numbers).ok_or_else(|| WrongOption {
            option: "expose",
            value: ports.to_owned(),
            why: "its port is no number",
        })?;
        numbers.for_each(|port| {
            push(&mut self.body.exposed_ports, format!("{port}/{protocol}"));
        });
        Ok(())
    }

    fn finish(mut self, order: &ContainerOrder) -> (ContainerCreateBody, Option<String>) {
        let memory = i64::try_from(self.limits.memory).unwrap_or(i64::MAX);
        self.host.memory = Some(memory);
        self.host.memory_swap = Some(memory);
        self.host.pids_limit = Some(i64::from(self.limits.pids));
        self.limit_processors();
        if let Some(network) = order.network.clone().filter(|network| has_names(network)) {
            let endpoints = HashMap::from([(network, self.endpoint)]);
            self.body.networking_config =
                Some(NetworkingConfig { endpoints_config: Some(endpoints) });
        }
        self.body.host_config = Some(self.host);
        (self.body, self.platform)
    }

    /// A quota of the step's own holds only below the operator's limit. The engine takes one form of the two.
    fn limit_processors(&mut self) {
        let Some(limit) = self.limits.cpus else { return };
        let (quota, period) = (self.host.cpu_quota.take(), self.host.cpu_period.take());
        let period = period.filter(|period| *period > 0).unwrap_or(CPU_PERIOD);
        #[expect(clippy::cast_precision_loss, reason = "both are small numbers of microseconds")]
        let given = quota.filter(|quota| *quota > 0).map(|quota| quota as f64 / period as f64);
        let cpus = given.map_or(limit, |given| given.min(limit));
        #[expect(clippy::cast_possible_truncation, reason = "the number of processors is small")]
        let nanos = (cpus * NANOS) as i64;
        self.host.nano_cpus = Some(nanos);
    }
}

/// Whether containers have names in this network.
fn has_names(network: &str) -> bool {
    !matches!(network, "host" | "none" | "bridge" | "default") && !network.starts_with("container:")
}

fn push<T>(list: &mut Option<Vec<T>>, value: T) {
    list.get_or_insert_default().push(value);
}

/// `PORT` or `PORT-PORT`.
fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// `PATH[:PATH[:PERMISSIONS]]`.
fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':').map(str::to_owned);
    let outside = parts.next();
    let inside = parts.next().or_else(|| outside.clone());
    DeviceMapping {
        path_on_host: outside,
        path_in_container: inside,
        cgroup_permissions: Some(parts.next().unwrap_or_else(|| "rwm".to_owned())),
    }
}

fn gpus(text: &str) -> Option<DeviceRequest> {
    let count = if text == "all" { -1 } else { text.parse().ok()? };
    Some(DeviceRequest {
        count: Some(count),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    })
}

/// `NAME=SOFT[:HARD]`.
fn ulimit(text: &str) -> Option<ResourcesUlimits> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Some(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft.parse().ok()?),
        hard: Some(hard.parse().ok()?),
    })
}

/// `type=bind,source=/a,target=/b,readonly`.
fn mount(text: &str) -> Option<Mount> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        match name {
            "type" => {
                mount.typ = Some(match value {
                    "bind" => MountType::BIND,
                    "volume" => MountType::VOLUME,
                    "tmpfs" => MountType::TMPFS,
                    _ => return None,
                });
            }
            "source" | "src" => mount.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(matches!(value, "true" | "1")),
            "bind-propagation" => {
                mount.bind_options = Some(MountBindOptions::default());
            }
            _ => return None,
        }
    }
    mount.target.is_some().then_some(mount)
}

#[cfg(test)]
mod tests {
    use crate::engine::containers::Owner;

    use super::*;

    fn order(options: &[(&'static str, &str)]) -> ContainerOrder {
        ContainerOrder {
            owner: Owner {
                installation: "installation".to_owned(),
                run: "ca1".parse().unwrap(),
                attempt: 1,
            },
            step: "test".parse().unwrap(),
            image: "busybox".parse().unwrap(),
            arguments: Vec::new(),
            entry_point: None,
            env: Vec::new(),
            user: None,
            working_directory: None,
            network: Some("own".to_owned()),
            volumes: Vec::new(),
            ports: Vec::new(),
            expose: Vec::new(),
            privileged: false,
            keep: false,
            limits: ContainerLimits { memory: 1 << 30, cpus: Some(1.5), pids: 100 },
            options: options.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    fn host(options: &[(&'static str, &str)]) -> HostConfig {
        body(&order(options)).unwrap().0.host_config.unwrap()
    }

    #[test]
    fn limits_hold_and_a_quota_only_lowers_them() {
        let given = host(&[("memory-swap", "-1")]);
        assert_eq!((given.memory, given.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!((given.pids_limit, given.nano_cpus), (Some(100), Some(1_500_000_000)));
        for (quota, nanos) in [("800000", 1_500_000_000), ("50000", 500_000_000)] {
            let given = host(&[("cpu-quota", quota), ("cpu-period", "100000")]);
            assert_eq!((given.nano_cpus, given.cpu_quota), (Some(nanos), None), "{quota}");
        }
    }

    #[test]
    fn no_container_gains_rights_and_its_output_is_not_kept_twice() {
        let given = host(&[("security-opt", "label=disable")]);
        assert_eq!(given.security_opt.unwrap(), ["no-new-privileges", "label=disable"]);
        assert_eq!(given.log_config.unwrap().typ.as_deref(), Some("none"));
    }

    #[test]
    fn a_step_is_reached_by_its_id_in_its_own_network_only() {
        let (made, _) = body(&order(&[("network-alias", "web")])).unwrap();
        let endpoints = made.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["own"].aliases.as_ref().unwrap(), &["test", "web"]);
        assert_eq!(made.hostname.as_deref(), Some("test"));
        for network in [None, Some("host"), Some("none")] {
            let order = ContainerOrder { network: network.map(str::to_owned), ..order(&[]) };
            let (made, _) = body(&order).unwrap();
            assert_eq!((made.networking_config, made.hostname), (None, None), "{network:?}");
        }
    }

    #[test]
    fn ports_are_published_as_docker_does() {
        let ports = ["8080:80", "127.0.0.1:53:53/udp", "9000-9001:90-91", "70"];
        let order = ContainerOrder {
            ports: ports.map(str::to_owned).to_vec(),
            expose: vec!["100-101".to_owned()],
            ..order(&[])
        };
        let (made, _) = body(&order).unwrap();
        let bindings = made.host_config.unwrap().port_bindings.unwrap();
        let binding = |port: &str| bindings[port].as_ref().unwrap()[0].clone();
        assert_eq!(binding("80/tcp").host_port.as_deref(), Some("8080"));
        assert_eq!(binding("53/udp").host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(binding("91/tcp").host_port.as_deref(), Some("9001"));
        assert_eq!(binding("70/tcp").host_port, None);
        let exposed = made.exposed_ports.unwrap();
        assert!(exposed.contains(&"101/tcp".to_owned()), "{exposed:?}");
    }

    #[test]
    fn a_label_of_gantry_cannot_be_replaced() {
        let (made, _) = body(&order(&[("label", "gantry.run=zz9"), ("label", "own")])).unwrap();
        let labels = made.labels.unwrap();
        assert_eq!((labels["gantry.run"].as_str(), labels["own"].as_str()), ("ca1", ""));
    }

    #[test]
    fn a_value_that_the_engine_would_refuse_is_named() {
        for (name, value) in [
            ("mount", "type=nfs,target=/x"),
            ("ulimit", "nofile"),
            ("gpus", "some"),
            ("sysctl", "x"),
        ] {
            let error = body(&order(&[(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`--{name} {value}`")), "{error}");
        }
    }
}
