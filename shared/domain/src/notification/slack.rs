//! Messages for incoming webhooks of Slack.

use serde_json::{Value, json};

use super::News;

/// Slack takes 2000 characters in a field, and 3000 in a section; escaping makes a character up to five.
const LONGEST_FIELD: usize = 380;
const LONGEST_REASON: usize = 580;

/// Branches, causes and failures are other people's texts. `<` begins links and mentions, so it is escaped; `verbatim`
/// keeps Slack from making links and mentions of anything else.
pub(super) fn message(news: &News) -> Value {
    let headline = escape(&news.headline());
    let title = format!("{} *<{}|{headline}>*", news.sign(), escape(&news.link()));
    let mut blocks = vec![json!({ "type": "section", "text": text(&title) })];
    if let Some(reason) = news.reason() {
        let reason = escape(&super::news::bounded(&reason, LONGEST_REASON));
        blocks.push(json!({ "type": "section", "text": text(&reason) }));
    }
    let details = news.details(LONGEST_FIELD).into_iter();
    let fields: Vec<Value> =
        details.map(|(name, value)| text(&format!("*{name}*\n{}", escape(&value)))).collect();
    blocks.push(json!({ "type": "section", "fields": fields }));
    // What is shown where blocks are not, like on a lock screen.
    json!({ "text": format!("{} {headline}", news.sign()), "blocks": blocks })
}

/// A message of one sentence.
pub(super) fn plain(sentence: &str) -> Value {
    json!({ "text": escape(sentence) })
}

fn text(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// The three characters that have a meaning for Slack.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::body::tests::{failed, succeeded, text};

    #[test]
    fn slack_shows_what_failed_and_no_text_of_others_is_a_mention_or_a_link() {
        insta::assert_snapshot!(text(&failed(), Format::Slack));
    }

    #[test]
    fn slack_shows_what_was_pushed() {
        insta::assert_snapshot!(text(&succeeded(), Format::Slack));
    }

    #[test]
    fn no_text_is_longer_than_slack_takes() {
        let mut news = failed();
        news.failure.as_mut().unwrap().message = "<".repeat(1000);
        news.cause = "&".repeat(1000);
        let text = text(&news, Format::Slack);
        assert!(text.lines().all(|line| line.len() < 3000), "{text}");
        assert!(text.lines().filter(|line| line.contains("*Cause*")).all(|line| line.len() < 2050));
    }
}
