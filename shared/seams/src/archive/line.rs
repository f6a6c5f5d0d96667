//! The lines of `store.jsonl`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Header;
use crate::store::{Entry, Index, Key, Kind, Stored};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Header(Header),
    Record { kind: String, id: String, value: Value },
    Entry { index: String, score: i64, member: String },
    End { lines: u64 },
}

/// A record's bytes. Nearly all are JSON, which stays readable as text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Value {
    Text(String),
    Base64(String),
}

impl Line {
    pub(super) fn of(stored: Stored) -> Self {
        match stored {
            Stored::Record(key, bytes) => {
                let value = match std::str::from_utf8(&bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Base64(STANDARD.encode(&bytes)),
                };
                Self::Record { kind: key.kind.as_str().to_owned(), id: key.id, value }
            }
            Stored::Entry(index, entry) => Self::Entry {
                index: index.as_str().to_owned(),
                score: entry.score,
                member: entry.member,
            },
        }
    }

    /// The item that the line describes, or what is wrong with it.
    pub(super) fn into_stored(self) -> Result<Stored, String> {
        match self {
            Self::Record { kind, id, value } => {
                let kind = Kind::of_word(&kind).ok_or_else(|| {
                    format!("this gantry knows no kind `{kind}`: use the one that exported it")
                })?;
                let bytes = match value {
                    Value::Text(text) => Bytes::from(text),
                    Value::Base64(text) => {
                        STANDARD.decode(text).map_err(|error| error.to_string())?.into()
                    }
                };
                Ok(Stored::Record(Key::new(kind, id), bytes))
            }
            Self::Entry { index, score, member } => {
                Ok(Stored::Entry(Index::new(index), Entry { score, member }))
            }
            Self::Header(_) | Self::End { .. } => Err("it stands in the wrong place".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_round_trip() {
        let record = |bytes: &'static [u8]| {
            Stored::Record(Key::new(Kind::Counter, "a/\"ü\n"), Bytes::from_static(bytes))
        };
        let entry = Entry { score: i64::MIN, member: "m\u{0}".to_owned() };
        for stored in [
            record(br#"{"v":1}"#),
            record(b""),
            record(&[0xff, 0x00, 0x80]),
            Stored::Entry(Index::new("runs/ready"), entry),
        ] {
            let line = serde_json::to_string(&Line::of(stored.clone())).unwrap();
            assert!(!line.contains('\n'), "{line}");
            let read: Line = serde_json::from_str(&line).unwrap();
            assert_eq!(read.into_stored().unwrap(), stored);
        }
    }
}
