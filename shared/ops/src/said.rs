//! Suppresses repeated log messages.

/// The last message.
#[derive(Debug, Default)]
pub struct Said(Option<String>);

impl Said {
    /// Returns whether `text` differs from the last message, and remembers it.
    pub fn is_news(&mut self, text: &str) -> bool {
        if self.0.as_deref() == Some(text) {
            return false;
        }
        self.0 = Some(text.to_owned());
        true
    }

    /// Forgets the last message, so that the same one is logged again if the problem returns.
    pub fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_message_is_suppressed_until_the_problem_is_over() {
        let mut said = Said::default();
        let news: Vec<bool> = ["a", "a", "b", "a"].map(|text| said.is_news(text)).into();
        assert_eq!(news, [true, false, true, true]);
        said.over();
        assert!(said.is_news("a"));
    }
}
