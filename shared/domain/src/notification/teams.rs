//! Messages for workflows of Microsoft Teams that begin with "When a Teams webhook request is received".

use serde_json::{Value, json};

use super::News;

/// Teams takes 28 KiB in all.
const LONGEST_FIELD: usize = 600;

/// Branches, causes and failures are other people's texts. A `TextRun` has no Markdown, unlike a `TextBlock`, so in it
/// nothing becomes a link.
pub(super) fn message(news: &News) -> Value {
    let title = json!({
        "type": "TextRun",
        "text": format!("{} {}", news.sign(), news.headline()),
        "weight": "Bolder",
        "size": "Medium",
    });
    let mut body = vec![rich_text(&[title])];
    if let Some(reason) = news.reason() {
        body.push(rich_text(&[json!({ "type": "TextRun", "text": reason, "color": "Attention" })]));
    }
    for (name, value) in news.details(LONGEST_FIELD) {
        let name = json!({ "type": "TextRun", "text": format!("{name}: "), "weight": "Bolder" });
        body.push(rich_text(&[name, json!({ "type": "TextRun", "text": value })]));
    }
    let link = json!({ "type": "Action.OpenUrl", "title": "Show the run", "url": news.link() });
    card(&body, &[link])
}

/// A message of one sentence.
pub(super) fn plain(sentence: &str) -> Value {
    card(&[rich_text(&[json!({ "type": "TextRun", "text": sentence })])], &[])
}

fn card(body: &[Value], actions: &[Value]) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
                "actions": actions,
            },
        }],
    })
}

fn rich_text(inlines: &[Value]) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::body::tests::{failed, text};

    #[test]
    fn teams_shows_what_failed_and_no_text_of_others_is_markdown() {
        insta::assert_snapshot!(text(&failed(), Format::Teams));
    }

    #[test]
    fn a_message_is_smaller_than_teams_takes() {
        let mut news = failed();
        news.failure.as_mut().unwrap().message = "ä".repeat(1000);
        news.cause = "ä".repeat(1000);
        assert!(text(&news, Format::Teams).len() < 28 << 10);
    }
}
