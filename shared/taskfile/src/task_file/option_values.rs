//! The forms of the values that options of containers and builds have.

use gantry_domain::platform::Platform;
use gantry_domain::platforms::Platforms;

/// What a value of this option must look like, if this one does not.
pub(super) fn wrong(name: &str, value: &str) -> Option<&'static str> {
    let (is_right, form) = match name {
        "memory" | "memory-reservation" | "shm-size" => {
            (is_size(value), "a number of bytes, or a number with `k`, `m` or `g`, like `512m`")
        }
        "memory-swap" => (value == "-1" || is_size(value), "a size like `1g`, or -1 for no limit"),
        "cpus" => (is_decimal(value), "a number like `1.5`"),
        "cpu-period" | "cpu-quota" | "cpu-shares" | "pids-limit" => {
            (value.parse::<i64>().is_ok(), "a whole number")
        }
        "publish" => (
            is_mapping(value),
            "a mapping of ports like `8080:80`, `80` or `127.0.0.1:8080:80/tcp`",
        ),
        "expose" => (is_ports(value), "a port like `80`, `8000-8010` or `53/udp`"),
        "ulimit" => (is_ulimit(value), "a limit like `nofile=1024` or `nofile=1024:2048`"),
        "add-host" => (value.contains([':', '=']), "a name and an address like `db:10.0.0.1`"),
        "platform" => (value.parse::<Platform>().is_ok(), "a platform like `linux/amd64`"),
        "platforms" => (
            value.parse::<Platforms>().is_ok(),
            "a platform, or at most eight, like `linux/amd64,linux/arm64`, each once",
        ),
        "pull" => {
            (matches!(value, "always" | "missing" | "never"), "`always`, `missing` or `never`")
        }
        _ => return None,
    };
    (!is_right).then_some(form)
}

fn is_size(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let number = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    is_decimal(number.strip_suffix(['k', 'm', 'g', 't']).unwrap_or(number))
}

fn is_decimal(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let has_digits = text.bytes().any(|b| b.is_ascii_digit());
    has_digits && all_digits(whole) && all_digits(fraction)
}

/// `[[ADDRESS:]PORTS:]PORTS[/PROTOCOL]`.
fn is_mapping(text: &str) -> bool {
    let Some((host, container)) = text.rsplit_once(':') else { return is_ports(text) };
    let host_ports = host.rsplit_once(':').map_or(host, |(_, ports)| ports);
    is_ports(container) && (host_ports.is_empty() || is_range(host_ports))
}

/// `PORT[-PORT][/PROTOCOL]`.
fn is_ports(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    is_range(ports) && matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp")
}

fn is_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => first <= last,
        _ => false,
    }
}

fn is_ulimit(text: &str) -> bool {
    let Some((name, limits)) = text.split_once('=') else { return false };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    !name.is_empty() && soft.parse::<i64>().is_ok() && hard.parse::<i64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_forms_of_docker() {
        for (name, right, wrong_ones) in [
            (
                "memory",
                vec!["512m", "1073741824", "1.5g", "2GB", "1gib"],
                vec!["", "m", "1x", "-1", "1 g"],
            ),
            ("memory-swap", vec!["-1", "1g"], vec!["-2"]),
            ("cpus", vec!["2", "1.5", ".5", "1."], vec!["", ".", "two", "1.5.2", "-1"]),
            ("pids-limit", vec!["100", "-1"], vec!["1.5", ""]),
            (
                "publish",
                vec![
                    "80",
                    "8080:80",
                    "127.0.0.1:8080:80/tcp",
                    "127.0.0.1::80",
                    "8000-8010:8000-8010",
                    "[::1]:80:80",
                ],
                vec!["", "a:80", "80:a", "80:80/icmp", "99999:80"],
            ),
            ("expose", vec!["80", "8000-8010", "53/udp"], vec!["", "x", "10-1", "80:80"]),
            ("ulimit", vec!["nofile=1024", "nofile=1024:-1"], vec!["nofile", "=1", "nofile=x"]),
            ("platform", vec!["linux/amd64"], vec!["linux/", "", "linux/amd64,linux/arm64"]),
            ("platforms", vec!["linux/amd64,linux/arm64"], vec!["linux/,linux/arm64", ""]),
            ("pull", vec!["always"], vec!["maybe"]),
            ("label", vec!["anything"], vec![]),
        ] {
            for value in right {
                assert_eq!(wrong(name, value), None, "{name} {value}");
            }
            for value in wrong_ones {
                assert!(wrong(name, value).is_some(), "{name} {value}");
            }
        }
    }
}
