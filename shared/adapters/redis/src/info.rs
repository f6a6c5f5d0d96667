//! Parses a server's `INFO`.

use std::collections::HashMap;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{RedisResult, cmd};

/// The fields of an answer to `INFO`, by name.
#[derive(Debug)]
pub(crate) struct Info(HashMap<String, String>);

impl Info {
    pub(crate) async fn of(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let text: String = cmd("INFO").query_async(connection).await?;
        Ok(Self::parse(&text))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A field; empty if the server does not report it.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let info =
            Info::parse("# Server\r\nredis_version:7.0.15\r\n\r\n# Memory\r\nused_memory:42\r\n");
        assert_eq!(info.field("redis_version"), "7.0.15");
        assert_eq!(info.number("used_memory"), 42);
        assert_eq!(info.field("maxmemory"), "");
        assert_eq!(info.number("maxmemory"), 0);
    }
}
