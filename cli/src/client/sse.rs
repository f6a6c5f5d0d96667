//! Parses server-sent events from a stream of bytes.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    pub(crate) name: String,
    pub(crate) data: String,
    /// The last id, from this event or an earlier one.
    pub(crate) id: Option<String>,
}

/// Parses events from bytes in arbitrary chunks.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    line: Vec<u8>,
    name: String,
    data: String,
    id: Option<String>,
}

impl EventReader {
    /// The events that are complete after these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.line(line.strip_suffix('\r').unwrap_or(&line)));
            } else {
                self.line.push(byte);
            }
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let mut data = std::mem::take(&mut self.data);
            data.pop();
            let is_event = !name.is_empty() || !data.is_empty();
            return is_event.then(|| ServerEvent { name, data, id: self.id.clone() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" => self.id = Some(value.to_owned()),
            // Comments keep the connection alive. Unknown fields are ignored, as the format demands.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_from_any_chunks() {
        let text = ": alive\n\nid: 1:0\nevent: log\ndata: {\"a\":\ndata: 1}\n\nevent: end\r\ndata: é\r\n\r\nevent: half\n";
        let event = |name: &str, data: &str| ServerEvent {
            name: name.to_owned(),
            data: data.to_owned(),
            id: Some("1:0".to_owned()),
        };
        let expected = [event("log", "{\"a\":\n1}"), event("end", "é")];
        for cut in 0..text.len() {
            let mut reader = EventReader::default();
            let mut events = reader.push(&text.as_bytes()[..cut]);
            events.extend(reader.push(&text.as_bytes()[cut..]));
            assert_eq!(events, expected, "cut at {cut}");
        }
    }
}
