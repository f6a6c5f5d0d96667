//! Says a trouble once, however often it is met.

/// What was said last.
#[derive(Debug, Default)]
pub struct Said(Option<String>);

impl Said {
    /// Whether this is not what was said last. From now on it is.
    pub fn is_news(&mut self, text: &str) -> bool {
        if self.0.as_deref() == Some(text) {
            return false;
        }
        self.0 = Some(text.to_owned());
        true
    }

    /// The trouble is over: the same would be news again.
    pub fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_no_news_until_it_is_over() {
        let mut said = Said::default();
        let news: Vec<bool> = ["a", "a", "b", "a"].map(|text| said.is_news(text)).into();
        assert_eq!(news, [true, false, true, true]);
        said.over();
        assert!(said.is_news("a"));
    }
}
