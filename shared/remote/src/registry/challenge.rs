//! Parses the header `WWW-Authenticate` of a registry.

/// A way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        /// The scopes that the registry requires of the token.
        scopes: Vec<String>,
    },
}

const SPACE: [char; 2] = [' ', '\t'];
/// The separators between parameters and between challenges.
const BETWEEN: [char; 3] = [' ', '\t', ','];

/// The supported challenges of one header.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches(BETWEEN);
    while !rest.is_empty() {
        let (scheme, parameters) = rest.split_once(SPACE).unwrap_or((rest, ""));
        let (mut realm, mut service, mut scopes) = (None, None, Vec::new());
        rest = parameters.trim_start();
        while let Some((name, value, after)) = parameter(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scopes = value.split_whitespace().map(str::to_owned).collect(),
                _ => {}
            }
            rest = after.trim_start_matches(BETWEEN);
        }
        match (scheme.to_ascii_lowercase().as_str(), realm) {
            ("basic", _) => challenges.push(Challenge::Basic),
            ("bearer", Some(realm)) => {
                challenges.push(Challenge::Bearer { realm, service, scopes });
            }
            _ => {}
        }
    }
    challenges
}

/// Parses `name=value` or `name="value"` at the start of `text`, with optional spaces around `=`. Returns the rest too.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let (name, rest) = (name.trim_end_matches(SPACE), rest.trim_start_matches(SPACE));
    if name.is_empty() || name.contains([' ', '\t', ',', '"']) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(BETWEEN).unwrap_or(rest.len());
        return Some((name, rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((i, letter)) = letters.next() {
        match letter {
            '"' => return Some((name, value, &quoted[i + 1..])),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
        Challenge::Bearer { realm, service, scopes: Vec::new() }
    }

    fn with_scopes(challenge: Challenge, named: &[&str]) -> Challenge {
        match challenge {
            Challenge::Bearer { realm, service, .. } => Challenge::Bearer {
                realm,
                service,
                scopes: named.iter().map(|scope| (*scope).to_owned()).collect(),
            },
            Challenge::Basic => Challenge::Basic,
        }
    }

    #[test]
    fn challenges_of_real_registries_are_parsed() {
        for (header, challenges) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![with_scopes(
                    bearer("https://auth.docker.io/token", Some("registry.docker.io")),
                    &["repository:a/b:pull,push"],
                )],
            ),
            (
                r#"BEARER Realm = "https://x/t?a=b&c=d" ,, SERVICE="reg",scope="a:b:pull  c:d:push" , error="x""#,
                vec![with_scopes(
                    bearer("https://x/t?a=b&c=d", Some("reg")),
                    &["a:b:pull", "c:d:push"],
                )],
            ),
            ("bearer\trealm=https://x/t\t,\tscope=\"\"", vec![bearer("https://x/t", None)]),
            (r#"Negotiate dG9rZW4==, Basic realm="x""#, vec![Challenge::Basic]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Basic realm="a, b", Bearer realm="https://x/\"y", service=z"#,
                vec![Challenge::Basic, bearer("https://x/\"y", Some("z"))],
            ),
            (r#"Bearer service="x""#, vec![]),
            (r#"Negotiate"#, vec![]),
            (r#"Bearer realm="open"#, vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(header), challenges, "{header}");
        }
    }

    proptest! {
        #[test]
        fn parsing_any_header_terminates(header in any::<String>()) {
            parse(&header);
        }
    }
}
